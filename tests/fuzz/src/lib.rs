//! What every fuzz target of the project shares: its corpus, where new inputs come from, and what
//! must hold for any of them. A target is an ordinary test that lives with the parser it attacks:
//!
//! ```text
//! muster_fuzz::target("token").seed(text).run(|bytes| …);
//! ```
//!
//! Under plain `cargo test` the corpus (`tests/fuzz/corpus/TARGET`), the target's own seeds and a
//! bounded number of their mutations are tried, the same ones every time. Built with
//! `--cfg fuzzing`, as `tests/fuzz.sh` does, the same test hands itself to libFuzzer, which is
//! guided by coverage and goes on for as long as it is told to.
//!
//! For every input it is checked that the target does not panic, that it allocates no more than a
//! multiple of what it was given, and that it comes to an end; what it refuses, it refuses with a
//! reason. Everything else (what is printed reads back, what is accepted is within its bounds) a
//! target asserts by itself.

mod corpus;
#[cfg(fuzzing)]
mod engine;
mod memory;
#[cfg(not(fuzzing))]
mod mutate;
#[cfg(not(fuzzing))]
mod quick;

use std::fmt::Display;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the parser reads.
    Accepted,
    /// It is not, and the parser said why.
    Refused,
}

/// The longest reason for a refusal that makes sense to anybody, in bytes.
const MAX_REASON: usize = 16 << 10;

/// A refusal with its reason, which must say something and must not be the input all over again.
pub fn refused(reason: impl Display) -> Verdict {
    let reason = reason.to_string();
    assert!(!reason.trim().is_empty(), "an input was refused without a reason");
    assert!(reason.len() <= MAX_REASON, "a refusal of {} bytes: {reason:.200}", reason.len());
    Verdict::Refused
}

/// A fuzz target; see [`target`].
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    longest: usize,
    tries: usize,
    /// What an input may allocate: so much, and so much more for each of its bytes.
    memory: (usize, usize),
}

/// The target of this name; its corpus is the directory of the same name.
pub fn target(name: &'static str) -> Target {
    Target { name, seeds: Vec::new(), longest: 4 << 10, tries: 4000, memory: (256 << 10, 64) }
}

impl Target {
    /// A well-formed input, which the parser has to accept.
    #[must_use]
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(bytes.into());
        self
    }

    /// Several of them.
    #[must_use]
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.seeds.extend(seeds);
        self
    }

    /// No input is longer than this (4 KiB unless said otherwise).
    #[must_use]
    pub fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// How many new inputs the short form tries (4000 unless said otherwise).
    #[must_use]
    pub fn tries(mut self, tries: usize) -> Self {
        self.tries = tries;
        self
    }

    /// What one input may have allocated at the same time: `base` bytes, and `factor` more for each
    /// byte of the input (256 KiB and 64 unless said otherwise).
    #[must_use]
    pub fn memory(mut self, base: usize, factor: usize) -> Self {
        self.memory = (base, factor);
        self
    }

    /// Runs the target in the form that this build is for.
    ///
    /// # Panics
    /// When an input shows a defect; the input is kept and named.
    pub fn run(self, check: impl Fn(&[u8]) -> Verdict + Send + Sync + 'static) {
        #[cfg(not(fuzzing))]
        quick::run(&self, &check);
        #[cfg(fuzzing)]
        engine::run(&self, Box::new(check));
    }

    /// One input, with all that is to hold for any.
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
