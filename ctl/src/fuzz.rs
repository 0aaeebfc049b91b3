//! Fuzz targets for the inputs of this program. See `muster_fuzz` for the meaning of a target.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::hello::{AnchorReply, Candidate};
use muster_pki::token::Token;
use muster_types::error::chain;
use prost::Message as _;

use crate::client;
use crate::clock::parse_duration;
use crate::context::{Context, ContextStore};
use crate::local::ClusterRecord;

/// Writes a file that only its owner can read.
fn private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a small file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

const CONTEXT: &str = "clusterName: demo\noperator: alice\nendpoints:\n- 10.0.0.1\n- \
                       node.example:50001\nlearned: []\nclusterId: \
                       ueueueueueueueueueueueueueueueueueueueueueueueueueua\nlocal: /srv/demo\n";

/// `context.yaml`.
#[test]
fn context() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let seeds = ["clusterName: demo\noperator: alice\n", CONTEXT];
    target("context").seeds(seeds.map(Vec::from)).memory(1 << 20, 1024).run(move |bytes| {
        let path = directory.path().join("context.yaml");
        private(&path, bytes);
        match Context::load(directory.path(), "demo") {
            Err(error) => refused(chain(&error)),
            Ok(mut context) => {
                let description = context.description.clone();
                let endpoints = description.endpoints.clone();
                context.set_endpoints(endpoints).expect("the context is written");
                let again = Context::load(directory.path(), "demo").unwrap_or_else(|error| {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    panic!("{}: {text}", chain(&error))
                });
                assert_eq!(again.description, description);
                Verdict::Accepted
            }
        }
    });
}

/// The other files of a context. The first byte selects one.
#[test]
fn context_secrets() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    private(&directory.path().join("context.yaml"), CONTEXT.as_bytes());
    let token = "abcdefghij.abcdefghijklmnopqrstuvwxyz234567d7zwmh\n";
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\
               AQEBAQEB\n-----END PRIVATE KEY-----\n";
    let seeds = [format!("t{token}"), format!("k{key}")].map(Vec::from);
    target("context_secrets").seeds(seeds).tries(2000).run(move |bytes| {
        let Some((which, text)) = bytes.split_first() else { return refused("nothing at all") };
        let context =
            Context::load(directory.path(), "demo").expect("the context was written above");
        let file = |name| private(&directory.path().join(name), text);
        let read = match which {
            b't' => {
                file("token");
                context.token().map(|token| {
                    let token = token.expect("the file is there");
                    let again: Token = token.expose().parse().expect("a token that was accepted");
                    assert_eq!(again.id(), token.id());
                })
            }
            b'k' => {
                file("operator.key");
                context.identity().map(drop)
            }
            _ => {
                file("authorities.pem");
                context.anchor().map(drop)
            }
        };
        match read {
            Ok(()) => Verdict::Accepted,
            Err(error) => {
                let told = chain(&error);
                let mut parts = text.windows(16).filter_map(|part| std::str::from_utf8(part).ok());
                assert!(!parts.any(|part| told.contains(part)), "{told}");
                refused(told)
            }
        }
    });
}

/// `cluster.yaml` of a local cluster.
#[test]
fn local_cluster() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let seed = "name: demo\nblock: 127.64.0.0/24\nnodes:\n- name: cp-1\n  role: control-plane\n  \
                address: 127.64.0.1\n  process: null\n";
    target("local_cluster").seed(seed).tries(2000).memory(1 << 20, 1024).run(move |bytes| {
        private(&ClusterRecord::path(directory.path()), bytes);
        match ClusterRecord::read(directory.path()) {
            Err(error) => refused(chain(&error)),
            Ok(record) => {
                let text = record.compose(directory.path()).expect("plain data");
                private(&ClusterRecord::path(directory.path()), text.as_bytes());
                let again = ClusterRecord::read(directory.path());
                assert_eq!(again.unwrap_or_else(|error| panic!("{error}: {text}")), record);
                Verdict::Accepted
            }
        }
    });
}

/// Command-line arguments: endpoints, durations, context names.
#[test]
fn arguments() {
    let seeds = ["10.0.0.1", "[fd00::1]:50000", "1h 30m", "demo.one"];
    target("arguments").longest(512).seeds(seeds.map(Vec::from)).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        let store = ContextStore::at(Path::new("/contexts"));
        let name = store.directory(text);
        if let Ok(path) = &name {
            assert_eq!(path.parent(), Some(Path::new("/contexts/contexts")), "it left the store");
        }
        match (parse_duration(text), client::parse_endpoint(text), name) {
            (Err(_), Err(why), Err(_)) => refused(why),
            (duration, endpoint, _) => {
                assert!(duration.is_err() || !duration.is_ok_and(|length| length.is_zero()));
                assert!(endpoint.is_err() || text.len() <= 260);
                Verdict::Accepted
            }
        }
    });
}

/// A node's reply to the first contact.
#[test]
fn anchor() {
    let node = Some(Candidate::default());
    let not_formed = AnchorReply { node: node.clone(), ..AnchorReply::default() };
    let unfinished = AnchorReply { node, cluster_id: vec![1; 32], ..AnchorReply::default() };
    let seeds = [not_formed, unfinished].map(|reply| reply.encode_to_vec());
    target("anchor").seeds(seeds).run(|bytes| {
        let reply = match AnchorReply::decode(bytes) {
            Ok(reply) => reply,
            Err(error) => return refused(error),
        };
        match client::read_anchor(reply) {
            Ok(()) => Verdict::Accepted,
            Err(why) => refused(why),
        }
    });
}
