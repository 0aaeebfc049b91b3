//! Fuzz target of certificate requests (see `muster_fuzz`).

use std::time::Duration;

use muster_fuzz::{Verdict, refused, target};

use super::{Profile, issue, public_key_of_request};
use crate::authority::AuthorityKind;
use crate::testing::{authority, now};

#[test]
fn certificate_request() {
    let authority = authority(AuthorityKind::Etcd);
    target("certificate_request").run(move |bytes| match public_key_of_request(bytes) {
        Ok(key) => {
            assert!(bytes.len() <= 4 << 10, "larger than the limit");
            // An accepted key can be certified.
            let lifetime = Duration::from_hours(1);
            let profile = Profile::EtcdClient { common_name: "muster:a".to_owned(), lifetime };
            issue(&authority, &profile, &key, now()).expect("an accepted key can be certified");
            Verdict::Accepted
        }
        Err(error) => refused(error),
    });
}
