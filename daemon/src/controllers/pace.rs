//! How often what grows with the members is made anew and handed on.
//!
//! Each of many members that come in one moment is news to all the others, and the news of one is a list
//! of all: without a pause a crowd of n costs the cube of n. With one that grows with the list, whoever
//! makes lists or reads them works as much in a second, however many members there are; whoever hands
//! them to w readers does so w times.

use std::time::Duration;

/// The pause for each member.
const PER_MEMBER: Duration = Duration::from_millis(1);

/// No news waits longer.
pub const LONGEST: Duration = Duration::from_secs(1);

/// The pause after one list of so many members, before the next is made.
pub fn pause(members: usize) -> Duration {
    u32::try_from(members).map_or(LONGEST, |members| (PER_MEMBER * members).min(LONGEST))
}
