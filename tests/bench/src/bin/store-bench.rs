//! `store-bench DIR [ENGINE]`: measures a node's Raft store on the disk of DIR and prints one line
//! of JSON. First sequential appends of 256 bytes, each on disk before the next. Then writes from
//! 64 clients through openraft with one voter.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster_tests::store::node::Config;
use muster_tests::store::raft::single_voter;
use muster_tests::store::{Node, engines};
use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};
use tokio::task::JoinSet;

const SEQUENTIAL: u64 = 1000;
const CLIENTS: u64 = 64;
const EACH: u64 = 25;
const BYTES: usize = 256;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("usage: store-bench DIR [ENGINE]")?;
    let engine = engines::by_name(&arguments.next().unwrap_or(engines::MUSTER.name.to_owned()))?;
    let (first, second) = (tempfile::tempdir_in(&dir)?, tempfile::tempdir_in(&dir)?);

    let mut node = Node::open(first.path(), engine)?;
    let mut times = Vec::new();
    for index in 0..SEQUENTIAL {
        let entry: Entry<Config> = Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Normal("x".repeat(BYTES)),
        };
        let start = Instant::now();
        node.log.blocking_append([entry]).await?;
        times.push(start.elapsed());
    }
    drop(node);
    times.sort_unstable();
    let percentile = |p: usize| times[times.len() * p / 100].as_micros();

    let through = through_openraft(second.path(), engine).await?;
    writeln!(
        std::io::stdout(),
        "{{\"engine\":\"{}\",\"append_us\":{{\"p50\":{},\"p99\":{}}},\
         \"writes_per_second_64_clients\":{through:.0}}}",
        engine.name,
        percentile(50),
        percentile(99),
    )?;
    Ok(())
}

async fn through_openraft(dir: &Path, engine: muster_storage::Engine) -> Result<f64> {
    let raft = Arc::new(single_voter(Node::open(dir, engine)?).await?);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let raft = Arc::clone(&raft);
        clients.spawn(async move {
            for _ in 0..EACH {
                raft.client_write("x".repeat(BYTES)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let took: Duration = start.elapsed();
    raft.shutdown().await?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok((CLIENTS * EACH) as f64 / took.as_secs_f64())
}
