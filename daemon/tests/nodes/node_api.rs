//! Calls between members over `muster-node/1`: permissions, limits and malformed messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Lab, LabOptions};
use muster_kit::bounded;
use muster_messages::node::{
    ForwardRequest, ProposeRequest, RaftMessage, ReadIndexRequest, ReportRequest, SnapshotChunk,
    WatchRequest,
};
use muster_storage::MAX_SNAPSHOT;
use muster_types::NodeId;
use musterd::raft::codec::encode;
use openraft::error::Fatal;
use openraft::raft::SnapshotResponse;
use openraft::{SnapshotMeta, StoredMembership, Vote};
use tonic::Code;

type Test = anyhow::Result<()>;

async fn lab_with_worker() -> Lab {
    let lab = Lab::founded(LabOptions { workers: 1, ..LabOptions::default() }).await;
    lab.admit(3).await;
    lab
}

fn report(version: &str) -> ReportRequest {
    ReportRequest {
        addresses: vec!["127.98.0.1:50000".to_owned()],
        version: version.to_owned(),
        etcd: Vec::new(),
    }
}

fn header(vote: Vote<NodeId>) -> SnapshotChunk {
    let meta: SnapshotMeta<NodeId, openraft::EmptyNode> = SnapshotMeta {
        last_log_id: None,
        last_membership: StoredMembership::default(),
        snapshot_id: "1-x".to_owned(),
    };
    SnapshotChunk { header: encode(&(vote, meta)), body: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_report_and_watch_and_nothing_else() -> Test {
    let lab = lab_with_worker().await;
    let mut client = lab.nodes[3].client(&lab.nodes[0]);
    let body = || RaftMessage { body: vec![0xc1] };
    let forward = ForwardRequest { method: "NodeStatus".to_owned(), ..ForwardRequest::default() };
    let answers = [
        ("append", client.append_entries(body()).await.map(drop)),
        ("vote", client.request_vote(body()).await.map(drop)),
        (
            "snapshot",
            client.install_snapshot(tokio_stream::once(SnapshotChunk::default())).await.map(drop),
        ),
        ("propose", client.propose(ProposeRequest::default()).await.map(drop)),
        ("read index", client.read_index(ReadIndexRequest {}).await.map(drop)),
        ("forward", client.forward(forward).await.map(drop)),
    ];
    for (call, answer) in answers {
        assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied, "{call}");
    }
    client.report(report("0.1.0")).await?;
    // A member's view may be stale, but not on this one: the report went through it.
    let view = client.watch(WatchRequest {}).await?.into_inner().message().await?.unwrap();
    assert_eq!(view.members.len(), 4);
    Ok(())
}

/// A worker that had just joined reported to a node that had not applied the admission yet. The
/// report was acknowledged, not written, and never sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_to_a_node_that_lags_behind_is_not_lost() -> Test {
    let lab = Lab::founded(LabOptions { workers: 1, ..LabOptions::default() }).await;
    let leader = lab.leader().await;
    let [behind, other] = lab.others(leader)[..] else { unreachable!() };
    let mut client = lab.nodes[3].client(&lab.nodes[behind]);
    lab.set_cut(behind, leader, true);
    lab.set_cut(behind, other, true);
    lab.admit(3).await;
    assert!(lab.group(behind).state().member(&lab.id(3)).is_none());
    let mut reports = tokio::task::JoinSet::new();
    reports.spawn(async move { client.report(report("9.9.9")).await.map(drop) });
    // The absence of a reply can only be shown by waiting.
    let early = tokio::time::timeout(Duration::from_millis(300), reports.join_next()).await;
    assert!(early.is_err(), "answered by a node that cannot know: {early:?}");
    lab.heal(behind);
    bounded("the report is answered", reports.join_next()).await.unwrap()??;
    let state = lab.group(leader).catch_up().await?;
    assert_eq!(state.member(&lab.id(3)).unwrap().version, "9.9.9");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_always_about_its_sender() -> Test {
    let lab = lab_with_worker().await;
    let before = lab.group(0).catch_up().await?;
    let mut client = lab.nodes[3].client(&lab.nodes[1]);
    client.report(report("9.9.9")).await?;
    let after = lab.group(0).catch_up().await?;
    for at in 0..4 {
        let (before, after) =
            (before.member(&lab.id(at)).unwrap(), after.member(&lab.id(at)).unwrap());
        if at == 3 {
            assert_eq!(after.version, "9.9.9");
        } else {
            assert_eq!(before, after, "another member changed");
        }
    }
    let garbage = ReportRequest { etcd: vec![0xc1, 0xff], ..report("9.9.8") };
    assert_eq!(client.report(garbage).await.unwrap_err().code(), Code::InvalidArgument);
    Ok(())
}

/// The role of an operator was not checked on a control-plane node whose Raft had not started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_call_is_refused_until_the_operator_s_role_can_be_checked() -> Test {
    let spares_and_worker = LabOptions { spares: 1, workers: 1, ..LabOptions::default() };
    let lab = Lab::founded(spares_and_worker).await;
    let status = ForwardRequest {
        method: "NodeStatus".to_owned(),
        operator: vec![7; 32],
        ..ForwardRequest::default()
    };
    let (without_raft, worker) = (3, 4);
    for (to, code) in [(0, Code::Unauthenticated), (without_raft, Code::Unavailable)] {
        let mut client = lab.nodes[1].client(&lab.nodes[to]);
        let refused = client.forward(status.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "node {to}: {refused}");
    }
    // A worker has no list of operators: the control-plane node has checked the role.
    let mut client = lab.nodes[1].client(&lab.nodes[worker]);
    client.forward(status).await?.into_inner().message().await?.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_the_directory_is_cut_off_at_once() -> Test {
    let lab = lab_with_worker().await;
    let mut client = lab.nodes[3].client(&lab.nodes[0]);
    let mut views = client.watch(WatchRequest {}).await?.into_inner();
    views.message().await?.unwrap();
    lab.nodes[0].remove_peer(lab.id(3));
    let ended = bounded("the stream of views ends", async {
        loop {
            match views.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(status) => break Err(status.code()),
            }
        }
    })
    .await;
    assert!(ended.is_err(), "{ended:?}");
    let refused = bounded("a later call is refused", client.report(report("6.6.6"))).await;
    let code = refused.unwrap_err().code();
    assert!(matches!(code, Code::Unauthenticated | Code::Unavailable), "{code:?}");
    let state = lab.group(0).catch_up().await?;
    assert_ne!(state.member(&lab.id(3)).unwrap().version, "6.6.6");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_raft_messages_are_answered_and_the_node_goes_on() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let leader = lab.leader().await;
    let [from, to] = lab.others(leader)[..] else { unreachable!() };
    let mut client = lab.nodes[from].client(&lab.nodes[to]);
    for body in
        [vec![], vec![0xc1], vec![0xdf; 64], vec![0x91; 4096], encode(&"text"), vec![0; 1 << 20]]
    {
        let message = || RaftMessage { body: body.clone() };
        let piece = || tokio_stream::once(SnapshotChunk { header: body.clone(), body: vec![1] });
        let command = || ProposeRequest { command: body.clone() };
        for (call, answer) in [
            ("append", client.append_entries(message()).await.map(drop)),
            ("vote", client.request_vote(message()).await.map(drop)),
            ("snapshot", client.install_snapshot(piece()).await.map(drop)),
            ("propose", client.propose(command()).await.map(drop)),
        ] {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{call}: {status}");
        }
    }
    let empty = client.install_snapshot(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    let too_long = RaftMessage { body: vec![0; muster_types::wire::MAX_MESSAGE + 1] };
    let mut far = lab.nodes[from].client(&lab.nodes[to]).max_encoding_message_size(usize::MAX);
    assert_eq!(far.append_entries(too_long).await.unwrap_err().code(), Code::OutOfRange);
    for (number, at) in [leader, from, to].into_iter().enumerate() {
        lab.group(at).propose(lab.numbered_write(number as u64)).await?.into_result()?;
    }
    lab.assert_equal(&[0, 1, 2]).await;
    Ok(())
}

/// The largest resident size of this process so far, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_without_end_is_refused_with_bounded_memory() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let leader = lab.leader().await;
    let [from, to] = lab.others(leader)[..] else { unreachable!() };
    let vote = Vote::new_committed(99, lab.id(from));
    let mut bulk = muster_services::node::node_client::NodeClient::new(
        lab.nodes[from].endpoint().bulk_channel(lab.id(to)),
    );
    let before = peak_mib();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let endless = std::iter::repeat_with(move || {
        count.fetch_add(1, Ordering::SeqCst);
        SnapshotChunk { header: Vec::new(), body: vec![0; 1 << 20] }
    });
    let pieces = tokio_stream::iter(std::iter::once(header(vote)).chain(endless));
    let refused = bounded("the endless snapshot is refused", bulk.install_snapshot(pieces)).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    let (sent, grown) = (sent.load(Ordering::SeqCst), peak_mib() - before);
    println!("refused after {sent} MiB; the process grew by {grown} MiB");
    let limit = (MAX_SNAPSHOT >> 20) as u64;
    assert!(sent >= limit && sent < limit + 32, "{sent} MiB sent");
    assert!(grown < 3 * limit, "{grown} MiB");
    lab.group(to).propose(lab.numbered_write(1)).await?.into_result()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_is_received_at_a_time_and_none_of_a_deposed_leader() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let leader = lab.leader().await;
    let [from, to] = lab.others(leader)[..] else { unreachable!() };
    let mut client = lab.nodes[from].client(&lab.nodes[to]);
    let deposed = Vote::new_committed(0, lab.id(from));
    let pieces = tokio_stream::iter([header(deposed)]);
    let answer = client.install_snapshot(pieces).await?.into_inner().body;
    let answer: Result<SnapshotResponse<NodeId>, Fatal<NodeId>> =
        musterd::raft::codec::decode(&answer, "answer")?;
    assert!(answer?.vote > deposed, "the reply has the newer leader's vote");

    let mut stalled = tokio::task::JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..2 {
        let (pieces, stream) = tokio::sync::mpsc::channel(1);
        pieces.send(header(Vote::new_committed(99, lab.id(from)))).await?;
        senders.push(pieces);
        let mut client = client.clone();
        stalled.spawn(async move {
            let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
            client.install_snapshot(stream).await.unwrap_err().code()
        });
    }
    let rejected = bounded("the second one is rejected", stalled.join_next()).await;
    assert_eq!(rejected.unwrap()?, Code::Unavailable);
    let timed_out = bounded("a stalled snapshot times out", stalled.join_next()).await;
    assert_eq!(timed_out.unwrap()?, Code::DeadlineExceeded);
    Ok(())
}
