//! The decision over every small cluster, against rules that are counted here independently, and
//! properties of arbitrary ones.

use std::time::Duration;

use muster_types::etcd::{DataState, EtcdGeneration};
use muster_types::{LogIndex, Role};
use proptest::prelude::*;

use super::*;
use crate::etcd::{EtcdMemberPhase, EtcdReport};
use crate::fixtures::*;
use crate::{Command, EtcdChange, Outcome, TimestampedCommand};

/// The etcd member of one control-plane node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Etcd {
    Founding,
    Voter,
    Learner,
    Waiting,
    Lost,
}

const ETCD: [Etcd; 5] = [Etcd::Founding, Etcd::Voter, Etcd::Learner, Etcd::Waiting, Etcd::Lost];

/// A cluster of the control-plane nodes 1 to n.
#[derive(Debug, Clone)]
struct World {
    etcd: Vec<Etcd>,
    state: ClusterState,
    context: RemovalContext,
}

impl World {
    /// All nodes are up, vote in Raft, and node 1 leads.
    fn new(etcd: &[Etcd]) -> Self {
        let mut replica = Replica::founded(u8::try_from(etcd.len()).unwrap());
        for (number, etcd) in (1..).zip(etcd) {
            enter(&mut replica, number, *etcd);
        }
        let raft_voters = replica.state.control_plane_ids();
        let context = RemovalContext { raft_voters, leader: Some(id(1)), ..Default::default() };
        Self { etcd: etcd.to_vec(), state: replica.state, context }
    }

    fn voting(count: usize) -> Self {
        Self::new(&vec![Etcd::Voter; count])
    }

    fn numbers(&self) -> impl Iterator<Item = u8> {
        1..=u8::try_from(self.etcd.len()).unwrap()
    }

    fn decide(&self, number: u8, force: bool) -> Result<RemovalPlan, Refusal> {
        let remove = Remove { node: id(number), by: by(ADMIN), force };
        decide_removal(&self.state, &self.context, &remove)
    }

    fn refused(&self, number: u8, force: bool) -> Refusal {
        self.decide(number, force).unwrap_err()
    }

    fn steps(&self, number: u8) -> Vec<RemovalStep> {
        self.decide(number, false).unwrap().steps
    }
}

/// Brings a founder's etcd member to this state.
fn enter(replica: &mut Replica, number: u8, etcd: Etcd) {
    let (node, member_id) = (id(number), etcd_id(number.into()));
    let peer_url = format!("https://10.0.0.{number}:2380");
    let mut change = |change| replica.done(Command::Etcd(change));
    match etcd {
        Etcd::Founding => {}
        Etcd::Voter => {
            change(EtcdChange::Started { node, generation: EtcdGeneration::FIRST, member_id });
        }
        Etcd::Waiting => change(EtcdChange::Removed { node, generation: EtcdGeneration::FIRST }),
        Etcd::Learner => {
            change(EtcdChange::Removed { node, generation: EtcdGeneration::FIRST });
            change(EtcdChange::Added { node, generation: EtcdGeneration(1), member_id, peer_url });
        }
        Etcd::Lost => {
            change(EtcdChange::Started { node, generation: EtcdGeneration::FIRST, member_id });
            let mut report = report(number);
            let (data, version) = (DataState::Lost, String::new());
            report.etcd = Some(EtcdReport { generation: EtcdGeneration::FIRST, data, version });
            replica.done(Command::Report(report));
        }
    }
}

/// Every combination of etcd members with at most one learner, for 1 to `largest` nodes.
fn every_etcd(largest: u32) -> Vec<Vec<Etcd>> {
    let all = (1..=largest).flat_map(|nodes| {
        (0..5_usize.pow(nodes)).map(move |code| {
            (0..nodes).map(|digit| ETCD[code / 5_usize.pow(digit) % 5]).collect::<Vec<_>>()
        })
    });
    all.filter(|etcd| etcd.iter().filter(|etcd| **etcd == Etcd::Learner).count() <= 1).collect()
}

fn subset(numbers: impl Iterator<Item = u8>, bits: u32) -> BTreeSet<NodeId> {
    numbers.filter(|number| bits >> (number - 1) & 1 == 1).map(id).collect()
}

/// Returns whether those left would lose etcd's quorum, counted from the description.
fn etcd_at_risk(world: &World, number: u8) -> bool {
    let is_voting = |etcd: Etcd| matches!(etcd, Etcd::Founding | Etcd::Voter | Etcd::Lost);
    let is_leaving = |at: usize| at + 1 == usize::from(number);
    let leaving = world.etcd[usize::from(number) - 1];
    let left = world.etcd.iter().enumerate().filter(|(at, _)| !is_leaving(*at));
    let voters: Vec<_> =
        left.filter(|(_, etcd)| is_voting(**etcd)).map(|(_, etcd)| *etcd).collect();
    let lost = voters.iter().filter(|etcd| **etcd == Etcd::Lost).count();
    is_voting(leaving) && 2 * (voters.len() - lost) <= voters.len()
}

/// Returns whether no majority of the Raft voters left would be up.
fn raft_at_risk(world: &World, number: u8) -> bool {
    let RemovalContext { raft_voters, down, .. } = &world.context;
    let left: Vec<_> = raft_voters.iter().filter(|voter| **voter != id(number)).collect();
    let up = left.iter().filter(|voter| !down.contains(voter)).count();
    raft_voters.contains(&id(number)) && 2 * up <= left.len()
}

/// The steps that an allowed removal must have.
fn expected_steps(world: &World, number: u8) -> Vec<RemovalStep> {
    let RemovalContext { raft_voters, leader, down } = &world.context;
    let (node, member_id) = (id(number), etcd_id(number.into()));
    let mut steps = Vec::new();
    let has_member =
        matches!(world.etcd[usize::from(number) - 1], Etcd::Voter | Etcd::Learner | Etcd::Lost);
    if has_member && !down.contains(&node) {
        steps.push(RemovalStep::RemoveEtcdMember { member_id });
    }
    if raft_voters.contains(&node) {
        if *leader == Some(node) {
            steps.push(RemovalStep::HandOverLeadership);
        }
        steps.push(RemovalStep::RemoveRaftVoter);
    }
    steps.push(RemovalStep::Commit);
    steps
}

/// Checks the decision on every node of a cluster, with and without force.
fn check(world: &World) {
    for (number, force) in world.numbers().flat_map(|number| [(number, false), (number, true)]) {
        let decision = world.decide(number, force);
        let expected = if world.etcd.len() == 1 {
            Err(RefusalKind::LastControlPlane)
        } else if (!force && etcd_at_risk(world, number)) || raft_at_risk(world, number) {
            Err(RefusalKind::QuorumAtRisk)
        } else {
            Ok(expected_steps(world, number))
        };
        let found = decision.as_ref().map(|plan| plan.steps.clone()).map_err(|r| r.kind);
        assert_eq!(found, expected, "node {number}, force {force}: {decision:?} in {world:#?}");
        if let Err(refusal) = decision {
            let (reason, advice) = refusal.message.split_once("; ").expect("it has an advice");
            assert!(reason.contains(&format!("node-{number}")), "{reason}");
            assert!(!advice.is_empty());
        }
    }
}

fn stamped(command: Command) -> TimestampedCommand {
    TimestampedCommand { now: START.saturating_add(Duration::from_millis(100)), command }
}

#[test]
fn every_state_of_etcd_in_clusters_of_up_to_five() {
    for etcd in every_etcd(5) {
        check(&World::new(&etcd));
    }
}

#[test]
fn every_state_of_raft_in_clusters_of_up_to_five() {
    for nodes in 1..=5_u8 {
        let world = World::voting(usize::from(nodes));
        for bits in 0..1_u32 << (2 * nodes) {
            let mut world = world.clone();
            world.context.down = subset(1..=nodes, bits);
            world.context.raft_voters = subset(1..=nodes, bits >> nodes);
            for leader in (1..=nodes).map(|number| Some(id(number))).chain([None]) {
                world.context.leader = leader;
                check(&world);
            }
        }
    }
}

#[test]
fn every_state_of_both_in_clusters_of_up_to_three() {
    for etcd in every_etcd(3) {
        let nodes = u8::try_from(etcd.len()).unwrap();
        let world = World::new(&etcd);
        for bits in 0..1_u32 << (2 * nodes) {
            let mut world = world.clone();
            world.context.down = subset(1..=nodes, bits);
            world.context.raft_voters = subset(1..=nodes, bits >> nodes);
            check(&world);
        }
    }
}

#[test]
fn a_member_leaves_etcd_then_raft_then_the_registry() {
    let world = World::voting(3);
    let etcd = RemovalStep::RemoveEtcdMember { member_id: etcd_id(2) };
    let (vote, commit) = (RemovalStep::RemoveRaftVoter, RemovalStep::Commit);
    assert_eq!(world.steps(2), [etcd, vote, commit]);
    let etcd = RemovalStep::RemoveEtcdMember { member_id: etcd_id(1) };
    assert_eq!(world.steps(1), [etcd, RemovalStep::HandOverLeadership, vote, commit]);
}

#[test]
fn the_etcd_member_of_a_node_that_is_down_is_left_to_the_etcd_plan() {
    let mut world = World::voting(3);
    world.context.down = [id(3)].into();
    assert_eq!(world.steps(3), [RemovalStep::RemoveRaftVoter, RemovalStep::Commit]);
}

#[test]
fn a_worker_and_a_removed_node_are_only_committed() {
    let mut replica = Replica::founded(3);
    replica.done(Command::Admit(admit(4, Role::Worker)));
    replica.done(remove(3));
    let context =
        RemovalContext { raft_voters: replica.state.control_plane_ids(), ..Default::default() };
    for number in [3, 4] {
        let remove = Remove { node: id(number), by: by(ADMIN), force: false };
        let plan = decide_removal(&replica.state, &context, &remove).unwrap();
        let steps = vec![RemovalStep::Commit];
        assert_eq!(plan, RemovalPlan { node: id(number), name: name(number), steps });
    }
}

/// Its removal was committed by a leader that died before it changed Raft's membership.
#[test]
fn a_removed_node_that_still_votes_loses_its_vote() {
    let mut world = World::voting(3);
    let command = remove(3);
    let stamped = stamped(command);
    let outcome = world.state.apply(LogIndex(world.state.index().0 + 1), &stamped);
    assert_eq!(outcome, Outcome::Removed { node: id(3), name: name(3) });
    assert_eq!(world.steps(3), [RemovalStep::RemoveRaftVoter, RemovalStep::Commit]);
}

#[test]
fn the_only_voter_stays_even_by_force() {
    let mut world = World::new(&[Etcd::Voter, Etcd::Voter, Etcd::Voter]);
    world.context.raft_voters = [id(2)].into();
    for force in [false, true] {
        let refusal = world.refused(2, force);
        assert_eq!(refusal.kind, RefusalKind::QuorumAtRisk);
        assert_eq!(
            refusal.message,
            "node-2 is the only voter of Raft; wait until `musterctl members` shows another one, \
             then try again"
        );
    }
    assert_eq!(world.steps(1).last(), Some(&RemovalStep::Commit), "it does not vote");
}

#[test]
fn a_removal_that_costs_raft_its_majority_names_the_nodes_to_start() {
    let mut world = World::voting(4);
    world.context.down = [id(3), id(4)].into();
    for force in [false, true] {
        let refusal = world.refused(2, force);
        assert_eq!(refusal.kind, RefusalKind::QuorumAtRisk);
        let mut down = [id(3), id(4)].map(|node| world.state.name_or_id(&node));
        if id(4) < id(3) {
            down.reverse();
        }
        assert_eq!(
            refusal.message,
            format!(
                "without node-2, Raft would have 3 voters, of which only 1 answer: no majority; \
                 start {} again, or remove it first with `musterctl node remove`",
                down.join(", ")
            )
        );
    }
    assert!(world.decide(4, false).is_ok(), "what is down can go");
}

/// The order of the checks: a caller without the role learns nothing about the cluster.
#[test]
fn the_callers_role_is_checked_first() {
    let world = World::voting(1);
    let remove = Remove { node: id(9), by: by(READER), force: true };
    let refusal = decide_removal(&world.state, &world.context, &remove).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotAllowed);
    let unknown = Remove { by: by(ADMIN), ..remove };
    let refusal = decide_removal(&world.state, &world.context, &unknown).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotAMember);
}

/// Larger clusters, in which the parts vary together. A node may vote in Raft without being a
/// member, as after a leader that died half-way.
fn any_world() -> impl Strategy<Value = World> {
    let etcd = proptest::collection::vec((0..5_usize).prop_map(|n| ETCD[n]), 1..8);
    (etcd, any::<u16>(), any::<u16>(), 0..9_u8).prop_map(|(mut etcd, voters, down, leader)| {
        let mut learners = 0;
        for etcd in &mut etcd {
            learners += u32::from(*etcd == Etcd::Learner);
            if *etcd == Etcd::Learner && learners > 1 {
                *etcd = Etcd::Waiting;
            }
        }
        let mut world = World::new(&etcd);
        world.context = RemovalContext {
            raft_voters: subset(1..=9, voters.into()),
            down: subset(1..=9, down.into()),
            leader: (leader > 0).then(|| id(leader)),
        };
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::properties::cases(400)))]

    #[test]
    fn no_plan_costs_those_that_remain_their_quorum(
        world in any_world(),
        number in 1..10_u8,
        force: bool,
    ) {
        let node = id(number);
        let Ok(plan) = world.decide(number, force) else { return Ok(()) };
        let RemovalContext { raft_voters, down, .. } = &world.context;
        if raft_voters.contains(&node) {
            let left: Vec<_> = raft_voters.iter().filter(|voter| **voter != node).collect();
            let up = left.iter().filter(|voter| !down.contains(voter)).count();
            prop_assert!(2 * up > left.len(), "Raft has no majority after {plan:?}");
        }
        let mut after = world.state.clone();
        let command = Command::Remove(Remove { node, by: by(ADMIN), force });
        let stamped = stamped(command);
        let outcome = after.apply(LogIndex(after.index().0 + 1), &stamped);
        prop_assert_eq!(outcome, Outcome::Removed { node, name: plan.name }, "it is not applied");
        prop_assert!(!after.control_plane_ids().is_empty());
        let voted = world.state.etcd().node(&node).is_some_and(|plan| {
            !matches!(plan.phase, EtcdMemberPhase::Waiting | EtcdMemberPhase::Learner { .. })
        });
        if voted && !force {
            // Of the members that remain: the removed one is gone from etcd in the end.
            let voters = after.etcd().voters().without(&node);
            prop_assert!(voters.has_quorum(), "etcd has no quorum after {:?}", plan.steps);
        }
    }

    #[test]
    fn force_overrides_only_etcd(world in any_world(), number in 1..10_u8) {
        if let Ok(plan) = world.decide(number, false) {
            prop_assert_eq!(world.decide(number, true), Ok(plan));
        }
        if let Err(refusal) = world.decide(number, true) {
            prop_assert!(!refusal.message.contains("--force"), "{}", refusal.message);
            prop_assert!(world.decide(number, false).is_err());
        }
    }

    #[test]
    fn a_refusal_names_the_node_and_the_next_step(
        world in any_world(),
        number in 1..10_u8,
        force: bool,
    ) {
        let Err(refusal) = world.decide(number, force) else { return Ok(()) };
        let (reason, advice) = refusal.message.split_once("; ").expect("it has an advice");
        prop_assert!(reason.contains(&world.state.name_or_id(&id(number))), "{}", reason);
        prop_assert!(!advice.is_empty());
    }

    #[test]
    fn steps_are_in_order_and_end_with_the_commit(world in any_world(), number in 1..10_u8) {
        let Ok(plan) = world.decide(number, true) else { return Ok(()) };
        let rank = |step: &RemovalStep| match step {
            RemovalStep::RemoveEtcdMember { .. } => 0,
            RemovalStep::HandOverLeadership => 1,
            RemovalStep::RemoveRaftVoter => 2,
            RemovalStep::Commit => 3,
        };
        let ranks: Vec<_> = plan.steps.iter().map(rank).collect();
        prop_assert!(ranks.is_sorted_by(|a, b| a < b), "{:?}", plan.steps);
        prop_assert_eq!(ranks.last(), Some(&3));
    }
}
