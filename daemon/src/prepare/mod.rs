//! Checks the configuration, the machine and the state directory before anything is started or
//! changed. A problem found here gives one clear error and exit code 78. Starts nothing.

mod addresses;
mod config_file;
pub mod identity;
mod ports;
mod token;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_config::Config;
use muster_init::units::etcd;
use muster_pki::identity::Identity;
use muster_types::Role;

pub use addresses::Addresses;
pub use identity::Promises;
pub use token::NodeToken;

use self::config_file::{ConfigFile, Configured};
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
    addresses: Addresses,
    etcd: Option<etcd::Binary>,
    state_dir: PathBuf,
    membership: Option<Membership>,
    restore_etcd: Option<Restore>,
}

/// Checks everything and changes nothing.
pub fn check(args: Args) -> Result<Checked, Fatal> {
    let file = ConfigFile::read(&args.config)?;
    let given = args.name.or(file.hostname()?);
    let Configured { config, token } = file.effective(&config_file::node_name(given.as_ref())?)?;
    let state_dir = args.state_dir.unwrap_or_else(|| config.state_dir.clone());
    StateDir::check(&state_dir)?;
    let mut membership = load_membership(&state_dir, &config)?;
    let token = match token {
        Ok(token) => NodeToken::usable(token, membership.as_mut()),
        // A founder without a certificate may still have to commit the founding, with the token.
        Err(problems) => match membership.as_ref().filter(|known| known.certificate().is_some()) {
            Some(known) => NodeToken::unusable(known, &file.describe(&problems)),
            None => return Err(file.invalid(problems)),
        },
    };
    let addresses = addresses::choose(args.address, &config)?;
    let etcd = match config.role {
        Role::ControlPlane => Some(find_etcd(config.etcd.binary.as_deref())?),
        Role::Worker => None,
    };
    // With `--check`, this node may be running: the ports in use are then its own.
    let in_use = StateDir::check_not_in_use(&state_dir);
    match in_use {
        Err(_) if args.check => {}
        Err(refusal) => return Err(refusal),
        Ok(()) => {
            // A node that starts waits for a busy port: see `crate::ports`.
            let is_fatal = |problem: &ports::PortProblem| args.check || !problem.is_busy();
            if let Some(problem) = ports::problems(addresses.bind).find(is_fatal) {
                return Err(Fatal::Machine(problem.to_string()));
            }
            if etcd.is_some() {
                ports::check_etcd_ports(&addresses, &state_dir)?;
            }
        }
    }
    identity::load(&state_dir, membership.is_some())?;
    let digest = file.digest();
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
        let (identity, promises) = identity::open(&state, membership.is_some())?;
        if let Some(membership) = &membership {
            token.store_id(membership, &state);
        } else {
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
