//! Throttles work that grows with the number of members.
//!
//! When n members join at once, each join notifies all others, and each notification lists all
//! members. Without a delay, that costs O(n³). With a delay proportional to the list, producing and
//! reading lists costs the same per second for any n. Sending them to w readers costs w times that.

use std::time::Duration;

/// Delay per member.
const DELAY_PER_MEMBER: Duration = Duration::from_millis(1);

/// Maximum delay.
pub const MAX_DELAY: Duration = Duration::from_secs(1);

/// Returns the delay between two lists of this many members.
pub fn delay(members: usize) -> Duration {
    u32::try_from(members).map_or(MAX_DELAY, |members| (DELAY_PER_MEMBER * members).min(MAX_DELAY))
}
