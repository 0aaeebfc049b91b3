//! Liveness: from any state, once faults stop, all remaining machines belong to one cluster.

use std::collections::VecDeque;

use super::{BirthModel, Envelope, Hashed, Plan, World, fingerprint_of};
use crate::birth::record::BirthRecord;
use crate::birth::step::{Event, State};

/// Upper bound on the rounds of a birth from the worst state.
const ROUNDS: usize = 24;

impl BirthModel {
    /// True if a birth happens from here, without any one machine (or with all), and both with and
    /// without a restart of all others that loses every message in flight.
    pub(super) fn recovers(&self, world: &World) -> bool {
        if self.is_past_deadline() {
            return true;
        }
        let durable: Vec<BirthRecord> = world.records().into_iter().cloned().collect();
        let known =
            !self.drained.lock().unwrap().insert(fingerprint_of(&(&durable, world.present)));
        let all_lost = || {
            let restarted = |record: &BirthRecord| Hashed::new(State::restored(record.clone()));
            let machines = durable.iter().map(restarted).collect();
            World { machines, present: world.present, sent: Vec::new(), left: world.left }
        };
        (known || self.recovers_without_any(&all_lost()))
            && (!fingerprint_of(world).is_multiple_of(self.drain_every)
                || self.recovers_without_any(world))
    }

    fn recovers_without_any(&self, world: &World) -> bool {
        let mut gone = std::iter::once(None).chain(world.present().map(Some));
        gone.all(|gone| self.drain(world.clone(), gone))
    }

    /// Runs fairly, without faults and with the policy of `formation`: the lowest machine that can
    /// act acts first.
    pub(super) fn drain(&self, mut world: World, gone: Option<usize>) -> bool {
        let alive: Vec<_> = world.present().filter(|at| Some(*at) != gone).collect();
        let mut mail: VecDeque<_> =
            std::mem::take(&mut world.sent).into_iter().map(|kept| (*kept.value).clone()).collect();
        for _ in 0..ROUNDS {
            self.deliver_all(&mut world, &mut mail, gone);
            let clusters: Vec<_> = world.clusters().collect();
            let records = world.records();
            let Some(waiting) = alive.iter().find(|at| records[**at].cluster_id().is_none()) else {
                return clusters
                    .iter()
                    .all(|cluster| Some(*cluster) == records[alive[0]].cluster_id())
                    && alive
                        .iter()
                        .all(|at| records[*at].cluster_id() == records[alive[0]].cluster_id());
            };
            let promised = alive.iter().find(|at| records[**at].promise().is_some());
            let living = alive.iter().find_map(|at| records[*at].cluster_id());
            let blocked = alive.iter().find(|at| self.is_blocked(&world, **at, &alive));
            if let Some(blocked) = blocked {
                let own = records[*blocked].promise().map(|own| own.proposal.cluster_id());
                let Some(other) = living.filter(|living| Some(*living) != own) else { return true };
                self.perform(&mut world, *blocked, Event::Admitted(other), None);
                continue;
            }
            let (machine, event) = match (promised, living) {
                (Some(promised), _) => (*promised, Event::SettleTimeout),
                (None, Some(cluster)) => (*waiting, Event::Admitted(cluster)),
                (None, None) if alive.len() < self.expect => {
                    return clusters.is_empty() || self.is_lost(&world, &alive);
                }
                (None, None) => {
                    let founders = alive[..self.expect].to_vec();
                    let plan = Plan { proposer: founders[0], founders };
                    (plan.proposer, Event::Propose(self.proposal(&plan, &records)))
                }
            };
            self.perform(&mut world, machine, event, None);
            mail.extend(take_mail(&mut world));
        }
        false
    }

    /// True if the machine is bound by a promise whose majority of founders is gone for good, and
    /// none of the others is born. Wipes can lead to this: no remaining machine can learn the
    /// outcome, so the machine waits for another cluster to join, or for an operator to wipe it.
    /// Without wipes, the loss of one machine is never enough.
    fn is_blocked(&self, world: &World, machine: usize, alive: &[usize]) -> bool {
        let records = world.records();
        let Some(own) = records[machine].promise().filter(|_| self.budget.wipes > 0) else {
            return false;
        };
        let left = own.proposal.ids().iter().map(|id| self.machine(id));
        let left: Vec<_> = left.filter(|at| alive.contains(at)).collect();
        left.len() < own.proposal.majority() && !left.iter().any(|at| records[*at].born().is_some())
    }

    /// True if wipes have removed a majority of the founders of every born cluster: it has no
    /// quorum, and no remaining machine can join it.
    fn is_lost(&self, world: &World, alive: &[usize]) -> bool {
        let records = world.records();
        self.budget.wipes > 0
            && records.iter().filter_map(|record| record.born()).all(|born| {
                let ids = born.proposal().ids();
                let left = ids.iter().filter(|id| alive.contains(&self.machine(id))).count();
                left < born.proposal().majority()
            })
    }

    fn deliver_all(&self, world: &mut World, mail: &mut VecDeque<Envelope>, gone: Option<usize>) {
        while let Some(Envelope { from, to, message }) = mail.pop_front() {
            if Some(to) == gone || !world.is_present(to) {
                continue;
            }
            self.perform(world, to, Event::Received { from: self.ids[from], message }, None);
            mail.extend(take_mail(world));
        }
    }
}

fn take_mail(world: &mut World) -> Vec<Envelope> {
    std::mem::take(&mut world.sent).into_iter().map(|kept| (*kept.value).clone()).collect()
}
