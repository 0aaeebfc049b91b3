//! Model check of the birth protocol: the real `step` under an adversary.
//!
//! The network is the set of all messages ever sent. Any of them may be delivered at any time, any
//! number of times, or never. That covers loss, duplication, reordering, delay and partitions. A
//! machine that never returns is one that receives no further message. A machine may crash before,
//! during and after the handling of any event: it keeps its durable state, and its sent messages
//! stay sent. A machine may be wiped and return as another one, with an identity without promises.
//! Any machine may propose any set at any time while it is uncommitted; the proposal policy is not
//! trusted here.

mod drain;
mod mutants;
mod prune;
mod tests;
mod walks;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use muster_types::{ClusterId, NodeId, PublicKey};
use stateright::{Model, Property};

use super::certificate::{Signature, Signer};
use super::draft::{Draft, Founder};
use super::message::Message;
use super::params::{BirthParams, Quorums};
use super::proposal::{Proposal, ProposalId};
use super::record::{BirthRecord, Commitment};
use super::step::{Effect, Event, State};

/// Signs with a constant: the protocol does not depend on the cost of signatures.
struct ConstantSigner;

impl Signer for ConstantSigner {
    fn sign_promise(&self, _: &ProposalId) -> Signature {
        Signature::from_bytes([0; 64])
    }
}

/// A value with its hash, since hashing dominates the search.
#[derive(Debug)]
struct Hashed<T> {
    value: Arc<T>,
    fingerprint: u64,
}

impl<T: Hash> Hashed<T> {
    fn new(value: T) -> Self {
        let fingerprint = fingerprint_of(&value);
        Self { value: Arc::new(value), fingerprint }
    }
}

impl<T> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), fingerprint: self.fingerprint }
    }
}

impl<T> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

fn fingerprint_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone, Hash)]
struct Envelope {
    from: usize,
    to: usize,
    message: Message,
}

/// State of all machines and the network.
#[derive(Debug, Clone, PartialEq, Hash)]
struct World {
    machines: Vec<Hashed<State>>,
    /// Bit set of the machines that exist. The others were wiped, or do not exist yet.
    present: u16,
    /// Sorted by hash.
    sent: Vec<Hashed<Envelope>>,
    left: Budget,
}

/// Number of faults and proposals left; keeps the search finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    proposals: u8,
    timeouts: u8,
    crashes: u8,
    wipes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The message at this index of `sent`.
    Deliver(usize),
    SettleTimeout(usize),
    /// Index into `BirthModel::plans`.
    Propose(usize),
    Join(usize),
    Restart(usize),
    Wipe(usize),
}

/// One step of the model, and the number of effects before the machine crashes, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Action {
    cause: Cause,
    crash_after: Option<usize>,
}

/// A set of founders and its proposer.
#[derive(Debug, Clone)]
struct Plan {
    proposer: usize,
    founders: Vec<usize>,
}

/// Defect of a mutant's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// They reply before they write.
    SendsBeforeDurable,
    /// A wiped machine keeps its key, and so its id, as if an old disk image were restored.
    KeepsItsKey,
    /// This machine counts majorities by a config that was changed after the promise.
    CountsByConfig(usize),
}

/// The model of one search.
struct BirthModel {
    ids: Vec<NodeId>,
    keys: Vec<PublicKey>,
    expect: usize,
    quorums: fn(usize) -> Quorums,
    defect: Defect,
    /// Time at which the search ends: from then on there are no actions. (The checker checks its
    /// own time limit only when a thread is idle.)
    deadline: Option<Instant>,
    /// Set once the search is over, so that the paths to its discoveries can be replayed.
    is_over: Arc<AtomicBool>,
    /// Number of the last ids that exist only after a machine is wiped.
    replacements: usize,
    plans: Vec<Plan>,
    budget: Budget,
    /// Liveness is checked in states whose hash is a multiple of this; 0 means never.
    drain_every: u64,
    /// Hashes of the durable states whose drain has been checked.
    drained: Mutex<HashSet<u64>>,
}

impl BirthModel {
    fn new(machines: u8, plans: Vec<Plan>, budget: Budget) -> Self {
        Self::with_founders(3, machines, plans, budget)
    }

    fn with_founders(expect: usize, machines: u8, plans: Vec<Plan>, budget: Budget) -> Self {
        let mut keys: Vec<_> = (1..=machines).map(|n| PublicKey::from_bytes([n; 32])).collect();
        keys.sort_by_key(muster_pki::identity::node_id);
        let ids = keys.iter().map(muster_pki::identity::node_id).collect();
        Self {
            ids,
            keys,
            expect,
            quorums: Quorums::of,
            defect: Defect::None,
            deadline: None,
            is_over: Arc::default(),
            replacements: 0,
            plans,
            budget,
            drain_every: 0,
            drained: Mutex::default(),
        }
    }

    /// All sets of three machines, with each member as the proposer.
    fn all_plans(machines: usize) -> Vec<Plan> {
        let mut plans = Vec::new();
        for a in 0..machines {
            for b in a + 1..machines {
                for c in b + 1..machines {
                    for proposer in [a, b, c] {
                        plans.push(Plan { proposer, founders: vec![a, b, c] });
                    }
                }
            }
        }
        plans
    }

    fn params(&self, machine: usize) -> BirthParams {
        let is_affected = self.defect == Defect::CountsByConfig(machine);
        BirthParams {
            me: self.ids[machine],
            token_id: "token".to_owned(),
            expect: self.expect,
            config_digest: [0; 32],
            quorums: if is_affected { |_| Quorums::of(1) } else { self.quorums },
        }
    }

    /// The plan as a proposal that names the current epochs.
    fn proposal(&self, plan: &Plan, records: &[&BirthRecord]) -> Arc<Proposal> {
        let founder = |machine: &usize| Founder {
            public_key: self.keys[*machine],
            name: format!("m{machine}").parse().unwrap(),
            addresses: Vec::new(),
            epoch: records[*machine].epoch,
        };
        let draft = Draft {
            token_id: "token".to_owned(),
            founders: plan.founders.iter().map(founder).collect(),
            nonce: [0; 32],
            config_digest: [0; 32],
            proposer: self.ids[plan.proposer],
        };
        Arc::new(Proposal::new(draft).unwrap())
    }

    fn machine(&self, id: &NodeId) -> usize {
        self.ids.binary_search(id).unwrap()
    }

    /// The machine concerned and its event; `None` for a restart or a wipe.
    fn event(&self, world: &World, cause: Cause) -> (usize, Option<Event>) {
        match cause {
            Cause::Restart(machine) | Cause::Wipe(machine) => (machine, None),
            Cause::SettleTimeout(machine) => (machine, Some(Event::SettleTimeout)),
            Cause::Deliver(at) => {
                let Envelope { from, to, message } = &*world.sent[at].value;
                let message = message.clone();
                (*to, Some(Event::Received { from: self.ids[*from], message }))
            }
            Cause::Propose(plan) => {
                let plan = &self.plans[plan];
                let proposal = self.proposal(plan, &world.records());
                (plan.proposer, Some(Event::Propose(proposal)))
            }
            Cause::Join(machine) => {
                let cluster = world.clusters().next().expect("offered only if a cluster exists");
                (machine, Some(Event::Admitted(cluster)))
            }
        }
    }

    /// Applies the event to one machine and adds its messages to the network.
    fn perform(&self, world: &mut World, machine: usize, event: Event, cut: Option<usize>) {
        let mut state = State::clone(&world.machines[machine].value);
        let mut durable = state.record().clone();
        let effects = self.effects(&mut state, machine, event);
        for effect in effects.into_iter().take(cut.unwrap_or(usize::MAX)) {
            match effect {
                Effect::Persist(record) => durable = record,
                Effect::Send { to, message } => {
                    world.send(Envelope { from: machine, to: self.machine(&to), message });
                }
            }
        }
        if cut.is_some() {
            state = State::restored(durable);
        }
        world.machines[machine] = Hashed::new(state);
    }

    /// Numbers of effects after which a crash differs from a crash before or after all of them:
    /// just before a write that is not the first effect. A message that is never delivered is
    /// equivalent to an unsent one.
    fn crash_points(&self, world: &World, cause: Cause) -> Vec<usize> {
        let (machine, Some(event)) = self.event(world, cause) else { return Vec::new() };
        let mut state = State::clone(&world.machines[machine].value);
        let effects = self.effects(&mut state, machine, event);
        let writes = effects.iter().enumerate().skip(1);
        writes.filter(|(_, effect)| matches!(effect, Effect::Persist(_))).map(|(n, _)| n).collect()
    }

    fn effects(&self, state: &mut State, machine: usize, event: Event) -> Vec<Effect> {
        let mut effects = state.step(&self.params(machine), &ConstantSigner, event);
        if self.defect == Defect::SendsBeforeDurable {
            effects.sort_by_key(|effect| matches!(effect, Effect::Persist(_)));
        }
        effects
    }
}

impl World {
    fn is_present(&self, machine: usize) -> bool {
        self.present & (1 << machine) != 0
    }

    fn present(&self) -> impl Iterator<Item = usize> {
        (0..self.machines.len()).filter(|at| self.is_present(*at))
    }

    fn records(&self) -> Vec<&BirthRecord> {
        self.machines.iter().map(|machine| machine.value.record()).collect()
    }

    /// The clusters that some machine considers born: it will start Raft for it. A majority of
    /// founders did so too or will, since none of them can abandon it any more.
    fn clusters(&self) -> impl Iterator<Item = ClusterId> {
        self.machines.iter().filter_map(|machine| {
            machine.value.record().born().map(|certificate| certificate.cluster_id())
        })
    }

    fn send(&mut self, envelope: Envelope) {
        let kept = Hashed::new(envelope);
        if let Err(at) = self.sent.binary_search_by_key(&kept.fingerprint, |sent| sent.fingerprint)
        {
            self.sent.insert(at, kept);
        }
    }
}

impl Model for BirthModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let machines =
            self.ids.iter().map(|_| Hashed::new(State::restored(BirthRecord::NEW))).collect();
        let present = (1 << (self.ids.len() - self.replacements)) - 1;
        vec![World { machines, present, sent: Vec::new(), left: self.budget }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if self.is_past_deadline() {
            return;
        }
        let mut causes: Vec<_> = (0..world.sent.len()).map(Cause::Deliver).collect();
        for at in world.present() {
            let machine = &world.machines[at];
            let record = machine.value.record();
            if world.left.timeouts > 0 && record.promise().is_some() {
                causes.push(Cause::SettleTimeout(at));
            }
            if record.cluster_id().is_none() && world.clusters().next().is_some() {
                causes.push(Cause::Join(at));
            }
            if world.left.crashes > 0 {
                causes.push(Cause::Restart(at));
            }
            if world.left.wipes > 0 {
                causes.push(Cause::Wipe(at));
            }
        }
        if world.left.proposals > 0 {
            let can_propose = |plan: &usize| self.can_propose(world, &self.plans[*plan]);
            causes.extend((0..self.plans.len()).filter(can_propose).map(Cause::Propose));
        }
        for cause in causes {
            actions.push(Action { cause, crash_after: None });
            if world.left.crashes > 0 {
                let crash_points = self.crash_points(world, cause).into_iter();
                actions.extend(crash_points.map(|n| Action { cause, crash_after: Some(n) }));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let (machine, event) = self.event(world, action.cause);
        if let Some(event) = event {
            self.perform(&mut next, machine, event, action.crash_after);
        } else if matches!(action.cause, Cause::Wipe(_)) {
            self.wipe(&mut next, machine);
        } else {
            let record = world.machines[machine].value.record().clone();
            next.machines[machine] = Hashed::new(State::restored(record));
        }
        self.prune(&mut next);
        if next == *world {
            return None;
        }
        match action.cause {
            Cause::Propose(_) => next.left.proposals -= 1,
            Cause::SettleTimeout(_) => next.left.timeouts -= 1,
            Cause::Wipe(_) => next.left.wipes -= 1,
            Cause::Deliver(_) | Cause::Join(_) | Cause::Restart(_) => {}
        }
        if action.crash_after.is_some() || matches!(action.cause, Cause::Restart(_)) {
            next.left.crashes -= 1;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("never two clusters", |_, world: &World| {
                let mut clusters = world.clusters();
                let first = clusters.next();
                clusters.all(|cluster| Some(cluster) == first)
            }),
            Property::always(
                "no founder of a born cluster is free of it",
                |birth: &Self, world: &World| birth.founders_are_bound(world),
            ),
            Property::sometimes("a birth happens", |_, world: &World| {
                world.clusters().next().is_some()
            }),
            Property::sometimes("a proposal is abandoned", |_, world: &World| {
                world.machines.iter().any(|machine| machine.value.record().epoch > 0)
            }),
        ];
        if self.drain_every > 0 {
            properties.push(Property::always(
                "when faults stop, a birth happens",
                |birth: &Self, world: &World| birth.recovers(world),
            ));
        }
        properties
    }
}

impl BirthModel {
    fn is_past_deadline(&self) -> bool {
        let is_past = |deadline| Instant::now() >= deadline;
        self.deadline.is_some_and(is_past) && !self.is_over.load(Ordering::Relaxed)
    }

    /// True if the proposer exists, and every founder exists or existed.
    fn can_propose(&self, world: &World, plan: &Plan) -> bool {
        let known = self.ids.len() - self.replacements + self.wiped(world);
        world.is_present(plan.proposer) && plan.founders.iter().all(|at| *at < known)
    }

    /// Number of machines that were replaced by another one.
    fn wiped(&self, world: &World) -> usize {
        usize::from(self.budget.wipes - world.left.wipes).min(self.replacements)
    }

    /// Erases the machine's state; it returns as another machine, if a spare id is left.
    fn wipe(&self, world: &mut World, machine: usize) {
        if self.defect == Defect::KeepsItsKey {
            world.machines[machine] = Hashed::new(State::restored(BirthRecord::NEW));
            return;
        }
        let replacement = self.ids.len() - self.replacements + self.wiped(world);
        world.present &= !(1 << machine);
        if replacement < self.ids.len() {
            world.present |= 1 << replacement;
        }
    }

    /// True if every founder of a born cluster has signed it and is born in it, has joined it or
    /// still waits for the outcome.
    fn founders_are_bound(&self, world: &World) -> bool {
        world.machines.iter().filter_map(|machine| machine.value.record().born()).all(|born| {
            born.proposal().ids().iter().all(|id| {
                let record = world.machines[self.machine(id)].value.record();
                match &record.commitment {
                    Commitment::Promised(promise) => promise.proposal == *born.proposal(),
                    Commitment::Born(certificate) => certificate.proposal() == born.proposal(),
                    Commitment::Joined(cluster) => *cluster == born.cluster_id(),
                    Commitment::None => false,
                }
            })
        })
    }
}
