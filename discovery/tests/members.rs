//! Sessions between members over real sockets on loopback.

mod support;

use std::time::{Duration, Instant};

use support::{TestNode, acquaint, bounded, message, within};

#[tokio::test]
async fn members_call_each_other_over_one_connection() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    acquaint(&[&a, &b]);
    let echoed = bounded("a calls b", a.client(&b).append(message("x"))).await.unwrap();
    assert_eq!(echoed.into_inner(), message("x"));
    let echoed = bounded("b calls a", b.client(&a).append(message("y"))).await.unwrap();
    assert_eq!(echoed.into_inner(), message("y"));
}

/// Prints the round trip of a small call, for the record; fails only when it is absurd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figure is the purpose")]
async fn a_small_call_is_fast() {
    let (a, b) = (TestNode::start("127.0.0.1:0"), TestNode::start("127.0.0.1:0"));
    acquaint(&[&a, &b]);
    let mut client = a.client(&b);
    let mut times = Vec::new();
    for round in 0..1100 {
        let begun = Instant::now();
        let request = within(Duration::from_secs(2), message(vec![7; 256]));
        client.append(request).await.unwrap();
        if round >= 100 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("append of 256 bytes: p50 {p50:?}, p99 {p99:?}, max {:?}", times.last());
    assert!(p50 < Duration::from_millis(20), "{p50:?}");
}
