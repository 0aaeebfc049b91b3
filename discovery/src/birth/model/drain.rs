//! Liveness: from any state, once faults stop, everyone left belongs to one cluster.

use std::collections::VecDeque;

use super::{Birth, Envelope, Kept, Plan, World, print_of};
use crate::birth::record::Record;
use crate::birth::step::{Event, State};

/// More rounds than any birth takes after the worst start.
const ROUNDS: usize = 24;

impl Birth {
    /// Whether a birth happens from here, whichever one machine (or none) never returns, and
    /// whether or not all others restart and every message on its way is lost.
    pub(super) fn heals(&self, world: &World) -> bool {
        let durable: Vec<Record> = world.records().into_iter().cloned().collect();
        let known = !self.drained.lock().unwrap().insert(print_of(&durable));
        let all_lost = || {
            let restarted = |record: &Record| Kept::new(State::restored(record.clone()));
            let machines = durable.iter().map(restarted).collect();
            World { machines, sent: Vec::new(), left: world.left }
        };
        (known || self.heals_without_any(&all_lost()))
            && (!print_of(world).is_multiple_of(self.drain_every) || self.heals_without_any(world))
    }

    fn heals_without_any(&self, world: &World) -> bool {
        let gone = std::iter::once(None).chain((0..self.ids.len()).map(Some));
        gone.into_iter().all(|gone| self.drain(world.clone(), gone))
    }

    /// A fair run without faults and with the policy of `formation`: the lowest machine that is
    /// able to acts first.
    pub(super) fn drain(&self, mut world: World, gone: Option<usize>) -> bool {
        let alive: Vec<_> = (0..self.ids.len()).filter(|at| Some(*at) != gone).collect();
        let mut mail: VecDeque<_> =
            std::mem::take(&mut world.sent).into_iter().map(|kept| (*kept.value).clone()).collect();
        for _ in 0..ROUNDS {
            self.deliver_all(&mut world, &mut mail, gone);
            let clusters: Vec<_> = world.clusters().collect();
            let records = world.records();
            let Some(waiting) = alive.iter().find(|at| records[**at].cluster_id().is_none()) else {
                return alive
                    .iter()
                    .all(|at| records[*at].cluster_id() == records[alive[0]].cluster_id());
            };
            let promised = alive.iter().find(|at| records[**at].promise().is_some());
            let living = alive.iter().find_map(|at| records[*at].cluster_id());
            let (machine, event) = match (promised, living) {
                (Some(promised), _) => (*promised, Event::Impatient),
                (None, Some(cluster)) => (*waiting, Event::Admitted(cluster)),
                (None, None) if alive.len() < self.expect => return clusters.is_empty(),
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

    fn deliver_all(&self, world: &mut World, mail: &mut VecDeque<Envelope>, gone: Option<usize>) {
        while let Some(Envelope { from, to, message }) = mail.pop_front() {
            if Some(to) == gone {
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
