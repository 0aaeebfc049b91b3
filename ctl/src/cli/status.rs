//! `status`: shows the one condition that each node waits for.

use clap::Args;
use muster_messages::operator::{
    NodeStatusReply, NodeStatusRequest, StatusReply, StatusRequest, Unit, unit,
};
use serde::Serialize;

use super::failure::Failure;
use super::pki::LeafView;
use crate::client::{Api, Attempt, CallError, CallKind, UnformedNode};
use crate::output::{Output, Render, non_empty, or_dash, table};

/// Show what each node waits for, even before the cluster exists
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        match fetch_status(api).await {
            Ok(view) => Ok(out.show(&view)?),
            Err(CallError::NoCluster { nodes, attempts }) => {
                Ok(out.show(&StatusView::without_cluster(nodes, attempts))?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Asks for the status of the node that `--node` names, otherwise of all nodes.
async fn fetch_status(api: &mut Api) -> Result<StatusView, CallError> {
    let nodes = if api.has_target_node() {
        let what = "ask the node for its status";
        let reply = api
            .call(CallKind::Idempotent, what, NodeStatusRequest {}, async |client, request| {
                client.node_status(request).await
            })
            .await?;
        vec![reply]
    } else {
        let what = "ask the nodes for their status";
        let StatusReply { nodes } = api
            .call(CallKind::Idempotent, what, StatusRequest {}, async |client, request| {
                client.status(request).await
            })
            .await?;
        nodes
    };
    let cluster = api.list_members().await?;
    Ok(StatusView {
        cluster_name: non_empty(cluster.cluster_name),
        cluster_id: non_empty(cluster.cluster_id),
        nodes: nodes.into_iter().map(NodeView::from).collect(),
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    cluster_name: Option<String>,
    cluster_id: Option<String>,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    name: Option<String>,
    ready: bool,
    waiting_for: Option<String>,
    unreachable: Option<String>,
    version: Option<String>,
    units: Vec<UnitView>,
    clock_ms: Option<i64>,
    clock_offset_ms: Option<i64>,
    leaves: Vec<LeafView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnitView {
    name: String,
    phase: String,
    pid: Option<u32>,
    restarts: u32,
    last_exit: Option<String>,
}

impl From<NodeStatusReply> for NodeView {
    fn from(reply: NodeStatusReply) -> Self {
        let NodeStatusReply { name, ready, waiting_for, unreachable, version, units, .. } = reply;
        let answered = unreachable.is_empty();
        Self {
            name: non_empty(name),
            ready,
            waiting_for: non_empty(waiting_for),
            unreachable: non_empty(unreachable),
            version: non_empty(version),
            units: units.into_iter().map(UnitView::from).collect(),
            clock_ms: answered.then_some(reply.clock_ms),
            clock_offset_ms: answered.then_some(reply.clock_offset_ms),
            leaves: reply.leaves.into_iter().map(LeafView::from).collect(),
        }
    }
}

impl From<Unit> for UnitView {
    fn from(unit: Unit) -> Self {
        let Unit { name, phase, pid, restarts, last_exit } = unit;
        let phase = unit::Phase::word_of(phase);
        let pid = (pid != 0).then_some(pid);
        Self { name, phase, pid, restarts, last_exit: non_empty(last_exit) }
    }
}

impl StatusView {
    fn without_cluster(nodes: Vec<UnformedNode>, attempts: Vec<Attempt>) -> Self {
        let node = |name, waiting_for, unreachable, version| NodeView {
            name,
            ready: false,
            waiting_for,
            unreachable,
            version,
            units: Vec::new(),
            clock_ms: None,
            clock_offset_ms: None,
            leaves: Vec::new(),
        };
        let mut all: Vec<NodeView> = nodes
            .into_iter()
            .map(|n| node(non_empty(n.name), non_empty(n.waiting_for), None, non_empty(n.version)))
            .collect();
        all.extend(
            attempts
                .into_iter()
                .map(|a| node(None, None, Some(format!("{}: {}", a.endpoint, a.why)), None)),
        );
        Self { cluster_name: None, cluster_id: None, nodes: all }
    }
}

impl Render for StatusView {
    fn text(&self) -> String {
        let rows = self.nodes.iter().map(|node| {
            let waits = match (node.ready, &node.unreachable, &node.waiting_for) {
                (true, _, _) => "nothing".to_owned(),
                (false, Some(why), _) => format!("unreachable: {why}"),
                (false, None, waiting) => or_dash(waiting.clone().unwrap_or_default()),
            };
            let ready = if node.ready { "yes" } else { "no" };
            let units: Vec<String> =
                node.units.iter().map(|unit| format!("{} {}", unit.name, unit.phase)).collect();
            [
                or_dash(node.name.clone().unwrap_or_default()),
                ready.to_owned(),
                or_dash(node.version.clone().unwrap_or_default()),
                or_dash(units.join(", ")),
                waits,
            ]
        });
        table(["NAME", "READY", "VERSION", "UNITS", "WAITS FOR"], rows)
    }

    fn prose(&self) -> String {
        match (&self.cluster_name, &self.cluster_id) {
            (Some(name), Some(id)) => format!("Cluster {name} ({id})"),
            _ => "There is no cluster yet.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::FailureKind;
    use crate::output::testing::all_formats;

    #[test]
    fn a_cluster_is_shown_in_every_form() {
        let etcd = Unit {
            name: "etcd".to_owned(),
            phase: unit::Phase::Running.into(),
            pid: 4711,
            restarts: 1,
            last_exit: "signal 9".to_owned(),
        };
        let node = NodeStatusReply {
            name: "cp-1".to_owned(),
            ready: true,
            version: "0.1.0".to_owned(),
            units: vec![etcd],
            clock_ms: 1_000,
            clock_offset_ms: -3,
            ..NodeStatusReply::default()
        };
        let gone = NodeStatusReply {
            name: "cp-2".to_owned(),
            unreachable: "no answer within 2 s".to_owned(),
            ..NodeStatusReply::default()
        };
        let view = StatusView {
            cluster_name: Some("demo".to_owned()),
            cluster_id: Some("x".repeat(52)),
            nodes: vec![node.into(), gone.into()],
        };
        insta::assert_snapshot!(all_formats(&view));
    }

    #[test]
    fn without_a_cluster_every_node_says_what_it_waits_for() {
        let waiting = UnformedNode {
            endpoint: "10.0.0.1".to_owned(),
            name: "cp-1".to_owned(),
            role: "control-plane".to_owned(),
            version: "0.1.0".to_owned(),
            waiting_for: "1 more control-plane node (2 of 3 are here)".to_owned(),
        };
        let attempt = Attempt {
            endpoint: "10.0.0.3".to_owned(),
            why: "no answer".to_owned(),
            failure: FailureKind::NoAnswer,
        };
        let view = StatusView::without_cluster(vec![waiting], vec![attempt]);
        insta::assert_snapshot!(all_formats(&view));
    }
}
