//! A node's operations on its store, from a seed, and the contents that the store must then have.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Number of operations of one process of the victim. Then it dies and is restarted.
pub const OPS_PER_PROCESS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Vote {
        term: u64,
    },
    /// A majority has confirmed its own vote.
    Lead {
        term: u64,
    },
    /// While the node leads, `ahead` is set: the operation returns before the entries are on its
    /// own disk.
    Append {
        first: u64,
        count: u64,
        term: u64,
        ahead: bool,
    },
    Truncate {
        from: u64,
    },
    Commit {
        to: u64,
    },
    Snapshot,
    Purge {
        to: u64,
    },
    /// A leader's snapshot beyond the end of the log. The entries that it covers are then purged
    /// and committed.
    Install {
        to: u64,
    },
}

impl Op {
    /// Returns true if the log is durable up to here when the operation returns. Snapshots are
    /// files, and a committed index is written with the next write.
    pub fn acknowledges_log(&self) -> bool {
        !matches!(self, Self::Commit { .. } | Self::Append { ahead: true, .. })
            && !self.acknowledges_snapshot()
    }

    /// Returns true if a snapshot is durable when the operation returns.
    pub fn acknowledges_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot | Self::Install { .. })
    }
}

/// Contents of a store after some operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreContents {
    pub vote: Option<u64>,
    /// Index and term.
    pub purged: Option<(u64, u64)>,
    /// Index and term of the last committed entry.
    pub committed: Option<(u64, u64)>,
    /// Term of every entry, by index.
    pub log: BTreeMap<u64, u64>,
    /// Last index in the newest snapshot.
    pub snapshot: Option<u64>,
    /// Like `log`, including purged entries.
    pub history: BTreeMap<u64, u64>,
    /// True until the next vote or the end of the process.
    pub leads: bool,
}

impl StoreContents {
    fn next(&self) -> u64 {
        self.history.last_key_value().map_or(0, |(index, _)| index + 1)
    }

    fn after_committed(&self) -> u64 {
        self.committed.map_or(0, |(index, _)| index + 1)
    }

    pub fn perform(&mut self, op: &Op) {
        match *op {
            Op::Vote { term } => (self.vote, self.leads) = (Some(term), false),
            Op::Lead { term } => (self.vote, self.leads) = (Some(term), true),
            Op::Append { first, count, term, ahead: _ } => {
                for index in first..first + count {
                    self.log.insert(index, term);
                    self.history.insert(index, term);
                }
            }
            Op::Truncate { from } => {
                self.log.split_off(&from);
                self.history.split_off(&from);
            }
            Op::Commit { to } => self.committed = Some((to, self.history[&to])),
            Op::Snapshot => self.snapshot = self.committed.map(|(index, _)| index),
            Op::Purge { to } => {
                self.log = self.log.split_off(&(to + 1));
                self.purged = Some((to, self.history[&to]));
            }
            Op::Install { to } => {
                // The leader's entries replace everything that was not committed here.
                let term = self.term();
                self.history.split_off(&self.after_committed());
                self.history.extend((self.after_committed()..=to).map(|index| (index, term)));
                self.snapshot = Some(to);
            }
        }
    }

    fn term(&self) -> u64 {
        self.vote.unwrap_or(0)
    }

    /// Returns a possible next operation in this state.
    fn choose(&self, rng: &mut StdRng) -> Op {
        let index = |pair: Option<(u64, u64)>| pair.map(|(index, _)| index);
        if let Some(installed) = self.snapshot.filter(|to| index(self.committed) < Some(*to)) {
            return if index(self.purged) < Some(installed) {
                Op::Purge { to: installed }
            } else {
                Op::Commit { to: installed }
            };
        }
        let append = |rng: &mut StdRng| Op::Append {
            first: self.next(),
            count: rng.random_range(1..=4),
            term: self.term(),
            ahead: self.leads,
        };
        let term = self.term() + 1;
        match rng.random_range(0..100) {
            0..4 => Op::Vote { term },
            4..8 => match self.vote {
                Some(term) if !self.leads => Op::Lead { term },
                _ => Op::Vote { term },
            },
            8..14 if self.after_committed() < self.next() && !self.leads => {
                Op::Truncate { from: rng.random_range(self.after_committed()..self.next()) }
            }
            14..34 if self.after_committed() < self.next() => {
                Op::Commit { to: rng.random_range(self.after_committed()..self.next()) }
            }
            34..40 if index(self.committed) > self.snapshot => Op::Snapshot,
            40..46 if self.snapshot > index(self.purged) => {
                let from = self.purged.map_or(0, |(index, _)| index + 1);
                Op::Purge { to: rng.random_range(from..=self.snapshot.unwrap_or(from)) }
            }
            46..49 if !self.leads => Op::Install { to: self.next() + rng.random_range(0..30) },
            _ => append(rng),
        }
    }
}

/// Returns the operations of a seed.
pub fn script(seed: u64, length: usize) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut contents = StoreContents::default();
    let mut ops = Vec::new();
    while ops.len() < length {
        let op = contents.choose(&mut rng);
        let left = OPS_PER_PROCESS - ops.len() % OPS_PER_PROCESS;
        let is_last = left == 1;
        // No operation may be incomplete when the victim dies. An installation is three operations.
        if is_last && !op.acknowledges_log() || left < 4 && matches!(op, Op::Install { .. }) {
            continue;
        }
        contents.perform(&op);
        contents.leads &= !is_last;
        ops.push(op);
    }
    ops
}

/// Returns the command of an entry. Most are short, some are longer than one record.
pub fn command(index: u64, term: u64) -> String {
    let mut rng = StdRng::seed_from_u64(index << 20 | term);
    let length = match rng.random_range(0..100) {
        0..2 => rng.random_range(9_000..90_000),
        2..10 => rng.random_range(2_000..9_000),
        _ => rng.random_range(20..500),
    };
    let mut text = format!("{index}/{term}:");
    while text.len() < length {
        text.push(char::from(rng.random_range(b'a'..=b'z')));
    }
    text
}
