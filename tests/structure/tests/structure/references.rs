//! Documents and comments refer to files, headings and names that exist.

use anyhow::{Result, ensure};
use muster_structure::references::Tree;
use muster_structure::workspace;

#[test]
fn every_path_link_and_name_in_documents_and_comments_exists() -> Result<()> {
    let tree = Tree::read(&workspace())?;
    ensure!(tree.documents() > 30, "only {} documents were found", tree.documents());
    let broken = tree.broken();
    ensure!(
        broken.is_empty(),
        "{} references point to nothing:\n  {}",
        broken.len(),
        broken.join("\n  ")
    );
    Ok(())
}

/// Problems of a document with this text, in a tree with a few other files.
fn problems(text: &str) -> Vec<String> {
    let mut tree = Tree::default();
    tree.add("README.md", "# Title\n\n## Two `commands`: a *word*\n\n## Same\n\n## Same\n");
    tree.add("daemon/src/raft/quorum.rs", "// See daemon/src/raft.\nfn check_quorum() {}\n");
    tree.add("docs/page.md", text);
    tree.broken()
}

#[test]
fn references_that_lead_somewhere_are_accepted() {
    let accepted = [
        "[a](../README.md), [b](../README.md#two-commands-a-word), [c](../README.md#same-1), [d](..)",
        "# Here\n\n[here](#here) and [the host](https://example.org/daemon/none.rs).",
        "| the leader | daemon/src/raft, daemon/src/raft/quorum.rs |",
        "`raft/quorum.rs`, `quorum.rs` and `daemon/src/`; `check_quorum()`, `checkQuorum`, `Raft`",
        "`daemon/src/<part>`, `<part>/tests.rs`, `*.rs`, `daemon/src/*.rs`, /etc/musterd, muster-hello/1",
        "```diff\n--- a/daemon/src/raft/quorum.rs\n+++ b/daemon/src/added.rs\n+new_name\n```",
    ];
    for text in accepted {
        assert_eq!(problems(text), [""; 0], "{text}");
    }
}

#[test]
fn references_that_point_to_nothing_are_rejected() {
    let rejected = [
        ("[a](README.md)", "1: link README.md"),
        ("[a](../../README.md)", "1: link ../../README.md"),
        ("\n[a](../README.md#three-commands)", "2: link ../README.md#three-commands"),
        ("[a](#here)", "1: link #here"),
        ("[a](../README.md#same-2)", "1: link ../README.md#same-2"),
        ("`daemon/src/raft/voters.rs`", "1: path daemon/src/raft/voters.rs"),
        ("| the leader | daemon/raft, daemon/src |", "1: path daemon/raft"),
        ("See `raft/voters.rs`.", "1: path raft/voters.rs"),
        ("See (voters.rs).", "1: path voters.rs"),
        ("`daemon/raft/<part>`", "1: path daemon/raft/<part>"),
        ("`Raft::count_votes()`", "1: name count_votes"),
        ("`CheckQuorums`", "1: name CheckQuorums"),
        ("```diff\n--- a/daemon/src/removed.rs\n```", "2: path daemon/src/removed.rs"),
    ];
    for (text, problem) in rejected {
        assert_eq!(problems(text), [format!("docs/page.md:{problem}")], "{text}");
    }
}

#[test]
fn a_comment_that_names_a_moved_file_is_rejected() {
    let mut tree = Tree::default();
    tree.add("docs/page.md", "");
    tree.add("pki/src/key.rs", "let path = \"pki/old.rs\";\n    /// Described in docs/pages.md.\n");
    assert_eq!(tree.broken(), ["pki/src/key.rs:2: path docs/pages.md"]);
}
