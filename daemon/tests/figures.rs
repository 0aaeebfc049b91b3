//! Figures of the Raft group on loopback, printed and never judged:
//! `cargo test -p musterd --test figures -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "figures that are worth reading")]

mod support;

use std::time::{Duration, Instant};

use support::{Lab, Setting, until};

type Test = anyhow::Result<()>;

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn writes(lab: &Lab, through: usize, what: &str) -> Test {
    let mut took = Vec::new();
    for number in 0..300 {
        let command = lab.label(number);
        let began = Instant::now();
        lab.group(through).propose(command).await?.into_result()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?}",
        percentile(&took, 50),
        percentile(&took, 99),
        took[took.len() - 1]
    );
    Ok(())
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn writes_reads_idling_and_stopping() -> Test {
    let mut lab = Lab::founded(Setting::default()).await;
    let leader = lab.leader().await;
    let follower = lab.others(leader)[0];
    writes(&lab, leader, "300 writes through the leader").await?;
    writes(&lab, follower, "300 writes through a follower").await?;
    let began = Instant::now();
    for _ in 0..300 {
        lab.group(follower).catch_up().await?;
    }
    println!("300 linearizable reads through a follower: mean {:?}", began.elapsed() / 300);
    let (began, before) = (Instant::now(), cpu());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = cpu().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() / 3.0;
    println!("idle: {:.2} % of a core for each node", share * 100.0);
    for at in lab.others(leader).into_iter().chain([leader]) {
        let began = Instant::now();
        lab.nodes[at].stop().await;
        println!("node {at} stopped in {:?}", began.elapsed());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn from_the_kill_of_a_leader_to_the_next_write() -> Test {
    let mut took = Vec::new();
    for number in 0..8 {
        let mut lab = Lab::founded(Setting::default()).await;
        let leader = lab.leader().await;
        let asked = lab.others(leader)[0];
        lab.kill(leader);
        let began = Instant::now();
        until("the next write", async || {
            Box::pin(lab.group(asked).propose(lab.label(number))).await.ok().map(drop)
        })
        .await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("leader killed to next write: {took:?}");
    Ok(())
}
