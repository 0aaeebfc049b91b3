//! What this program knows of a cluster: where it is, which key to use, whom to trust.
//!
//! A context is a directory: `context.yaml`, `operator.key`, until the first contact `token`, and
//! after it `authorities.pem` (the pinned trust anchor). It works wherever it lies; the ones under
//! the user's configuration directory have names.

mod store;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use muster_pki::bundle::{BundleError, TrustBundle};
use muster_pki::identity::{Identity, ReadIdentityError};
use muster_pki::token::{Token, TokenError};
use muster_types::ClusterId;
use serde::{Deserialize, Serialize};

pub(crate) use self::store::Store;
use crate::files::{self, FileError};

const FILE: &str = "context.yaml";
const KEY: &str = "operator.key";
const TOKEN: &str = "token";
const AUTHORITIES: &str = "authorities.pem";

/// The largest file of a context, in bytes.
const MAX: usize = 64 << 10;

/// How many learned endpoints are kept: a control plane has at most a few.
const MAX_LEARNED: usize = 16;

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error(
        "there is no context yet: `musterctl init` makes a cluster's, `musterctl context add DIR` \
         takes one over, `musterctl cluster create` starts a local cluster"
    )]
    None,
    #[error("there is no context {name}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error(
        "{0:?} is not a context name: 1 to 64 letters, digits, '-', '_' and '.', the first no '.', such as prod"
    )]
    Name(String),
    #[error(
        "there is a context {0} already: choose another name, or remove it with `musterctl context remove {0}`"
    )]
    Taken(String),
    #[error("no home directory: set MUSTER_CONFIG to where contexts are kept")]
    NoHome,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a context", path.display())]
    Malformed { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("write {} as YAML", .0.display())]
    Compose(PathBuf, #[source] Box<serde_saphyr::ser::Error>),
    #[error("{} can be read by others: chmod 600 it, and make a new key if others were there", .0.display())]
    Readable(PathBuf),
    #[error("{} is not an operator's key", path.display())]
    Key { path: PathBuf, source: ReadIdentityError },
    #[error("{} is not a token", path.display())]
    Token { path: PathBuf, source: TokenError },
    #[error("{} is not a pinned trust anchor", path.display())]
    Anchor { path: PathBuf, source: BundleError },
}

/// `context.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Description {
    pub(crate) cluster_name: String,
    /// The operator's name in the cluster; what counts is the key.
    pub(crate) operator: String,
    /// Where to look for the cluster: `host` or `host:port`.
    #[serde(default)]
    pub(crate) endpoints: Vec<String>,
    /// Control-plane addresses that the cluster itself has told, tried after `endpoints`.
    #[serde(default)]
    pub(crate) learned: Vec<String>,
    /// Pinned at the first contact, with `authorities.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// The directory of a cluster that `cluster create` runs on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<PathBuf>,
}

/// A context, read.
#[derive(Debug)]
pub(crate) struct Context {
    /// Its name, or the path it was given by.
    pub(crate) name: String,
    pub(crate) description: Description,
    directory: PathBuf,
}

/// Whom to trust.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) cluster_id: ClusterId,
    pub(crate) authorities: TrustBundle,
}

impl Context {
    /// Reads the context in a directory; `path` may also be its `context.yaml`.
    pub(crate) fn load(path: &Path, name: &str) -> Result<Self, ContextError> {
        // The path may name the directory, or its context.yaml.
        let named_file = path.file_name().is_some_and(|name| name == FILE);
        let directory = if named_file { path.parent().unwrap_or(path) } else { path };
        let file = directory.join(FILE);
        let text = files::read(&file, MAX)?;
        let description = serde_saphyr::from_str(&text)
            .map_err(|e| ContextError::Malformed { path: file, source: Box::new(e) })?;
        Ok(Self { name: name.to_owned(), description, directory: directory.to_owned() })
    }

    pub(crate) fn identity(&self) -> Result<Identity, ContextError> {
        let path = self.directory.join(KEY);
        let text = read_secret(&path)?;
        Identity::from_pem(&text).map_err(|source| ContextError::Key { path, source })
    }

    /// The shared token, as long as the trust anchor is not pinned.
    pub(crate) fn token(&self) -> Result<Option<Token>, ContextError> {
        let path = self.directory.join(TOKEN);
        match read_secret(&path) {
            Err(ContextError::File(error)) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
            Ok(text) => match text.trim().parse() {
                Ok(token) => Ok(Some(token)),
                Err(source) => Err(ContextError::Token { path, source }),
            },
        }
    }

    /// The pinned trust anchor, after the first contact.
    pub(crate) fn anchor(&self) -> Result<Option<Anchor>, ContextError> {
        let Some(cluster_id) = self.description.cluster_id else { return Ok(None) };
        let path = self.directory.join(AUTHORITIES);
        let authorities = TrustBundle::from_pem(&files::read(&path, MAX)?)
            .map_err(|source| ContextError::Anchor { path, source })?;
        Ok(Some(Anchor { cluster_id, authorities }))
    }

    /// Keeps the trust anchor, and forgets the token: it has served.
    pub(crate) fn pin(&mut self, anchor: &Anchor) -> Result<(), ContextError> {
        files::replace(&self.directory.join(AUTHORITIES), anchor.authorities.to_pem().as_bytes())?;
        self.description.cluster_id = Some(anchor.cluster_id);
        self.save()?;
        files::remove(&self.directory.join(TOKEN))?;
        Ok(())
    }

    /// Replaces the endpoints.
    pub(crate) fn set_endpoints(&mut self, endpoints: Vec<String>) -> Result<(), ContextError> {
        self.description.endpoints = endpoints;
        self.save()
    }

    /// Keeps the addresses of the control plane for the day when the endpoints are gone.
    pub(crate) fn learn(&mut self, mut addresses: Vec<String>) -> Result<(), ContextError> {
        addresses.retain(|address| !self.description.endpoints.contains(address));
        addresses.sort();
        addresses.dedup();
        addresses.truncate(MAX_LEARNED);
        if addresses.is_empty() || addresses == self.description.learned {
            return Ok(());
        }
        self.description.learned = addresses;
        self.save()
    }

    fn save(&self) -> Result<(), ContextError> {
        let path = self.directory.join(FILE);
        let text = compose(&path, &self.description)?;
        Ok(files::replace(&path, text.as_bytes())?)
    }
}

/// The files of a new context, to be created together with whatever belongs to them.
pub(crate) fn new_files(
    directory: &Path,
    description: &Description,
    identity: &Identity,
    token: &Token,
) -> Result<Vec<(PathBuf, zeroize::Zeroizing<String>)>, ContextError> {
    let path = directory.join(FILE);
    let text = compose(&path, description)?;
    Ok(vec![
        (path, text.into()),
        (directory.join(KEY), identity.to_pem()),
        (directory.join(TOKEN), token.expose()),
    ])
}

fn compose(path: &Path, description: &Description) -> Result<String, ContextError> {
    serde_saphyr::to_string(description)
        .map_err(|e| ContextError::Compose(path.to_owned(), Box::new(e)))
}

fn read_secret(path: &Path) -> Result<zeroize::Zeroizing<String>, ContextError> {
    let text = files::read(path, MAX)?;
    let metadata = std::fs::metadata(path).map_err(|e| FileError::Read(path.to_owned(), e))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(ContextError::Readable(path.to_owned()));
    }
    Ok(text)
}
