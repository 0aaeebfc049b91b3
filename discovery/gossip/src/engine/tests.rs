//! Two or three engines by hand; the simulation tests whole clusters.

use std::collections::BTreeSet;

use rand::SeedableRng;

use super::*;
use crate::NodeMeta;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn roster(numbers: &[u8]) -> Arc<Roster> {
    let members: BTreeSet<_> = numbers.iter().map(|n| id(*n)).collect();
    Arc::new(Roster::default().with_members(&members))
}

fn engine(n: u8, members: &[u8], now: Instant) -> Engine {
    let start = EngineParams {
        me: id(n),
        generation: 1,
        settings: Settings::default(),
        roster: roster(members),
        rng: StdRng::seed_from_u64(u64::from(n)),
    };
    Engine::new(start, now).expect("in the roster")
}

/// Delivers all datagrams between the engines for `span`. Returns the ids that were sent to, and
/// the number of members declared down.
fn run(
    engines: &mut [(u8, &mut Engine)],
    from: Instant,
    span: Duration,
) -> (BTreeSet<NodeId>, usize) {
    let mut asked = BTreeSet::new();
    let mut downs = 0;
    let mut now = from;
    while now < from + span {
        for a in 0..engines.len() {
            let (sender, engine) = &mut engines[a];
            let sender = id(*sender);
            engine.tick(now);
            for effect in engine.take_effects() {
                let (to, datagram) = match effect {
                    Effect::Send { to, datagram, .. } => (to, datagram),
                    Effect::Down(_) => {
                        downs += 1;
                        continue;
                    }
                    Effect::Up(_) => continue,
                };
                asked.insert(to);
                if let Some((_, receiver)) = engines.iter_mut().find(|(n, _)| id(*n) == to) {
                    receiver.receive(now, sender, &datagram).unwrap();
                }
            }
        }
        now += Duration::from_millis(10);
    }
    (asked, downs)
}

#[test]
fn a_node_outside_the_directory_is_ignored() {
    let now = Instant::now();
    let start = EngineParams {
        me: id(9),
        generation: 1,
        settings: Settings::default(),
        roster: roster(&[1, 2]),
        rng: StdRng::seed_from_u64(0),
    };
    assert!(Engine::new(start, now).is_none());

    // Node 3 has a directory in which it exists; nodes 1 and 2 do not know it (yet).
    let mut a = engine(1, &[1, 2], now);
    let mut b = engine(2, &[1, 2], now);
    let mut stranger = engine(3, &[1, 2, 3], now);
    let (asked, _) =
        run(&mut [(1, &mut a), (2, &mut b), (3, &mut stranger)], now, Duration::from_secs(5));
    assert_eq!(a.seen(), 1);
    assert_eq!(stranger.seen(), 0);
    assert!(!asked.contains(&id(3)), "it does not get an answer");
    assert!(!a.view(now).contains_key(&id(3)));
}

#[test]
fn members_whose_directories_differ_for_a_while_still_talk() {
    let now = Instant::now();
    let mut old = engine(1, &[1, 2], now);
    let mut new = engine(2, &[1, 2, 3, 4], now);
    let mut newest = engine(3, &[1, 2, 3, 4], now);
    let all = &mut [(1, &mut old), (2, &mut new), (3, &mut newest)];
    let (_, downs) = run(all, now, Duration::from_mins(5));
    assert_eq!((old.seen(), new.seen(), newest.seen()), (1, 2, 2), "1 does not know 3");
    assert_eq!(downs, 0, "and 3, which 1 does not answer, does not declare it down");
    let later = now + Duration::from_mins(5);
    assert!(
        old.set_roster(later, Arc::new(old.roster().with_members(&[1, 2, 3, 4].map(id).into())))
    );
    run(&mut [(1, &mut old), (2, &mut new), (3, &mut newest)], later, Duration::from_secs(5));
    assert_eq!((old.seen(), new.seen(), newest.seen()), (2, 2, 2));
    assert_eq!(old.view(later)[&id(4)].state, LivenessState::Unknown);
}

#[test]
fn a_missing_member_is_searched_for_indefinitely_at_a_bounded_rate() {
    let now = Instant::now();
    let mut alone = engine(1, &[1, 2], now);
    let mut sent = Vec::new();
    while alone.next_deadline().is_some_and(|at| at < now + Duration::from_mins(10)) {
        let at = alone.next_deadline().unwrap();
        alone.tick(at);
        sent.extend(alone.take_effects().into_iter().map(|_| at - now));
    }
    let in_last_minute = sent.iter().filter(|at| **at > Duration::from_mins(9)).count();
    assert!((20..=70).contains(&in_last_minute), "{in_last_minute}");
    assert!(sent.iter().filter(|at| **at < Duration::from_secs(1)).count() >= 4);
}

/// Regression: every change of the directory added a search that repeated indefinitely. With one
/// registered member permanently off, a cluster sent more with every member it ever had.
#[test]
fn directory_changes_reschedule_the_search_and_add_none() {
    let now = Instant::now();
    let (mut alone, mut busy) = (engine(1, &[1, 2], now), engine(1, &[1, 2], now));
    let change = |engine: &mut Engine, at, members: &[u8]| {
        let members: BTreeSet<_> = members.iter().map(|n| id(*n)).collect();
        assert!(engine.set_roster(at, Arc::new(engine.roster().with_members(&members))));
    };
    for _ in 0..50 {
        change(&mut busy, now, &[1, 2, 3]);
        change(&mut busy, now, &[1, 2]);
    }
    sends(&mut alone, now, Duration::from_mins(1));
    sends(&mut busy, now, Duration::from_mins(1));
    let later = now + Duration::from_mins(1);
    let as_ever = sends(&mut alone, later, Duration::from_mins(1));
    assert!((20..=70).contains(&as_ever), "{as_ever}");
    assert_eq!(sends(&mut busy, later, Duration::from_mins(1)), as_ever);
    let later = later + Duration::from_mins(1);
    change(&mut busy, later, &[1, 2, 3]);
    let soon = sends(&mut busy, later, Duration::from_millis(350));
    assert_eq!(soon, 3 * 2, "both, at once, after 100 ms and after 300 ms");
}

/// Returns the number of datagrams that a lone engine sends in `span` after `from`.
fn sends(engine: &mut Engine, from: Instant, span: Duration) -> usize {
    let mut sent = engine.take_effects().len();
    while let Some(at) = engine.next_deadline().filter(|at| *at < from + span) {
        engine.tick(at);
        sent += engine.take_effects().len();
    }
    sent
}

#[test]
fn metadata_is_accepted_from_its_owner_only_once_per_version() {
    let now = Instant::now();
    let (mut a, mut b) = (engine(1, &[1, 2], now), engine(2, &[1, 2], now));
    let meta = |n| NodeMeta { config_version: n, ..NodeMeta::default() };
    a.set_meta(now, &meta(1));
    run(&mut [(1, &mut a), (2, &mut b)], now, Duration::from_secs(3));
    assert_eq!(b.view(now)[&id(1)].meta, Some(meta(1)));
    assert!(b.take_changed());
    // An old one that comes late.
    let preamble = Preamble { generation: 1, incarnation: 0, to_generation: 1, meta_version: 1 };
    let late = wire::encode(&preamble, &Note::Meta(meta(9)));
    b.receive(now, id(1), &late).unwrap();
    assert_eq!(b.view(now)[&id(1)].meta, Some(meta(1)));
}

#[test]
fn a_sender_with_an_earlier_generation_is_corrected() {
    let now = Instant::now();
    let mut b = engine(2, &[1, 2], now);
    b.take_effects();
    let earlier = Preamble { generation: 1, incarnation: 0, to_generation: 0, meta_version: 0 };
    b.receive(now, id(1), &wire::encode(&earlier, &Note::Refute)).unwrap();
    let roster = roster(&[1, 2]);
    let sent = b.take_effects().into_iter().filter_map(|effect| match effect {
        Effect::Send { to, datagram, .. } if to == id(1) => {
            let me = MemberIdentity { slot: roster.slot(&id(1)).unwrap(), generation: 1 };
            wire::decode(&datagram, &roster, me.slot, me).unwrap()
        }
        _ => None,
    });
    let answers: Vec<_> = sent.filter(|(_, body)| *body == Body::Note(Note::Refute)).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].0.generation, answers[0].0.to_generation), (1, 1));
}

#[test]
fn time_in_which_this_process_did_not_run_is_not_counted() {
    let now = Instant::now();
    let (mut a, mut b) = (engine(1, &[1, 2], now), engine(2, &[1, 2], now));
    run(&mut [(1, &mut a), (2, &mut b)], now, Duration::from_secs(2));
    let state = |a: &Engine| a.view(now)[&id(2)].state;
    let next = |a: &mut Engine| {
        let at = a.next_deadline().unwrap();
        a.tick(at);
        at
    };
    let mut at = now;
    while state(&a) == LivenessState::Alive {
        at = next(&mut a);
    }
    assert_eq!(state(&a), LivenessState::Suspect);
    at += Duration::from_secs(30);
    a.tick(at);
    assert_eq!(state(&a), LivenessState::Suspect, "it may still refute");
    let woke = at;
    while state(&a) == LivenessState::Suspect {
        at = next(&mut a);
    }
    assert_eq!(state(&a), LivenessState::Down);
    assert!(at - woke > Duration::from_millis(500), "{:?}", at - woke);
}

/// A datagram names no sender: its sender is the node in the session's certificate.
#[test]
fn the_sender_of_a_datagram_is_the_peer_of_its_session() {
    let start = Instant::now();
    let mut receiver = engine(1, &[1, 2, 3], start);
    let mut impersonated = engine(2, &[1, 2, 3], start);
    let mut brought = 0;
    for step in 0..200 {
        let now = start + Duration::from_millis(10) * step;
        impersonated.tick(now);
        for effect in impersonated.take_effects() {
            if let Effect::Send { to, datagram, .. } = effect
                && to == id(1)
            {
                receiver.receive(now, id(3), &datagram).unwrap();
                brought += 1;
            }
        }
    }
    let view = receiver.view(start + Duration::from_secs(2));
    assert!(brought > 0 && view[&id(3)].last_heard.is_some());
    assert_eq!(view[&id(2)].last_heard, None, "2 has sent nothing");
    assert_eq!(view[&id(2)].state, LivenessState::Unknown);
}

#[test]
fn an_unknown_datagram_is_counted_apart_and_changes_nothing() {
    let now = Instant::now();
    let mut a = engine(1, &[1, 2], now);
    a.take_effects();
    let before = a.view(now);
    let preamble = Preamble { generation: 9, incarnation: 0, to_generation: 9, meta_version: 9 };
    let mut unknown = wire::encode(&preamble, &Note::Refute).to_vec();
    unknown[0] = 0x15;
    assert_eq!(a.receive(now, id(2), &unknown), Err(WireError::UnknownKind(0x15)));
    assert_eq!(a.receive(now, id(2), &unknown[..1]), Err(WireError::UnknownKind(0x15)));
    assert_eq!(a.receive(now, id(2), &[0x10]), Err(WireError::Malformed));
    assert_eq!(a.rejected(), RejectedDatagrams { malformed: 1, unknown: 2 });
    assert_eq!((a.take_effects(), a.view(now)), (Vec::new(), before));
    assert_eq!(a.generation(), 1);
}
