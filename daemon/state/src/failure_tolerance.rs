//! Failure tolerance: the number of control-plane nodes that may fail before Raft or etcd has no
//! majority. Reports only; [`super::decide_removal`] decides.

use muster_messages::operator as wire;
use muster_types::NodeId;

use super::quorum::Voters;
use super::{ClusterState, RemovalContext};

/// Returns the failure tolerance now, or after the removal of `removed`.
pub fn failure_tolerance(
    state: &ClusterState,
    context: &RemovalContext,
    removed: Option<&NodeId>,
) -> wire::FailureTolerance {
    let is_up = |node: &NodeId| !context.down.contains(node);
    let stays = |node: &NodeId| Some(node) != removed;
    let raft = context.raft_voters.iter().filter(|node| stays(node));
    let raft: Voters<NodeId> = raft.map(|node| (*node, is_up(node))).collect();
    let etcd = state.etcd().voters().all().filter(|(node, _)| stays(node));
    let etcd: Voters<NodeId> = etcd.map(|(node, up)| (node, up && is_up(&node))).collect();
    let tolerance =
        if etcd.is_empty() { raft.tolerance() } else { raft.tolerance().min(etcd.tolerance()) };
    let silent = raft.silent().map(|node| state.name_or_id(node)).collect::<Vec<_>>();
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    wire::FailureTolerance {
        control_planes: number(raft.len()),
        answering: number(raft.answering()),
        tolerance: number(tolerance),
        warning: warning(raft.len(), tolerance, &silent),
    }
}

/// Returns the warning for a cluster that no failure may hit, or that has a useless voter.
fn warning(control_planes: usize, tolerance: usize, silent: &[String]) -> String {
    let nodes = match control_planes {
        1 => "1 control-plane node".to_owned(),
        number => format!("{number} control-plane nodes"),
    };
    let mut warnings = Vec::new();
    match (tolerance, silent) {
        (0, []) => warnings.push(format!("{nodes}: if one fails, the cluster stops")),
        (0, silent) => {
            let silent = silent.join(", ");
            warnings.push(format!("{silent} down: if one more fails, the cluster stops"));
        }
        (_, _) => {}
    }
    if control_planes > 0 && control_planes.is_multiple_of(2) {
        let one_less = control_planes - 1;
        warnings.push(format!(
            "{control_planes} tolerate no more failures than {one_less}: use an odd number"
        ));
    }
    warnings.join("; ")
}

#[cfg(test)]
mod tests {
    use muster_pki::identity::node_id;
    use muster_types::PublicKey;

    use super::*;

    /// The tolerance and the warning, with this many voters of which some are down.
    fn of(voters: u8, down: u8, removed: Option<u8>) -> (u32, String) {
        let id = |number: u8| node_id(&PublicKey::from_bytes([number; 32]));
        let context = RemovalContext {
            raft_voters: (0..voters).map(id).collect(),
            leader: None,
            down: (0..down).map(id).collect(),
        };
        let removed = removed.map(id);
        let told = failure_tolerance(&ClusterState::default(), &context, removed.as_ref());
        assert_eq!(told.answering, told.control_planes - u32::from(down));
        (told.tolerance, told.warning)
    }

    #[test]
    fn a_cluster_that_no_failure_may_hit_is_warned_of() {
        assert_eq!(of(3, 0, None), (1, String::new()));
        assert_eq!(of(5, 1, None), (1, String::new()));
        assert_eq!(of(5, 0, None), (2, String::new()));
        let (tolerance, warning) = of(1, 0, None);
        assert_eq!(tolerance, 0);
        assert_eq!(warning, "1 control-plane node: if one fails, the cluster stops");
        let (tolerance, warning) = of(3, 0, Some(2));
        assert_eq!(tolerance, 0);
        assert_eq!(
            warning,
            "2 control-plane nodes: if one fails, the cluster stops; 2 tolerate no more failures \
             than 1: use an odd number"
        );
        assert_eq!(
            of(4, 0, None),
            (1, "4 tolerate no more failures than 3: use an odd number".to_owned())
        );
        let (tolerance, warning) = of(3, 1, None);
        assert!(tolerance == 0 && warning.contains("down: if one more fails"), "{warning}");
    }
}
