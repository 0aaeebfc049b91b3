//! Contexts: endpoints, operator key and trust anchor of one cluster.
//!
//! A context is a directory: `context.yaml`, `operator.key`, until the first contact `token`, and
//! after it `authorities.pem` (the pinned trust anchor). It may be at any path. Those under the
//! user's configuration directory have names.

#[cfg(test)]
mod compat;
mod store;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use muster_pki::bundle::{BundleError, TrustBundle};
use muster_pki::identity::{Identity, ReadIdentityError};
use muster_pki::token::{Token, TokenError};
use muster_types::ClusterId;
use muster_types::error::chain;
use muster_types::format::{self, NewerFormat, RecordError};
use serde::{Deserialize, Serialize};

pub(crate) use self::store::ContextStore;
use crate::files::{self, FileError};

const FILE: &str = "context.yaml";
const KEY: &str = "operator.key";
const TOKEN: &str = "token";
const AUTHORITIES: &str = "authorities.pem";

/// Largest file of a context, in bytes.
const MAX: usize = 64 << 10;

/// Most learned endpoints to keep. A control plane has only a few nodes.
const MAX_LEARNED: usize = 16;

/// Error of reading, writing or choosing a context.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error(
        "there is no context yet\n\
         try: `musterctl init NAME` for a new cluster, `musterctl context add DIR` for an existing \
         one, `musterctl cluster create` for a local one"
    )]
    NoContext,
    #[error(
        "no context is the current one\n\
         available: {known}\n\
         try: `musterctl context use NAME`, or --context NAME"
    )]
    NoCurrent { known: String },
    #[error("there is no context {name}\navailable: {known}")]
    Unknown { name: String, known: String },
    #[error(
        "{0:?} is not a context name: 1 to 64 letters, digits, '-', '_' or '.', the first not a '.', \
         such as prod"
    )]
    Name(String),
    #[error(
        "context {0} already exists\n\
         try: another name, or `musterctl context remove {0}`"
    )]
    AlreadyExists(String),
    #[error("no home directory\ntry: set MUSTER_CONFIG to the directory of the contexts")]
    NoHome,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a valid context", path.display())]
    Malformed { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error("{} has the unknown field {field}\ntry: {near}", path.display())]
    UnknownField { path: PathBuf, field: String, near: &'static str },
    #[error("serialize {} as YAML", .0.display())]
    Compose(PathBuf, #[source] Box<serde_saphyr::ser::Error>),
    #[error(
        "{} can be read by others\n\
         try: `chmod 600` on it, and replace the secret if other users had access",
        .0.display()
    )]
    InsecurePermissions(PathBuf),
    #[error("{} is not an operator key", path.display())]
    Key { path: PathBuf, source: ReadIdentityError },
    #[error("{} is not a token", path.display())]
    Token { path: PathBuf, source: TokenError },
    #[error(
        "cannot record the first contact in {} ({why})\n\
         the identity of the cluster is kept there, so the directory must be writable once\n\
         try: copy the directory to a place where it is, then use `--context PATH`",
        directory.display()
    )]
    NotRecorded { directory: PathBuf, why: String },
    #[error("{} is not a valid trust anchor", path.display())]
    TrustAnchor { path: PathBuf, source: BundleError },
}

/// Content of `context.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    #[serde(default = "format::first")]
    pub(crate) format: u32,
    pub(crate) cluster_name: String,
    /// Operator's name, for display only; the key identifies the operator.
    pub(crate) operator: String,
    /// Nodes of the cluster: `host` or `host:port`.
    #[serde(default)]
    pub(crate) endpoints: Vec<String>,
    /// Control-plane addresses that the cluster reported; tried after `endpoints`.
    #[serde(default)]
    pub(crate) learned: Vec<String>,
    /// Pinned at the first contact, with `authorities.pem`. None before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// Directory of a cluster that `cluster create` runs on this machine. None for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<PathBuf>,
    /// Fields of a later version, kept as they are.
    #[serde(flatten)]
    pub(crate) unknown: BTreeMap<String, serde_json::Value>,
}

/// Format of the description that this build writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// The fields of a [`Description`]. A new one must differ from these by more than two letters, or an
/// older `musterctl` takes it for a typing error.
const FIELDS: [&str; 7] =
    ["format", "clusterName", "operator", "endpoints", "learned", "clusterId", "local"];

impl Description {
    /// Returns an unknown field whose name is nearly that of a known one, and that name: a typing
    /// error. Any other unknown field is one of a later version.
    fn misspelt(&self) -> Option<(&str, &'static str)> {
        self.unknown.keys().find_map(|field| {
            let is_near = |known: &&&str| strsim::damerau_levenshtein(field, known) <= 2;
            FIELDS.iter().find(is_near).map(|known| (field.as_str(), *known))
        })
    }
}

/// An opened context.
#[derive(Debug)]
pub(crate) struct Context {
    /// Name, or the path if it was opened by path.
    pub(crate) name: String,
    pub(crate) description: Description,
    directory: PathBuf,
}

/// Trust anchor of a cluster: its id and its machine authorities.
#[derive(Debug, Clone)]
pub(crate) struct TrustAnchor {
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
        let parsed = format::parse(
            FORMAT,
            || serde_saphyr::from_str(&text),
            || serde_saphyr::from_str(&text),
        );
        let description: Description = parsed.map_err(|error| match error {
            RecordError::Newer(newer) => ContextError::Newer { path: file.clone(), newer },
            RecordError::Malformed(error) => {
                ContextError::Malformed { path: file.clone(), source: Box::new(error) }
            }
        })?;
        if let Some((field, near)) = description.misspelt() {
            let field = field.to_owned();
            return Err(ContextError::UnknownField { path: file, field, near });
        }
        Ok(Self { name: name.to_owned(), description, directory: directory.to_owned() })
    }

    pub(crate) fn identity(&self) -> Result<Identity, ContextError> {
        let path = self.directory.join(KEY);
        let text = read_secret(&path)?;
        Identity::from_pem(&text).map_err(|source| ContextError::Key { path, source })
    }

    /// Reads the shared token. `None` once the trust anchor is pinned.
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

    /// Reads the pinned trust anchor. `None` before the first contact.
    pub(crate) fn anchor(&self) -> Result<Option<TrustAnchor>, ContextError> {
        let Some(cluster_id) = self.description.cluster_id else { return Ok(None) };
        let path = self.directory.join(AUTHORITIES);
        let authorities = TrustBundle::from_pem(&files::read(&path, MAX)?)
            .map_err(|source| ContextError::TrustAnchor { path, source })?;
        Ok(Some(TrustAnchor { cluster_id, authorities }))
    }

    /// Saves the trust anchor and deletes the token, which is not needed any more.
    pub(crate) fn pin(&mut self, anchor: &TrustAnchor) -> Result<(), ContextError> {
        self.record_anchor(anchor).map_err(|error| ContextError::NotRecorded {
            directory: self.directory.clone(),
            why: chain(&error),
        })
    }

    fn record_anchor(&mut self, anchor: &TrustAnchor) -> Result<(), ContextError> {
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

    /// Saves the control plane's addresses, for use when the configured endpoints do not answer.
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

/// Returns the files of a new context. The caller creates them together with its own files.
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
        return Err(ContextError::InsecurePermissions(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod fuzz;
