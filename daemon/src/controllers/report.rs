//! This node's report to the group: addresses, version, etcd. Proposed only if it would change the
//! state. A worker sends its report to a control-plane node, which decides that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_messages::node::ReportRequest;
use muster_services::node::node_client::NodeClient;
use muster_transport::endpoint::{Endpoint, Trust};
use muster_types::{NodeId, VERSION};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::raft::Group;
use crate::status::StatusReader;
use muster_state::Command;
use muster_state::command::Report;

/// Interval of a check without events, in case a report was lost.
const RESYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Time limit for a control-plane node to accept a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Proposes reports of a control-plane node through the group until `stop`.
pub async fn run(group: Group, mut own: StatusReader, stop: CancellationToken) {
    let (mut states, mut addresses) = (group.watch_state(), own.addresses());
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let report = Report {
            node: group.me(),
            addresses: addresses.borrow_and_update().clone(),
            version: VERSION.to_owned(),
            config_version: state.config_version(),
            etcd: own.get_and_update(|node| node.etcd_report.clone()),
        };
        let is_member = state.member(&report.node).is_some();
        if is_member && !report.addresses.is_empty() && state.would_change(&report) {
            info!(addresses = ?report.addresses, etcd = ?report.etcd, "proposing a report");
            let proposed = group.propose(Command::Report(report));
            match stop.run_until_cancelled(proposed).await {
                None => return,
                Some(Ok(outcome)) => debug!(?outcome, "report committed"),
                Some(Err(error)) => debug!(%error, "report not committed"),
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
            Ok(()) = addresses.changed() => {}
            Ok(()) = own.changed() => {}
            () = tokio::time::sleep(RESYNC_INTERVAL) => {}
        }
    }
}

/// Sends a worker's report to any control-plane node, after each change of address, until `stop`.
pub async fn run_on_worker(
    endpoint: Endpoint,
    trust: watch::Receiver<Arc<Trust>>,
    mut addresses: watch::Receiver<Vec<SocketAddr>>,
    stop: CancellationToken,
) {
    let mut last_sent = None;
    loop {
        let now = addresses.borrow_and_update().clone();
        if !now.is_empty() && last_sent.as_ref() != Some(&now) {
            let request = ReportRequest {
                addresses: now.iter().map(ToString::to_string).collect(),
                version: VERSION.to_owned(),
                etcd: Vec::new(),
            };
            let peers = trust.borrow().control_plane().map(|(id, _)| *id).collect();
            match stop.run_until_cancelled(send_report(&endpoint, peers, request)).await {
                None => return,
                Some(true) => last_sent = Some(now),
                Some(false) => {}
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = addresses.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESYNC_INTERVAL) => {}
        }
    }
}

async fn send_report(endpoint: &Endpoint, peers: Vec<NodeId>, request: ReportRequest) -> bool {
    for peer in peers {
        let mut client = NodeClient::new(endpoint.channel(peer));
        match timeout(REPORT_TIMEOUT, client.report(request.clone())).await {
            Ok(Ok(_)) => return true,
            Ok(Err(status)) => debug!(peer = %peer.short(), %status, "report rejected"),
            Err(_) => debug!(peer = %peer.short(), "report timed out"),
        }
    }
    false
}
