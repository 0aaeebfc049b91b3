//! Decisions of a peer table in scenarios with explicit time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_types::{ClusterId, PublicKey, Role};

use super::duplicate_identity::DUPLICATE_TTL;
use super::{
    ADDRESS_GRACE, Action, BOUND_PEER_GRACE, DISCOVERY_DELAY, DISCOVERY_DELAY_ALONE,
    FormationPlanner, LocalNode, PEER_TTL, RANK_DELAY, STABLE_TIME,
};
use crate::birth::{BirthRecord, Commitment};
use crate::candidate::{Candidate, CandidateState};

/// One millisecond before `moment`.
fn before(moment: Duration) -> Duration {
    moment.saturating_sub(Duration::from_millis(1))
}

fn address(n: usize) -> SocketAddr {
    format!("192.0.2.{n}:50000").parse().unwrap()
}

/// Candidates sorted by node id.
fn candidates(count: usize) -> Vec<Candidate> {
    let candidate = |n: usize| Candidate {
        public_key: PublicKey::from_bytes([u8::try_from(n).unwrap() + 1; 32]),
        name: "x".parse().unwrap(),
        role: Role::ControlPlane,
        addresses: Vec::new(),
        epoch: 0,
        state: CandidateState::Fresh,
        birth_fields: BTreeMap::new(),
    };
    let mut candidates: Vec<_> = (0..count).map(candidate).collect();
    candidates.sort_by_key(Candidate::id);
    for (n, candidate) in candidates.iter_mut().enumerate() {
        candidate.name = format!("m{n}").parse().unwrap();
        candidate.addresses.push(address(n));
    }
    candidates
}

struct Scenario {
    planner: FormationPlanner,
    start: Instant,
    all: Vec<Candidate>,
}

impl Scenario {
    /// A scenario of machine `me` among `count` machines, with three founders.
    fn of(me: usize, count: usize) -> Self {
        let (start, all) = (Instant::now(), candidates(count));
        let own = LocalNode { candidate: all[me].clone(), expect: 3, founders: Vec::new() };
        Self { planner: FormationPlanner::new(own, start), start, all }
    }

    fn reaches(&mut self, others: &[usize], after: Duration) {
        for other in others {
            let candidate = self.all[*other].clone();
            self.planner.on_peer(candidate, Some(address(*other)), self.start + after);
        }
    }

    fn decide(&mut self, after: Duration) -> Action {
        self.planner.decide(&BirthRecord::NEW, self.start + after)
    }

    fn waits(&mut self, after: Duration) -> String {
        match self.decide(after) {
            Action::Wait { reason, .. } => reason,
            other => panic!("does not wait: {other:?}"),
        }
    }

    /// The names of the founders that it proposes.
    fn proposes(&mut self, after: Duration) -> Vec<String> {
        match self.decide(after) {
            Action::Propose(founders) => founders.iter().map(|f| f.name.to_string()).collect(),
            other => panic!("does not propose: {other:?}"),
        }
    }
}

#[test]
fn the_lowest_of_the_lowest_three_proposes_once_their_number_is_stable() {
    let mut scenario = Scenario::of(0, 5);
    scenario.reaches(&[4, 2, 3], DISCOVERY_DELAY);
    assert_eq!(scenario.waits(DISCOVERY_DELAY), "m0 to propose m0, m2, m3 as founders");
    scenario.reaches(&[1], before(DISCOVERY_DELAY + STABLE_TIME));
    scenario.waits(DISCOVERY_DELAY + STABLE_TIME);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + STABLE_TIME * 2), ["m0", "m1", "m2"]);
}

#[test]
fn a_node_outside_the_lowest_three_waits_for_their_cluster() {
    let mut scenario = Scenario::of(3, 4);
    scenario.reaches(&[0, 1, 2], DISCOVERY_DELAY);
    assert_eq!(
        scenario.waits(DISCOVERY_DELAY + STABLE_TIME),
        "the cluster that m0, m1, m2 are founding"
    );
}

#[test]
fn the_second_proposes_when_the_first_does_not() {
    let mut scenario = Scenario::of(1, 3);
    scenario.reaches(&[0, 2], DISCOVERY_DELAY);
    scenario.waits(DISCOVERY_DELAY);
    scenario.reaches(&[0, 2], RANK_DELAY);
    scenario.waits(before(DISCOVERY_DELAY + STABLE_TIME + RANK_DELAY));
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + STABLE_TIME + RANK_DELAY), ["m0", "m1", "m2"]);
}

#[test]
fn a_peer_that_greets_us_is_no_candidate_until_we_reach_it() {
    let mut scenario = Scenario::of(0, 3);
    scenario.reaches(&[1], DISCOVERY_DELAY);
    let other = scenario.all[2].clone();
    scenario.planner.on_peer(other, None, scenario.start + DISCOVERY_DELAY);
    assert!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME).starts_with("1 more of 3 founders"));
}

#[test]
fn an_unknown_address_holds_back_for_its_grace_only() {
    let mut scenario = Scenario::of(0, 3);
    scenario.planner.on_hints(&BTreeSet::from([address(9)]), scenario.start);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    scenario.planner.on_dial_failed(
        address(9),
        "cannot dial 192.0.2.9:50000: no answer".to_owned(),
        scenario.start + DISCOVERY_DELAY,
    );
    assert!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME).contains("192.0.2.9"));
    scenario.waits(before(ADDRESS_GRACE));
    scenario.reaches(&[1, 2], ADDRESS_GRACE);
    assert_eq!(scenario.proposes(ADDRESS_GRACE).len(), 3);
}

#[test]
fn a_peer_bound_by_another_birth_holds_back_longer() {
    let mut scenario = Scenario::of(0, 4);
    scenario.all[3].state = CandidateState::Bound;
    scenario.reaches(&[1, 2, 3], DISCOVERY_DELAY);
    assert_eq!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME), "the birth that m3 takes part in");
    scenario.reaches(&[1, 2, 3], DISCOVERY_DELAY + BOUND_PEER_GRACE);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + BOUND_PEER_GRACE).len(), 3);
}

#[test]
fn a_member_is_joined_by_all_but_those_of_another_cluster() {
    let mut scenario = Scenario::of(0, 4);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    scenario.all[3].state = CandidateState::Member(ClusterId::from_bytes([7; 32]));
    scenario.reaches(&[3], DISCOVERY_DELAY);
    let id = scenario.all[3].id();
    assert_eq!(scenario.decide(DISCOVERY_DELAY + STABLE_TIME), Action::Join(vec![id]));
    let elsewhere =
        BirthRecord { epoch: 1, commitment: Commitment::Joined(ClusterId::from_bytes([8; 32])) };
    let decision =
        scenario.planner.decide(&elsewhere, scenario.start + DISCOVERY_DELAY + STABLE_TIME);
    assert!(matches!(decision, Action::Wait { .. }), "{decision:?}");
    // A member that has gone does not delay the birth.
    scenario.reaches(&[1, 2], DISCOVERY_DELAY + PEER_TTL);
    scenario.waits(DISCOVERY_DELAY + PEER_TTL);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + PEER_TTL + STABLE_TIME).len(), 3);
}

/// A worker has no etcd to restore, so it does not get the snapshot that all founders get.
#[test]
fn fields_that_a_worker_omits_do_not_prevent_a_birth() {
    let mut scenario = Scenario::of(0, 4);
    for founder in &mut scenario.all[..3] {
        founder.birth_fields.insert("--restore-etcd (SHA-256)".to_owned(), "ab".to_owned());
    }
    scenario.planner.own.candidate = scenario.all[0].clone();
    scenario.all[3].role = Role::Worker;
    scenario.reaches(&[1, 2, 3], DISCOVERY_DELAY);
    scenario.waits(DISCOVERY_DELAY);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + STABLE_TIME).len(), 3);
    scenario.all[3].birth_fields.insert("cluster.clusterName".to_owned(), "other".to_owned());
    scenario.reaches(&[1, 2, 3], DISCOVERY_DELAY + STABLE_TIME);
    assert!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME).contains("cluster.clusterName"));
}

#[test]
fn two_nodes_of_one_name_found_nothing() {
    let mut scenario = Scenario::of(0, 3);
    scenario.all[2].name = scenario.all[1].name.clone();
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    assert!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME).contains("are both called m1"));
}

#[test]
fn no_node_founds_alone_before_a_longer_discovery() {
    let mut scenario = Scenario::of(0, 1);
    scenario.planner.own.expect = 1;
    scenario.waits(STABLE_TIME);
    scenario.waits(before(DISCOVERY_DELAY_ALONE));
    assert_eq!(scenario.proposes(DISCOVERY_DELAY_ALONE), ["m0"]);
}

#[test]
fn after_an_abandoned_birth_all_peers_are_greeted_again() {
    let mut scenario = Scenario::of(0, 3);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    scenario.waits(DISCOVERY_DELAY);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + STABLE_TIME).len(), 3);
    let pause = STABLE_TIME * 3;
    scenario.planner.start_epoch(1, pause, scenario.start + DISCOVERY_DELAY * 2);
    scenario.waits(DISCOVERY_DELAY * 2 + pause);
    scenario.all[1].epoch = 4;
    scenario.reaches(&[1, 2], DISCOVERY_DELAY * 3 + pause);
    scenario.waits(DISCOVERY_DELAY * 3 + pause);
    let Action::Propose(founders) = scenario.decide(DISCOVERY_DELAY * 3 + pause + STABLE_TIME)
    else {
        panic!()
    };
    assert_eq!(founders.iter().map(|founder| founder.epoch).collect::<Vec<_>>(), [1, 4, 0]);
}

#[test]
fn a_peer_of_many_addresses_is_greeted_once_at_a_time() {
    let mut scenario = Scenario::of(0, 2);
    scenario.all[1].addresses = (10..20).map(address).collect();
    let other = scenario.all[1].clone();
    scenario.planner.on_peer(other, None, scenario.start);
    assert_eq!(scenario.planner.take_due(scenario.start).len(), 1);
    assert_eq!(scenario.planner.take_due(scenario.start).len(), 0);
    assert_eq!(scenario.planner.next_due(), None, "one greeting is under way");
}

#[test]
fn a_peer_that_has_just_started_is_dialled_at_once() {
    let mut scenario = Scenario::of(0, 2);
    scenario.planner.on_hints(&BTreeSet::from([address(1)]), scenario.start);
    for second in [0, 1, 3, 7] {
        let now = scenario.start + Duration::from_secs(second);
        assert_eq!(scenario.planner.take_due(now), [address(1)], "after {second} s");
        if second < 7 {
            scenario.planner.on_dial_failed(address(1), "no answer".to_owned(), now);
        }
    }
    // The last dial is still under way; its packets are lost.
    let other = scenario.all[1].clone();
    let now = scenario.start + Duration::from_secs(8);
    scenario.planner.on_peer(other.clone(), None, now);
    assert_eq!(scenario.planner.take_due(now), [address(1)]);
    scenario.planner.on_peer(other, None, now);
    assert_eq!(scenario.planner.take_due(now), []);
}

#[test]
fn this_nodes_own_address_is_dialled_once() {
    let mut scenario = Scenario::of(0, 2);
    scenario.planner.on_hints(&BTreeSet::from([address(8)]), scenario.start);
    assert_eq!(scenario.planner.take_due(scenario.start), [address(8)]);
    let own = scenario.all[0].clone();
    scenario.planner.on_peer(own, Some(address(8)), scenario.start);
    scenario.planner.on_hints(&BTreeSet::from([address(8)]), scenario.start + PEER_TTL);
    assert_eq!(scenario.planner.take_due(scenario.start + PEER_TTL), []);
}

/// The disk of m0 was copied to another machine after its first start: its key is there twice.
#[test]
fn a_copy_of_this_nodes_disk_keeps_it_from_founding_and_joining() {
    let mut scenario = Scenario::of(0, 4);
    let copy = Candidate { addresses: vec![address(9)], ..scenario.all[0].clone() };
    scenario.planner.on_hints(&BTreeSet::from([address(9)]), scenario.start);
    assert_eq!(scenario.planner.take_due(scenario.start), [address(9)]);
    scenario.planner.on_peer(copy, Some(address(9)), scenario.start);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    let waits = scenario.waits(DISCOVERY_DELAY + STABLE_TIME);
    assert!(waits.starts_with("m0 (192.0.2.0:50000) and m0 (192.0.2.9:50000)"), "{waits}");
    scenario.all[3].state = CandidateState::Member(ClusterId::from_bytes([7; 32]));
    scenario.reaches(&[3], DISCOVERY_DELAY + STABLE_TIME);
    assert_eq!(scenario.waits(DISCOVERY_DELAY + STABLE_TIME), waits);
    // The address is dialled again, and the duplicate is dropped once the copy is gone.
    assert!(scenario.planner.take_due(scenario.start + PEER_TTL).contains(&address(9)));
    scenario.reaches(&[3], DUPLICATE_TTL);
    assert!(matches!(scenario.decide(DUPLICATE_TTL), Action::Join(_)));
}

#[test]
fn two_others_with_one_identity_keep_this_node_from_founding() {
    let mut scenario = Scenario::of(0, 4);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    scenario.all[2] = Candidate { addresses: vec![address(9)], ..scenario.all[2].clone() };
    scenario.reaches(&[2], DISCOVERY_DELAY + STABLE_TIME);
    let waits = scenario.waits(DISCOVERY_DELAY + STABLE_TIME);
    assert!(waits.starts_with("m2 (192.0.2.2:50000) and m2 (192.0.2.9:50000)"), "{waits}");
}

#[test]
fn a_peer_that_returns_elsewhere_is_no_duplicate() {
    let mut scenario = Scenario::of(0, 3);
    scenario.reaches(&[1, 2], DISCOVERY_DELAY);
    scenario.all[2].addresses = vec![address(9)];
    scenario.reaches(&[1, 2], DISCOVERY_DELAY + PEER_TTL);
    scenario.waits(DISCOVERY_DELAY + PEER_TTL);
    assert_eq!(scenario.proposes(DISCOVERY_DELAY + PEER_TTL + STABLE_TIME).len(), 3);
}
