//! **Claim.** A register whose values are written once each is linearizable: some order of all
//! operations agrees with their times, and each read in it returns the last value written before.
//!
//! Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 26, 1997): in any such order the
//! write of a value and its reads stand together. So one value comes before another if any
//! operation on it ended before any operation on the other began. The history is linearizable
//! exactly if no two values come before each other and no read ended before the write of its value
//! began.

use std::collections::BTreeMap;

use super::Violation;
use crate::checker::history::Register;

/// All operations on one value.
struct ValueSpan {
    value: Option<u64>,
    /// Earliest end of any of the operations.
    first_end: u64,
    /// Latest beginning of any of the operations.
    last_begin: u64,
    what_ended: String,
    what_began: String,
}

impl ValueSpan {
    fn comes_before(&self, other: &Self) -> bool {
        self.first_end < other.last_begin
    }

    fn end(&mut self, at: u64, what: &str, node: &str) {
        if at < self.first_end {
            (self.first_end, self.what_ended) = (at, format!("{what} {node} until {at} µs"));
        }
    }

    fn begin(&mut self, at: u64, what: &str, node: &str) {
        if at > self.last_begin {
            (self.last_begin, self.what_began) = (at, format!("{what} {node} from {at} µs"));
        }
    }
}

pub fn check(register: &Register) -> Vec<Violation> {
    let (spans, mut found) = spans(register);
    for (at, one) in spans.iter().enumerate() {
        for other in &spans[at + 1..] {
            if one.comes_before(other) && other.comes_before(one) {
                found.push(Violation::Cycle {
                    one: one.value.unwrap_or(0),
                    other: other.value.unwrap_or(0),
                    why: format!(
                        "{}, then {}; and {}, then {}",
                        one.what_ended, other.what_began, other.what_ended, one.what_began
                    ),
                });
            }
        }
    }
    found
}

/// Returns the operations by value. Writes that were neither acknowledged nor read are left out:
/// they need not have happened.
fn spans(register: &Register) -> (Vec<ValueSpan>, Vec<Violation>) {
    let mut found = Vec::new();
    let mut spans: BTreeMap<Option<u64>, ValueSpan> = BTreeMap::new();
    // The initial value counts as written before everything else.
    let start = "the beginning".to_owned();
    let none = ValueSpan {
        value: None,
        first_end: 0,
        last_begin: 0,
        what_ended: start.clone(),
        what_began: start,
    };
    spans.insert(None, none);
    let mut began = BTreeMap::new();
    let mut certain = BTreeMap::from([(None, true)]);
    for write in &register.writes {
        let value = Some(write.value);
        began.insert(value, write.began);
        let mut span = ValueSpan {
            value,
            first_end: u64::MAX,
            last_begin: 0,
            what_ended: String::new(),
            what_began: String::new(),
        };
        span.begin(write.began, "written through", &write.node);
        if let Some(at) = write.acknowledged {
            span.end(at, "written through", &write.node);
        }
        certain.insert(value, write.acknowledged.is_some());
        spans.insert(value, span);
    }
    for read in &register.reads {
        let written_before =
            read.seen.is_none() || began.get(&read.seen).is_some_and(|b| *b <= read.ended);
        let (Some(span), true) = (spans.get_mut(&read.seen), written_before) else {
            let value = read.seen.unwrap_or(0);
            found.push(Violation::Phantom { value, read: read.summary() });
            continue;
        };
        span.begin(read.began, "read through", &read.node);
        span.end(read.ended, "read through", &read.node);
        certain.insert(read.seen, true);
    }
    let is_certain = |value: &Option<u64>| certain.get(value).copied().unwrap_or(false);
    let spans = spans.into_iter().filter(|(value, _)| is_certain(value));
    (spans.map(|(_, span)| span).collect(), found)
}
