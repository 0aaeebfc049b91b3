//! Fuzz target of the types that the Raft log stores (see `muster_fuzz`).

use muster_fuzz::{Verdict, refused, target};

use crate::authority::{Authority, AuthorityKind, ServiceAccountKey};
use crate::bundle::TrustBundle;
use crate::testing::authority;
use crate::token::{TokenId, Verifier};

/// Types of this crate that the Raft log stores, as MessagePack.
#[test]
fn stored() {
    let pack = |value: &Authority| rmp_serde::to_vec_named(value).expect("it serializes");
    let seeds = AuthorityKind::ALL.map(|kind| pack(&authority(kind)));
    // For a declared length serde reserves up to 1 MiB, once per level.
    target("stored").seeds(seeds).memory(4 << 20, 64).run(|bytes| {
        macro_rules! reads_back {
            ($($kind:ty),*) => {
                $(if let Ok(value) = rmp_serde::from_slice::<$kind>(bytes) {
                    let again = rmp_serde::to_vec_named(&value).expect("it was read");
                    assert!(rmp_serde::from_slice::<$kind>(&again).expect("just serialized") == value);
                    return Verdict::Accepted;
                })*
            };
        }
        reads_back!(Authority, ServiceAccountKey, Verifier, TrustBundle, TokenId);
        match rmp_serde::from_slice::<Authority>(bytes) {
            Ok(_) => Verdict::Accepted,
            Err(error) => refused(error),
        }
    });
}
