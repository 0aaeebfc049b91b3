//! Decisions of a peer table in scenarios with explicit time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_types::{ClusterId, PublicKey, Role};

use super::twins::TWINS;
use super::{BOUND_GRACE, Decision, GRACE, LOOK, LOOK_ALONE, Own, PRESENT, RANK, SETTLE, View};
use crate::birth::{Bond, Record};
use crate::candidate::{Candidate, Standing};

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
        standing: Standing::Fresh,
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

struct Story {
    view: View,
    start: Instant,
    all: Vec<Candidate>,
}

impl Story {
    /// A scenario of machine `me` among `count` machines, with three founders.
    fn of(me: usize, count: usize) -> Self {
        let (start, all) = (Instant::now(), candidates(count));
        let own = Own { candidate: all[me].clone(), expect: 3, founders: Vec::new() };
        Self { view: View::new(own, start), start, all }
    }

    fn reaches(&mut self, others: &[usize], after: Duration) {
        for other in others {
            let candidate = self.all[*other].clone();
            self.view.met(candidate, Some(address(*other)), self.start + after);
        }
    }

    fn decide(&mut self, after: Duration) -> Decision {
        self.view.decide(&Record::NEW, self.start + after)
    }

    fn waits(&mut self, after: Duration) -> String {
        match self.decide(after) {
            Decision::Wait { reason, .. } => reason,
            other => panic!("does not wait: {other:?}"),
        }
    }

    /// The names of the founders that it proposes.
    fn proposes(&mut self, after: Duration) -> Vec<String> {
        match self.decide(after) {
            Decision::Propose(founders) => founders.iter().map(|f| f.name.to_string()).collect(),
            other => panic!("does not propose: {other:?}"),
        }
    }
}

#[test]
fn the_lowest_of_the_lowest_three_proposes_once_their_number_is_stable() {
    let mut story = Story::of(0, 5);
    story.reaches(&[4, 2, 3], LOOK);
    assert_eq!(story.waits(LOOK), "m0 to propose m0, m2, m3 as founders");
    story.reaches(&[1], before(LOOK + SETTLE));
    story.waits(LOOK + SETTLE);
    assert_eq!(story.proposes(LOOK + SETTLE * 2), ["m0", "m1", "m2"]);
}

#[test]
fn who_is_not_of_the_lowest_three_waits_for_their_cluster() {
    let mut story = Story::of(3, 4);
    story.reaches(&[0, 1, 2], LOOK);
    assert_eq!(story.waits(LOOK + SETTLE), "the cluster that m0, m1, m2 are founding");
}

#[test]
fn the_second_proposes_when_the_first_does_not() {
    let mut story = Story::of(1, 3);
    story.reaches(&[0, 2], LOOK);
    story.waits(LOOK);
    story.reaches(&[0, 2], RANK);
    story.waits(before(LOOK + SETTLE + RANK));
    assert_eq!(story.proposes(LOOK + SETTLE + RANK), ["m0", "m1", "m2"]);
}

#[test]
fn who_only_greets_us_is_no_candidate_until_we_reach_it() {
    let mut story = Story::of(0, 3);
    story.reaches(&[1], LOOK);
    let other = story.all[2].clone();
    story.view.met(other, None, story.start + LOOK);
    assert!(story.waits(LOOK + SETTLE).starts_with("1 more of 3 founders"));
}

#[test]
fn an_unknown_address_holds_back_for_its_grace_only() {
    let mut story = Story::of(0, 3);
    story.view.hinted(&BTreeSet::from([address(9)]), story.start);
    story.reaches(&[1, 2], LOOK);
    story.view.failed(address(9), "dial 192.0.2.9:50000: no answer".to_owned(), story.start + LOOK);
    assert!(story.waits(LOOK + SETTLE).contains("192.0.2.9"));
    story.waits(before(GRACE));
    story.reaches(&[1, 2], GRACE);
    assert_eq!(story.proposes(GRACE).len(), 3);
}

#[test]
fn a_peer_bound_by_another_birth_holds_back_longer() {
    let mut story = Story::of(0, 4);
    story.all[3].standing = Standing::Bound;
    story.reaches(&[1, 2, 3], LOOK);
    assert_eq!(story.waits(LOOK + SETTLE), "the birth that m3 takes part in");
    story.reaches(&[1, 2, 3], LOOK + BOUND_GRACE);
    assert_eq!(story.proposes(LOOK + BOUND_GRACE).len(), 3);
}

#[test]
fn a_member_is_joined_by_all_but_those_of_another_cluster() {
    let mut story = Story::of(0, 4);
    story.reaches(&[1, 2], LOOK);
    story.all[3].standing = Standing::Member(ClusterId::from_bytes([7; 32]));
    story.reaches(&[3], LOOK);
    let id = story.all[3].id();
    assert_eq!(story.decide(LOOK + SETTLE), Decision::Join(vec![id]));
    let elsewhere = Record { epoch: 1, bond: Bond::Joined(ClusterId::from_bytes([8; 32])) };
    let decision = story.view.decide(&elsewhere, story.start + LOOK + SETTLE);
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");
    // A member that has gone does not delay the birth.
    story.reaches(&[1, 2], LOOK + PRESENT);
    story.waits(LOOK + PRESENT);
    assert_eq!(story.proposes(LOOK + PRESENT + SETTLE).len(), 3);
}

/// A worker has no etcd to restore, so it does not get the snapshot that all founders get.
#[test]
fn what_a_worker_does_not_say_keeps_nobody_from_founding() {
    let mut story = Story::of(0, 4);
    for founder in &mut story.all[..3] {
        founder.birth_fields.insert("--restore-etcd (SHA-256)".to_owned(), "ab".to_owned());
    }
    story.view.own.candidate = story.all[0].clone();
    story.all[3].role = Role::Worker;
    story.reaches(&[1, 2, 3], LOOK);
    story.waits(LOOK);
    assert_eq!(story.proposes(LOOK + SETTLE).len(), 3);
    story.all[3].birth_fields.insert("cluster.clusterName".to_owned(), "other".to_owned());
    story.reaches(&[1, 2, 3], LOOK + SETTLE);
    assert!(story.waits(LOOK + SETTLE).contains("cluster.clusterName"));
}

#[test]
fn two_nodes_of_one_name_found_nothing() {
    let mut story = Story::of(0, 3);
    story.all[2].name = story.all[1].name.clone();
    story.reaches(&[1, 2], LOOK);
    assert!(story.waits(LOOK + SETTLE).contains("are both called m1"));
}

#[test]
fn nobody_founds_alone_before_a_longer_look() {
    let mut story = Story::of(0, 1);
    story.view.own.expect = 1;
    story.waits(SETTLE);
    story.waits(before(LOOK_ALONE));
    assert_eq!(story.proposes(LOOK_ALONE), ["m0"]);
}

#[test]
fn after_an_abandoned_birth_everyone_is_asked_anew() {
    let mut story = Story::of(0, 3);
    story.reaches(&[1, 2], LOOK);
    story.waits(LOOK);
    assert_eq!(story.proposes(LOOK + SETTLE).len(), 3);
    let pause = SETTLE * 3;
    story.view.start_over(1, pause, story.start + LOOK * 2);
    story.waits(LOOK * 2 + pause);
    story.all[1].epoch = 4;
    story.reaches(&[1, 2], LOOK * 3 + pause);
    story.waits(LOOK * 3 + pause);
    let Decision::Propose(founders) = story.decide(LOOK * 3 + pause + SETTLE) else { panic!() };
    assert_eq!(founders.iter().map(|founder| founder.epoch).collect::<Vec<_>>(), [1, 4, 0]);
}

#[test]
fn a_peer_of_many_addresses_is_greeted_once_at_a_time() {
    let mut story = Story::of(0, 2);
    story.all[1].addresses = (10..20).map(address).collect();
    let other = story.all[1].clone();
    story.view.met(other, None, story.start);
    assert_eq!(story.view.due(story.start).len(), 1);
    assert_eq!(story.view.due(story.start).len(), 0);
    assert_eq!(story.view.next_due(), None, "one greeting is under way");
}

#[test]
fn a_peer_that_has_just_started_is_dialled_at_once() {
    let mut story = Story::of(0, 2);
    story.view.hinted(&BTreeSet::from([address(1)]), story.start);
    for second in [0, 1, 3, 7] {
        let now = story.start + Duration::from_secs(second);
        assert_eq!(story.view.due(now), [address(1)], "after {second} s");
        if second < 7 {
            story.view.failed(address(1), "no answer".to_owned(), now);
        }
    }
    // The last dial is still under way; its packets are lost.
    let other = story.all[1].clone();
    let now = story.start + Duration::from_secs(8);
    story.view.met(other.clone(), None, now);
    assert_eq!(story.view.due(now), [address(1)]);
    story.view.met(other, None, now);
    assert_eq!(story.view.due(now), []);
}

#[test]
fn this_nodes_own_address_is_dialled_once() {
    let mut story = Story::of(0, 2);
    story.view.hinted(&BTreeSet::from([address(8)]), story.start);
    assert_eq!(story.view.due(story.start), [address(8)]);
    let own = story.all[0].clone();
    story.view.met(own, Some(address(8)), story.start);
    story.view.hinted(&BTreeSet::from([address(8)]), story.start + PRESENT);
    assert_eq!(story.view.due(story.start + PRESENT), []);
}

/// The disk of m0 was copied to another machine after its first start: its key is there twice.
#[test]
fn a_copy_of_this_nodes_disk_keeps_it_from_founding_and_joining() {
    let mut story = Story::of(0, 4);
    let copy = Candidate { addresses: vec![address(9)], ..story.all[0].clone() };
    story.view.hinted(&BTreeSet::from([address(9)]), story.start);
    assert_eq!(story.view.due(story.start), [address(9)]);
    story.view.met(copy, Some(address(9)), story.start);
    story.reaches(&[1, 2], LOOK);
    let waits = story.waits(LOOK + SETTLE);
    assert!(waits.starts_with("m0 (192.0.2.0:50000) and m0 (192.0.2.9:50000)"), "{waits}");
    story.all[3].standing = Standing::Member(ClusterId::from_bytes([7; 32]));
    story.reaches(&[3], LOOK + SETTLE);
    assert_eq!(story.waits(LOOK + SETTLE), waits);
    // The address is dialled again, and the duplicate is dropped once the copy is gone.
    assert!(story.view.due(story.start + PRESENT).contains(&address(9)));
    story.reaches(&[3], TWINS);
    assert!(matches!(story.decide(TWINS), Decision::Join(_)));
}

#[test]
fn two_others_with_one_identity_keep_this_node_from_founding() {
    let mut story = Story::of(0, 4);
    story.reaches(&[1, 2], LOOK);
    story.all[2] = Candidate { addresses: vec![address(9)], ..story.all[2].clone() };
    story.reaches(&[2], LOOK + SETTLE);
    let waits = story.waits(LOOK + SETTLE);
    assert!(waits.starts_with("m2 (192.0.2.2:50000) and m2 (192.0.2.9:50000)"), "{waits}");
}

#[test]
fn a_peer_that_comes_back_elsewhere_is_not_taken_for_two() {
    let mut story = Story::of(0, 3);
    story.reaches(&[1, 2], LOOK);
    story.all[2].addresses = vec![address(9)];
    story.reaches(&[1, 2], LOOK + PRESENT);
    story.waits(LOOK + PRESENT);
    assert_eq!(story.proposes(LOOK + PRESENT + SETTLE).len(), 3);
}
