//! mDNS on a private link: each test runs itself again in a new network namespace, so that no
//! multicast packet leaves it. Needs `unshare` (util-linux), `ip` (iproute2) and root.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Source, Sources};

const IN_NAMESPACE: &str = "MUSTER_TEST_INSIDE_NAMESPACE";
/// Far longer than any of this takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(100);
/// Two links: nodes use the first and must not use the second.
const LINKS: &str = "ip link set lo up \
    && ip link add here type veth peer name here-end && ip link set here-end up \
    && ip link add away type veth peer name away-end && ip link set away-end up \
    && ip addr add 192.0.2.1/24 dev here && ip addr add 198.51.100.1/24 dev away \
    && ip addr add 2001:db8:1::1/64 dev here nodad && ip addr add 2001:db8:2::1/64 dev away nodad \
    && ip link set here up && ip link set away up \
    && exec \"$0\" \"$@\"";

/// Returns true inside the namespace. Outside, runs the test `name` inside and reports its failure.
#[expect(clippy::print_stdout, reason = "shows the measurements that a test printed inside")]
fn in_namespace(name: &str) -> bool {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let done = Command::new("unshare")
        .args(["--net", "sh", "-c", LINKS])
        .arg(this)
        .args(["--exact", "--nocapture", &format!("mdns::tests::{name}")])
        .env(IN_NAMESPACE, "1")
        .output()
        .expect("`unshare` of util-linux is needed to test mDNS");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && text.contains("1 passed"),
        "in a network namespace (which needs root):\n{text}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    println!("{text}");
    false
}

fn on_first_link(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 192)
        || matches!(ip, IpAddr::V6(v6) if v6.segments()[2] == 1)
}

struct Node {
    sources: Sources,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Node {
    fn start(n: u8, token_id: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = crate::Settings {
            port: 4000 + u16::from(n),
            own: BTreeSet::new(),
            static_peers: Vec::new(),
            servers: Vec::new(),
            domain: None,
            mdns: Some(Settings {
                me: NodeId::from_bytes([n; 32]),
                token_id: token_id.to_owned(),
                address_filter: Arc::new(on_first_link),
            }),
            remembered: directory.path().join("peers.json"),
        };
        let stop = CancellationToken::new();
        let (sources, task) = Sources::new(settings, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        Self { sources, stop, tasks, _directory: directory }
    }

    /// Waits until this node sees exactly these nodes, at both addresses of the first link.
    async fn sees(&self, others: &[u8]) {
        let wanted: BTreeSet<SocketAddr> = others
            .iter()
            .flat_map(|n| {
                let port = 4000 + u16::from(*n);
                let v6: IpAddr = "2001:db8:1::1".parse().unwrap();
                [(Ipv4Addr::new(192, 0, 2, 1), port).into(), (v6, port).into()]
            })
            .collect();
        let mut hints = self.sources.hints();
        let seen = hints.wait_for(|hints| **hints == wanted);
        let seen = tokio::time::timeout(TIMEOUT, seen).await.is_ok();
        assert!(seen, "wanted {wanted:?}, have {:?}", self.sources.state());
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

/// A socket that receives packets to the mDNS group on the link with `address`.
fn listener(address: [u8; 4]) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    let group: SocketAddr = "224.0.0.251:5353".parse().unwrap();
    socket.bind(&group.into()).unwrap();
    socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &address.into()).unwrap();
    socket.set_multicast_all_v4(false).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

#[test]
fn the_tag_differs_between_tokens_and_reveals_neither() {
    assert_ne!(token_tag("abc"), token_tag("abd"));
    assert_eq!(token_tag("abc").len(), 16);
    assert!(!token_tag("abc").contains("abc"));
}

#[test]
fn the_browse_delays_double_up_to_the_maximum() {
    let mut backoff = BrowseBackoff::new();
    let seconds: Vec<_> = (0..8).map(|_| backoff.next().as_secs()).collect();
    assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 120, 120]);
}

/// Prints the durations (with `--nocapture`). On an idle machine the first node sees the other
/// within a few milliseconds, and is seen within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the measurement is part of the purpose")]
async fn nodes_that_are_restarted_together_see_each_other_in_any_order() {
    if !in_namespace("nodes_that_are_restarted_together_see_each_other_in_any_order") {
        return;
    }
    let mut first = Vec::new();
    let mut both = Vec::new();
    for stagger in [0, 100, 300, 600, 900] {
        let a = Node::start(1, "token");
        tokio::time::sleep(Duration::from_millis(stagger)).await;
        let began = Instant::now();
        let b = Node::start(2, "token");
        tokio::select! {
            () = a.sees(&[2]) => {}
            () = b.sees(&[1]) => {}
        }
        first.push(began.elapsed());
        tokio::join!(a.sees(&[2]), b.sees(&[1]));
        both.push(began.elapsed());
        a.end().await;
        b.end().await;
    }
    println!("one sees the other after {first:?}, both see each other after {both:?}");
}

/// The bug: nodes 1 and 7 were restarted together. The new node 1 received the goodbye of the old
/// node 7, and within the same second the announcement of the new node 7. The library took the
/// goodbye for a record and the announcement for a duplicate, so node 1 never saw node 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_goodbye_is_heard_just_before_its_announcement_is_seen() {
    if !in_namespace("a_node_whose_goodbye_is_heard_just_before_its_announcement_is_seen") {
        return;
    }
    let listener = listener([192, 0, 2, 1]);
    let a = Node::start(1, "token");
    let heard = async {
        while listener.recv(&mut [0; 2048]).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, heard).await.expect("the node sends once its link is up");
    let sender = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    sender.set_multicast_if_v4(&Ipv4Addr::new(192, 0, 2, 1)).unwrap();
    let group: SocketAddr = "224.0.0.251:5353".parse().unwrap();
    for ttl in [0, 120] {
        sender.send_to(&announcement(7, "token", ttl), &group.into()).unwrap();
    }
    a.sees(&[7]).await;
    a.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_each_other_on_a_link_that_comes_up_after_they_have_started() {
    if !in_namespace("nodes_see_each_other_on_a_link_that_comes_up_after_they_have_started") {
        return;
    }
    let cable = |state| {
        let done = Command::new("ip").args(["link", "set", "here-end", state]).status();
        assert!(done.expect("`ip` of iproute2 is needed").success());
    };
    cable("down");
    let a = Node::start(1, "token");
    let b = Node::start(2, "token");
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.sees(&[]).await;
    cable("up");
    tokio::join!(a.sees(&[2]), b.sees(&[1]));
    a.end().await;
    b.end().await;
}

/// Encodes the announcement of node `n` on the first link; its goodbye if `ttl` is 0.
fn announcement(n: u8, token_id: &str, ttl: u32) -> Vec<u8> {
    let short = NodeId::from_bytes([n; 32]).short();
    let instance = dns_name(&format!("{short}.{SERVICE}"));
    let host = dns_name(&format!("muster-{short}.local."));
    let port = (4000 + u16::from(n)).to_be_bytes();
    let srv = [&[0; 4][..], &port, &host].concat();
    let txt: Vec<u8> = [format!("v={VERSION}"), format!("t={}", token_tag(token_id))]
        .iter()
        .flat_map(|text| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat())
        .collect();
    let v6: std::net::Ipv6Addr = "2001:db8:1::1".parse().unwrap();
    let records = [
        (dns_name(SERVICE), 12, 0x0001_u16, instance.clone()),
        (instance.clone(), 33, 0x8001, srv),
        (instance, 16, 0x8001, txt),
        (host.clone(), 1, 0x8001, vec![192, 0, 2, 1]),
        (host, 28, 0x8001, v6.octets().to_vec()),
    ];
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 5, 0, 0, 0, 0];
    for (name, kind, class, data) in records {
        message.extend(name);
        message.extend(u16::to_be_bytes(kind));
        message.extend(class.to_be_bytes());
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }
    message
}

fn dns_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_chosen_link_carries_the_announcement() {
    if !in_namespace("only_the_chosen_link_carries_the_announcement") {
        return;
    }
    let (here, away) = (listener([192, 0, 2, 1]), listener([198, 51, 100, 1]));
    let a = Node::start(1, "token");
    let b = Node::start(2, "token");
    tokio::join!(a.sees(&[2]), b.sees(&[1]));
    a.sources.refresh();
    a.end().await;
    b.sees(&[]).await; // its goodbye was received
    b.end().await;
    let mut buffer = [0; 2048];
    let length = here.recv(&mut buffer).expect("the chosen link carries their packets");
    assert!(buffer[..length].windows(7).any(|name| name == b"_muster"));
    let other = away.recv(&mut buffer).expect_err("the other link carries no packet");
    assert_eq!(other.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_on_one_link_leave_each_other_alone() {
    if !in_namespace("clusters_on_one_link_leave_each_other_alone") {
        return;
    }
    let a = Node::start(1, "token");
    let b = Node::start(2, "token");
    let stranger = Node::start(3, "another");
    tokio::join!(a.sees(&[2]), b.sees(&[1]));
    let mut states = stranger.sources.states();
    let met = states.wait_for(|states| {
        states.get(&Source::Mdns).is_some_and(|state| {
            state.description == "only nodes with another token on this link (2)"
        })
    });
    tokio::time::timeout(TIMEOUT, met).await.expect("it reports the foreign nodes").unwrap();
    stranger.sees(&[]).await;
    for node in [a, b, stranger] {
        node.end().await;
    }
}
