//! Progress lines of tests, shown at once.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a line to standard error. The test harness would hold back `println!` unless the test
/// fails.
pub fn report(line: impl Display) {
    // The reader may be gone.
    writeln!(std::io::stderr(), "{line}").ok();
}
