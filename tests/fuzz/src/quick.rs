//! The short form: the corpus, the seeds, and a bounded number of mutations.

use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutate};
use crate::{Target, Verdict, corpus};

/// No more new inputs after this: a slow machine tries fewer.
const SPAN: Duration = Duration::from_secs(2);

/// What one input may take of a processor. Not of time: others may be using the machine.
const PROCESSOR: Duration = Duration::from_secs(2);

pub(crate) fn run(target: &Target, check: &dyn Fn(&[u8]) -> Verdict) {
    corpus::plant(target);
    let kept = corpus::read(target.name);
    let mut tally = [0_usize; 2];
    let mut take = |bytes: &[u8], from: &str| {
        let verdict = guarded(target, bytes, check, from);
        tally[usize::from(verdict == Verdict::Refused)] += 1;
        verdict
    };
    for (name, bytes) in &kept {
        take(bytes, &format!("kept as {}/{name}", target.name));
    }
    for (number, seed) in target.seeds.iter().enumerate() {
        let verdict = take(seed, &format!("seed {number}"));
        assert_eq!(verdict, Verdict::Accepted, "{} refuses its seed {number}", target.name);
    }
    // Not from the seeds, some of which are signed anew each time.
    let known: Vec<_> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::of(target.name);
    let begun = Instant::now();
    let mut tried = 0;
    while tried < target.tries && begun.elapsed() < SPAN {
        take(&mutate(&known, target.longest, &mut random), "made");
        tried += 1;
    }
    let [accepted, refused] = tally;
    // A target that never gets in, or never says no, attacks nothing.
    assert!(accepted > 0 && refused > 0, "{}: {accepted} accepted, {refused} refused", target.name);
    said(&format!(
        "{}: {} kept, {tried} made, {accepted} accepted, {refused} refused",
        target.name,
        known.len()
    ));
}

#[expect(clippy::print_stdout, reason = "shown by `--nocapture`, and with a failure")]
fn said(line: &str) {
    println!("{line}");
}

/// One input; when it shows a defect, it is kept and named before the test fails.
fn guarded(target: &Target, bytes: &[u8], check: &dyn Fn(&[u8]) -> Verdict, from: &str) -> Verdict {
    let begun = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target.one(bytes, check)));
    let verdict = match outcome {
        Ok(verdict) => verdict,
        Err(defect) => {
            said(&format!("{}: an input ({from}) shows a defect: {}", target.name, kept(bytes)));
            panic::resume_unwind(defect)
        }
    };
    if begun.elapsed() > PROCESSOR {
        let before = processor_time();
        target.one(bytes, check);
        let took = processor_time().saturating_sub(before);
        assert!(
            took <= PROCESSOR,
            "{}: an input ({from}) took {took:?} of the processor: {}",
            target.name,
            kept(bytes)
        );
    }
    verdict
}

/// What this thread has used of the processor (proc(5), `schedstat`).
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("proc is mounted");
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat begins with a number"))
}

/// Writes the input to a file outside the tree, and names it.
fn kept(bytes: &[u8]) -> String {
    let mut name = String::from("muster-fuzz-");
    let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
    write!(name, "{sum:016x}").expect("memory takes every write");
    let path = std::env::temp_dir().join(name);
    match fs::write(&path, bytes) {
        Ok(()) => format!("{} (keep it in tests/fuzz/corpus once it is mended)", path.display()),
        Err(error) => format!("{} ({error})", bytes.escape_ascii()),
    }
}
