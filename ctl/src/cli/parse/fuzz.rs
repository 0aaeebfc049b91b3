//! Fuzz target for arguments. See `muster_fuzz` for the meaning of a target.

use std::path::Path;

use muster_fuzz::{Verdict, refused, target};

use super::duration;
use crate::client::parse_endpoint;
use crate::context::ContextStore;

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
        match (duration(text), parse_endpoint(text), name) {
            (Err(_), Err(why), Err(_)) => refused(why),
            (duration, endpoint, _) => {
                assert!(duration.is_err() || !duration.is_ok_and(|length| length.is_zero()));
                assert!(endpoint.is_err() || text.len() <= 260);
                Verdict::Accepted
            }
        }
    });
}
