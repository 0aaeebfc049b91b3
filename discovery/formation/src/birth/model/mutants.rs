//! Defects that the search must find, each for its own reason. Without the defect the same search
//! finds nothing, and with it the result shows the mark of that defect. Also two tests of the
//! protocol's limits: each goes one step beyond a limit and must split.

#![expect(clippy::print_stdout, reason = "the traces are part of the result")]

use std::sync::Arc;

use muster_types::NodeId;
use stateright::HasDiscoveries;

use super::tests::{Found, SPLIT, plan, search, sharing_one_founder, trace};
use super::{Action, BirthModel, Budget, Cause, Defect, Plan, World};
use crate::birth::certificate::Certificate;
use crate::birth::message::Message;
use crate::birth::params::Quorums;
use crate::birth::record::{BirthRecord, Decision};

/// A path to two clusters.
struct Split {
    path: Vec<(World, Option<Action>)>,
}

impl Split {
    fn end(&self) -> &World {
        &self.path.last().unwrap().0
    }

    /// The certificates of the born machines, one for each cluster.
    fn certificates(&self) -> [Arc<Certificate>; 2] {
        let records = self.end().records();
        let mut born: Vec<_> = records.iter().filter_map(|record| record.born()).cloned().collect();
        born.sort_by_key(|certificate| certificate.cluster_id());
        born.dedup_by_key(|certificate| certificate.cluster_id());
        born.try_into().expect("two clusters")
    }

    /// The epochs at which the two certificates name their common founder.
    fn epochs_of_the_common_founder(&self) -> [u64; 2] {
        let [one, other] = self.certificates();
        let common = |id: &&NodeId| other.proposal().founder(id).is_some();
        let id = *one.proposal().ids().iter().find(common).expect("one founder in common");
        [one, other].map(|born| born.proposal().founder(&id).unwrap().epoch)
    }

    /// For each cluster, the number of founders that voted to abandon it or are past the epoch at
    /// which it names them.
    fn founders_that_abandoned(&self, birth: &BirthModel) -> [usize; 2] {
        let is_of = |record: &BirthRecord, born: &Certificate| {
            record.promise().is_some_and(|promise| promise.proposal == *born.proposal())
        };
        self.certificates().map(|born| {
            let left = |founder: &&crate::birth::Founder| {
                let record = self.end().records()[birth.machine(&founder.id())].clone();
                let vote = record.promise().and_then(|promise| promise.vote.as_ref());
                let abandoned = vote.is_some_and(|vote| vote.decision == Decision::Abandoned);
                record.epoch > founder.epoch || abandoned && is_of(&record, &born)
            };
            born.founders().iter().filter(left).count()
        })
    }

    fn signatures(&self) -> [usize; 2] {
        self.certificates().map(|born| born.signatures().len())
    }

    fn some(&self, fits: impl Fn(&World, Action) -> bool) -> bool {
        self.path.iter().any(|(world, action)| action.is_some_and(|action| fits(world, action)))
    }
}

/// A search with an injected defect.
struct Case {
    name: &'static str,
    machines: u8,
    plans: Vec<Plan>,
    budget: Budget,
}

impl Case {
    /// Five machines and two sets of founders with one in common.
    fn new(name: &'static str, [proposals, timeouts, crashes, wipes]: [u8; 4]) -> Self {
        let budget = Budget { proposals, timeouts, crashes, wipes };
        Self { name, machines: 5, plans: sharing_one_founder(), budget }
    }

    fn birth(&self) -> BirthModel {
        BirthModel::new(self.machines, self.plans.clone(), self.budget)
    }

    /// The split that the defect causes, and that does not happen without it. With inquiries,
    /// `five_candidates_with_one_founder_in_common` has shown the latter on a larger budget.
    fn split(&self, defect: impl Fn(&mut BirthModel)) -> (BirthModel, Split) {
        let until = || HasDiscoveries::AnyOf([SPLIT].into());
        let is_split = |(what, _): &Found| *what == SPLIT;
        if self.budget.timeouts == 0 {
            let sound = search(&format!("{}: without it", self.name), self.birth(), until());
            assert!(!sound.iter().any(is_split), "{}: splits without the defect", self.name);
        }
        let mut mutant = self.birth();
        defect(&mut mutant);
        let mut found = search(&format!("{}: mutant", self.name), mutant, until());
        let at = found.iter().position(is_split);
        let at = at.unwrap_or_else(|| panic!("{}: the defect was not found", self.name));
        let (_, path) = found.swap_remove(at);
        println!("{}", trace(&path));
        (self.birth(), Split { path })
    }
}

#[test]
fn a_promise_answered_before_it_is_durable_splits() {
    let case = Case::new("promise answered before it is durable", [2, 0, 1, 0]);
    let (_, split) = case.split(|birth| birth.defect = Defect::SendsBeforeDurable);
    // It crashed between the reply and the write, and then signed again in the same epoch.
    assert!(split.some(|world, action| {
        let Cause::Deliver(at) = action.cause else { return false };
        action.crash_after.is_some() && matches!(world.sent[at].value.message, Message::Propose(_))
    }));
    assert_eq!(split.epochs_of_the_common_founder(), [0, 0]);
}

#[test]
fn abandoning_without_a_majority_splits() {
    let case = Case::new("free on its own abandonment", [2, 1, 0, 0]);
    let (birth, split) = case.split(|birth| {
        birth.quorums = |n| Quorums { replies: 1, abandoned: 1, ..Quorums::of(n) };
    });
    // Only the common founder abandoned the first cluster; it signed again in its next epoch.
    let mut left = split.founders_that_abandoned(&birth);
    left.sort_unstable();
    assert_eq!(left, [0, 1]);
    let mut epochs = split.epochs_of_the_common_founder();
    epochs.sort_unstable();
    assert_eq!(epochs, [0, 1]);
}

#[test]
fn a_certificate_of_all_but_one_splits() {
    let case = Case::new("certificate from N-1 signatures", [2, 0, 0, 0]);
    let (_, split) =
        case.split(|birth| birth.quorums = |n| Quorums { signatures: n - 1, ..Quorums::of(n) });
    // No crash and no inquiry: one certificate lacks a signature, that of the common founder.
    assert!(split.signatures().contains(&2), "{:?}", split.signatures());
    assert!(!split.some(|_, action| {
        action.crash_after.is_some()
            || matches!(action.cause, Cause::Restart(_) | Cause::SettleTimeout(_))
    }));
}

#[test]
fn being_born_on_the_certificate_alone_splits() {
    let case = Case::new("born without a majority's votes", [2, 1, 0, 0]);
    let (birth, split) =
        case.split(|birth| birth.quorums = |n| Quorums { born: 1, ..Quorums::of(n) });
    // A majority had abandoned the birth that one founder considered complete.
    assert!(split.founders_that_abandoned(&birth).contains(&2));
    assert_eq!(split.signatures(), [3, 3]);
}

/// A former bug: the config of one founder was changed after its promise, and it counted its own
/// vote as a majority.
#[test]
fn counting_by_a_config_that_was_changed_since_splits() {
    let case = Case::new("majority by the config", [2, 1, 0, 0]);
    let (birth, split) = case.split(|birth| birth.defect = Defect::CountsByConfig(2));
    let mut left = split.founders_that_abandoned(&birth);
    left.sort_unstable();
    assert_eq!(left, [0, 1]);
}

/// A limit: a founder that loses its promise but keeps its key, by an old image or a copy of its
/// disk, signs twice in one epoch. The node refuses to start with a key and no promise, but cannot
/// detect an old promise next to its key.
#[test]
fn an_old_promise_beside_its_key_splits() {
    let case = Case { machines: 5, ..Case::new("old image of a disk", [2, 0, 0, 1]) };
    let (_, split) = case.split(|birth| birth.defect = Defect::KeepsItsKey);
    assert!(split.some(|_, action| matches!(action.cause, Cause::Wipe(2))));
    assert_eq!(split.epochs_of_the_common_founder(), [0, 0]);
}

/// A limit: a wiped machine counts again. Five machines, one of them wiped after it signed, are six
/// candidates, so two sets of founders may be disjoint.
#[test]
fn five_machines_of_which_one_is_wiped_can_split() {
    let budget = Budget { proposals: 2, timeouts: 0, crashes: 0, wipes: 1 };
    let mut birth = BirthModel::new(6, vec![plan(0, [0, 1, 2]), plan(3, [3, 4, 5])], budget);
    birth.replacements = 1;
    let found = search("five machines, one wiped", birth, HasDiscoveries::AnyOf([SPLIT].into()));
    let (_, path) = found.iter().find(|(what, _)| *what == SPLIT).expect("it can split");
    println!("{}", trace(path));
}
