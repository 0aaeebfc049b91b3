use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn cluster(members: usize, seed: u64, settings: Settings) -> Simulation {
    let mut simulation = Simulation::new(members, seed, settings, Instant::now());
    simulation.start_all();
    simulation
}

fn settled(members: usize, seed: u64) -> Simulation {
    let mut simulation = cluster(members, seed, Settings::default());
    simulation.until(10 * SECOND, Simulation::converged).expect("all see all");
    simulation.run_for(2 * SECOND);
    simulation.take_tally();
    simulation
}

fn downs(simulation: &mut Simulation) -> u64 {
    let tally = simulation.take_tally();
    assert!(tally.iter().all(|member| member.rejected == 0), "every datagram is readable");
    tally.iter().map(|member| member.downs).sum()
}

fn meta(last: u8) -> NodeMeta {
    let addresses = vec![([192, 0, 2, last], 50_000).into()];
    NodeMeta { addresses, version: "1.2.3".to_owned(), config_version: u64::from(last) }
}

/// Returns the number of running members that have this metadata of `target`.
fn informed(simulation: &Simulation, target: usize, meta: &NodeMeta) -> usize {
    simulation
        .running()
        .filter(|index| {
            let view = simulation.engine(*index).unwrap().view(simulation.now);
            view[&simulation.ids[target]].meta.as_ref() == Some(meta)
        })
        .count()
}

#[test]
fn forty_members_that_start_together_all_see_each_other_within_800_ms() {
    for seed in 0..10 {
        let mut s = cluster(40, seed, Settings::default());
        let took = s.until(10 * SECOND, Simulation::converged).expect("all see all");
        assert!(took <= Duration::from_millis(800), "seed {seed}: {took:?}");
        assert_eq!(downs(&mut s), 0);
    }
}

#[test]
fn a_killed_member_is_noticed_by_all_forty_within_4_s() {
    let mut took: Vec<_> = (0..40)
        .map(|seed| {
            let mut s = settled(40, seed);
            s.kill(3);
            let took = s.until(20 * SECOND, Simulation::converged).expect("noticed by all");
            assert_eq!(downs(&mut s), 39, "seed {seed}: once by each, no other member");
            took
        })
        .collect();
    took.sort();
    assert!(took[37] <= 4 * SECOND, "95 % in 4 s, but: {took:?}");
    assert!(took[39] <= 5 * SECOND, "{took:?}");
}

#[test]
fn a_fifth_of_all_datagrams_lost_raises_no_false_alarm() {
    for seed in 0..2 {
        let mut s = cluster(40, seed, Settings::default());
        s.network.loss = 0.2;
        s.until(10 * SECOND, Simulation::converged).expect("all see all");
        s.run_for(180 * SECOND);
        assert_eq!(downs(&mut s), 0, "seed {seed}");
        let bumped = s.running().filter(|index| s.engine(*index).unwrap().generation() > 1).count();
        assert_eq!(bumped, 0, "seed {seed}: no member was declared down");
        s.kill(7);
        let took = s.until(30 * SECOND, Simulation::converged).expect("a real death is noticed");
        assert!(took <= 10 * SECOND, "seed {seed}: {took:?}");
    }
}

#[test]
fn too_short_timeouts_raise_false_alarms_in_the_same_loss() {
    let hasty = Settings { suspicion: Duration::from_millis(150), ..Settings::default() };
    let mut s = cluster(40, 0, hasty);
    s.network.loss = 0.2;
    s.run_for(60 * SECOND);
    assert!(downs(&mut s) > 0, "else the test of no false alarm could not fail");
}

#[test]
fn both_halves_of_a_partition_lose_each_other_and_merge_again() {
    for seed in 0..3 {
        let mut s = settled(40, seed);
        (0..20).for_each(|index| s.set_group(index, 1));
        let apart = |s: &Simulation| s.running().all(|index| s.engine(index).unwrap().seen() == 19);
        s.until(30 * SECOND, apart).expect("each half sees itself only");
        s.run_for(60 * SECOND);
        s.heal();
        let took = s.until(30 * SECOND, Simulation::converged).expect("all see all again");
        assert!(took <= 10 * SECOND, "seed {seed}: {took:?}");
        s.take_tally();
        s.run_for(10 * SECOND);
        assert_eq!(downs(&mut s), 0, "seed {seed}: and stay together");
    }
}

#[test]
fn one_member_cut_off_from_all_comes_back() {
    let mut s = settled(5, 1);
    s.set_group(0, 1);
    s.until(20 * SECOND, |s| s.engine(0).unwrap().seen() == 0).expect("it sees no member");
    s.until(20 * SECOND, |s| s.engine(1).unwrap().seen() == 3).expect("no member sees it");
    s.run_for(300 * SECOND);
    s.heal();
    s.until(10 * SECOND, Simulation::converged).expect("all see all again");
}

#[test]
fn a_broken_link_between_two_members_is_not_a_death() {
    let mut s = settled(5, 2);
    s.cut(0, 1);
    s.run_for(120 * SECOND);
    assert_eq!(downs(&mut s), 0, "one direction");
    s.cut(1, 0);
    s.run_for(120 * SECOND);
    assert_eq!(downs(&mut s), 0, "both directions");
}

#[test]
fn a_restarted_member_is_the_same_member_in_a_new_generation() {
    let mut s = settled(10, 3);
    s.kill(4);
    s.run_for(SECOND / 2);
    s.start(4, 2);
    s.until(5 * SECOND, Simulation::converged).expect("all see all");
    s.run_for(5 * SECOND);
    assert_eq!(downs(&mut s), 0, "back before its absence was noticed");
    let view = s.engine(0).unwrap().view(s.now);
    assert_eq!(view[&s.ids[4]].generation, 2);
}

#[test]
fn a_clock_set_back_does_not_keep_a_restarted_member_out() {
    for (seed, generation) in [(0, 1_000_000), (1, 5), (2, 1)] {
        let mut s = settled(10, seed);
        s.kill(4);
        s.start(4, 1_000_000);
        s.run_for(10 * SECOND);
        s.kill(4);
        s.until(20 * SECOND, Simulation::converged).expect("noticed");
        s.start(4, generation);
        s.until(10 * SECOND, Simulation::converged).expect("seen again");
        let now = s.engine(4).unwrap().generation();
        assert!(now > 1_000_000, "above the generation that the others remember: {now}");
    }
}

#[test]
fn a_leaving_member_is_down_at_once() {
    let mut s = settled(40, 4);
    s.stop(4);
    let took = s.until(10 * SECOND, Simulation::converged).expect("noticed");
    assert!(took <= SECOND, "{took:?}");
}

#[test]
fn a_resumed_member_raises_no_false_alarm() {
    for seed in 0..5 {
        let mut s = settled(10, seed);
        s.pause(4);
        s.run_for(30 * SECOND);
        assert_eq!(downs(&mut s), 9, "the others declared it down");
        s.resume(4);
        s.until(10 * SECOND, Simulation::converged).expect("all see all again");
        s.run_for(10 * SECOND);
        assert_eq!(downs(&mut s), 0, "seed {seed}");
    }
}

#[test]
fn metadata_reaches_all_and_a_new_address_quickly_even_with_loss() {
    let mut s = settled(40, 5);
    (0..40).for_each(|index| s.set_meta(index, &meta(1)));
    s.until(5 * SECOND, |s| (0..40).all(|index| informed(s, index, &meta(1)) == 40))
        .expect("sent to all");
    s.network.loss = 0.2;
    s.set_meta(7, &meta(2));
    let took = s.until(60 * SECOND, |s| informed(s, 7, &meta(2)) == 40).expect("sent again");
    assert!(took <= 30 * SECOND, "{took:?}");
    s.network.loss = 0.0;
    s.set_meta(7, &meta(3));
    let took = s.until(60 * SECOND, |s| informed(s, 7, &meta(3)) == 40).expect("sent again");
    assert!(took <= 2 * SECOND, "{took:?}");
}

#[test]
fn a_removed_member_is_forgotten_at_once_and_cannot_return() {
    let mut s = settled(10, 6);
    s.remove(&BTreeSet::from([4]));
    for index in 0..10 {
        assert_eq!(s.state(index, 4), None, "{index} has forgotten it");
    }
    assert!(s.engine(4).is_none());
    assert!(s.converged(), "the others still see each other");
    s.start(4, 9);
    assert!(s.engine(4).is_none(), "a node outside the directory does not gossip");
    s.run_for(10 * SECOND);
    assert_eq!(downs(&mut s), 0, "a removed member is not down");
    assert!(s.converged());
}

#[test]
fn an_idle_member_sends_little_and_sleeps_much() {
    let mut s = settled(40, 8);
    s.run_for(10 * SECOND);
    s.take_tally();
    s.run_for(60 * SECOND);
    for member in s.take_tally() {
        let on_the_wire = member.bytes + member.datagrams * OVERHEAD as u64;
        assert!(on_the_wire / 60 <= 500, "{member:?}");
        // A probe every 400 ms and a check for its answer. With updates to pass on it was 15 a
        // second.
        assert!(member.wakes / 60 <= 6, "{member:?}");
    }
}

#[test]
fn a_large_group_that_has_met_before_notices_a_death() {
    let mut s = Simulation::new(300, 9, Settings::default(), Instant::now());
    s.start_with_contacts(SECOND);
    s.run_for(5 * SECOND);
    assert!(s.converged());
    assert_eq!(downs(&mut s), 0);
    s.kill(7);
    let took = s.until(20 * SECOND, Simulation::converged).expect("noticed");
    assert!(took <= 6 * SECOND, "{took:?}");
    assert_eq!(downs(&mut s), 299);
}

/// Regression: the search slowed down although it found members every time. Among 500 members it
/// took 9.5 s to see the last one.
#[test]
fn one_that_comes_back_to_a_large_group_soon_sees_all() {
    let mut s = Simulation::new(300, 11, Settings::default(), Instant::now());
    s.start_with_contacts(SECOND);
    s.run_for(SECOND);
    s.kill(7);
    s.start(7, 2);
    let took = s.until(20 * SECOND, Simulation::converged).expect("all see all");
    assert!(took <= 2 * SECOND, "{took:?}");
}

#[test]
fn two_hundred_members_that_start_together_all_see_each_other_soon_and_cheaply() {
    let mut s = cluster(200, 10, Settings::default());
    let took = s.until(10 * SECOND, Simulation::converged).expect("all see all");
    assert!(took <= 3 * SECOND, "{took:?}");
    let tally = s.take_tally();
    assert!(tally.iter().all(|member| member.downs == 0));
    let bytes: u64 =
        tally.iter().map(|member| member.bytes + member.datagrams * OVERHEAD as u64).sum();
    assert!(bytes / 200 <= 100_000, "{} bytes per member", bytes / 200);
}
