//! What a test has covered, for whoever reads its output.

use std::fmt::Display;
use std::io::Write as _;

/// Says a line at once. `println!` would be kept back by the test harness unless the test fails.
pub fn report(line: impl Display) {
    // Nobody may be listening.
    writeln!(std::io::stderr(), "{line}").ok();
}
