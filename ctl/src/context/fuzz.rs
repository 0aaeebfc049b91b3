//! Fuzz targets for the files of a context. See `muster_fuzz` for the meaning of a target.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_types::error::chain;

use super::*;

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
