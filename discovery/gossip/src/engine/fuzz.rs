//! Fuzz target of datagrams of a member; `muster_fuzz` defines a target.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_fuzz::{Verdict, refused, target};
use muster_types::NodeId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{Effect, Engine, EngineParams};
use crate::wire::compat::as_later_version;
use crate::{LivenessState, MAX_DATAGRAM, NodeMeta, Roster, Settings};

fn member(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn engine(number: u8, now: Instant) -> Engine {
    let members: BTreeSet<_> = (1..=4).map(member).collect();
    let start = EngineParams {
        me: member(number),
        generation: 5,
        settings: Settings::default(),
        roster: Arc::new(Roster::default().with_members(&members)),
        rng: StdRng::seed_from_u64(u64::from(number)),
    };
    Engine::new(start, now).expect("the engine is in the roster")
}

/// Encodes the datagrams of three engines in a second as input, each behind its length and as `sent`
/// changes it.
fn conversation(sent: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let start = Instant::now();
    let mut engines = [engine(1, start), engine(2, start), engine(3, start)];
    let meta = NodeMeta {
        addresses: vec!["192.0.2.1:50000".parse().expect("an address")],
        version: "0.1.0".to_owned(),
        config_version: 1,
    };
    engines[1].set_meta(start, &meta);
    let mut said = Vec::new();
    for step in 0..100 {
        let now = start + Duration::from_millis(10 * step);
        for from in 0..3 {
            engines[from].tick(now);
            for effect in engines[from].take_effects() {
                let Effect::Send { to, datagram, .. } = effect else { continue };
                let datagram = sent(&datagram);
                let Some(to) = (1..=3).position(|n| member(n) == to) else { continue };
                let sender = u8::try_from(from + 1).expect("three");
                engines[to]
                    .receive(now, member(sender), &datagram)
                    .expect("a well-formed datagram");
                if to == 0 && said.len() + datagram.len() < 3000 {
                    let length = u16::try_from(datagram.len()).expect("a datagram");
                    said.push(sender);
                    said.extend(length.to_be_bytes());
                    said.extend(datagram);
                }
            }
        }
    }
    said
}

/// Feeds arbitrary datagrams of a member, with time passing in between.
#[test]
fn gossip() {
    let longest = MAX_DATAGRAM * 4;
    let target =
        target("gossip").seed(conversation(<[u8]>::to_vec)).seed(conversation(as_later_version));
    target.longest(longest).memory(1 << 20, 512).run(|bytes| {
        let mut now = Instant::now();
        let mut engine = engine(1, now);
        engine.take_effects();
        let (mut rest, mut taken, mut last) = (bytes, 0, None);
        while let [from, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (datagram, after) = after.split_at_checked(length).unwrap_or((after, &[]));
            rest = after;
            match engine.receive(now, member(from % 6), datagram) {
                Ok(()) => taken += 1,
                Err(error) => last = Some(error),
            }
            now += Duration::from_millis(u64::from(*from));
            engine.tick(now);
            bounded(&mut engine, now);
        }
        now += Duration::from_secs(30);
        engine.tick(now);
        bounded(&mut engine, now);
        match last {
            Some(error) => refused(error),
            None if taken == 0 => refused("no datagram"),
            None => Verdict::Accepted,
        }
    });
}

/// Checks that only members are named and sent to, in datagrams that others accept, and that timers
/// stay bounded.
fn bounded(engine: &mut Engine, now: Instant) {
    let view = engine.view(now);
    assert!(view.keys().copied().eq((1..=4).map(member)), "{view:?}");
    assert_eq!(view[&member(1)].state, LivenessState::Alive, "it stays alive after any input");
    for effect in engine.take_effects() {
        if let Effect::Send { to, datagram, .. } = effect {
            assert!(datagram.len() <= MAX_DATAGRAM, "{} bytes", datagram.len());
            assert!(view.contains_key(&to) && to != member(1), "{to:?}");
        }
    }
    if let Some(next) = engine.next_deadline() {
        assert!(next < now + Duration::from_hours(1), "the next deadline is too late");
    }
}
