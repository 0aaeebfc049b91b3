use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::leaf::{self, KeyPair, Profile};
use muster_types::ClusterId;
use muster_types::etcd::EtcdGeneration;

use super::super::{Authorities, Credential, Credentials, start_check};
use super::*;

/// A member at addresses without a listener, with valid credentials.
fn spec(generation: u32, port: u16) -> EtcdSpec {
    #[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
    let now = SystemTime::now();
    let cluster = ClusterId::from_bytes([7; 32]);
    let authority = Authority::create(AuthorityKind::Etcd, "test", &cluster, now);
    let lifetime = Duration::from_hours(1);
    let profile = Profile::EtcdClient { common_name: "muster".to_owned(), lifetime };
    let key = KeyPair::generate();
    let own = leaf::issue(&authority, &profile, &key.public(), now).unwrap();
    let own = Credential::new(own.chain, key.to_pkcs8());
    EtcdSpec {
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        credentials: Credentials {
            authorities: Authorities::new(vec![authority.certificate().clone()]).unwrap(),
            server: own.clone(),
            peer: own.clone(),
            client: own,
        },
        ..start_check::tests::spec(generation)
    }
}

/// When the disk was full, the old etcd kept running but was probed at the new one's address. It
/// counted as hung and was killed again and again, and the new one's data was reported as absent.
#[tokio::test]
async fn what_runs_on_is_asked_where_it_was_started() {
    let directory = tempfile::tempdir().unwrap();
    let (_handle, mut task) = EtcdUnit::new(EtcdDir::new(directory.path().to_owned()), policy());
    let runs = spec(1, 1);
    task.set(runs.clone()).await.unwrap();
    fs::write(directory.path().join("g2.started"), "damaged").unwrap();
    for _ in 0..2 {
        let refused = task.set(spec(2, 2)).await.unwrap_err();
        assert!(
            matches!(refused, EtcdUnitError::EtcdDir(EtcdDirError::Corrupt { .. })),
            "{refused}"
        );
        assert_eq!(task.publish.borrow().generation, Some(EtcdGeneration(1)));
        assert_eq!(asked_at(&task).await, runs.peer);
    }
    fs::remove_file(directory.path().join("g2.started")).unwrap();
    let next = spec(2, 2);
    task.set(next.clone()).await.unwrap();
    assert_eq!(asked_at(&task).await, next.peer);
}

/// The address that the task probes, taken from the error of a failed probe.
async fn asked_at(task: &EtcdUnitTask) -> SocketAddr {
    let (result, _) = task.probe.clone().unwrap().run().await;
    let ProbeResult::Silent(complaint) = result else { panic!("{result:?}") };
    let address = complaint.strip_prefix("etcd at ").unwrap().split(": ").next().unwrap();
    address.parse().unwrap()
}
