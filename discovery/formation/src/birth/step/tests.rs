//! Single steps in scenarios; the model checks the invariants over all of them.

use std::sync::Arc;

use muster_pki::identity::Identity;
use muster_types::{ClusterId, NodeId};

use super::{Effect, Event, State};
use crate::birth::draft::Draft;
use crate::birth::message::Message;
use crate::birth::params::{BirthParams, Quorums};
use crate::birth::proposal::Proposal;
use crate::birth::record::{Ballot, BirthRecord, Commitment, Decision};
use crate::birth::testing::{certificate, draft, founders};

/// One of three founders, at its epoch.
struct Founder {
    identity: Identity,
    params: BirthParams,
    state: State,
}

/// Three founders and the proposal of the first one.
fn three() -> ([Founder; 3], Arc<Proposal>) {
    let identities = founders(3);
    let draft = draft(&identities);
    let founder = |(n, identity): (usize, Identity)| Founder {
        params: BirthParams {
            me: identity.node_id(),
            token_id: draft.token_id.clone(),
            expect: 3,
            config_digest: draft.config_digest,
            quorums: Quorums::of,
        },
        state: State::restored(BirthRecord { epoch: n as u64, commitment: Commitment::None }),
        identity,
    };
    let all: Vec<_> = identities.into_iter().enumerate().map(founder).collect();
    let Ok(all) = <[Founder; 3]>::try_from(all) else { panic!("three were made") };
    (all, Arc::new(Proposal::new(draft).unwrap()))
}

impl Founder {
    fn id(&self) -> NodeId {
        self.params.me
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.state.step(&self.params, &self.identity, event)
    }

    fn receive(&mut self, from: NodeId, message: Message) -> Vec<Effect> {
        self.step(Event::Received { from, message })
    }
}

fn sent(effects: &[Effect]) -> Vec<&Message> {
    let mut messages = Vec::new();
    for effect in effects {
        if let Effect::Send { message, .. } = effect {
            messages.push(message);
        }
    }
    messages
}

#[test]
fn a_promise_is_durable_before_it_is_answered() {
    let ([a, mut b, _], proposal) = three();
    let effects = b.receive(a.id(), Message::Propose(proposal));
    assert!(matches!(
        effects.as_slice(),
        [Effect::Persist(_), Effect::Send { message: Message::Promise { .. }, .. }]
    ));
    assert_eq!(effects[0], Effect::Persist(b.state.record().clone()));
}

#[test]
fn a_founder_signs_one_proposal_per_epoch() {
    let ([a, mut b, _], first) = three();
    b.receive(a.id(), Message::Propose(Arc::clone(&first)));
    let second = Draft { nonce: [9; 32], ..Draft::decode(first.bytes()).unwrap() };
    let second = Arc::new(Proposal::new(second).unwrap());
    let effects = b.receive(a.id(), Message::Propose(Arc::clone(&second)));
    assert_eq!(sent(&effects), [&Message::Abandoned(second.id())]);
    // A repeated first proposal gets the same reply.
    let effects = b.receive(a.id(), Message::Propose(first));
    assert!(matches!(sent(&effects).as_slice(), [Message::Promise { .. }]));
}

#[test]
fn a_proposal_that_does_not_fit_is_refused_and_binds_no_founder() {
    let ([a, mut b, _], proposal) = three();
    let fitting = Draft::decode(proposal.bytes()).unwrap();
    let epoch = |draft: &mut Draft| draft.founders[1].epoch += 1;
    let changes: [fn(&mut Draft); 3] = [
        |draft| draft.config_digest = [1; 32],
        |draft| draft.token_id = "other".to_owned(),
        |draft| draft.founders.truncate(2),
    ];
    for change in changes.into_iter().chain([epoch as fn(&mut Draft)]) {
        let mut draft = fitting.clone();
        change(&mut draft);
        let proposal = Arc::new(Proposal::new(draft).unwrap());
        let effects = b.receive(a.id(), Message::Propose(proposal));
        assert!(
            matches!(effects.as_slice(), [Effect::Send { message: Message::Refuse { .. }, .. }]),
            "{effects:?}"
        );
        assert!(b.state.record().is_uncommitted());
    }
}

#[test]
fn only_the_proposer_may_propose_and_only_founders_are_answered() {
    let ([a, mut b, c], proposal) = three();
    assert_eq!(b.receive(c.id(), Message::Propose(Arc::clone(&proposal))), []);
    b.receive(a.id(), Message::Propose(Arc::clone(&proposal)));
    let stranger = NodeId::from_bytes([5; 32]);
    let before = b.state.clone();
    let ballot = Ballot { round: 1, by: stranger };
    for message in [
        Message::Abandoned(proposal.id()),
        Message::Inquire { proposal: Arc::clone(&proposal), ballot },
        Message::Settle { proposal, ballot, decision: Decision::Abandoned },
    ] {
        assert_eq!(b.receive(stranger, message), []);
        assert_eq!(b.state, before);
    }
}

#[test]
fn a_ballot_of_another_founder_gets_no_vote() {
    let ([a, mut b, c], proposal) = three();
    b.receive(a.id(), Message::Propose(Arc::clone(&proposal)));
    let ballot = Ballot { round: 1, by: c.id() };
    let settle = Message::Settle { proposal, ballot, decision: Decision::Abandoned };
    assert_eq!(b.receive(a.id(), settle), []);
}

#[test]
fn a_founder_that_has_not_signed_ends_the_proposal_with_its_epoch() {
    let ([_, mut b, c], proposal) = three();
    let ballot = Ballot { round: 1, by: c.id() };
    let effects = b.receive(c.id(), Message::Inquire { proposal: Arc::clone(&proposal), ballot });
    let over = BirthRecord { epoch: 2, commitment: Commitment::None };
    assert_eq!(effects[0], Effect::Persist(over));
    assert_eq!(sent(&effects), [&Message::Abandoned(proposal.id())]);
    let effects = b.receive(proposal.proposer(), Message::Propose(Arc::clone(&proposal)));
    assert_eq!(sent(&effects), [&Message::Abandoned(proposal.id())]);
}

/// The bug: an operator corrects `expect` to 1 in the config of one founder and restarts it. Its
/// promise was made among three, but it once counted one vote as a majority and abandoned the
/// proposal, while the other two, a majority, were born.
#[test]
fn a_promise_is_settled_by_its_own_founders_even_if_the_config_changes_later() {
    for expect in [1, 5] {
        let ([mut a, mut b, c], proposal) = three();
        a.step(Event::Propose(Arc::clone(&proposal)));
        b.receive(a.id(), Message::Propose(Arc::clone(&proposal)));
        b.params.expect = expect;
        b.state = State::restored(b.state.record().clone());
        let effects = b.step(Event::SettleTimeout);
        assert!(b.state.record().promise().is_some(), "released by its own vote");
        let Some(Message::Inquire { ballot, .. }) = sent(&effects).first().copied().cloned() else {
            panic!("{effects:?}")
        };
        let reply = Message::InquiryReply { proposal: proposal.id(), ballot, vote: None };
        b.receive(c.id(), reply);
        assert!(b.state.record().promise().is_some(), "released by one vote of three");
        b.receive(c.id(), Message::Vote { proposal: proposal.id(), ballot });
        assert!(b.state.record().is_uncommitted(), "two of three have voted");
    }
}

#[test]
fn no_lower_ballot_is_answered_after_a_higher_one() {
    let ([mut a, mut b, c], proposal) = three();
    b.receive(a.id(), Message::Propose(Arc::clone(&proposal)));
    let ballot = Ballot { round: 1, by: c.id() };
    b.receive(c.id(), Message::Inquire { proposal: Arc::clone(&proposal), ballot });
    a.step(Event::Propose(Arc::clone(&proposal)));
    let certificate = certificate(&[a.identity, b.clone_identity(), c.identity]);
    let ballot = Ballot { round: 0, by: proposal.proposer() };
    let decision = Decision::Born(Arc::new(certificate));
    let settle = Message::Settle { proposal, ballot, decision };
    assert_eq!(b.receive(a.params.me, settle), []);
}

impl Founder {
    fn clone_identity(&self) -> Identity {
        Identity::from_pkcs8(&self.identity.to_pkcs8()).unwrap()
    }
}

#[test]
fn a_founder_admitted_to_its_own_cluster_stays_a_founder() {
    let ([a, mut b, _], proposal) = three();
    b.receive(a.id(), Message::Propose(Arc::clone(&proposal)));
    assert_eq!(b.step(Event::Admitted(proposal.cluster_id())), []);
    let effects = b.step(Event::Admitted(ClusterId::from_bytes([3; 32])));
    let joined = Commitment::Joined(ClusterId::from_bytes([3; 32]));
    assert_eq!(effects, [Effect::Persist(BirthRecord { epoch: 2, commitment: joined })]);
}

#[test]
fn an_only_founder_is_born_in_one_step() {
    let identities = founders(1);
    let draft = draft(&identities);
    let [identity] = <[Identity; 1]>::try_from(identities).unwrap_or_else(|_| panic!("one"));
    let params = BirthParams {
        me: identity.node_id(),
        token_id: draft.token_id.clone(),
        expect: 1,
        config_digest: draft.config_digest,
        quorums: Quorums::of,
    };
    let mut state = State::restored(BirthRecord::NEW);
    let proposal = Arc::new(Proposal::new(draft).unwrap());
    let effects = state.step(&params, &identity, Event::Propose(proposal));
    assert!(sent(&effects).is_empty());
    state.record().born().expect("born").verify().unwrap();
}
