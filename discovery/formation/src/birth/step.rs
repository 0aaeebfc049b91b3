//! The birth protocol's decisions: a node's state and an event in, effects out. No clock, no
//! randomness, no I/O. The driver performs the effects in order and stops the node if one fails.
//!
//! A birth is decided in two phases.
//!
//! 1. *Signing.* A proposal names its founders, each with its epoch. A founder signs at most one
//!    proposal per epoch, durably before it replies. All signatures together are the certificate.
//!    So two certificates with a common founder name different epochs of that founder. An epoch
//!    ends only when the founder knows that its proposal can never be born.
//! 2. *Settling.* A majority of the founders decides by ballots if the certificate counts
//!    (single-decree Paxos: L. Lamport, "Paxos Made Simple", 2001, with the founders as acceptors
//!    and `Born(certificate)` or `Abandoned` as values). Round 0 belongs to the proposer and
//!    distributes the certificate. A signer that times out opens a higher round and inquires of a
//!    majority. If any of them voted, it proposes the vote of the highest ballot again, otherwise
//!    abandonment. A founder that has not signed replies that it never will; that alone ends the
//!    proposal.
//!
//! A node is born only when it knows that a majority voted for it. That is irrevocable: a
//! certificate is never handed back, and any surviving majority settles every proposal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_types::{ClusterId, NodeId};

use super::certificate::{Certificate, Signature, Signer};
use super::message::Message;
use super::params::{BirthParams, Quorums};
use super::proposal::{Proposal, ProposalId};
use super::record::{Ballot, BirthRecord, Commitment, Decision, Promise, Vote};

/// Inputs of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The driver wants to send this proposal to its founders.
    Propose(Arc<Proposal>),
    /// A message from a peer that has proved its key and the token.
    Received { from: NodeId, message: Message },
    /// The promised proposal has not been settled for too long.
    SettleTimeout,
    /// An existing cluster has admitted this node.
    Admitted(ClusterId),
}

/// Outputs of the protocol; the driver performs them in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the record durable before the next effect.
    Persist(BirthRecord),
    Send {
        to: NodeId,
        message: Message,
    },
}

/// Progress with the promised proposal. Volatile: lost in a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    Idle,
    Gathering(BTreeMap<NodeId, Signature>),
    Inquiring { ballot: Ballot, replies: BTreeMap<NodeId, Option<Vote>> },
    Settling { ballot: Ballot, decision: Decision, votes: BTreeSet<NodeId> },
}

/// Protocol state of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    record: BirthRecord,
    pub(super) progress: Progress,
    /// The highest round seen, so that the next one supersedes it.
    pub(super) highest_round: u32,
}

/// Relation of a node to a received proposal.
enum ProposalRelation {
    /// Not a founder of it, or named with an epoch that it has not reached.
    NotFounder,
    /// May still sign it.
    Open,
    Signed(Promise),
    Born(Arc<Certificate>),
    /// Did not sign it and never will, or knows that it is abandoned.
    Closed,
}

impl State {
    /// Returns the state of a node that has just started.
    pub fn restored(record: BirthRecord) -> Self {
        Self { record, progress: Progress::Idle, highest_round: 0 }
    }

    pub fn record(&self) -> &BirthRecord {
        &self.record
    }

    /// Handles one event. Events that are invalid or outdated have no effects.
    pub fn step(&mut self, params: &BirthParams, signer: &dyn Signer, event: Event) -> Vec<Effect> {
        let mut step = Transition { state: self, params, signer, effects: Vec::new() };
        match event {
            Event::Propose(proposal) => step.propose(&proposal),
            Event::Received { from, message } => step.on_message(from, message),
            Event::SettleTimeout => step.inquire(),
            Event::Admitted(cluster) => step.on_admitted(cluster),
        }
        step.effects
    }

    /// True if the proposal can never bind this node again.
    #[cfg(test)]
    pub(super) fn is_done_with(&self, me: &NodeId, proposal: &Proposal) -> bool {
        matches!(self.relation(me, proposal), ProposalRelation::Closed | ProposalRelation::Born(_))
    }

    fn relation(&self, me: &NodeId, proposal: &Proposal) -> ProposalRelation {
        let Some(founder) = proposal.founder(me) else { return ProposalRelation::NotFounder };
        match &self.record.commitment {
            Commitment::Promised(promise) if promise.proposal.id() == proposal.id() => {
                ProposalRelation::Signed(promise.clone())
            }
            Commitment::Born(certificate) if certificate.proposal().id() == proposal.id() => {
                ProposalRelation::Born(Arc::clone(certificate))
            }
            Commitment::Born(_) | Commitment::Joined(_) => ProposalRelation::Closed,
            Commitment::None if founder.epoch == self.record.epoch => ProposalRelation::Open,
            Commitment::None | Commitment::Promised(_) if founder.epoch <= self.record.epoch => {
                ProposalRelation::Closed
            }
            Commitment::None | Commitment::Promised(_) => ProposalRelation::NotFounder,
        }
    }
}

/// Handling of one event: the state being changed and the effects so far.
struct Transition<'a> {
    state: &'a mut State,
    params: &'a BirthParams,
    signer: &'a dyn Signer,
    effects: Vec<Effect>,
}

impl Transition<'_> {
    fn me(&self) -> NodeId {
        self.params.me
    }

    fn persist(&mut self, commitment: Commitment) {
        self.state.record.commitment = commitment;
        self.effects.push(Effect::Persist(self.state.record.clone()));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }

    fn send_others(&mut self, proposal: &Proposal, message: &Message) {
        let me = self.me();
        for to in proposal.ids().iter().filter(|id| **id != me) {
            self.send(*to, message.clone());
        }
    }

    /// Sends this node's own proposal to its founders.
    fn propose(&mut self, proposal: &Arc<Proposal>) {
        let fits = matches!(self.state.relation(&self.me(), proposal), ProposalRelation::Open)
            && proposal.proposer() == self.me()
            && self.params.rejection_reason(proposal).is_none();
        if !fits {
            return;
        }
        let signature = self.sign(proposal);
        self.send_others(proposal, &Message::Propose(Arc::clone(proposal)));
        self.on_signatures(BTreeMap::from([(self.me(), signature)]));
    }

    /// Promises a proposal. The record is durable before the signature leaves this node.
    fn sign(&mut self, proposal: &Arc<Proposal>) -> Signature {
        let ballot = Ballot { round: 0, by: proposal.proposer() };
        let promise = Promise { proposal: Arc::clone(proposal), ballot, vote: None };
        self.state.progress = Progress::Idle;
        self.state.highest_round = 0;
        self.persist(Commitment::Promised(promise));
        self.signer.sign_promise(&proposal.id())
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Propose(proposal) => self.on_propose(from, &proposal),
            Message::Inquire { proposal, ballot } => self.on_inquire(from, &proposal, ballot),
            Message::Settle { proposal, ballot, decision } => {
                self.on_settle(from, &proposal, ballot, decision);
            }
            Message::Promise { proposal, signature } => {
                let gathering = match &self.state.progress {
                    Progress::Gathering(signatures) => Some(signatures.clone()),
                    Progress::Idle | Progress::Inquiring { .. } | Progress::Settling { .. } => None,
                };
                if let (Some(mut signatures), true) =
                    (gathering, self.concerns_promise(from, &proposal))
                {
                    signatures.insert(from, signature);
                    self.on_signatures(signatures);
                }
            }
            Message::InquiryReply { proposal, ballot, vote } => {
                if self.concerns_promise(from, &proposal) {
                    self.on_inquiry_reply(from, ballot, vote);
                }
            }
            Message::Vote { proposal, ballot } => {
                if self.concerns_promise(from, &proposal) {
                    self.on_vote(from, ballot);
                }
            }
            Message::Refuse { proposal, .. } => {
                let gathering = matches!(self.state.progress, Progress::Gathering(_));
                if gathering && self.concerns_promise(from, &proposal) {
                    self.inquire();
                }
            }
            Message::Born(certificate) => {
                let relation = self.state.relation(&self.me(), certificate.proposal());
                let known = certificate.proposal().founder(&from).is_some();
                if let (ProposalRelation::Signed(_), true) = (relation, known) {
                    self.become_born(certificate);
                }
            }
            Message::Abandoned(proposal) => {
                if self.concerns_promise(from, &proposal) {
                    self.release();
                }
            }
        }
    }

    /// True if `from` is a founder of `proposal` and this node has promised that proposal.
    fn concerns_promise(&self, from: NodeId, proposal: &ProposalId) -> bool {
        self.state.record.promise().is_some_and(|promise| {
            promise.proposal.id() == *proposal && promise.proposal.founder(&from).is_some()
        })
    }

    fn on_propose(&mut self, from: NodeId, proposal: &Arc<Proposal>) {
        let id = proposal.id();
        if from != proposal.proposer() {
            return;
        }
        match self.state.relation(&self.me(), proposal) {
            ProposalRelation::Open => {
                if let Some(reason) = self.params.rejection_reason(proposal) {
                    self.send(from, Message::Refuse { proposal: id, reason });
                } else {
                    let signature = self.sign(proposal);
                    self.send(from, Message::Promise { proposal: id, signature });
                }
            }
            ProposalRelation::Signed(_) => {
                let signature = self.signer.sign_promise(&id);
                self.send(from, Message::Promise { proposal: id, signature });
            }
            ProposalRelation::Born(certificate) => self.send(from, Message::Born(certificate)),
            ProposalRelation::Closed => self.send(from, Message::Abandoned(id)),
            ProposalRelation::NotFounder => {
                let reason = "the proposal does not name this node at its current epoch".to_owned();
                self.send(from, Message::Refuse { proposal: id, reason });
            }
        }
    }

    /// Handles one more signature at the proposer.
    fn on_signatures(&mut self, signatures: BTreeMap<NodeId, Signature>) {
        let Some(promise) = self.state.record.promise() else { return };
        let (proposal, ballot) = (Arc::clone(&promise.proposal), promise.ballot);
        let enough = signatures.len() >= self.quorums(&proposal).signatures;
        if !enough || ballot.round > 0 {
            self.state.progress = Progress::Gathering(signatures);
            return;
        }
        let certificate = Arc::new(Certificate::new(proposal, signatures));
        self.put_to_vote(ballot, Decision::Born(certificate));
    }

    /// Opens a round higher than any seen.
    fn inquire(&mut self) {
        let Some(mut promise) = self.state.record.promise().cloned() else { return };
        let round = self.state.highest_round.max(promise.ballot.round).saturating_add(1);
        let ballot = Ballot { round, by: self.me() };
        let proposal = Arc::clone(&promise.proposal);
        let replies = BTreeMap::from([(self.me(), promise.vote.clone())]);
        promise.ballot = ballot;
        self.persist(Commitment::Promised(promise));
        self.send_others(&proposal, &Message::Inquire { proposal: Arc::clone(&proposal), ballot });
        self.on_inquiry_replies(ballot, replies);
    }

    fn on_inquire(&mut self, from: NodeId, proposal: &Arc<Proposal>, ballot: Ballot) {
        let id = proposal.id();
        if proposal.founder(&from).is_none() || ballot.by != from {
            return;
        }
        match self.state.relation(&self.me(), proposal) {
            ProposalRelation::Signed(mut promise) => {
                if ballot > promise.ballot {
                    promise.ballot = ballot;
                    self.persist(Commitment::Promised(promise.clone()));
                }
                let Promise { ballot, vote, .. } = promise;
                self.send(from, Message::InquiryReply { proposal: id, ballot, vote });
            }
            ProposalRelation::Open => {
                // A founder waits for a proposal that this node has not signed. Ending the epoch
                // means that it never will, which releases all founders.
                self.state.record.epoch += 1;
                self.persist(Commitment::None);
                self.send(from, Message::Abandoned(id));
            }
            ProposalRelation::Born(certificate) => self.send(from, Message::Born(certificate)),
            ProposalRelation::Closed => self.send(from, Message::Abandoned(id)),
            ProposalRelation::NotFounder => {}
        }
    }

    fn on_inquiry_reply(&mut self, from: NodeId, ballot: Ballot, vote: Option<Vote>) {
        self.state.highest_round = self.state.highest_round.max(ballot.round);
        let Progress::Inquiring { ballot: current, replies } = &self.state.progress else { return };
        if *current == ballot {
            let mut replies = replies.clone();
            replies.insert(from, vote);
            self.on_inquiry_replies(ballot, replies);
        }
    }

    /// Handles one more reply at the inquirer.
    fn on_inquiry_replies(&mut self, ballot: Ballot, replies: BTreeMap<NodeId, Option<Vote>>) {
        let Some(promise) = self.state.record.promise() else { return };
        if replies.len() < self.quorums(&promise.proposal).replies {
            self.state.progress = Progress::Inquiring { ballot, replies };
            return;
        }
        let highest = replies.into_values().flatten().max_by_key(|vote| vote.ballot);
        self.put_to_vote(ballot, highest.map_or(Decision::Abandoned, |vote| vote.decision));
    }

    /// Votes first, then asks the other founders to vote.
    fn put_to_vote(&mut self, ballot: Ballot, decision: Decision) {
        let Some(promise) = self.state.record.promise() else { return };
        if promise.ballot != ballot {
            self.state.progress = Progress::Idle; // superseded by a higher ballot
            return;
        }
        let proposal = Arc::clone(&promise.proposal);
        self.vote(&proposal, ballot, &decision);
        let settle =
            Message::Settle { proposal: Arc::clone(&proposal), ballot, decision: decision.clone() };
        self.send_others(&proposal, &settle);
        self.on_votes(ballot, decision, BTreeSet::from([self.me()]));
    }

    fn vote(&mut self, proposal: &Arc<Proposal>, ballot: Ballot, decision: &Decision) {
        let vote = Some(Vote { ballot, decision: decision.clone() });
        self.persist(Commitment::Promised(Promise {
            proposal: Arc::clone(proposal),
            ballot,
            vote,
        }));
    }

    fn on_settle(
        &mut self,
        from: NodeId,
        proposal: &Arc<Proposal>,
        ballot: Ballot,
        decision: Decision,
    ) {
        let id = proposal.id();
        if proposal.founder(&from).is_none() || ballot.by != from {
            return;
        }
        match self.state.relation(&self.me(), proposal) {
            ProposalRelation::Signed(promise) if ballot < promise.ballot => {}
            ProposalRelation::Signed(_) => {
                // The sender has voted already: with three founders these two votes settle it.
                let votes = BTreeSet::from([from, self.me()]);
                if self.is_settled(proposal, &decision, &votes) {
                    self.apply_decision(decision);
                } else {
                    self.vote(proposal, ballot, &decision);
                }
                self.send(from, Message::Vote { proposal: id, ballot });
            }
            ProposalRelation::Born(certificate) => self.send(from, Message::Born(certificate)),
            ProposalRelation::Closed => self.send(from, Message::Abandoned(id)),
            ProposalRelation::Open | ProposalRelation::NotFounder => {}
        }
    }

    fn on_vote(&mut self, from: NodeId, ballot: Ballot) {
        let Progress::Settling { ballot: current, decision, votes } = &self.state.progress else {
            return;
        };
        if *current == ballot {
            let (decision, mut votes) = (decision.clone(), votes.clone());
            votes.insert(from);
            self.on_votes(ballot, decision, votes);
        }
    }

    /// Handles one more vote at the node that opened the ballot.
    fn on_votes(&mut self, ballot: Ballot, decision: Decision, votes: BTreeSet<NodeId>) {
        let Some(promise) = self.state.record.promise() else { return };
        let proposal = Arc::clone(&promise.proposal);
        if !self.is_settled(&proposal, &decision, &votes) {
            self.state.progress = Progress::Settling { ballot, decision, votes };
            return;
        }
        let outcome = match &decision {
            Decision::Born(certificate) => Message::Born(Arc::clone(certificate)),
            Decision::Abandoned => Message::Abandoned(proposal.id()),
        };
        self.apply_decision(decision);
        self.send_others(&proposal, &outcome);
    }

    fn quorums(&self, proposal: &Proposal) -> Quorums {
        (self.params.quorums)(proposal.founders().len())
    }

    fn is_settled(
        &self,
        proposal: &Proposal,
        decision: &Decision,
        votes: &BTreeSet<NodeId>,
    ) -> bool {
        let quorums = self.quorums(proposal);
        let needed = match decision {
            Decision::Born(_) => quorums.born,
            Decision::Abandoned => quorums.abandoned,
        };
        votes.len() >= needed
    }

    fn apply_decision(&mut self, decision: Decision) {
        match decision {
            Decision::Born(certificate) => self.become_born(certificate),
            Decision::Abandoned => self.release(),
        }
    }

    fn become_born(&mut self, certificate: Arc<Certificate>) {
        self.state.progress = Progress::Idle;
        self.persist(Commitment::Born(certificate));
    }

    fn release(&mut self) {
        self.state.progress = Progress::Idle;
        self.state.record.epoch += 1;
        self.persist(Commitment::None);
    }

    /// A cluster for this token exists, so the cluster of this node's promise never will.
    fn on_admitted(&mut self, cluster: ClusterId) {
        let elsewhere = match &self.state.record.commitment {
            Commitment::None => true,
            // Its own proposal was born: it takes part as a founder, once it has inquired.
            Commitment::Promised(promise) => promise.proposal.cluster_id() != cluster,
            Commitment::Born(_) | Commitment::Joined(_) => false,
        };
        if elsewhere {
            self.state.progress = Progress::Idle;
            self.state.record.epoch += 1;
            self.persist(Commitment::Joined(cluster));
        }
    }
}

#[cfg(test)]
mod tests;
