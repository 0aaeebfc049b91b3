//! The long form: libFuzzer, in the process of one selected test.

#![expect(unsafe_code, reason = "libFuzzer is C++")]

use std::env;
use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

use crate::{Target, Verdict, corpus};

/// Variable with this process's target. Tests of other targets end at once.
const WHICH: &str = "MUSTER_FUZZ_TARGET";

/// Variable with libFuzzer's arguments, one per line. The target's corpus is added as the last one.
const ARGUMENTS: &str = "MUSTER_FUZZ_ARGUMENTS";

type Check = Box<dyn Fn(&[u8]) -> Verdict + Send + Sync>;

static CHECK: OnceLock<Box<dyn Fn(&[u8]) + Send + Sync>> = OnceLock::new();

unsafe extern "C" {
    /// Runs libFuzzer with a program's arguments and one call per input. Ends the process.
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        one: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

// The library calls this symbol from its own entry point, which is not used.
libfuzzer_sys::fuzz_target!(|_bytes: &[u8]| {});

extern "C" fn one(bytes: *const u8, length: usize) -> c_int {
    let bytes = if length == 0 {
        &[][..]
    } else {
        // SAFETY: libFuzzer passes `length` bytes that live until the return.
        unsafe { std::slice::from_raw_parts(bytes, length) }
    };
    CHECK.get().expect("the check is set before libFuzzer starts")(bytes);
    0
}

pub(crate) fn run(target: &Target, check: Check) {
    if env::var(WHICH).as_deref() != Ok(target.name) {
        return;
    }
    let name = target.name;
    let (longest, tries, memory) = (target.longest, target.tries, target.memory);
    let bare = Target { name, seeds: Vec::new(), longest, tries, memory };
    let run_one = move |bytes: &[u8]| {
        bare.one(bytes, &*check);
    };
    assert!(CHECK.set(Box::new(run_one)).is_ok(), "one target per process");
    let mut words = vec!["muster-fuzz".to_owned(), format!("-max_len={longest}")];
    words.extend(env::var(ARGUMENTS).unwrap_or_default().lines().map(str::to_owned));
    words.extend(corpus::write_seeds(target).map(|seeds| seeds.display().to_string()));
    words.push(corpus::directory(name).display().to_string());
    let words: Vec<CString> =
        words.into_iter().map(|word| CString::new(word).expect("no NUL in arguments")).collect();
    let mut pointers: Vec<*mut c_char> =
        words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    pointers.push(ptr::null_mut());
    let mut argc = c_int::try_from(words.len()).expect("a few arguments");
    let mut argv = pointers.as_mut_ptr();
    // SAFETY: `argv` is a list of C strings that ends with a null pointer, as `main` gets it; all
    // of it outlives the call.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut argc, &raw mut argv, one) };
    std::process::exit(code);
}
