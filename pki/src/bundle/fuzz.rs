//! Fuzz target of trust bundles as PEM (see `muster_fuzz`).

use muster_fuzz::{Verdict, refused, target};

use super::{MAX_AUTHORITIES, TrustBundle};
use crate::authority::AuthorityKind;
use crate::testing::authority;

/// `authorities.pem` of a context.
#[test]
fn authorities_pem() {
    let bundle = TrustBundle::new(vec![authority(AuthorityKind::Machine).certificate().clone()]);
    let pem = bundle.expect("an authority").to_pem();
    target("authorities_pem").seed(pem.repeat(2)).seed(pem).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match TrustBundle::from_pem(text) {
            Ok(bundle) => {
                assert!((1..=MAX_AUTHORITIES).contains(&bundle.certificates().len()));
                assert_eq!(TrustBundle::from_pem(&bundle.to_pem()), Ok(bundle));
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}
