use proptest::prelude::*;

use super::*;

const ONE: Revision = Revision(1);
const TWO: Revision = Revision(2);
const SECOND: Duration = Duration::from_secs(1);

fn running(policy: Policy, t0: Instant) -> StateMachine {
    let mut machine = StateMachine::new(policy);
    assert_eq!(machine.step(t0, Event::SetDesired(Some(ONE))), [Effect::Spawn(ONE)]);
    assert_eq!(machine.step(t0, Event::Spawned { pid: 7 }), []);
    machine
}

fn crash(machine: &mut StateMachine, now: Instant) -> Duration {
    assert_eq!(machine.step(now, Event::Exited { exit: Exit::Signal(9), jitter: 0.0 }), []);
    machine.deadline().expect("backs off") - now
}

#[test]
fn pauses_between_crashes_double_up_to_the_cap_and_start_over_once_settled() {
    let policy = Policy::default();
    let mut now = Instant::now();
    let mut machine = running(policy, now);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let pause = crash(&mut machine, now);
        pauses.push(pause.as_millis());
        now += pause;
        assert_eq!(machine.step(now, Event::Tick), [Effect::Spawn(ONE)]);
        machine.step(now, Event::Spawned { pid: 8 });
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    assert_eq!(machine.restarts(), 9);
    now += policy.stable_after;
    assert_eq!(crash(&mut machine, now), policy.initial_backoff);
}

#[test]
fn jitter_shortens_a_pause_by_at_most_half() {
    let t0 = Instant::now();
    let mut machine = running(Policy::default(), t0);
    machine.step(t0, Event::Exited { exit: Exit::Code(1), jitter: 1.0 });
    assert_eq!(machine.deadline(), Some(t0 + Policy::default().initial_backoff / 2));
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_at_the_deadline() {
    let policy = Policy::default();
    let t0 = Instant::now();
    let mut machine = running(policy, t0);
    assert_eq!(machine.step(t0, Event::SetDesired(None)), [Effect::Terminate]);
    assert_eq!(machine.step(t0 + policy.stop_timeout / 2, Event::Tick), []);
    assert_eq!(machine.step(t0 + policy.stop_timeout, Event::Tick), [Effect::Kill]);
    let exit = Exit::Signal(9);
    assert_eq!(machine.step(t0 + policy.stop_timeout, Event::Exited { exit, jitter: 0.0 }), []);
    assert_eq!(machine.state(), ProcessState::Stopped);
    assert_eq!(machine.last_exit(), Some(exit));
}

#[test]
fn another_command_ends_the_old_process_before_it_starts() {
    let t0 = Instant::now();
    let mut machine = running(Policy::default(), t0);
    assert_eq!(machine.step(t0, Event::SetDesired(Some(TWO))), [Effect::Terminate]);
    let ended = Event::Exited { exit: Exit::Code(0), jitter: 0.0 };
    assert_eq!(machine.step(t0, ended), [Effect::Spawn(TWO)]);
}

#[test]
fn a_process_that_stops_answering_is_killed_and_restarted_after_the_limit() {
    let policy = Policy::default();
    let mut now = Instant::now();
    let mut machine = running(policy, now);
    machine.step(now, Event::Probed { answered: true });
    let silent_since = now;
    let mut effects = machine.step(now, Event::Probed { answered: false });
    while effects.is_empty() {
        now += SECOND;
        effects = machine.step(now, Event::Probed { answered: false });
    }
    assert_eq!(effects, [Effect::Kill]);
    assert_eq!(now - silent_since, policy.hang_timeout);
    machine.step(now, Event::Exited { exit: Exit::Signal(9), jitter: 0.0 });
    assert!(matches!(machine.state(), ProcessState::BackingOff { .. }));
}

#[test]
fn one_expired_question_after_a_long_gap_kills_nothing() {
    let t0 = Instant::now();
    let mut machine = running(Policy::default(), t0);
    machine.step(t0, Event::Probed { answered: true });
    machine.step(t0 + SECOND, Event::Probed { answered: false });
    let late = t0 + 1000 * SECOND;
    assert_eq!(machine.step(late, Event::Probed { answered: false }), []);
    assert_eq!(machine.step(late, Event::Probed { answered: true }), []);
}

#[test]
fn a_process_that_never_answered_has_the_longer_limit() {
    let policy = Policy::default();
    let t0 = Instant::now();
    let mut machine = running(policy, t0);
    for _ in 0..5 {
        assert_eq!(machine.step(t0 + policy.hang_timeout, Event::Probed { answered: false }), []);
    }
    let late = t0 + policy.first_answer_timeout;
    assert_eq!(machine.step(late, Event::Probed { answered: false }), [Effect::Kill]);
}

#[test]
fn a_refused_start_is_not_tried_again_until_something_else_is_wanted() {
    let t0 = Instant::now();
    let mut machine = StateMachine::new(Policy::default());
    machine.step(t0, Event::SetDesired(Some(ONE)));
    assert_eq!(machine.step(t0, Event::Refused), []);
    assert_eq!(machine.step(t0 + 1000 * SECOND, Event::Tick), []);
    assert_eq!(machine.step(t0, Event::SetDesired(Some(ONE))), []);
    assert_eq!(machine.step(t0, Event::SetDesired(Some(TWO))), [Effect::Spawn(TWO)]);
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        proptest::option::of(1..4u64).prop_map(|n| Event::SetDesired(n.map(Revision))),
        (1..9u32).prop_map(|pid| Event::Spawned { pid }),
        (0.0..1.0).prop_map(|jitter| Event::NotSpawned { jitter }),
        Just(Event::Refused),
        (0.0..1.0).prop_map(|jitter| Event::Exited { exit: Exit::Code(1), jitter }),
        any::<bool>().prop_map(|answered| Event::Probed { answered }),
        Just(Event::Tick),
    ]
}

proptest! {
    /// For every sequence of events there is never a second process, and every state that only
    /// waits for time has a deadline.
    #[test]
    fn never_two_processes(steps in proptest::collection::vec((events(), 0..40_000u64), 1..80)) {
        let mut machine = StateMachine::new(Policy::default());
        let mut now = Instant::now();
        let mut alive = false;
        let mut asked_for = false;
        for (event, later) in steps {
            now += Duration::from_millis(later);
            // Only possible events: a spawn result after a request, an exit of a running process.
            let possible = match event {
                Event::Spawned { .. } | Event::NotSpawned { .. } | Event::Refused => asked_for,
                Event::Exited { .. } => alive,
                Event::SetDesired(_) | Event::Probed { .. } | Event::Tick => true,
            };
            if !possible {
                continue;
            }
            match event {
                Event::Spawned { .. } => (alive, asked_for) = (true, false),
                Event::NotSpawned { .. } | Event::Refused => asked_for = false,
                Event::Exited { .. } => alive = false,
                Event::SetDesired(_) | Event::Probed { .. } | Event::Tick => {}
            }
            for effect in machine.step(now, event) {
                match effect {
                    Effect::Spawn(_) => {
                        prop_assert!(!alive && !asked_for);
                        asked_for = true;
                    }
                    Effect::Terminate | Effect::Kill => prop_assert!(alive),
                }
            }
            if matches!(machine.state(), ProcessState::BackingOff { .. } | ProcessState::Stopping { .. }) {
                prop_assert!(machine.deadline().is_some());
            }
        }
    }
}
