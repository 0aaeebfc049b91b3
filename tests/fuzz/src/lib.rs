//! Shared part of all fuzz targets: the corpus, new inputs, and the properties that hold for any
//! input. A target is an ordinary test next to the parser that it tests:
//!
//! ```text
//! muster_fuzz::target("token").seed(text).run(|bytes| …);
//! ```
//!
//! Plain `cargo test` runs the corpus (`tests/fuzz/corpus/<target>`), the target's seeds and a
//! bounded number of their mutations, the same ones every time. Built with `--cfg fuzzing`, as
//! `tests/fuzz.sh` does, the same test passes itself to libFuzzer, which is guided by coverage and
//! runs for a given time.
//!
//! For every input the target must not panic, must allocate at most a multiple of the input's size,
//! must come to an end, and must give a reason when it rejects. Other properties (printed values
//! read back, accepted values are within bounds) are asserted by the target itself.

mod corpus;
#[cfg(fuzzing)]
mod engine;
mod memory;
#[cfg(not(fuzzing))]
mod mutate;
#[cfg(not(fuzzing))]
mod quick;

use std::fmt::Display;

/// Outcome of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The parser accepted it.
    Accepted,
    /// The parser rejected it with a reason.
    Refused,
}

/// Maximum length of a reason, in bytes.
const MAX_REASON: usize = 16 << 10;

/// Returns a rejection after checking its reason, which must not be empty and must not repeat the
/// whole input.
pub fn refused(reason: impl Display) -> Verdict {
    let reason = reason.to_string();
    assert!(!reason.trim().is_empty(), "an input was rejected without a reason");
    assert!(reason.len() <= MAX_REASON, "a reason of {} bytes: {reason:.200}", reason.len());
    Verdict::Refused
}

/// A fuzz target; see [`target`].
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    longest: usize,
    tries: usize,
    /// Memory limit of an input: a base, and a factor per byte of the input.
    memory: (usize, usize),
}

/// Returns the target of this name. Its corpus is the directory of the same name.
pub fn target(name: &'static str) -> Target {
    Target { name, seeds: Vec::new(), longest: 4 << 10, tries: 4000, memory: (256 << 10, 64) }
}

impl Target {
    /// Adds a well-formed input, which the parser must accept.
    #[must_use]
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(bytes.into());
        self
    }

    /// Adds several well-formed inputs.
    #[must_use]
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.seeds.extend(seeds);
        self
    }

    /// Sets the maximum length of an input (default 4 KiB).
    #[must_use]
    pub fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// Sets the number of new inputs in the short form (default 4,000).
    #[must_use]
    pub fn tries(mut self, tries: usize) -> Self {
        self.tries = tries;
        self
    }

    /// Sets the maximum memory in use at the same time for one input: `base` bytes, and `factor`
    /// more for each byte of the input (default 256 KiB and 64).
    #[must_use]
    pub fn memory(mut self, base: usize, factor: usize) -> Self {
        self.memory = (base, factor);
        self
    }

    /// Runs the target in the form that this build is for.
    ///
    /// # Panics
    /// When an input shows a defect. The input is saved and its path printed.
    pub fn run(self, check: impl Fn(&[u8]) -> Verdict + Send + Sync + 'static) {
        #[cfg(not(fuzzing))]
        quick::run(&self, &check);
        #[cfg(fuzzing)]
        engine::run(&self, Box::new(check));
    }

    /// Runs one input and checks the common properties.
    fn one(&self, bytes: &[u8], check: &(impl Fn(&[u8]) -> Verdict + ?Sized)) -> Verdict {
        let (verdict, peak) = memory::peak_of(|| check(bytes));
        let (base, factor) = self.memory;
        let allowed = base + factor * bytes.len();
        assert!(
            peak <= allowed,
            "an input of {} bytes made {} allocate {peak} bytes, more than {allowed}",
            bytes.len(),
            self.name
        );
        verdict
    }
}
