//! Attacks, run by the `attacker` program (`src/bin/attacker.rs`) so that the packets come from a
//! host of their own. An attacker knows all of Muster's code and holds only the secrets that it is
//! given.

pub mod flood;
pub mod member;
pub mod probe;
pub mod quic_client;
pub mod relay;
pub mod stolen_state;

use std::io::Write as _;

use anyhow::Result;

/// Prints one line of what was observed, for the test to read.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
