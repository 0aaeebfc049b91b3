//! Formation end to end: machines find each other, then found a cluster or join it.

use std::time::Duration;

use muster_messages::hello::Refusal;
use muster_messages::hello::refusal::Reason;
use muster_types::Role;
use tokio::time::sleep;

use crate::lab::{Config, Lab, address, cluster, crashes_at, name, timed};
use muster_formation::Formed;
use muster_formation::planner::ADDRESS_GRACE;

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn three_machines_are_born_within_a_second() {
    let mut lab = Lab::new(3);
    lab.start_all(&Config::new(3, 3));
    let (formed, took) = timed(lab.formed(&[0, 1, 2], SOON)).await;
    assert!(formed.iter().all(|formed| matches!(formed, Formed::Born(_))), "{formed:?}");
    assert!(formed.iter().all(|other| cluster(other) == cluster(&formed[0])));
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_of_three_to_start_waits_less_than_a_second() {
    for last in 0..3 {
        let mut lab = Lab::new(3);
        let config = Config::new(3, 3);
        for machine in (0..3).filter(|machine| *machine != last) {
            lab.start(machine, &config);
            sleep(SECOND * 30).await;
        }
        assert!(lab.waiting_for((last + 1) % 3).starts_with("1 more of 3 founders"));
        lab.start(last, &config);
        let (_, took) = timed(lab.one_cluster(&[0, 1, 2], SOON)).await;
        assert!(took < SECOND, "{took:?} when {} started last", name(last));
    }
}

#[tokio::test(start_paused = true)]
async fn one_hint_is_enough_to_find_everyone() {
    let mut lab = Lab::new(3);
    for machine in 0..3 {
        let mut config = Config::new(3, 0);
        config.hints = vec![1];
        lab.start(machine, &config);
    }
    lab.one_cluster(&[0, 1, 2], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn three_of_five_candidates_found_and_two_join() {
    let mut lab = Lab::new(5);
    lab.start_all(&Config::new(3, 5));
    lab.one_cluster(&[0, 1, 2, 3, 4], SOON).await;
    let formed = lab.formed(&[0, 1, 2, 3, 4], SOON).await;
    let born = formed.iter().filter(|formed| matches!(formed, Formed::Born(_))).count();
    assert_eq!(born, 3);
}

#[tokio::test(start_paused = true)]
async fn six_candidates_with_named_founders_make_one_cluster() {
    let mut lab = Lab::new(6);
    for a in 0..3 {
        for b in 3..6 {
            lab.network.cut(a, b);
        }
    }
    let mut config = Config::new(3, 6);
    config.founders = vec![1, 2, 4];
    lab.start_all(&config);
    sleep(SECOND * 30).await;
    assert!(lab.waiting_for(1).contains("m4"), "{}", lab.waiting_for(1));
    lab.network.heal();
    lab.one_cluster(&[0, 1, 2, 3, 4, 5], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_never_founds_and_joins() {
    let mut lab = Lab::new(4);
    let mut worker = Config::new(3, 4);
    worker.role = Role::Worker;
    lab.start(0, &worker);
    let config = Config::new(3, 4);
    lab.start(1, &config);
    lab.start(2, &config);
    sleep(SECOND * 10).await;
    assert!(lab.waiting_for(0).starts_with("a cluster to join"), "{}", lab.waiting_for(0));
    lab.start(3, &config);
    lab.one_cluster(&[0, 1, 2, 3], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn one_machine_alone_founds_when_one_is_expected() {
    let mut lab = Lab::new(2);
    let config = Config::new(1, 2);
    lab.start(0, &config);
    lab.one_cluster(&[0], SOON).await;
    lab.start(1, &config);
    lab.one_cluster(&[0, 1], SOON).await;
}

/// The bug: the first address was kept indefinitely. A birth certificate, and with it etcd's
/// initial cluster, named the address that a founder had when its process started.
#[tokio::test(start_paused = true)]
async fn a_founder_is_born_at_the_address_that_it_has_by_then() {
    let mut lab = Lab::new(3);
    let config = Config::new(3, 3);
    lab.start(0, &config);
    lab.start(1, &config);
    sleep(SECOND * 5).await;
    let new = address(9);
    lab.change_address(0, new);
    lab.change_address(1, address(8));
    lab.start(2, &config);
    for formed in lab.formed(&[0, 1, 2], SOON).await {
        let Formed::Born(certificate) = formed else { panic!("{formed:?}") };
        let found = |n: usize| {
            let founders = certificate.founders().iter();
            let mut founders = founders.filter(|f| f.name.as_str() == name(n));
            founders.next().map(|founder| founder.addresses.clone())
        };
        assert_eq!(found(0), Some(vec![new]), "the proposer");
        assert_eq!(found(1), Some(vec![address(8)]));
    }
}

#[tokio::test(start_paused = true)]
async fn differing_settings_keep_the_birth_and_both_sides_name_them() {
    let mut lab = Lab::new(3);
    let config = Config::new(3, 3);
    let mut other = Config::new(3, 3);
    other.fields.insert("cluster.clusterName".to_owned(), "other".to_owned());
    lab.start(0, &config);
    lab.start(1, &config);
    lab.start(2, &other);
    sleep(SECOND * 30).await;
    for machine in 0..3 {
        let waiting_for = lab.waiting_for(machine);
        assert!(waiting_for.contains("cluster.clusterName"), "{waiting_for}");
        assert!(waiting_for.contains("\"other\" on m2"), "{waiting_for}");
    }
    lab.kill(2).await;
    lab.start(2, &config);
    lab.one_cluster(&[0, 1, 2], SOON).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_delays_a_birth_but_not_indefinitely() {
    let mut lab = Lab::new(3);
    lab.start_all(&Config::new(3, 4));
    let (_, took) = timed(lab.one_cluster(&[0, 1, 2], SOON)).await;
    assert!(took >= ADDRESS_GRACE && took < ADDRESS_GRACE + SECOND, "{took:?}");

    let mut lab = Lab::new(3);
    let mut named = Config::new(3, 4);
    named.founders = vec![0, 1, 2];
    lab.start_all(&named);
    let (_, took) = timed(lab.one_cluster(&[0, 1, 2], SOON)).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn newcomers_join_the_cluster_that_is_there() {
    let mut lab = Lab::new(6);
    let config = Config::new(3, 6);
    for machine in 3..6 {
        lab.start(machine, &config);
    }
    let cluster = lab.one_cluster(&[3, 4, 5], SOON).await;
    for machine in 0..3 {
        lab.start(machine, &config);
    }
    assert_eq!(lab.one_cluster(&[0, 1, 2], SOON).await, cluster);
}

#[tokio::test(start_paused = true)]
async fn a_refused_admission_is_shown_and_asked_for_again() {
    let mut lab = Lab::new(5);
    let config = Config::new(3, 5);
    for machine in 0..3 {
        lab.start(machine, &config);
    }
    let cluster = lab.one_cluster(&[0, 1, 2], SOON).await;
    let message = "the name m3 is taken".to_owned();
    lab.network.refuse(Some(Refusal { reason: Reason::NameTaken.into(), message }));
    lab.start(3, &config);
    let texts = lab.waits(3, SECOND * 60).await;
    assert!(lab.waiting_for(3).ends_with("the name m3 is taken"), "{}", lab.waiting_for(3));
    let refused = texts.iter().filter(|text| text.ends_with("the name m3 is taken"));
    assert_eq!(refused.count(), 1, "one line in the log for one reason: {texts:?}");
    assert!((4..=8).contains(&lab.network.refused()), "asked {} times", lab.network.refused());
    lab.network.refuse(None);
    assert_eq!(lab.one_cluster(&[3], SOON).await, cluster);
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_restarts_is_born_without_anyone_else() {
    let mut lab = Lab::new(3);
    let config = Config::new(3, 3);
    lab.start_all(&config);
    let cluster = lab.one_cluster(&[0, 1, 2], SOON).await;
    for machine in 0..3 {
        lab.kill(machine).await;
    }
    lab.start(1, &Config::new(3, 0));
    let (again, took) = timed(lab.one_cluster(&[1], SOON)).await;
    assert_eq!(again, cluster);
    assert_eq!(took, Duration::ZERO);
}

/// All fail points that a birth without faults hits.
const FAIL_POINTS: [&str; 13] = [
    "birth.persist.promised.before",
    "birth.persist.promised.after",
    "birth.persist.certified.before",
    "birth.persist.certified.after",
    "birth.persist.born.before",
    "birth.persist.born.after",
    "birth.send.propose.before",
    "birth.send.propose.after",
    "birth.send.promise.before",
    "birth.send.settle.before",
    "birth.send.settle.after",
    "birth.send.vote.before",
    "birth.send.born.before",
];

/// Starts all machines with one that crash at this fail point; returns true if it did.
async fn crash(lab: &mut Lab, fail_point: &'static str, victim: usize) -> bool {
    let (hook, crashes) = crashes_at(fail_point, &lab.network, victim);
    let count = lab.machines.len();
    for machine in 0..count {
        let mut config = Config::new(3, count);
        if machine == victim {
            config.hook = hook.clone();
        }
        lab.start(machine, &config);
    }
    sleep(SECOND * 20).await;
    lab.kill(victim).await;
    crashes.happened()
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_dies_anywhere_and_returns_takes_part_again() {
    for fail_point in FAIL_POINTS {
        let mut crashes = 0;
        for victim in 0..3 {
            let mut lab = Lab::new(3);
            crashes += usize::from(crash(&mut lab, fail_point, victim).await);
            lab.start(victim, &Config::new(3, 3));
            lab.one_cluster(&[0, 1, 2], SOON).await;
        }
        assert!(crashes > 0, "no machine died at {fail_point}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_birth_succeeds_without_a_founder_that_dies_anywhere_for_good() {
    for fail_point in FAIL_POINTS {
        let mut crashes = 0;
        for victim in 0..3 {
            let mut lab = Lab::new(4);
            crashes += usize::from(crash(&mut lab, fail_point, victim).await);
            let rest: Vec<_> = (0..4).filter(|machine| *machine != victim).collect();
            lab.one_cluster(&rest, SOON).await;
        }
        assert!(crashes > 0, "no machine died at {fail_point}");
    }
}

/// Both others signed and never returned: no majority can settle the birth, and the node that is
/// left reports why.
#[tokio::test(start_paused = true)]
async fn a_node_left_with_a_promise_names_the_peers_that_do_not_answer() {
    let mut lab = Lab::new(3);
    for machine in 0..3 {
        let mut config = Config::new(3, 3);
        if machine > 0 {
            config.hook = crashes_at("birth.persist.promised.after", &lab.network, machine).0;
        }
        lab.start(machine, &config);
    }
    sleep(SECOND * 20).await;
    lab.kill(1).await;
    lab.kill(2).await;
    let waiting_for = lab.waiting_for(0);
    assert!(waiting_for.contains("to settle the birth of cluster"), "{waiting_for}");
    assert!(waiting_for.contains("cannot dial 192.0.2.2:50000: no answer"), "{waiting_for}");
}

#[tokio::test(start_paused = true)]
async fn partitions_during_a_birth_end_in_one_cluster() {
    for pause in (0..600).step_by(20) {
        let mut lab = Lab::new(5);
        lab.start_all(&Config::new(3, 5));
        sleep(Duration::from_millis(pause)).await;
        for (a, b) in [(0, 1), (0, 2), (1, 3), (2, 4)] {
            lab.network.cut(a, b);
        }
        sleep(SECOND * 5).await;
        lab.network.heal();
        lab.one_cluster(&[0, 1, 2, 3, 4], SOON).await;
    }
}
