//! The messages and calls of a release stay as they are: a later version adds, and changes nothing.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use muster_structure::contract::Contract;
use muster_structure::workspace;

/// Set to accept the present contract as the released one.
const BLESS: &str = "MUSTER_BLESS";

fn released_file() -> PathBuf {
    workspace().join("tests/compat/contract.txt")
}

const HEAD: &str = "\
# The released contract: messages, fields, enum values, calls and roles of proto/messages. Written by
#     MUSTER_BLESS=1 cargo test --locked --workspace --test structure contract
# A line that disappears here breaks every peer of an earlier version. See docs/release.md.
";

#[test]
fn the_contract_still_says_what_was_released() -> Result<()> {
    let contract = Contract::compile(&workspace().join("proto/messages/proto"))?;
    if std::env::var_os(BLESS).is_some() {
        fs::write(released_file(), format!("{HEAD}{}", contract.to_text()))?;
    }
    let text = fs::read_to_string(released_file()).context("read tests/compat/contract.txt")?;
    let released = Contract::parse(&text);
    ensure!(released.len() > 100, "the released contract has only {} lines", released.len());
    let broken = contract.broken(&released);
    ensure!(
        broken.is_empty(),
        "the .proto files break the released contract; these lines do not hold any more:\n  {}\n\
         add new fields and calls instead; only before the first release: {BLESS}=1 cargo test \
         --locked --workspace --test structure contract",
        broken.join("\n  ")
    );
    Ok(())
}

/// A contract of its own, to change.
const SMALL: &str = r#"
syntax = "proto3";
package muster.small.v1;
import "google/protobuf/descriptor.proto";
service Small { rpc Get(Request) returns (stream Reply) { option (access) = {keys: ["a", "b"]}; } }
message Access { repeated string keys = 1; }
extend google.protobuf.MethodOptions { optional Access access = 50001; }
message Request { string name = 1; repeated bytes keys = 2; optional uint64 limit = 3; }
message Reply { oneof answer { string text = 1; Kind kind = 2; } map<string, Request> more = 4; }
enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }
"#;

fn compile(text: &str) -> Result<Contract> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("small"))?;
    fs::write(folder.path().join("small/small.proto"), text)?;
    Contract::compile(folder.path())
}

/// Statements that `SMALL` loses when `old` becomes `new`.
fn broken(old: &str, new: &str) -> Result<Vec<String>> {
    ensure!(SMALL.contains(old), "the small contract has no {old}");
    Ok(compile(&SMALL.replace(old, new))?.broken(&compile(SMALL)?))
}

#[test]
fn additions_are_compatible() -> Result<()> {
    let additions = [
        ("string name = 1;", "string name = 1; bool more = 9;"),
        ("KIND_ONE = 1;", "KIND_ONE = 1; KIND_TWO = 2;"),
        ("string text = 1;", "string text = 1; bytes data = 9;"),
        ("rpc Get", "rpc Put(Request) returns (Reply); rpc Get"),
        ("enum Kind", "message New {} enum Kind"),
    ];
    for (old, new) in additions {
        ensure!(broken(old, new)?.is_empty(), "{new} is said to break the contract");
    }
    Ok(())
}

#[test]
fn every_kind_of_breaking_change_is_found() -> Result<()> {
    let field = |line: &str| format!("muster.small.v1.{line}");
    let changes = [
        ("string name = 1;", "", field("Request 1 name: string")),
        ("string name = 1;", "string name = 9;", field("Request 1 name: string")),
        ("string name = 1;", "string title = 1;", field("Request 1 name: string")),
        ("string name = 1;", "bytes name = 1;", field("Request 1 name: string")),
        ("repeated bytes", "bytes", field("Request 2 keys: repeated bytes")),
        ("optional uint64", "uint64", field("Request 3 limit: optional uint64")),
        ("uint64 limit", "int64 limit", field("Request 3 limit: optional uint64")),
        (
            "Kind kind = 2;",
            "Request kind = 2;",
            field("Reply 2 kind: muster.small.v1.Kind, in oneof answer"),
        ),
        (
            "Kind kind = 2; }",
            "} Kind kind = 2;",
            field("Reply 2 kind: muster.small.v1.Kind, in oneof answer"),
        ),
        ("<string, Request>", "<uint32, Request>", field("Reply.MoreEntry 1 key: string")),
        ("KIND_ONE = 1", "KIND_ONE = 3", "enum muster.small.v1.Kind 1 KIND_ONE".to_owned()),
        ("KIND_ONE = 1", "KIND_FIRST = 1", "enum muster.small.v1.Kind 1 KIND_ONE".to_owned()),
        ("(stream Reply)", "(Reply)", call()),
        ("rpc Get", "rpc Fetch", call()),
        ("package muster.small.v1", "package muster.small.v2", call()),
        (r#"["a", "b"]"#, r#"["a"]"#, access()),
        (r#"["a", "b"]"#, r#"["a", "b", "c"]"#, access()),
        (r#" { option (access) = {keys: ["a", "b"]}; }"#, ";", access()),
    ];
    for (old, new, line) in changes {
        let found = broken(old, new)?;
        ensure!(found.contains(&line), "{old} -> {new}: {found:?} lacks {line:?}");
    }
    Ok(())
}

fn call() -> String {
    "call muster.small.v1.Small/Get muster.small.v1.Request -> stream muster.small.v1.Reply"
        .to_owned()
}

fn access() -> String {
    r#"option muster.small.v1.Small/Get muster.small.v1.access: {keys:["a","b"]}"#.to_owned()
}

#[test]
fn a_contract_survives_its_text_form() -> Result<()> {
    let contract = compile(SMALL)?;
    ensure!(Contract::parse(&format!("{HEAD}\n{}", contract.to_text())) == contract);
    Ok(())
}
