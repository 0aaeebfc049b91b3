//! Known peers in one small file, so that the nodes of a cluster find each other after a power cut
//! without any other source.
//!
//! The file is replaced atomically (temporary file, fsync, rename, fsync of the directory). It
//! holds no secrets and is not trusted, but has mode 0600 anyway. An unreadable file is renamed,
//! and the node continues without it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use muster_types::format::{self, NewerFormat, RecordError};
use muster_types::limits::MAX_ADDRESSES;
use muster_types::{NodeId, NodeName, Role};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{MAX_HINTS_PER_SOURCE, Reporter};
use muster_files::{PRIVATE_MODE, replace};

/// Format of the file that this build writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Maximum number of peers, and of addresses per peer.
const MAX_PEERS: usize = 1024;
/// Maximum size of the file; this build writes no larger one.
const MAX_BYTES: u64 = 4 << 20;

/// A peer as it was last known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedPeer {
    pub id: NodeId,
    pub name: NodeName,
    pub role: Role,
    pub addresses: Vec<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    peers: Vec<RememberedPeer>,
}

/// Failures to read the remembered peers.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read remembered peers {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a list of remembered peers", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{} was {newer}", path.display())]
    Newer { path: PathBuf, newer: NewerFormat },
    #[error("{} is larger than {MAX_BYTES} bytes or lists more than {MAX_PEERS} peers", path.display())]
    Size { path: PathBuf },
}

/// Failure to write the remembered peers.
#[derive(Debug, thiserror::Error)]
#[error("cannot write remembered peers {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Reads the peers in the file; empty if there is no file.
pub fn read(path: &Path) -> Result<Vec<RememberedPeer>, ReadError> {
    let fail = |source| ReadError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(fail)?,
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ReadError::Size { path: path.to_owned() });
    }
    let parsed =
        format::parse(FORMAT, || serde_json::from_slice(&text), || serde_json::from_slice(&text));
    let contents: Contents = parsed.map_err(|error| match error {
        RecordError::Newer(newer) => ReadError::Newer { path: path.to_owned(), newer },
        RecordError::Malformed(source) => ReadError::Parse { path: path.to_owned(), source },
    })?;
    let fits = contents.peers.len() <= MAX_PEERS
        && contents.peers.iter().all(|peer| peer.addresses.len() <= MAX_ADDRESSES);
    if !fits {
        return Err(ReadError::Size { path: path.to_owned() });
    }
    Ok(contents.peers)
}

/// Replaces the file. Peers and addresses beyond the limits are omitted.
pub fn write(path: &Path, peers: &[RememberedPeer]) -> Result<(), WriteError> {
    encode(peers)
        .map_err(io::Error::from)
        .and_then(|text| replace(path, &text, PRIVATE_MODE).map_err(io::Error::from))
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// The path with a suffix behind it.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Encodes the file for `peers`.
fn encode(peers: &[RememberedPeer]) -> serde_json::Result<Vec<u8>> {
    let mut peers: Vec<RememberedPeer> = peers.iter().take(MAX_PEERS).cloned().collect();
    for peer in &mut peers {
        peer.addresses.truncate(MAX_ADDRESSES);
    }
    serde_json::to_vec_pretty(&Contents { format: FORMAT, peers })
}

/// Reads the file. An unreadable one is renamed to `<file>.unreadable` and ignored; one of a newer
/// version is left as it is.
fn load(path: &Path) -> (Vec<RememberedPeer>, Option<ReadError>) {
    match read(path) {
        Ok(peers) => (peers, None),
        Err(error @ ReadError::Newer { .. }) => {
            warn!(%error, "peers file left as it is");
            (Vec::new(), Some(error))
        }
        Err(error) => {
            let aside = with_suffix(path, "unreadable");
            match fs::rename(path, &aside) {
                Ok(()) => warn!(%error, kept = %aside.display(), "unreadable peers file renamed"),
                Err(rename) => warn!(%error, %rename, "cannot read or rename the peers file"),
            }
            (Vec::new(), Some(error))
        }
    }
}

/// Reports the remembered peers and writes updates until the task is aborted.
pub(super) async fn run(
    path: PathBuf,
    reporter: Reporter,
    mut inbox: mpsc::Receiver<Vec<RememberedPeer>>,
) {
    let file = path.clone();
    let (mut peers, error) = blocking(move || load(&file)).await.unwrap_or_default();
    let is_newer = matches!(error, Some(ReadError::Newer { .. }));
    let mut problem = error.map(|error| error.to_string());
    loop {
        let description = match &problem {
            Some(text) => text.clone(),
            None if peers.is_empty() => "no peers known yet".to_owned(),
            None => format!("{} peers", peers.len()),
        };
        reporter.report(hints(&peers), description, problem.is_some()).await;
        let Some(latest) = inbox.recv().await else { return std::future::pending().await };
        if is_newer || latest == peers && problem.is_none() {
            continue;
        }
        peers = latest;
        let (file, list) = (path.clone(), peers.clone());
        problem = match blocking(move || write(&file, &list)).await {
            Some(Ok(())) => {
                debug!(peers = peers.len(), "peers file updated");
                None
            }
            Some(Err(error)) => {
                warn!(error = &error as &dyn std::error::Error, "cannot write the peers file");
                Some(error.to_string())
            }
            None => None,
        };
    }
}

/// Returns the addresses, one of each peer first, so that the limit never omits a peer in favour of
/// another's many addresses.
fn hints(peers: &[RememberedPeer]) -> BTreeSet<SocketAddr> {
    let nth = |n: usize| peers.iter().filter_map(move |peer| peer.addresses.get(n)).copied();
    let mut hints = BTreeSet::new();
    for address in (0..MAX_ADDRESSES).flat_map(nth) {
        if hints.len() == MAX_HINTS_PER_SOURCE {
            break;
        }
        hints.insert(address);
    }
    hints
}

/// Runs blocking work. `None` only while the runtime shuts down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut task = tokio::task::JoinSet::new();
    task.spawn_blocking(work);
    task.join_next().await.and_then(Result::ok)
}

#[cfg(test)]
mod compat;
#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn peer(n: u8, addresses: usize) -> RememberedPeer {
        RememberedPeer {
            id: NodeId::from_bytes([n; 32]),
            name: format!("cp-{n}").parse().unwrap(),
            role: Role::ControlPlane,
            addresses: (0..addresses)
                .map(|i| format!("192.0.2.{n}:{}", 1000 + i).parse().unwrap())
                .collect(),
        }
    }

    #[test]
    fn peers_read_back_as_written_and_only_the_owner_may_read_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.json");
        assert!(read(&path).unwrap().is_empty(), "no file is no error");
        let peers = vec![peer(1, 1), peer(2, 2)];
        write(&path, &peers).unwrap();
        write(&path, &peers).unwrap();
        assert_eq!(read(&path).unwrap(), peers);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_corrupt_file_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.json");
        for wrong in ["", "{", "[]", r#"{"peers":{}}"#, r#"{"format":1,"peers":[1]}"#] {
            fs::write(&path, wrong).unwrap();
            let (peers, error) = load(&path);
            assert!(peers.is_empty() && error.is_some(), "{wrong}");
            assert!(!path.exists(), "{wrong}");
            assert_eq!(fs::read_to_string(with_suffix(&path, "unreadable")).unwrap(), wrong);
        }
        write(&path, &[peer(1, 1)]).unwrap();
        assert_eq!(load(&path).0.len(), 1);
    }

    #[test]
    fn the_file_is_bounded_in_both_directions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.json");
        let many: Vec<_> = (0..200).cycle().take(2000).map(|n| peer(n, 40)).collect();
        write(&path, &many).unwrap();
        let kept = read(&path).unwrap();
        assert_eq!(kept.len(), MAX_PEERS);
        assert!(kept.iter().all(|peer| peer.addresses.len() == MAX_ADDRESSES));
        fs::write(&path, vec![b' '; usize::try_from(MAX_BYTES).unwrap() + 1]).unwrap();
        assert!(matches!(read(&path), Err(ReadError::Size { .. })));
    }

    #[test]
    fn every_peer_is_offered_before_any_second_address() {
        let peers: Vec<_> = (1..=60).map(|n| peer(n, 16)).collect();
        let hints = hints(&peers);
        assert_eq!(hints.len(), MAX_HINTS_PER_SOURCE);
        assert!(peers.iter().all(|peer| hints.contains(&peer.addresses[0])));
    }
}
