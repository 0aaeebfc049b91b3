//! Machines on an in-memory network, with real keys and promise files, in paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_messages::hello::{
    Admitted, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, Refusal,
    candidate::State, join_reply::Outcome,
};
use muster_pki::identity::Identity;
use muster_types::{ClusterId, PublicKey, Role};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use muster_formation::birth::PromiseStore;
use muster_formation::birth::failpoint::FailPointHook;
use muster_formation::network::{Network, Session, Unreachable};
use muster_formation::{Formation, FormationError, Formed, Settings, prepare};

/// One-way latency of the network.
const LATENCY: Duration = Duration::from_millis(1);

#[derive(Clone, Default)]
pub(super) struct SimNetwork(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    machines: BTreeMap<SocketAddr, (PublicKey, Formation)>,
    /// Partitioned pairs of addresses.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// The members' reply to join requests, with the number of times it was sent.
    refusal: Option<Refusal>,
    refused: usize,
}

impl SimNetwork {
    fn peer(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(PublicKey, Formation), Unreachable> {
        let inner = self.0.lock().unwrap();
        let is_cut = inner.cut.contains(&(from, to)) || inner.cut.contains(&(to, from));
        let peer = inner.machines.get(&to).filter(|_| !is_cut).cloned();
        peer.ok_or_else(|| Unreachable(format!("cannot dial {to}: no answer")))
    }

    pub(super) fn cut(&self, a: usize, b: usize) {
        self.0.lock().unwrap().cut.insert((address(a), address(b)));
    }

    pub(super) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Makes every member refuse all join requests, or stop refusing.
    pub(super) fn refuse(&self, refusal: Option<Refusal>) {
        self.0.lock().unwrap().refusal = refusal;
    }

    pub(super) fn refused(&self) -> usize {
        self.0.lock().unwrap().refused
    }

    pub(super) fn disconnect(&self, machine: usize) {
        self.0.lock().unwrap().machines.remove(&address(machine));
    }
}

struct SimEndpoint {
    network: SimNetwork,
    key: PublicKey,
    address: SocketAddr,
}

struct SimSession {
    network: SimNetwork,
    own: (PublicKey, SocketAddr),
    peer: PublicKey,
    remote: SocketAddr,
}

impl Network for SimEndpoint {
    type Session = SimSession;

    async fn open(&self, remote: SocketAddr) -> Result<SimSession, Unreachable> {
        sleep(LATENCY * 6).await;
        let (peer, _) = self.network.peer(self.address, remote)?;
        Ok(SimSession {
            network: self.network.clone(),
            own: (self.key, self.address),
            peer,
            remote,
        })
    }
}

impl SimSession {
    async fn across(&self) -> Result<Formation, Unreachable> {
        sleep(LATENCY).await;
        let (key, handle) = self.network.peer(self.own.1, self.remote)?;
        if key == self.peer { Ok(handle) } else { Err(Unreachable("another machine".to_owned())) }
    }

    fn unreachable(&self) -> Unreachable {
        Unreachable(format!("{} went away", self.remote))
    }
}

impl Session for SimSession {
    fn peer(&self) -> PublicKey {
        self.peer
    }

    fn is_closed(&self) -> bool {
        false
    }

    async fn greet(&self, request: GreetRequest) -> Result<GreetReply, Unreachable> {
        let handle = self.across().await?;
        let reply = handle.greet(self.own.0, self.own.1, request).await;
        self.across().await?;
        reply.map_err(|_| self.unreachable())
    }

    async fn birth(&self, message: BirthMessage) -> Result<Vec<BirthMessage>, Unreachable> {
        let handle = self.across().await?;
        let reply = handle.birth(self.own.0, message).await;
        self.across().await?;
        reply.map_err(|_| self.unreachable())
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, Unreachable> {
        let handle = self.across().await?;
        let candidate = handle.candidate().borrow().clone();
        let mut inner = self.network.0.lock().unwrap();
        if let Some(refusal) = inner.refusal.clone() {
            inner.refused += 1;
            return Ok(JoinReply { outcome: Some(Outcome::Refused(refusal)) });
        }
        let cluster_id = candidate.cluster_id.clone();
        let admitted = Admitted { cluster_id, ..Admitted::default() };
        let outcome = (candidate.state() == State::Member).then_some(Outcome::Admitted(admitted));
        Ok(JoinReply { outcome })
    }
}

pub(super) fn address(machine: usize) -> SocketAddr {
    format!("192.0.2.{}:50000", machine + 1).parse().unwrap()
}

/// Configuration of a machine.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) expect: usize,
    pub(super) founders: Vec<usize>,
    pub(super) role: Role,
    pub(super) hints: Vec<usize>,
    pub(super) fields: BTreeMap<String, String>,
    pub(super) hook: FailPointHook,
}

pub(super) fn name(machine: usize) -> String {
    format!("m{machine}")
}

impl Config {
    /// A control-plane machine with the first `hints` addresses as hints.
    pub(super) fn new(expect: usize, hints: usize) -> Self {
        let fields = BTreeMap::from([("cluster.expect".to_owned(), expect.to_string())]);
        let (founders, role) = (Vec::new(), Role::ControlPlane);
        let hints = (0..hints).collect();
        Self { expect, founders, role, hints, fields, hook: FailPointHook::noop() }
    }
}

pub(super) struct Machine {
    identity: Arc<Identity>,
    disk: TempDir,
    at: SocketAddr,
    number: usize,
    addresses: watch::Sender<Vec<SocketAddr>>,
    pub(super) handle: Option<Formation>,
    stop: CancellationToken,
    task: JoinSet<Result<(), FormationError>>,
}

pub(super) struct Lab {
    pub(super) network: SimNetwork,
    pub(super) machines: Vec<Machine>,
}

impl Lab {
    /// Creates machines, switched off and sorted by node id.
    pub(super) fn new(count: usize) -> Self {
        let mut keys: Vec<_> = (0..count).map(|_| Identity::generate()).collect();
        keys.sort_by_key(Identity::node_id);
        let machine = |(number, identity): (usize, Identity)| {
            let disk = tempfile::tempdir().unwrap();
            PromiseStore::create(disk.path(), identity.node_id()).unwrap();
            Machine {
                identity: Arc::new(identity),
                disk,
                at: address(number),
                number,
                addresses: watch::Sender::new(vec![address(number)]),
                handle: None,
                stop: CancellationToken::new(),
                task: JoinSet::new(),
            }
        };
        let machines = keys.into_iter().enumerate().map(machine).collect();
        Self { network: SimNetwork::default(), machines }
    }

    pub(super) fn start(&mut self, machine: usize, config: &Config) {
        self.machines[machine].start(&self.network, config);
    }

    pub(super) fn start_all(&mut self, config: &Config) {
        for machine in 0..self.machines.len() {
            self.start(machine, config);
        }
    }

    /// Moves a running machine to another address.
    pub(super) fn change_address(&self, machine: usize, to: SocketAddr) {
        let machine = &self.machines[machine];
        let here = (machine.identity.public_key(), machine.handle.clone().expect("it runs"));
        self.network.0.lock().unwrap().machines.insert(to, here);
        machine.addresses.send_replace(vec![to]);
    }

    /// Cuts the power of a machine.
    pub(super) async fn kill(&mut self, machine: usize) {
        self.network.disconnect(machine);
        self.machines[machine].task.shutdown().await;
        self.machines[machine].handle = None;
    }

    /// Waits until each of these machines belongs to a cluster; returns the results.
    pub(super) async fn formed(&self, machines: &[usize], within: Duration) -> Vec<Formed> {
        let mut formed = Vec::new();
        for machine in machines {
            let handle = self.machines[*machine].handle.clone().expect("it runs");
            let deadline = timeout(within, handle.formed()).await;
            formed.push(
                deadline
                    .unwrap_or_else(|_| {
                        panic!(
                            "{} is in no cluster after {within:?}:\n{}",
                            name(*machine),
                            self.describe()
                        )
                    })
                    .expect("it runs"),
            );
        }
        formed
    }

    /// Waits until all of these machines belong to one cluster; returns it.
    pub(super) async fn one_cluster(&self, machines: &[usize], within: Duration) -> ClusterId {
        let formed = self.formed(machines, within).await;
        let clusters: BTreeSet<_> = formed.iter().map(cluster).collect();
        assert_eq!(clusters.len(), 1, "{clusters:?}\n{}", self.describe());
        clusters.into_iter().next().unwrap()
    }

    pub(super) fn waiting_for(&self, machine: usize) -> String {
        let handle = self.machines[machine].handle.as_ref().expect("it runs");
        handle.candidate().borrow().waiting_for.clone()
    }

    /// Collects the successive conditions that a machine waits for during that time.
    pub(super) async fn waits(&self, machine: usize, during: Duration) -> Vec<String> {
        let mut candidate = self.machines[machine].handle.as_ref().expect("it runs").candidate();
        let mut texts = vec![candidate.borrow_and_update().waiting_for.clone()];
        let watch = async {
            while candidate.changed().await.is_ok() {
                texts.push(candidate.borrow_and_update().waiting_for.clone());
            }
        };
        timeout(during, watch).await.ok();
        texts.dedup();
        texts
    }

    fn describe(&self) -> String {
        let line = |machine: &Machine| match &machine.handle {
            None => format!("{}: off", name(machine.number)),
            Some(handle) => {
                let now = handle.candidate().borrow().clone();
                let state = now.state();
                format!("{}: {state:?} epoch {}: {}", now.name, now.epoch, now.waiting_for)
            }
        };
        self.machines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

pub(super) fn cluster(formed: &Formed) -> ClusterId {
    match formed {
        Formed::Born(certificate) => certificate.cluster_id(),
        Formed::Joined(admitted) => admitted.cluster_id.as_slice().try_into().unwrap(),
    }
}

impl Machine {
    fn start(&mut self, network: &SimNetwork, config: &Config) {
        let Config { expect, founders, role, hints, fields, hook } = config.clone();
        let hints: BTreeSet<_> = hints.into_iter().map(address).filter(|a| *a != self.at).collect();
        // The sender is dropped: these hints never change.
        let (_, hints) = watch::channel(Arc::new(hints));
        let (store, _) = PromiseStore::open(self.disk.path(), self.identity.node_id()).unwrap();
        let settings = Settings {
            identity: Arc::clone(&self.identity),
            name: name(self.number).parse().unwrap(),
            role,
            addresses: self.addresses.subscribe(),
            token_id: "abcdef".to_owned(),
            expect,
            founders: founders.into_iter().map(|n| name(n).parse().unwrap()).collect(),
            birth_fields: fields,
            hook,
        };
        let key = self.identity.public_key();
        let port = SimEndpoint { network: network.clone(), key, address: self.at };
        let (handle, task) = prepare(settings, store, port, hints).unwrap();
        network.0.lock().unwrap().machines.insert(self.at, (key, handle.clone()));
        self.handle = Some(handle);
        self.stop = CancellationToken::new();
        self.task.spawn(task.run(self.stop.clone()));
    }
}

/// A hook that cuts the power of one machine at the first hit of a fail point.
pub(super) fn crashes_at(
    fail_point: &'static str,
    network: &SimNetwork,
    machine: usize,
) -> (FailPointHook, Crashes) {
    let network = network.clone();
    let crashes = Crashes::default();
    let passed = crashes.clone();
    let hook = FailPointHook::new(move |at| {
        if at == fail_point && passed.0.fetch_add(1, Ordering::Relaxed) == 0 {
            network.disconnect(machine);
            // Unwinds without a message, like a power cut.
            std::panic::resume_unwind(Box::new("power cut"));
        }
    });
    (hook, crashes)
}

/// Counts the hits of a fail point.
#[derive(Clone, Default)]
pub(super) struct Crashes(Arc<AtomicUsize>);

impl Crashes {
    pub(super) fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Measures the duration of a future.
pub(super) async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let value = what.await;
    (value, start.elapsed())
}
