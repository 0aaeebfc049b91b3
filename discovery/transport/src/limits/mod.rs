//! Limits on what peers may use, in total and per key. All of them are pure: the time is an
//! argument, and no limiter does I/O or decides what follows a rejection.
//!
//! - [`RateLimiter`]: events per key over time.
//! - [`ConcurrencyLimiter`]: permits held at the same time, in total and per key.
//! - [`Source`]: the key of unauthenticated peers.

mod concurrency;
pub(crate) mod gate;
mod rate;
mod source;

pub use concurrency::{ConcurrencyLimiter, Permit};
pub use rate::RateLimiter;
pub use source::Source;
