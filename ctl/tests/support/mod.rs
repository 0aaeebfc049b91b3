//! An in-process cluster: the real hello protocol and the real TLS of the operator API, in front of
//! an operator service that answers from a script.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod hello;
mod operator;
mod transport;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_types::{ClusterId, PublicKey};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Scripted behaviour of a cluster's nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Condition that candidates wait for; `None` once there is a cluster.
    pub(crate) waiting_for: Option<String>,
    /// Number of calls to answer with UNAVAILABLE first.
    pub(crate) unavailable_calls: usize,
    /// Call that is never answered.
    pub(crate) never_answered: Option<String>,
    /// The next removal or defragmentation is done, but reported as unavailable.
    pub(crate) reply_lost: bool,
    /// Calls of an admin are refused.
    pub(crate) deny: bool,
    /// A check fails, with text that changes at each call.
    pub(crate) unhealthy: bool,
    /// Number of `members` calls still answered; `None` for no limit.
    pub(crate) members_left: Option<usize>,
    /// Reason why etcd does not answer; `None` if it does.
    pub(crate) etcd_unreachable: Option<String>,
    /// Pieces that `etcd snapshot` streams.
    pub(crate) snapshot: Vec<Vec<u8>>,
}

/// Requests that the nodes received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) calls: Vec<String>,
    pub(crate) node: Option<String>,
    pub(crate) verifier: Vec<u8>,
    pub(crate) anchor_calls: usize,
}

/// State shared by all nodes of a cluster.
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) machine: Authority,
    pub(crate) etcd: Authority,
    pub(crate) token: Mutex<Token>,
    pub(crate) operators: Mutex<Vec<PublicKey>>,
    pub(crate) script: Mutex<Script>,
    pub(crate) received: Mutex<Received>,
}

#[expect(clippy::disallowed_methods, reason = "certificates are checked by the real clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

impl Cluster {
    pub(crate) fn new(token: Token, operator: PublicKey) -> Arc<Self> {
        let id = ClusterId::from_bytes(*Identity::generate().node_id().as_bytes());
        let authority = |kind| Authority::create(kind, "demo", &id, now());
        Arc::new(Self {
            id,
            machine: authority(AuthorityKind::Machine),
            etcd: authority(AuthorityKind::Etcd),
            token: Mutex::new(token),
            operators: Mutex::new(vec![operator]),
            script: Mutex::default(),
            received: Mutex::default(),
        })
    }

    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }
}

/// A node of a [`Cluster`]: serves both ports until dropped.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Node {
    pub(crate) fn start(cluster: &Arc<Cluster>) -> Self {
        let (tcp, address) = both_ports();
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        transport::serve(&runtime, tcp, Arc::clone(cluster));
        hello::serve(&runtime, address, Arc::clone(cluster));
        drop(guard);
        Self { address, _runtime: runtime }
    }
}

/// Finds a port that is free for TCP and UDP. The caller binds the UDP one again at once.
fn both_ports() -> (TcpListener, SocketAddr) {
    for _ in 0..50 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return (tcp, address);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

/// An address where no process listens.
pub(crate) fn unused_address() -> SocketAddr {
    both_ports().1
}

/// A user with their own home directory.
pub(crate) struct User {
    home: TempDir,
}

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl CommandOutput {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Returns standard error; fails unless the exit code is `code`.
    pub(crate) fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        &self.err
    }
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `musterctl` in this user's home and waits for it.
    pub(crate) fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(&[], args)
    }

    /// Like [`Self::run`], with more environment variables.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)], args: &[&str]) -> CommandOutput {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("musterctl"));
        command.args(args).current_dir(self.home.path()).env_clear();
        command.env("HOME", self.home.path()).env("MUSTER_CONFIG", self.path("config"));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(environment.iter().copied());
        let Output { status, stdout, stderr } = command.output().unwrap();
        CommandOutput {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs `musterctl init demo` and returns a cluster that matches its files.
    pub(crate) fn init(&self) -> Arc<Cluster> {
        let output = self.run(&["init", "demo"]);
        assert_eq!(output.code, 0, "{output:?}");
        let read = |name: &str| std::fs::read_to_string(self.path("demo").join(name)).unwrap();
        let token = read("token").parse().unwrap();
        Cluster::new(token, Identity::from_pem(&read("operator.key")).unwrap().public_key())
    }

    /// Like [`Self::run`], against these nodes.
    pub(crate) fn run_at(&self, nodes: &[SocketAddr], args: &[&str]) -> CommandOutput {
        let endpoints: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let mut all = args.to_vec();
        for endpoint in &endpoints {
            all.extend(["-e", endpoint.as_str()]);
        }
        self.run(&all)
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
