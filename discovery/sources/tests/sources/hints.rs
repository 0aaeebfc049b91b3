//! Hints and reports of all sources together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use muster_kit::TIMEOUT;
use muster_sources::{RememberedPeer, Settings, Source, SourceState, Sources, remembered};
use muster_types::{NodeId, Role};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dns_server::{a, serve, srv};

struct Fixture {
    sources: Sources,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            port: 50_000,
            own: BTreeSet::new(),
            static_peers: Vec::new(),
            servers: Vec::new(),
            domain: None,
            mdns: None,
            remembered: directory.path().join("peers.json"),
        };
        change(&mut settings);
        let stop = CancellationToken::new();
        let (sources, task) = Sources::new(settings, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        Self { sources, stop, tasks, directory }
    }

    async fn hints(&self, wanted: &[&str]) {
        let wanted: BTreeSet<SocketAddr> = wanted.iter().map(|a| a.parse().unwrap()).collect();
        let mut hints = self.sources.hints();
        let seen = hints.wait_for(|now| **now == wanted);
        let seen = tokio::time::timeout(TIMEOUT, seen).await.is_ok();
        assert!(seen, "wanted hints {wanted:?}, have {:?}", self.sources.state());
    }

    async fn description(&self, source: Source, wanted: impl Fn(&SourceState) -> bool) -> String {
        let mut states = self.sources.states();
        let seen = states.wait_for(|now| now.get(&source).is_some_and(&wanted));
        let Ok(states) = tokio::time::timeout(TIMEOUT, seen).await else {
            panic!("{source} did not report the expected state: {:?}", self.sources.state());
        };
        states.unwrap()[&source].to_string()
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn dns_offers_srv_targets_with_their_ports_and_the_domains_own_addresses() {
    let (mut server, dns) = serve(&[
        ("_muster._udp.muster.test.", srv(4001, "cp-1.muster.test.")),
        ("_muster._udp.muster.test.", srv(4002, "cp-2.muster.test.")),
        ("_muster._udp.muster.test.", srv(4003, "gone.muster.test.")),
        ("cp-1.muster.test.", a(1)),
        ("cp-2.muster.test.", a(2)),
        ("muster.test.", a(3)),
    ])
    .await;
    let fixture = Fixture::start(|settings| {
        settings.servers = vec![dns];
        settings.domain = Some("muster.test".to_owned());
        settings.static_peers = vec!["cp-1.muster.test".to_owned(), "192.0.2.9:7".to_owned()];
    });
    fixture
        .hints(&[
            "192.0.2.1:4001",
            "192.0.2.2:4002",
            "192.0.2.3:50000",
            "192.0.2.1:50000",
            "192.0.2.9:7",
        ])
        .await;
    let description = fixture.description(Source::Dns, |state| !state.failing).await;
    assert_eq!(description, "dns: 2 addresses by SRV record _muster._udp.muster.test");
    fixture.end().await;
    server.shutdown_gracefully().await.unwrap();
}

#[tokio::test]
async fn a_domain_that_lists_no_node_is_named() {
    let (mut server, dns) = serve(&[("other.muster.test.", a(1))]).await;
    let fixture = Fixture::start(|settings| {
        settings.servers = vec![dns];
        settings.domain = Some("none.muster.test".to_owned());
    });
    let description = fixture.description(Source::Dns, |_| true).await;
    assert_eq!(
        description,
        "dns: no SRV record for _muster._udp.none.muster.test and no address for none.muster.test"
    );
    fixture.end().await;
    server.shutdown_gracefully().await.unwrap();
}

#[tokio::test]
async fn a_dead_dns_server_is_a_state_and_stops_nothing_else() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let fixture = Fixture::start(|settings| {
        settings.servers = vec![closed];
        settings.domain = Some("muster.test".to_owned());
        settings.static_peers = vec!["192.0.2.9:7".to_owned()];
    });
    fixture.hints(&["192.0.2.9:7"]).await;
    let description = fixture.description(Source::Dns, |state| state.failing).await;
    assert!(description.starts_with("dns: "), "{description}");
    fixture.end().await;
}

#[tokio::test]
async fn an_answer_found_once_survives_a_dns_outage() {
    let (mut server, dns) = serve(&[("muster.test.", a(3))]).await;
    let fixture = Fixture::start(|settings| {
        settings.servers = vec![dns];
        settings.domain = Some("muster.test".to_owned());
    });
    fixture.hints(&["192.0.2.3:50000"]).await;
    server.shutdown_gracefully().await.unwrap();
    drop(server);
    fixture.sources.refresh();
    fixture.description(Source::Dns, |state| state.failing).await;
    fixture.hints(&["192.0.2.3:50000"]).await;
    fixture.end().await;
}

#[tokio::test]
async fn own_addresses_are_never_offered_even_after_they_change() {
    let fixture = Fixture::start(|settings| {
        settings.static_peers =
            ["192.0.2.1", "192.0.2.2", "0.0.0.0", "224.0.0.1"].map(Into::into).into();
        settings.own = BTreeSet::from(["192.0.2.1:50000".parse().unwrap()]);
    });
    fixture.hints(&["192.0.2.2:50000"]).await;
    fixture.sources.set_own_addresses(BTreeSet::from(["192.0.2.2:50000".parse().unwrap()]));
    fixture.hints(&["192.0.2.1:50000"]).await;
    fixture.end().await;
}

#[tokio::test]
async fn remembered_peers_are_offered_at_once_and_at_the_next_start() {
    let fixture = Fixture::start(|_| {});
    let peer = RememberedPeer {
        id: NodeId::from_bytes([1; 32]),
        name: "cp-1".parse().unwrap(),
        role: Role::ControlPlane,
        addresses: vec!["192.0.2.1:50000".parse().unwrap()],
    };
    assert_eq!(
        fixture.description(Source::Remembered, |_| true).await,
        "remembered: no peers known yet"
    );
    fixture.sources.remember(vec![peer.clone()]).await;
    fixture.hints(&["192.0.2.1:50000"]).await;
    let path = fixture.directory.path().join("peers.json");
    assert_eq!(remembered::read(&path).unwrap(), [peer]);

    let kept = path.clone();
    let next = Fixture::start(|settings| settings.remembered = kept);
    next.hints(&["192.0.2.1:50000"]).await;
    next.end().await;
    fixture.end().await;
}
