//! One file: its durable part, and the possible states of its sectors after a power cut.

use rand::{Rng, RngExt};

/// Unit that a drive writes atomically.
const SECTOR: usize = 512;

/// Contents of a file, and the changes since its last sync.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    durable: Vec<u8>,
    pending: Vec<(usize, Change)>,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength(usize),
}

impl Change {
    fn perform(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLength(length) => contents.resize(*length, 0),
        }
    }
}

/// Part of the unsynced changes that survives. Uniform chance alone would seldom produce regular
/// patterns, such as the last write without those before it.
#[derive(Debug, Clone, Copy)]
enum Survival {
    Nothing,
    Everything,
    /// The first changes arrived, the next one in part.
    Prefix,
    /// The last changes arrived, those before did not.
    Suffix,
    /// Each sector is in any state it had.
    Mixed,
}

impl File {
    pub(super) fn change(&mut self, event: usize, change: Change) {
        self.pending.push((event, change));
    }

    /// Makes durable what was complete before event number `begun`.
    pub(super) fn sync(&mut self, begun: usize) {
        let (done, rest) = self.pending.iter().cloned().partition(|(event, _)| *event < begun);
        let done: Vec<(usize, Change)> = done;
        for (_, change) in done {
            change.perform(&mut self.durable);
        }
        self.pending = rest;
    }

    /// Returns the contents while the power is on.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut contents = self.durable.clone();
        for (_, change) in &self.pending {
            change.perform(&mut contents);
        }
        contents
    }

    /// Returns one possible content after a power cut.
    pub(super) fn after_cut(&self, rng: &mut impl Rng) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let survivals = [
            Survival::Nothing,
            Survival::Everything,
            Survival::Prefix,
            Survival::Suffix,
            Survival::Mixed,
            Survival::Mixed,
        ];
        match survivals[rng.random_range(0..survivals.len())] {
            Survival::Nothing => self.durable.clone(),
            Survival::Everything => self.contents(),
            Survival::Prefix => {
                let whole = rng.random_range(0..self.pending.len());
                let mut contents = self.durable.clone();
                for (_, change) in &self.pending[..whole] {
                    change.perform(&mut contents);
                }
                mixed(&contents, &self.pending[whole..=whole], rng)
            }
            Survival::Suffix => {
                let lost = rng.random_range(0..self.pending.len());
                let mut contents = self.durable.clone();
                for (_, change) in &self.pending[lost..] {
                    change.perform(&mut contents);
                }
                contents
            }
            Survival::Mixed => mixed(&self.durable, &self.pending, rng),
        }
    }
}

/// Returns contents with each sector, and the length, in any state between `before` and after all
/// of `changes`.
fn mixed(before: &[u8], changes: &[(usize, Change)], rng: &mut impl Rng) -> Vec<u8> {
    let mut length = before.len();
    let mut longest = before.len();
    let mut state = before.to_vec();
    let mut chosen = before.to_vec();
    // Reservoir sampling: the n-th state of a sector replaces the choice with probability 1/n.
    let mut states: Vec<u32> = vec![1; before.len().div_ceil(SECTOR)];
    for (seen, (_, change)) in (2..).zip(changes) {
        let old = state.len();
        change.perform(&mut state);
        if state.len() != old && rng.random_range(0..seen) == 0 {
            length = state.len();
        }
        longest = longest.max(state.len());
        chosen.resize(longest, 0);
        states.resize(longest.div_ceil(SECTOR), 1);
        let touched = match change {
            Change::Write { offset, bytes } => *offset..offset + bytes.len(),
            Change::SetLength(new) => (*new).min(old)..old,
        };
        if touched.is_empty() {
            continue;
        }
        let sectors = touched.start / SECTOR..touched.end.div_ceil(SECTOR);
        for (sector, states) in sectors.clone().zip(&mut states[sectors]) {
            *states += 1;
            if rng.random_range(0..*states) != 0 {
                continue;
            }
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(longest);
            for at in range {
                chosen[at] = state.get(at).copied().unwrap_or(0);
            }
        }
    }
    chosen.resize(length, 0);
    chosen
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn written(file: &mut File, event: usize, offset: usize, byte: u8, len: usize) {
        file.change(event, Change::Write { offset, bytes: vec![byte; len] });
    }

    #[test]
    fn what_was_synced_is_always_there_and_what_was_not_may_be() {
        let mut file = File::default();
        written(&mut file, 0, 0, 1, 4 * SECTOR);
        file.sync(1);
        written(&mut file, 2, SECTOR, 2, 2 * SECTOR);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let left = file.after_cut(&mut StdRng::seed_from_u64(seed));
            assert_eq!(left.len(), 4 * SECTOR);
            assert_eq!((left[0], left[3 * SECTOR]), (1, 1));
            seen.insert((left[SECTOR], left[2 * SECTOR]));
        }
        assert_eq!(seen.len(), 4, "torn both ways, whole and absent: {seen:?}");
    }

    #[test]
    fn a_sync_covers_only_what_was_complete_when_it_began() {
        let mut file = File::default();
        written(&mut file, 0, 0, 1, SECTOR);
        written(&mut file, 1, SECTOR, 2, SECTOR);
        file.sync(1);
        assert_eq!(file.durable.len(), SECTOR);
        assert_eq!(file.contents().len(), 2 * SECTOR);
    }

    #[test]
    fn an_unsynced_length_may_be_lost() {
        let mut file = File::default();
        written(&mut file, 0, 0, 1, SECTOR);
        let lengths: std::collections::BTreeSet<_> =
            (0..50).map(|s| file.after_cut(&mut StdRng::seed_from_u64(s)).len()).collect();
        assert_eq!(lengths, [0, SECTOR].into());
    }
}
