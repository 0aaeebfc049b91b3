//! Errors in words.

use std::error::Error;
use std::iter;

/// The error and its causes on one line: `issue: cannot read CA key /x: permission denied`. A cause
/// that repeats the text before it is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut links: Vec<String> =
        iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    links.dedup();
    links.join(": ")
}
