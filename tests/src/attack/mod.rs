//! What an attacker does, each as a program of the lab (`src/bin/attacker.rs`), so that its packets
//! come from a host of its own. It knows all of Muster's code and holds no secret but those it is
//! given.

pub mod flood;
pub mod member;
pub mod probe;
pub mod quic_client;
pub mod relay;
pub mod stolen_state;

use std::io::Write as _;

use anyhow::Result;

/// One line of what was seen, for the test to read.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
