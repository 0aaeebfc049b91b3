//! Invariants of a [`History`], one file each, with the claim at its head. They are pure: no clock,
//! no I/O, and no knowledge of Muster beyond the history.
//!
//! A history of a grow-only set is linearizable exactly if all of [`no_phantom_value`],
//! [`no_lost_write`], [`no_stale_read`], [`writes_in_order`] and [`reads_agree`] hold. To see that
//! they suffice, order the operations by time (one ended before the other began) and by content (a
//! write before the reads that show it, after those that do not). A cycle with several time steps
//! can be shortened to one: if a<b and c<d, then a<d or c<b. Without a time step the shortest cycle
//! is two reads that disagree. With one, it is a time step between two operations that the content
//! orders the other way round: read to write (phantom), write to read (lost), read to read (stale),
//! write to write (out of order).
//!
//! `search` tries every order of a small history; tests compare the invariants with it.

pub mod linearizable_register;
pub mod no_lost_write;
pub mod no_phantom_value;
pub mod no_stale_read;
pub mod one_cluster;
pub mod reads_agree;
#[cfg(test)]
mod search;
mod set;
#[cfg(test)]
mod tests;
pub mod unique_writes;
mod violation;
pub mod writes_in_order;

pub use set::SetIndex;
pub use violation::{ReadSummary, Violation};

use super::history::{History, Register, Set};

/// Returns every violation of a history, with the object that it concerns.
pub fn check(history: &History) -> Vec<(&'static str, Violation)> {
    let mut found = Vec::new();
    let mut add = |object, violations: Vec<Violation>| {
        found.extend(violations.into_iter().map(|violation| (object, violation)));
    };
    add("muster's tokens", check_set(&history.tokens));
    add("etcd's keys", check_set(&history.keys));
    add("etcd's register", check_register(&history.register));
    add("clusters", one_cluster::check(&history.cluster_ids));
    found
}

/// Checks all invariants of a set.
pub fn check_set(set: &Set) -> Vec<Violation> {
    let index = SetIndex::of(set);
    let mut found = unique_writes::check(&set.writes);
    found.extend(no_phantom_value::check(&index));
    found.extend(no_lost_write::check(&index));
    found.extend(no_stale_read::check(&index));
    found.extend(writes_in_order::check(&index));
    found.extend(reads_agree::check(&index));
    found
}

/// Checks a register.
pub fn check_register(register: &Register) -> Vec<Violation> {
    let mut found = unique_writes::check(&register.writes);
    found.extend(linearizable_register::check(register));
    found
}
