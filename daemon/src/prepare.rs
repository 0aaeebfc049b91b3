//! Checks the configuration, the machine and the state directory before anything is started or
//! changed. A problem found here gives one clear error and exit code 78.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_config::{Config, Document, MAX_BYTES, Subnet};
use muster_formation::birth::{BirthRecord, PromiseStore};
use muster_init::facts::{self, AddressScope, Interface};
use muster_init::units::etcd;
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeName, Role};
use ring::digest;

use crate::args::Args;
use crate::fatal::{Fatal, REINITIALISE};
use crate::membership::Membership;
use crate::restore::{self, Restore};
use crate::state_dir::StateDir;

/// Time limit for the etcd of a killed `musterd` to exit. A busy machine first frees its memory and
/// its files.
const ETCD_EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that passed all checks and can be started.
#[derive(Debug)]
pub struct Prepared {
    /// Effective configuration of this node.
    pub config: Config,
    /// SHA-256 of the configuration document.
    pub digest: [u8; 32],
    /// Token of the configuration.
    pub token: Token,
    /// This node's key.
    pub identity: Arc<Identity>,
    /// Promises that this node made at births.
    pub promises: Promises,
    /// State directory, locked.
    pub state: Arc<StateDir>,
    /// Membership on disk. `None` until this node belongs to a cluster.
    pub membership: Option<Membership>,
    /// Addresses to bind and to announce.
    pub addresses: Addresses,
    /// etcd binary. `None` on workers.
    pub etcd: Option<etcd::Binary>,
    /// Snapshot that etcd must still be started from.
    pub restore_etcd: Option<Restore>,
}

/// Promises that this node made at births.
#[derive(Debug)]
pub struct Promises {
    /// File that holds the promises.
    pub store: PromiseStore,
    /// `BirthRecord` as it was when the node started.
    pub record: BirthRecord,
}

/// Address to bind, and the rule for the addresses at which other nodes reach this one.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Address to bind, for UDP and TCP.
    pub bind: SocketAddr,
    /// Configured addresses. Empty: use the machine's own addresses.
    configured: Vec<IpAddr>,
    /// Subnets of the machine's addresses to use. Empty: all routable addresses.
    subnets: Vec<Subnet>,
}

impl Prepared {
    /// Returns the fields that must be equal on every founder: the configuration's birth fields,
    /// and the snapshot that etcd is restored from.
    pub fn birth_fields(&self) -> BTreeMap<String, String> {
        let mut fields = self.config.birth_fields();
        if let Some(Restore { digest, .. }) = &self.restore_etcd {
            fields.insert("--restore-etcd (SHA-256)".to_owned(), digest.to_string());
        }
        fields
    }
}

impl Addresses {
    /// Returns true if this address of the machine is to be used.
    pub fn includes(&self, address: IpAddr) -> bool {
        if !self.configured.is_empty() {
            return self.configured.contains(&address);
        }
        self.subnets.is_empty() || self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Returns the addresses at which other nodes reach this one, best first, given the machine's
    /// addresses. `before` is the best address so far.
    pub fn reachable(&self, found: &[Interface], before: Option<IpAddr>) -> Vec<SocketAddr> {
        let addresses = if self.configured.is_empty() {
            self.best(found, before).into_iter().collect()
        } else {
            self.configured.clone()
        };
        let same_family = |ip: &IpAddr| self.bind.is_ipv6() == ip.is_ipv6();
        let port = self.bind.port();
        addresses.into_iter().filter(same_family).map(|ip| SocketAddr::new(ip, port)).collect()
    }
}

impl Addresses {
    fn best(&self, found: &[Interface], before: Option<IpAddr>) -> Option<IpAddr> {
        let reach =
            if self.subnets.is_empty() { AddressScope::Routable } else { AddressScope::Local };
        self.configured.first().copied().or_else(|| facts::best_address(found, before, reach))
    }
}

/// A checked start. The state directory has not been changed yet.
#[derive(Debug)]
pub struct Checked {
    config: Config,
    digest: [u8; 32],
    token: Token,
    addresses: Addresses,
    etcd: Option<etcd::Binary>,
    state_dir: PathBuf,
    membership: Option<Membership>,
    restore_etcd: Option<Restore>,
}

/// Checks everything and changes nothing.
pub fn check(args: Args) -> Result<Checked, Fatal> {
    let text = read_config(&args.config)?;
    let bad = |source| Fatal::Config { path: args.config.clone(), source };
    let document = Document::parse(&text, &|token| {
        token.parse::<Token>().map(drop).map_err(|error| error.to_string())
    })
    .map_err(bad)?;
    let name = node_name(&args, &document)?;
    let config = document.effective(&name).map_err(bad)?;
    let token: Token = config
        .token
        .expose()
        .parse()
        .map_err(|error| Fatal::Machine(format!("machine.token: {error}")))?;
    let addresses = addresses(&args, &config)?;
    let etcd = match config.role {
        Role::ControlPlane => Some(find_etcd(config.etcd.binary.as_deref())?),
        Role::Worker => None,
    };
    let state_dir = args.state_dir.unwrap_or_else(|| config.state_dir.clone());
    StateDir::check(&state_dir)?;
    let membership = load_membership(&state_dir, &config)?;
    // With `--check`, this node may be running: the ports in use are then its own.
    let in_use = StateDir::check_not_in_use(&state_dir);
    match in_use {
        Err(_) if args.check => {}
        Err(refusal) => return Err(refusal),
        Ok(()) => {
            ports_are_free(addresses.bind)?;
            if etcd.is_some() {
                etcd_ports_are_free(&addresses, &state_dir)?;
            }
        }
    }
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    let given = args.restore_etcd.filter(|_| etcd.is_some());
    let restore_etcd = restore::check(&state_dir, given.as_deref(), membership.is_some())?;
    Ok(Checked { config, digest, token, addresses, etcd, state_dir, membership, restore_etcd })
}

impl Checked {
    /// Opens the state directory. The first start creates it and the node's identity.
    pub fn open(self) -> Result<Prepared, Fatal> {
        let Self { config, digest, token, addresses, etcd, state_dir, membership, restore_etcd } =
            self;
        let state = Arc::new(StateDir::open(&state_dir)?);
        let (identity, promises) = identity(&state, membership.is_some())?;
        if membership.is_none() {
            restore::persist(&state, &promises.record, restore_etcd.as_ref())?;
        }
        let identity = Arc::new(identity);
        Ok(Prepared {
            config,
            digest,
            token,
            identity,
            promises,
            state,
            membership,
            addresses,
            etcd,
            restore_etcd,
        })
    }
}

fn read_config(path: &Path) -> Result<String, Fatal> {
    let read = |source| Fatal::ReadConfig { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Fatal::Machine(format!(
            "the configuration {} has mode {mode:04o}, so other users can read the token in it; if \
             none has, run `chmod 0600` on it",
            path.display()
        )));
    }
    // Reads one byte more than allowed, so that the parser reports a file that is too long.
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let file = fs::File::open(path).map_err(read)?;
    io::read_to_string(io::Read::take(file, limit)).map_err(read)
}

/// Finds etcd and runs it to get its version. Starting a process needs a runtime.
fn find_etcd(given: Option<&Path>) -> Result<etcd::Binary, Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fatal::Runtime)?;
    runtime
        .block_on(etcd::locate(etcd::Tool::Etcd, given))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))
}

fn node_name(args: &Args, document: &Document) -> Result<NodeName, Fatal> {
    if let Some(name) = args.name.clone().or_else(|| document.hostname()) {
        return Ok(name);
    }
    let host = facts::hostname();
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    label.parse().map_err(|error| {
        Fatal::Machine(format!("cannot use the host name as node name: {error}; give --name"))
    })
}

fn addresses(args: &Args, config: &Config) -> Result<Addresses, Fatal> {
    let port = config.network.port;
    let configured = match args.address {
        Some(address) => vec![address],
        None => config.network.addresses.clone(),
    };
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let subnets = config.network.subnets.clone();
    let mut addresses = Addresses { bind: unspecified, configured, subnets };
    let found = facts::addresses(|address| addresses.includes(address))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))?;
    let best = addresses.best(&found, None);
    let best = best.ok_or_else(|| {
        Fatal::Machine(
            "this machine has no address that other nodes can reach (only loopback and link-local, \
             or none in machine.network.subnets); configure one, or give --address"
                .to_owned(),
        )
    })?;
    let bind = match (args.address, best) {
        (Some(address), _) => address,
        (None, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (None, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    addresses.bind = SocketAddr::new(bind, port);
    Ok(addresses)
}

/// Loads the membership from the state directory, and checks it against the configuration.
fn load_membership(dir: &Path, config: &Config) -> Result<Option<Membership>, Fatal> {
    let problem = |problem: String| Fatal::StateDir { path: dir.to_owned(), problem };
    let found = Membership::load(&StateDir::membership_in(dir))
        .map_err(|error| problem(muster_types::error::chain(&error)))?;
    let Some(membership) = found else { return Ok(None) };
    if membership.cluster_name != config.cluster.name {
        return Err(problem(format!(
            "it belongs to the cluster {:?} ({}), but the configuration names {:?}; use the right \
             configuration, or another --state-dir",
            membership.cluster_name,
            membership.cluster_id.short(),
            config.cluster.name
        )));
    }
    if membership.role != config.role {
        return Err(problem(format!(
            "this node is a member as {}, but the configuration makes it a {}; a node keeps its \
             role; to change it, remove the node and start it with an empty state directory",
            membership.role, config.role
        )));
    }
    Ok(Some(membership))
}

/// Checks that both ports can be bound.
fn ports_are_free(bind: SocketAddr) -> Result<(), Fatal> {
    let taken = |protocol: &str, error: &io::Error| {
        Fatal::Machine(format!(
            "cannot listen on {protocol} {bind}: {error}; if another musterd or another program \
             uses the port, `ss -lpn 'sport = {}'` shows it",
            bind.port()
        ))
    };
    UdpSocket::bind(bind).map_err(|error| taken("UDP", &error))?;
    TcpListener::bind(bind).map_err(|error| taken("TCP", &error))?;
    Ok(())
}

/// Checks that etcd's ports can be bound at this node's address. The etcd of a killed `musterd`
/// exits a moment later, so a node that has run etcd before waits for that.
fn etcd_ports_are_free(addresses: &Addresses, state_dir: &Path) -> Result<(), Fatal> {
    let found = facts::addresses(|address| addresses.includes(address))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))?;
    let Some(address) = addresses.reachable(&found, None).first().map(SocketAddr::ip) else {
        return Ok(());
    };
    let has_run = StateDir::etcd_in(state_dir).exists();
    let deadline = Instant::now() + if has_run { ETCD_EXIT_TIMEOUT } else { Duration::ZERO };
    for port in [ETCD_CLIENT_PORT, ETCD_PEER_PORT] {
        let socket = SocketAddr::new(address, port);
        while let Err(error) = TcpListener::bind(socket) {
            if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            return Err(Fatal::Machine(format!(
                "cannot listen on TCP {socket}, which etcd needs: {error}; `ss -ltnp 'sport = \
                 {port}'` shows the program that uses it; to stop an etcd service on Debian: \
                 `systemctl disable --now etcd`"
            )));
        }
    }
    Ok(())
}

/// Reads the node's key and its promises. The first start creates both, the promises first, so a
/// key without promises means that they were lost. A member without its key never gets a new one
/// silently: it would be another node.
pub fn identity(state: &StateDir, is_member: bool) -> Result<(Identity, Promises), Fatal> {
    let path = state.identity();
    let problem = |problem: String| Fatal::StateDir { path: state.path().to_owned(), problem };
    let broken = |error: &dyn std::error::Error| problem(muster_types::error::chain(error));
    match fs::read(&path) {
        Ok(bytes) => {
            let bytes = muster_pki::Zeroizing::new(bytes);
            let identity = Identity::from_pkcs8(&bytes).map_err(|error| {
                problem(format!("identity.key contains no valid key ({error}); {REINITIALISE}"))
            })?;
            let opened = PromiseStore::open(state.path(), identity.node_id());
            let (store, record) = opened.map_err(|error| {
                if error.is_permanent() {
                    problem(format!("{}; {REINITIALISE}", muster_types::error::chain(&error)))
                } else {
                    broken(&error)
                }
            })?;
            Ok((identity, Promises { store, record }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_member => {
            let identity = Identity::generate();
            let store = PromiseStore::create(state.path(), identity.node_id())
                .map_err(|error| broken(&error))?;
            muster_files::replace(&path, &identity.to_pkcs8(), muster_files::PRIVATE_MODE)
                .map_err(|error| broken(&error))?;
            Ok((identity, Promises { store, record: BirthRecord::NEW }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(problem(format!("identity.key is missing; {REINITIALISE}")))
        }
        Err(error) => Err(problem(format!("cannot read identity.key: {error}"))),
    }
}
