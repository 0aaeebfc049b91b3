//! The short form: the corpus, the seeds, and a bounded number of mutations.

use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutate};
use crate::{Target, Verdict, corpus};

/// Time limit for new inputs: a slow machine tries fewer.
const SPAN: Duration = Duration::from_secs(2);

/// Maximum processor time of one input. Not wall time, because other programs may use the machine.
const PROCESSOR: Duration = Duration::from_secs(2);

pub(crate) fn run(target: &Target, check: &dyn Fn(&[u8]) -> Verdict) {
    corpus::write_seeds(target);
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
    // Not from the seeds, because some are signed again each time.
    let known: Vec<_> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::of(target.name);
    let begun = Instant::now();
    let mut tried = 0;
    while tried < target.tries && begun.elapsed() < SPAN {
        take(&mutate(&known, target.longest, &mut random), "made");
        tried += 1;
    }
    let [accepted, refused] = tally;
    // A target that accepts nothing or rejects nothing tests nothing.
    assert!(accepted > 0 && refused > 0, "{}: {accepted} accepted, {refused} refused", target.name);
    print_line(&format!(
        "{}: {} kept, {tried} made, {accepted} accepted, {refused} refused",
        target.name,
        known.len()
    ));
}

#[expect(clippy::print_stdout, reason = "shown by `--nocapture`, and with a failure")]
fn print_line(line: &str) {
    println!("{line}");
}

/// Runs one input. If it shows a defect, it is saved and its path printed before the test fails.
fn guarded(target: &Target, bytes: &[u8], check: &dyn Fn(&[u8]) -> Verdict, from: &str) -> Verdict {
    let begun = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target.one(bytes, check)));
    let verdict = match outcome {
        Ok(verdict) => verdict,
        Err(defect) => {
            print_line(&format!(
                "{}: an input ({from}) shows a defect: {}",
                target.name,
                save(bytes)
            ));
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
            save(bytes)
        );
    }
    verdict
}

/// Returns the processor time of this thread (proc(5), `schedstat`).
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("proc is mounted");
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("schedstat begins with a number"))
}

/// Writes the input to a file outside the tree and returns its path.
fn save(bytes: &[u8]) -> String {
    let mut name = String::from("muster-fuzz-");
    let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
    write!(name, "{sum:016x}").expect("writing to a string cannot fail");
    let path = std::env::temp_dir().join(name);
    match fs::write(&path, bytes) {
        Ok(()) => format!("{} (add it to tests/fuzz/corpus with the fix)", path.display()),
        Err(error) => format!("{} ({error})", bytes.escape_ascii()),
    }
}
