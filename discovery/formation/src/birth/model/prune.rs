//! Removes messages that can have no effect any more, so that states that differ only in them are
//! merged. Each rule is permanent: no later event can give the message an effect again.

use std::sync::Arc;

use muster_types::NodeId;

use super::{BirthModel, Envelope, World};
use crate::birth::message::Message;
use crate::birth::proposal::{Proposal, ProposalId};
use crate::birth::record::Promise;
use crate::birth::step::{Progress, State};

/// Sender or receiver of a message.
struct End<'a> {
    id: &'a NodeId,
    state: &'a State,
}

impl End<'_> {
    fn is_done_with(&self, proposal: &Proposal) -> bool {
        self.state.is_done_with(self.id, proposal)
    }

    fn promise(&self, id: &ProposalId) -> Option<&Promise> {
        self.state.record().promise().filter(|promise| promise.proposal.id() == *id)
    }
}

impl BirthModel {
    pub(super) fn prune(&self, world: &mut World) {
        let machines = &world.machines;
        let present = world.present;
        let proposals: Vec<_> = world
            .sent
            .iter()
            .filter_map(|sent| proposal_of(&sent.value.message).map(Arc::clone))
            .collect();
        world.sent.retain(|sent| {
            let Envelope { from, to, message } = &*sent.value;
            let end = |at: usize| End { id: &self.ids[at], state: &machines[at].value };
            // A wiped machine receives nothing any more.
            present & (1 << *to) != 0 && !has_no_effect(&end(*from), &end(*to), message, &proposals)
        });
    }
}

fn proposal_of(message: &Message) -> Option<&Arc<Proposal>> {
    match message {
        Message::Propose(proposal)
        | Message::Inquire { proposal, .. }
        | Message::Settle { proposal, .. } => Some(proposal),
        Message::Born(certificate) => Some(certificate.proposal()),
        Message::Promise { .. }
        | Message::Refuse { .. }
        | Message::InquiryReply { .. }
        | Message::Vote { .. }
        | Message::Abandoned(_) => None,
    }
}

/// True if the message can have no effect. `proposals` are those in all sent messages.
fn has_no_effect(
    from: &End<'_>,
    to: &End<'_>,
    message: &Message,
    proposals: &[Arc<Proposal>],
) -> bool {
    let progress = &to.state.progress;
    match message {
        // Gathering starts with the proposal and never again.
        Message::Promise { proposal, .. } => {
            let is_wanted = matches!(progress, Progress::Gathering(signatures) if !signatures.contains_key(from.id));
            !(is_wanted && to.promise(proposal).is_some())
        }
        // A ballot is put to the vote once, when it is new.
        Message::Vote { proposal, ballot } => {
            let is_wanted = matches!(progress, Progress::Settling { ballot: own, votes, .. }
                if own == ballot && !votes.contains(from.id));
            !(is_wanted && to.promise(proposal).is_some())
        }
        Message::InquiryReply { proposal, ballot, .. } => {
            let is_wanted = matches!(progress, Progress::Inquiring { ballot: own, replies }
                if own == ballot && !replies.contains_key(from.id));
            to.promise(proposal).is_none_or(|promise| {
                !is_wanted && ballot.round <= to.state.highest_round.max(promise.ballot.round)
            })
        }
        Message::Born(certificate) => to.is_done_with(certificate.proposal()),
        // The receiver always gives the same answer, and the sender ignores it.
        Message::Propose(proposal) | Message::Inquire { proposal, .. } => {
            to.is_done_with(proposal) && from.is_done_with(proposal)
        }
        Message::Settle { proposal, ballot, .. } => {
            to.promise(&proposal.id()).is_some_and(|promise| promise.ballot > *ballot)
                || to.is_done_with(proposal) && from.is_done_with(proposal)
        }
        Message::Abandoned(id) => {
            let proposal = proposals.iter().find(|proposal| proposal.id() == *id);
            proposal.is_some_and(|proposal| to.is_done_with(proposal))
        }
        Message::Refuse { .. } => false,
    }
}
