//! Single steps in scenarios; the model checks the invariants over all of them.

use std::sync::Arc;

use muster_pki::identity::Identity;
use muster_types::{ClusterId, NodeId};

use super::message::Message;
use super::proposal::{Draft, Proposal};
use super::record::{Ballot, Bond, Decision, Record};
use super::step::{Charter, Effect, Event, Quorums, State};
use super::testing::{certificate, draft, founders};

/// One of three founders, at its epoch.
struct Founder {
    identity: Identity,
    charter: Charter,
    state: State,
}

/// Three founders and the proposal of the first one.
fn three() -> ([Founder; 3], Arc<Proposal>) {
    let identities = founders(3);
    let draft = draft(&identities);
    let founder = |(n, identity): (usize, Identity)| Founder {
        charter: Charter {
            me: identity.node_id(),
            token_id: draft.token_id.clone(),
            expect: 3,
            config_digest: draft.config_digest,
            quorums: Quorums::of,
        },
        state: State::restored(Record { epoch: n as u64, bond: Bond::Free }),
        identity,
    };
    let all: Vec<_> = identities.into_iter().enumerate().map(founder).collect();
    let Ok(all) = <[Founder; 3]>::try_from(all) else { panic!("three were made") };
    (all, Arc::new(Proposal::new(draft).unwrap()))
}

impl Founder {
    fn id(&self) -> NodeId {
        self.charter.me
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.state.step(&self.charter, &self.identity, event)
    }

    fn hears(&mut self, from: NodeId, message: Message) -> Vec<Effect> {
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
    let effects = b.hears(a.id(), Message::Propose(proposal));
    assert!(matches!(
        effects.as_slice(),
        [Effect::Persist(_), Effect::Send { message: Message::Promise { .. }, .. }]
    ));
    assert_eq!(effects[0], Effect::Persist(b.state.record().clone()));
}

#[test]
fn a_founder_signs_one_proposal_per_epoch() {
    let ([a, mut b, _], first) = three();
    b.hears(a.id(), Message::Propose(Arc::clone(&first)));
    let second = Draft { nonce: [9; 32], ..Draft::from((*first).clone()) };
    let second = Arc::new(Proposal::new(second).unwrap());
    let effects = b.hears(a.id(), Message::Propose(Arc::clone(&second)));
    assert_eq!(sent(&effects), [&Message::Abandoned(second.id())]);
    // A repeated first proposal gets the same reply.
    let effects = b.hears(a.id(), Message::Propose(first));
    assert!(matches!(sent(&effects).as_slice(), [Message::Promise { .. }]));
}

#[test]
fn a_proposal_that_does_not_fit_is_refused_and_binds_no_founder() {
    let ([a, mut b, _], proposal) = three();
    let fitting = Draft::from((*proposal).clone());
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
        let effects = b.hears(a.id(), Message::Propose(proposal));
        assert!(
            matches!(effects.as_slice(), [Effect::Send { message: Message::Refuse { .. }, .. }]),
            "{effects:?}"
        );
        assert!(b.state.record().is_free());
    }
}

#[test]
fn only_the_proposer_may_propose_and_only_founders_are_heard() {
    let ([a, mut b, c], proposal) = three();
    assert_eq!(b.hears(c.id(), Message::Propose(Arc::clone(&proposal))), []);
    b.hears(a.id(), Message::Propose(Arc::clone(&proposal)));
    let stranger = NodeId::from_bytes([5; 32]);
    let before = b.state.clone();
    let ballot = Ballot { round: 1, by: stranger };
    for message in [
        Message::Abandoned(proposal.id()),
        Message::Inquire { proposal: Arc::clone(&proposal), ballot },
        Message::Settle { proposal, ballot, decision: Decision::Abandoned },
    ] {
        assert_eq!(b.hears(stranger, message), []);
        assert_eq!(b.state, before);
    }
}

#[test]
fn a_ballot_of_another_founder_gets_no_vote() {
    let ([a, mut b, c], proposal) = three();
    b.hears(a.id(), Message::Propose(Arc::clone(&proposal)));
    let ballot = Ballot { round: 1, by: c.id() };
    let settle = Message::Settle { proposal, ballot, decision: Decision::Abandoned };
    assert_eq!(b.hears(a.id(), settle), []);
}

#[test]
fn a_founder_that_has_not_signed_ends_the_proposal_with_its_epoch() {
    let ([_, mut b, c], proposal) = three();
    let ballot = Ballot { round: 1, by: c.id() };
    let effects = b.hears(c.id(), Message::Inquire { proposal: Arc::clone(&proposal), ballot });
    let over = Record { epoch: 2, bond: Bond::Free };
    assert_eq!(effects[0], Effect::Persist(over));
    assert_eq!(sent(&effects), [&Message::Abandoned(proposal.id())]);
    let effects = b.hears(proposal.proposer(), Message::Propose(Arc::clone(&proposal)));
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
        b.hears(a.id(), Message::Propose(Arc::clone(&proposal)));
        b.charter.expect = expect;
        b.state = State::restored(b.state.record().clone());
        let effects = b.step(Event::Impatient);
        assert!(b.state.record().promise().is_some(), "released by its own vote");
        let Some(Message::Inquire { ballot, .. }) = sent(&effects).first().copied().cloned() else {
            panic!("{effects:?}")
        };
        let standing = Message::InquiryReply { proposal: proposal.id(), ballot, vote: None };
        b.hears(c.id(), standing);
        assert!(b.state.record().promise().is_some(), "released by one vote of three");
        b.hears(c.id(), Message::Vote { proposal: proposal.id(), ballot });
        assert!(b.state.record().is_free(), "two of three have voted");
    }
}

#[test]
fn no_lower_ballot_is_answered_after_a_higher_one() {
    let ([mut a, mut b, c], proposal) = three();
    b.hears(a.id(), Message::Propose(Arc::clone(&proposal)));
    let ballot = Ballot { round: 1, by: c.id() };
    b.hears(c.id(), Message::Inquire { proposal: Arc::clone(&proposal), ballot });
    a.step(Event::Propose(Arc::clone(&proposal)));
    let certificate = certificate(&[a.identity, b.identity_again(), c.identity]);
    let ballot = Ballot { round: 0, by: proposal.proposer() };
    let decision = Decision::Born(Arc::new(certificate));
    let settle = Message::Settle { proposal, ballot, decision };
    assert_eq!(b.hears(a.charter.me, settle), []);
}

impl Founder {
    fn identity_again(&self) -> Identity {
        Identity::from_pkcs8(&self.identity.to_pkcs8()).unwrap()
    }
}

#[test]
fn a_founder_admitted_to_its_own_cluster_stays_a_founder() {
    let ([a, mut b, _], proposal) = three();
    b.hears(a.id(), Message::Propose(Arc::clone(&proposal)));
    assert_eq!(b.step(Event::Admitted(proposal.cluster_id())), []);
    let effects = b.step(Event::Admitted(ClusterId::from_bytes([3; 32])));
    let joined = Bond::Joined(ClusterId::from_bytes([3; 32]));
    assert_eq!(effects, [Effect::Persist(Record { epoch: 2, bond: joined })]);
}

#[test]
fn an_only_founder_is_born_in_one_step() {
    let identities = founders(1);
    let draft = draft(&identities);
    let [identity] = <[Identity; 1]>::try_from(identities).unwrap_or_else(|_| panic!("one"));
    let charter = Charter {
        me: identity.node_id(),
        token_id: draft.token_id.clone(),
        expect: 1,
        config_digest: draft.config_digest,
        quorums: Quorums::of,
    };
    let mut state = State::restored(Record::NEW);
    let proposal = Arc::new(Proposal::new(draft).unwrap());
    let effects = state.step(&charter, &identity, Event::Propose(proposal));
    assert!(sent(&effects).is_empty());
    state.record().born().expect("born").verify().unwrap();
}
