//! Exhaustive linearizability check of a small history (Wing and Gong): slow, and too simple to be
//! wrong.

use crate::checker::history::Object;

/// State of a sequential object.
pub(super) trait SequentialObject: Sized + Clone + PartialEq {
    fn empty() -> Self;
    fn written(&self, value: u64) -> Self;
}

impl SequentialObject for std::collections::BTreeSet<u64> {
    fn empty() -> Self {
        Self::new()
    }

    fn written(&self, value: u64) -> Self {
        self.iter().copied().chain([value]).collect()
    }
}

impl SequentialObject for Option<u64> {
    fn empty() -> Self {
        None
    }

    fn written(&self, value: u64) -> Self {
        Some(value)
    }
}

#[derive(Clone)]
enum Op<T> {
    Write { value: u64, began: u64, ended: Option<u64> },
    Read { seen: T, began: u64, ended: u64 },
}

impl<T> Op<T> {
    fn began(&self) -> u64 {
        match self {
            Self::Write { began, .. } | Self::Read { began, .. } => *began,
        }
    }

    fn ended(&self) -> u64 {
        match self {
            Self::Write { ended, .. } => ended.unwrap_or(u64::MAX),
            Self::Read { ended, .. } => *ended,
        }
    }
}

/// Returns true if any order explains the history.
pub(super) fn is_linearizable<T: SequentialObject>(object: &Object<T>) -> bool {
    let writes = object.writes.iter().map(|write| Op::Write {
        value: write.value,
        began: write.began,
        ended: write.acknowledged,
    });
    let reads = object.reads.iter().map(|read| Op::Read {
        seen: read.seen.clone(),
        began: read.began,
        ended: read.ended,
    });
    explains(&T::empty(), &writes.chain(reads).collect::<Vec<_>>())
}

fn explains<T: SequentialObject>(state: &T, left: &[Op<T>]) -> bool {
    if left.iter().all(|op| matches!(op, Op::Write { ended: None, .. })) {
        return true;
    }
    (0..left.len()).any(|at| {
        let op = &left[at];
        if left.iter().any(|other| other.ended() < op.began()) {
            return false;
        }
        let rest: Vec<_> = [&left[..at], &left[at + 1..]].concat();
        match op {
            Op::Write { value, .. } => explains(&state.written(*value), &rest),
            Op::Read { seen, .. } => seen == state && explains(state, &rest),
        }
    })
}
