//! The clients: several per node, on one thread in the network namespace of the operator's machine.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::access::Access;
use super::history::History;
use super::workload::{Client, Operation, Recorder};
use crate::lab::{Host, enter_network};

/// Timeout of the final reads once everything is healthy.
const FINAL_READS_TIMEOUT: Duration = Duration::from_mins(1);

/// Running clients.
#[derive(Debug)]
pub struct Clients {
    stop: watch::Sender<bool>,
    recorder: Arc<Recorder>,
    thread: JoinHandle<Result<()>>,
}

impl Clients {
    /// Starts every kind of client for each of the nodes in `through`. Their clock counts from
    /// `since`.
    pub fn start(operator: &Host, access: Access, through: Vec<String>, since: Instant) -> Self {
        let (stop, stops) = watch::channel(false);
        let recorder = Arc::new(Recorder::new(since));
        let (path, shared) = (operator.namespace_path(), Arc::clone(&recorder));
        let thread = std::thread::spawn(move || {
            enter_network(&path)?;
            // One thread: every socket is opened in the namespace that it entered.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(&access, &through, &shared, stops))
        });
        Self { stop, recorder, thread }
    }

    /// Returns the Raft leader that any node reported last.
    pub fn leader(&self) -> Option<String> {
        self.recorder.leader()
    }

    /// Returns the history so far.
    pub fn history(&self) -> History {
        self.recorder.history()
    }

    /// Stops the clients, then reads everything once more through every node.
    pub fn finish(self) -> Result<History> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| anyhow!("the clients panicked"))??;
        Ok(self.recorder.history())
    }
}

async fn work(
    access: &Access,
    through: &[String],
    recorder: &Arc<Recorder>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for node in through {
        for work in Operation::ALL {
            clients.spawn(Client::new(node, access, recorder).work(work, stop.clone()));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client panicked")?;
    }
    for node in through {
        let mut client = Client::new(node, access, recorder);
        let began = Instant::now();
        while let Err(error) = client.read_all().await {
            if began.elapsed() > FINAL_READS_TIMEOUT {
                return Err(error.context(format!(
                    "no final read through {node} within {FINAL_READS_TIMEOUT:?}"
                )));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}
