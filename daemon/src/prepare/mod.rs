//! Checks the configuration, the machine and the state directory before anything is started or
//! changed. A problem found here gives one clear error and exit code 78. Starts nothing.

mod addresses;
mod config_file;
pub mod identity;
mod name;
mod ports;
mod token;
mod wait;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_config::Config;
use muster_init::facts;
use muster_init::units::etcd;
use muster_pki::identity::Identity;
use muster_types::Role;
use tracing::warn;

pub use addresses::Addresses;
pub use identity::Promises;
pub use token::NodeToken;
pub use wait::{NotReady, wait};

use self::config_file::{ConfigFile, Configured};
use self::name::{NameChoice, NameSources};
use crate::args::Args;
use crate::fatal::Fatal;
use crate::membership::Membership;
use crate::restore::{self, Restore};
use crate::state_dir::StateDir;

/// A node that passed all checks and can be started.
#[derive(Debug)]
pub struct Prepared {
    /// Effective configuration of this node.
    pub config: Config,
    /// SHA-256 of the configuration document.
    pub digest: [u8; 32],
    /// Token of the configuration.
    pub token: NodeToken,
    /// The part of the configuration that decides the role.
    pub role_origin: String,
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

impl Prepared {
    /// Returns the fields that must be equal on every founder: the configuration's birth fields,
    /// and the snapshot that etcd is restored from.
    pub fn birth_fields(&self) -> BTreeMap<String, String> {
        let mut fields = self.config.birth_fields();
        fields.insert("machine.token".to_owned(), self.token.id.to_string());
        if let Some(Restore { digest, .. }) = &self.restore_etcd {
            fields.insert("--restore-etcd (SHA-256)".to_owned(), digest.to_string());
        }
        fields
    }
}

/// A checked start. The state directory has not been changed yet.
#[derive(Debug)]
pub struct Checked {
    config: Config,
    digest: [u8; 32],
    token: NodeToken,
    role_origin: String,
    addresses: Addresses,
    etcd: Option<etcd::Binary>,
    state_dir: PathBuf,
    membership: Option<Membership>,
    restore_etcd: Option<Restore>,
    /// The host name or given name, if a member keeps another one.
    ignored_name: Option<String>,
    /// Reason why etcd cannot start yet.
    etcd_problem: Option<String>,
}

/// Checks everything and changes nothing. Waits for nothing: see the module `wait`.
pub fn check(args: Args) -> Result<Checked, NotReady> {
    let file = ConfigFile::read(&args.config)?;
    let sources = NameSources { given: args.name.or(file.hostname()?), host: facts::hostname() };
    let state_dir = match args.state_dir {
        Some(given) => given,
        None => file.state_dir(&sources)?,
    };
    StateDir::check(&state_dir)?;
    let mut membership = load_membership(&state_dir)?;
    let known = identity::load(&state_dir, membership.is_some())?;
    let registered = known.as_ref().zip(membership.as_ref());
    let registered = registered.and_then(|((me, _), mine)| mine.name_of(&me.node_id()));
    let (name, ignored_name) = match sources.choose(registered)? {
        NameChoice::Use(name) => (name, None),
        NameChoice::Keep(name, ignored) => (name, Some(ignored)),
        NameChoice::Wait(condition) => return Err(NotReady::Awaited(condition)),
    };
    let Configured { config, token, role_origin } = file.effective(&name)?;
    if let Some(membership) = &membership {
        check_membership(membership, &state_dir, &config, &role_origin)?;
    }
    let token = match token {
        Ok(token) => NodeToken::usable(token, membership.as_mut()),
        // A founder without a certificate may still have to commit the founding, with the token.
        Err(problems) => match membership.as_ref().filter(|known| known.certificate().is_some()) {
            Some(known) => NodeToken::unusable(known, file.describe(&problems)),
            None => return Err(file.invalid(problems).into()),
        },
    };
    let addresses = addresses::choose(args.address, &config)?;
    let etcd_problem =
        check_ports(&addresses, &config, &state_dir, membership.is_some(), args.check)?;
    let etcd = match config.role {
        Role::ControlPlane => Some(find_etcd(config.etcd.binary.as_deref(), membership.is_some())?),
        Role::Worker => None,
    };
    let digest = file.digest();
    let given = args.restore_etcd.filter(|_| etcd.is_some());
    let restore_etcd = restore::check(&state_dir, given.as_deref(), membership.is_some())?;
    Ok(Checked {
        config,
        digest,
        token,
        role_origin,
        addresses,
        etcd,
        state_dir,
        membership,
        restore_etcd,
        ignored_name,
        etcd_problem,
    })
}

/// Checks this node's ports. With `--check`, the node may be running: the ports in use are then its
/// own. Returns the problem that keeps only etcd from starting.
fn check_ports(
    addresses: &Addresses,
    config: &Config,
    state_dir: &Path,
    is_member: bool,
    check_only: bool,
) -> Result<Option<String>, NotReady> {
    match StateDir::check_not_in_use(state_dir) {
        Err(_) if check_only => return Ok(None),
        Err(refusal) => return Err(refusal.into()),
        Ok(()) => {}
    }
    let refuse = |problem: &ports::PortProblem| {
        let problem_text = problem.to_string();
        if problem.may_pass() && !check_only {
            NotReady::Awaited(problem_text)
        } else {
            NotReady::Fatal(Fatal::Machine(format!("cannot listen on {problem_text}")))
        }
    };
    // A node that starts waits for its own busy ports later: see `crate::ports`.
    let matters = |problem: &ports::PortProblem| check_only || !problem.is_busy();
    if let Some(problem) = ports::problems(addresses.bind).find(matters) {
        return Err(refuse(&problem));
    }
    let etcd = match config.role {
        Role::ControlPlane => ports::etcd_problem(addresses)?,
        Role::Worker => None,
    };
    match etcd {
        // Raft needs this member, also without its etcd. The unit tries again to start it.
        Some(problem) if problem.is_busy() && is_member && !check_only => {
            Ok(Some(problem.to_string()))
        }
        Some(problem) => Err(refuse(&problem)),
        None => Ok(None),
    }
}

impl Checked {
    /// Logs what does not keep this node from starting, but needs an operator.
    pub fn log_warnings(&self) {
        if let Some(ignored) = &self.ignored_name {
            warn!(name = %self.config.name, ignored, "a member keeps its name");
        }
        if let Some(problems) = &self.token.problems {
            warn!(problems, "machine.token is not usable; a member does not need it");
        }
        if let Some(problem) = &self.etcd_problem {
            warn!(problem, "etcd cannot start yet");
        }
    }

    /// Opens the state directory. The first start creates it and the node's identity.
    pub fn open(self) -> Result<Prepared, Fatal> {
        let Self {
            config,
            digest,
            token,
            role_origin,
            addresses,
            etcd,
            state_dir,
            membership,
            restore_etcd,
            ..
        } = self;
        let state = Arc::new(StateDir::open(&state_dir)?);
        let (identity, promises) = identity::open(&state, membership.is_some())?;
        if let Some(membership) = &membership {
            NodeToken::store_id(membership, &state);
        } else {
            restore::persist(&state, &promises.record, restore_etcd.as_ref())?;
        }
        let identity = Arc::new(identity);
        Ok(Prepared {
            config,
            digest,
            token,
            role_origin,
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

/// Finds etcd and runs it to get its version. Starting a process needs a runtime. A member's etcd may
/// just be replaced by a newer one.
fn find_etcd(given: Option<&Path>, is_member: bool) -> Result<etcd::Binary, NotReady> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fatal::Runtime)?;
    runtime.block_on(etcd::locate(etcd::Tool::Etcd, given)).map_err(|error| {
        let why = muster_types::error::chain(&error);
        if error.is_transient() || (is_member && error.is_absent()) {
            NotReady::Awaited(format!("etcd: {why}"))
        } else {
            NotReady::Fatal(Fatal::Machine(why))
        }
    })
}

/// Loads the membership from the state directory.
fn load_membership(dir: &Path) -> Result<Option<Membership>, Fatal> {
    Membership::load(&StateDir::membership_in(dir)).map_err(|error| Fatal::StateDir {
        path: dir.to_owned(),
        problem: muster_types::error::chain(&error),
    })
}

/// Checks the membership against the configuration.
fn check_membership(
    membership: &Membership,
    dir: &Path,
    config: &Config,
    role_origin: &str,
) -> Result<(), Fatal> {
    let problem = |problem: String| Fatal::StateDir { path: dir.to_owned(), problem };
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
            "this node is a member as {}, but the configuration makes it a {}: {role_origin}; a node \
             keeps its role, so correct the configuration",
            membership.role, config.role
        )));
    }
    Ok(())
}
