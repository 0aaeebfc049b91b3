//! Fuzz targets of this crate's parsers. `muster_fuzz` defines what a target is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_fuzz::{Verdict, refused, target};
use muster_types::NodeId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::core::{Core, Effect, Start};
use crate::{Card, MAX_DATAGRAM, Roster, Settings, State};

fn member(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn core(number: u8, now: Instant) -> Core {
    let members: BTreeSet<_> = (1..=4).map(member).collect();
    let start = Start {
        me: member(number),
        generation: 5,
        settings: Settings::default(),
        roster: Arc::new(Roster::default().with(&members)),
        rng: StdRng::seed_from_u64(u64::from(number)),
    };
    Core::new(start, now).expect("the core is in the roster")
}

/// Encodes the datagrams of three engines in a second as input, each behind its length.
fn conversation() -> Vec<u8> {
    let start = Instant::now();
    let mut cores = [core(1, start), core(2, start), core(3, start)];
    let card = Card {
        addresses: vec!["192.0.2.1:50000".parse().expect("an address")],
        version: "0.1.0".to_owned(),
        config_version: 1,
    };
    cores[1].set_card(start, &card);
    let mut said = Vec::new();
    for step in 0..100 {
        let now = start + Duration::from_millis(10 * step);
        for from in 0..3 {
            cores[from].tick(now);
            for effect in cores[from].take_effects() {
                let Effect::Send { to, datagram, .. } = effect else { continue };
                let Some(to) = (1..=3).position(|n| member(n) == to) else { continue };
                let sender = u8::try_from(from + 1).expect("three");
                cores[to].receive(now, member(sender), &datagram).expect("a well-formed datagram");
                if to == 0 && said.len() + datagram.len() < 3000 {
                    let length = u16::try_from(datagram.len()).expect("a datagram");
                    said.push(sender);
                    said.extend(length.to_be_bytes());
                    said.extend_from_slice(&datagram);
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
    target("gossip").seed(conversation()).longest(longest).memory(1 << 20, 512).run(|bytes| {
        let mut now = Instant::now();
        let mut core = core(1, now);
        core.take_effects();
        let (mut rest, mut taken, mut last) = (bytes, 0, None);
        while let [from, high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (datagram, after) = after.split_at_checked(length).unwrap_or((after, &[]));
            rest = after;
            match core.receive(now, member(from % 6), datagram) {
                Ok(()) => taken += 1,
                Err(error) => last = Some(error),
            }
            now += Duration::from_millis(u64::from(*from));
            core.tick(now);
            bounded(&mut core, now);
        }
        now += Duration::from_secs(30);
        core.tick(now);
        bounded(&mut core, now);
        match last {
            Some(error) => refused(error),
            None if taken == 0 => refused("no datagram"),
            None => Verdict::Accepted,
        }
    });
}

/// Checks that only members are named and sent to, in datagrams that others accept, and that timers
/// stay bounded.
fn bounded(core: &mut Core, now: Instant) {
    let view = core.view(now);
    assert!(view.keys().copied().eq((1..=4).map(member)), "{view:?}");
    assert_eq!(view[&member(1)].state, State::Alive, "it stays alive after any input");
    for effect in core.take_effects() {
        if let Effect::Send { to, datagram, .. } = effect {
            assert!(datagram.len() <= MAX_DATAGRAM, "{} bytes", datagram.len());
            assert!(view.contains_key(&to) && to != member(1), "{to:?}");
        }
    }
    if let Some(next) = core.next_deadline() {
        assert!(next < now + Duration::from_hours(1), "the next deadline is too late");
    }
}
