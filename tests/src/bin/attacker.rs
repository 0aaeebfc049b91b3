//! The lab's attacker: `attacker probe TARGET`, `empty-proof TARGET`, `flood TARGET`, `relay LISTEN
//! TARGET`, `impersonate STATE-DIR TARGET`. See `muster_tests::attack`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use muster_tests::attack::{flood, member, probe, relay};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse().with_context(|| format!("{text} is not ip:port"));
    match words[..] {
        ["probe", target] => probe::probe(address(target)?).await,
        ["empty-proof", target] => probe::send_empty_proof(address(target)?).await,
        ["flood", target] => flood::flood(address(target)?).await,
        ["relay", listen, target] => relay::relay(address(listen)?, address(target)?).await,
        ["impersonate", dir, target] => {
            member::impersonate(&PathBuf::from(dir), address(target)?).await
        }
        _ => {
            bail!(
                "usage: attacker probe|empty-proof|flood TARGET, relay LISTEN TARGET, \
                 impersonate DIR TARGET"
            )
        }
    }
}
