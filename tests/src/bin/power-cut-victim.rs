//! The program whose power is cut: `victim DIR ENGINE SEED FROM TO` opens the store in DIR,
//! performs operations FROM to TO of the script and prints each step. It runs under strace.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use muster_tests::store::script::{OPS_PER_PROCESS, StoreContents, script};
use muster_tests::store::{Node, engines};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: victim DIR ENGINE SEED FROM TO");
    let dir = PathBuf::from(next()?);
    let engine = engines::by_name(&next()?)?;
    let seed = next()?.parse()?;
    let (from, to): (usize, usize) = (next()?.parse()?, next()?.parse()?);

    let mut contents = StoreContents::default();
    let ops = script(seed, to);
    for op in &ops[..from] {
        contents.perform(op);
    }
    let mut node = Node::open(&dir, engine)?;
    if let Some((committed, _)) = contents.committed {
        node.apply_up_to(committed).await?;
    }
    say(&format!("has {from}"))?;
    for (number, op) in ops.iter().enumerate().skip(from) {
        say(&format!("doing {number}"))?;
        node.perform(op, &contents).await?;
        contents.perform(op);
        say(&format!("did {number}"))?;
    }
    if (from / OPS_PER_PROCESS).is_multiple_of(2) {
        drop(node);
    }
    std::process::exit(0); // without closing the node otherwise
}

/// One line is one write, so that it has its place among the file operations.
fn say(line: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(format!("{line}\n").as_bytes())?)
}
