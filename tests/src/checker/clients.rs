//! The clients: for every node a few, on the operator's machine, in one thread that lives in that
//! machine's network namespace.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::access::Access;
use super::history::History;
use super::workload::{Client, Notes, Work};
use crate::lab::{Host, enter_network};

/// How long the last reads may take once everything is healthy.
const LAST_READS: Duration = Duration::from_mins(1);

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    stop: watch::Sender<bool>,
    notes: Arc<Notes>,
    thread: JoinHandle<Result<()>>,
}

impl Clients {
    /// Starts every kind of client for each of the nodes to go `through`. Their clock counts from
    /// `since`.
    pub fn start(desk: &Host, access: Access, through: Vec<String>, since: Instant) -> Self {
        let (stop, stops) = watch::channel(false);
        let notes = Arc::new(Notes::new(since));
        let (path, shared) = (desk.namespace_path(), Arc::clone(&notes));
        let thread = std::thread::spawn(move || {
            enter_network(&path)?;
            // One thread: every socket is made in the namespace that it has entered.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(&access, &through, &shared, stops))
        });
        Self { stop, notes, thread }
    }

    /// Who leads Raft, as any node last said.
    pub fn leader(&self) -> Option<String> {
        self.notes.leader()
    }

    /// What they saw so far.
    pub fn history(&self) -> History {
        self.notes.history()
    }

    /// Lets them finish, then reads everything once more through every node.
    pub fn finish(self) -> Result<History> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| anyhow!("the clients panicked"))??;
        Ok(self.notes.history())
    }
}

async fn work(
    access: &Access,
    through: &[String],
    notes: &Arc<Notes>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for node in through {
        for work in Work::ALL {
            clients.spawn(Client::new(node, access, notes).work(work, stop.clone()));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client panicked")?;
    }
    for node in through {
        let mut client = Client::new(node, access, notes);
        let began = Instant::now();
        while let Err(error) = client.read_all().await {
            if began.elapsed() > LAST_READS {
                return Err(error.context(format!(
                    "{node} answered no last read within {LAST_READS:?}, in a healthy cluster"
                )));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}
