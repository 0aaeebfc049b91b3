//! `etcd snapshot`: saves all of etcd's data to a file that is either complete or absent.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use muster_messages::operator::{EtcdSnapshotChunk, EtcdSnapshotRequest};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::Serialize;
use tokio::time::timeout;
use tonic::Streaming;

use super::error::EtcdError;
use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::files::PendingFile;
use crate::output::{Output, Progress, Render, format_size};

/// Length of the SHA-256 at the end of every snapshot that etcd streams: the hash of all bytes
/// before it (`etcdserver/api/v3rpc/maintenance.go`). `etcdctl snapshot restore` checks it again.
const DIGEST_LEN: usize = SHA256_OUTPUT_LEN;

/// Save etcd's data to FILE, from one member; `musterd --restore-etcd FILE` starts a new cluster
/// with it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    musterctl etcd snapshot backup.db\n  \
    musterctl etcd snapshot backup.db -n cp-2        from the etcd of cp-2\n  \
    musterctl etcd snapshot - | age -r RECIPIENT > backup.age")]
pub(crate) struct Snapshot {
    /// Path of the new file; `-` for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Snapshot {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        if self.file.as_os_str() == "-" {
            return to_standard_output(api, out).await;
        }
        let mut pending = PendingFile::create(&self.file)?;
        let mut write = |bytes: &[u8]| Ok(pending.write(bytes)?);
        let (node, bytes, sha256) = save(api, &mut write, "nothing was written").await?;
        pending.commit()?;
        Ok(out.show(&Saved { node, file: self.file, bytes, sha256 })?)
    }
}

/// Writes the snapshot to standard output. The report goes to standard error.
async fn to_standard_output(api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        return Err(EtcdError::Terminal.into());
    }
    let mut write = |bytes: &[u8]| out.raw(bytes).map_err(EtcdError::StandardOutput);
    let left = "what was written to standard output is incomplete";
    let (node, bytes, sha256) = save(api, &mut write, left).await?;
    let saved = Saved { node, file: PathBuf::from("standard output"), bytes, sha256 };
    out.note(&saved.prose());
    Ok(())
}

/// Takes a snapshot and passes its bytes to `write`. Returns the node, the size and the hash. `left`
/// says what is left if it fails.
async fn save(
    api: &mut Api,
    write: &mut impl FnMut(&[u8]) -> Result<(), EtcdError>,
    left: &'static str,
) -> Result<(String, u64, String), Failure> {
    let what = "take a snapshot of etcd";
    let node = api.target_or_answering_node(what).await?;
    let stream = api
        .call(CallKind::Idempotent, what, EtcdSnapshotRequest {}, async |client, request| {
            client.etcd_snapshot(request).await
        })
        .await?;
    let mut progress = Progress::new();
    let received = receive(api, stream, write, (&node, left), &mut progress).await;
    progress.finish();
    let (bytes, sha256) = received?;
    Ok((node, bytes, sha256))
}

async fn receive(
    api: &Api,
    mut stream: Streaming<EtcdSnapshotChunk>,
    write: &mut impl FnMut(&[u8]) -> Result<(), EtcdError>,
    (node, left): (&str, &'static str),
    progress: &mut Progress,
) -> Result<(u64, String), EtcdError> {
    let (endpoint, node) = (|| api.endpoint().to_owned(), || node.to_owned());
    let mut verifier = ChecksumVerifier::default();
    loop {
        let bytes = verifier.bytes;
        let waited = api.timeout();
        let piece = timeout(waited, stream.message())
            .await
            .map_err(|_| {
                let (node, endpoint) = (node(), endpoint());
                EtcdError::Stalled { node, endpoint, bytes, waited, left }
            })?
            .map_err(|status| {
                let (node, endpoint, why) = (node(), endpoint(), status.message().to_owned());
                EtcdError::Interrupted { node, endpoint, bytes, why, left }
            })?;
        let Some(EtcdSnapshotChunk { body }) = piece else { break };
        write(&body)?;
        verifier.update(&body);
        // One plain line each time the size has doubled.
        let magnitude = verifier.bytes.checked_ilog2().unwrap_or_default();
        progress.update_keyed("snapshot", &magnitude.to_string(), &format_size(verifier.bytes));
    }
    let bytes = verifier.bytes;
    let hash = verifier.finish().ok_or_else(|| {
        let (node, endpoint) = (node(), endpoint());
        EtcdError::ChecksumMismatch { node, endpoint, bytes, left }
    })?;
    Ok((bytes, hash))
}

/// Hashes a stream whose last [`DIGEST_LEN`] bytes are the hash of the others.
struct ChecksumVerifier {
    hash: Context,
    tail: Vec<u8>,
    bytes: u64,
}

impl Default for ChecksumVerifier {
    fn default() -> Self {
        Self { hash: Context::new(&SHA256), tail: Vec::new(), bytes: 0 }
    }
}

impl ChecksumVerifier {
    fn update(&mut self, piece: &[u8]) {
        self.bytes += u64::try_from(piece.len()).unwrap_or(0);
        self.tail.extend_from_slice(piece);
        let body = self.tail.len().saturating_sub(DIGEST_LEN);
        self.hash.update(&self.tail[..body]);
        self.tail.drain(..body);
    }

    /// Returns the hash of the whole stream in hexadecimal, as `sha256sum` prints it. `None` if the
    /// hash at its end does not match.
    fn finish(self) -> Option<String> {
        let right = self.tail.len() == DIGEST_LEN && self.bytes > DIGEST_LEN as u64;
        let mut whole = self.hash.clone();
        whole.update(&self.tail);
        let is_right = right && self.hash.finish().as_ref() == self.tail;
        is_right.then(|| data_encoding::HEXLOWER.encode(whole.finish().as_ref()))
    }
}

#[derive(Debug, Serialize)]
struct Saved {
    node: String,
    file: PathBuf,
    bytes: u64,
    sha256: String,
}

impl Render for Saved {
    fn prose(&self) -> String {
        format!(
            "Saved {} of the etcd of {} to {} (SHA-256 {}).",
            format_size(self.bytes),
            self.node,
            self.file.display(),
            self.sha256
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(pieces: &[&[u8]]) -> Option<String> {
        let mut verifier = ChecksumVerifier::default();
        for piece in pieces {
            verifier.update(piece);
        }
        verifier.finish()
    }

    #[test]
    fn the_hash_may_be_cut_anywhere_and_must_be_right() {
        let data = vec![7; 1000];
        let hash = ring::digest::digest(&SHA256, &data);
        let whole: Vec<u8> = data.iter().chain(hash.as_ref()).copied().collect();
        let of_file = ring::digest::digest(&SHA256, &whole);
        let of_file = data_encoding::HEXLOWER.encode(of_file.as_ref());
        for cut in [0, 1, 500, 990, 1000, 1001, 1031, 1032] {
            let told = verify(&[&whole[..cut], &whole[cut..]]);
            assert_eq!(told, Some(of_file.clone()), "cut at {cut}");
        }
        assert!(verify(&[&whole[..1031]]).is_none(), "a byte is missing");
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        assert!(verify(&[&damaged]).is_none());
        assert!(verify(&[]).is_none());
        assert!(verify(&[ring::digest::digest(&SHA256, &[]).as_ref()]).is_none(), "no data");
    }
}
