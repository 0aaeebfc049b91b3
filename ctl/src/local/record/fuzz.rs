//! Fuzz target for `cluster.yaml`. See `muster_fuzz` for the meaning of a target.

use muster_fuzz::{Verdict, refused, target};
use muster_types::error::chain;

use super::*;

/// `cluster.yaml` of a local cluster.
#[test]
fn local_cluster() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let seed = "name: demo\nblock: 127.64.0.0/24\nnodes:\n- name: cp-1\n  role: control-plane\n  \
                address: 127.64.0.1\n  process: null\n";
    target("local_cluster").seed(seed).tries(2000).memory(1 << 20, 1024).run(move |bytes| {
        fs::write(ClusterRecord::path(directory.path()), bytes).expect("a small file is written");
        match ClusterRecord::read(directory.path()) {
            Err(error) => refused(chain(&error)),
            Ok(record) => {
                let text = record.compose(directory.path()).expect("plain data");
                fs::write(ClusterRecord::path(directory.path()), &text)
                    .expect("a small file is written");
                let again = ClusterRecord::read(directory.path());
                assert_eq!(again.unwrap_or_else(|error| panic!("{error}: {text}")), record);
                Verdict::Accepted
            }
        }
    });
}
