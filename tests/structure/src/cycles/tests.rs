use std::fs;

use super::*;

/// Writes a crate from (file, text) pairs, and returns its cycles as sorted module names.
fn cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let found = find(&folder.path().join("lib.rs")).unwrap();
    found.iter().map(|cycle| cycle.modules.iter().map(|path| name(path)).collect()).collect()
}

/// The cycles of a crate with the sibling modules `a` and `b`.
fn siblings(a: &str, b: &str) -> Vec<Vec<String>> {
    cycles(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)])
}

#[test]
fn two_modules_that_use_each_other_are_a_cycle() {
    let both = [["a", "b"]];
    assert_eq!(siblings("use crate::b::B; pub struct A;", "use crate::a::A; pub struct B;"), both);
    assert_eq!(siblings("use super::b::B; pub struct A;", "use super::a::A; pub struct B;"), both);
    assert_eq!(siblings("use crate::b;", "fn f() { crate::a::g() }"), both);
    assert_eq!(siblings("use crate::{b::{self, c::D}};", "pub use crate::a::*;"), both);
    assert_eq!(siblings("type B = crate::b::B;", "impl super::a::A for B {}"), both);
    assert_eq!(siblings("use crate::b as other;", "use {super::a as x};"), both);
}

#[test]
fn one_direction_is_no_cycle() {
    assert_eq!(siblings("use crate::b::B; pub struct A;", "pub struct B;"), [[""; 0]; 0]);
    assert_eq!(siblings("use crate::b::B;", "// use crate::a::A;\nconst S: &str = \"\";").len(), 0);
    assert_eq!(siblings("use crate::b::B;", "pub(in crate::a) struct B;").len(), 0);
}

#[test]
fn a_cycle_through_macros_and_attributes_is_found() {
    let both = [["a", "b"]];
    assert_eq!(siblings("use crate::b;", "fn f() { println!(\"{}\", crate::a::X) }"), both);
    assert_eq!(siblings("use crate::b;", "macro_rules! m { () => { $crate::a::f() } }"), both);
    let with = "struct B { #[serde(with = \"crate::a\")] field: u8 }";
    assert_eq!(siblings("use crate::b;", with), both);
    let parser = "use super::a as parse; struct B { #[arg(value_parser = parse::number)] n: u8 }";
    assert_eq!(siblings("use crate::b;", parser), both);
}

#[test]
fn what_only_tests_import_does_not_count() {
    let test = "#[cfg(test)] mod tests { use crate::a::A; }";
    assert_eq!(siblings("use crate::b::B;", test).len(), 0);
    let item = "#[cfg(any(test, feature = \"testing\"))] impl B { fn f() -> crate::a::A {} }";
    assert_eq!(siblings("use crate::b::B;", item).len(), 0);
    let fuzzed = "#[cfg(all(test, unix))] use crate::a::A; #[cfg(fuzzing)] use crate::a::B;";
    assert_eq!(siblings("use crate::b::B;", fuzzed).len(), 0);
    let function = "impl B { #[cfg(test)] fn f() { crate::a::g() } }";
    assert_eq!(siblings("use crate::b::B;", function).len(), 0);
    let production = "#[cfg(not(test))] use crate::a::A;";
    assert_eq!(siblings("use crate::b::B;", production).len(), 1);
    let either = "#[cfg(any(test, unix))] use crate::a::A;";
    assert_eq!(siblings("use crate::b::B;", either).len(), 1);
}

#[test]
fn a_parent_that_uses_a_child_which_uses_the_parent_is_a_cycle() {
    let parent = |text: &str| {
        cycles(&[("lib.rs", "mod a;"), ("a.rs", text), ("a/b.rs", "use super::A; pub struct B;")])
    };
    assert_eq!(parent("mod b; use self::b::B; pub struct A(B);"), [["a", "a::b"]]);
    assert_eq!(parent("mod b; use b::B; pub struct A(B);"), [["a", "a::b"]]);
    // A module that re-exports its children or puts them together depends on none of them.
    assert_eq!(parent("mod b; pub(crate) use self::b::B; pub struct A;").len(), 0);
    assert_eq!(parent("mod b; pub struct A; fn f() { b::run(A) }").len(), 0);
}

#[test]
fn a_cycle_behind_re_exports_is_found() {
    let through = |lib: &str| {
        let a = ("a.rs", "use crate::B; pub struct A;");
        cycles(&[("lib.rs", lib), a, ("b.rs", "use crate::A; pub struct B;")])
    };
    assert_eq!(through("mod a; mod b; pub use a::A; pub use b::B;"), [["a", "b"]]);
    assert_eq!(through("mod a; mod b; pub use a::*; pub use b::*;"), [["a", "b"]]);
    assert_eq!(through("mod a; mod b; pub use b::B; pub struct A;").len(), 0);
}

#[test]
fn a_path_behind_an_imported_module_is_followed() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "pub mod deep;"),
        ("a/deep.rs", "use crate::b::B; pub fn f() {}"),
        ("b.rs", "use crate::a; pub struct B; fn g() { a::deep::f() }"),
    ];
    assert_eq!(cycles(&files), [["a::deep", "b"]]);
}

#[test]
fn inline_modules_belong_to_their_file() {
    let a = "mod inner { use super::super::b::B; pub(super) mod deep { use super::super::A; } }";
    assert_eq!(siblings(a, "use crate::a::A;"), [["a", "b"]]);
    assert_eq!(siblings("mod inner { use super::A; } struct A; use inner::X;", "").len(), 0);
}

#[test]
fn a_long_cycle_is_one_group_and_separate_cycles_are_several() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e; mod f;"),
        ("a.rs", "use crate::b::X;"),
        ("b.rs", "use crate::c::X;"),
        ("c.rs", "use crate::a::X; use crate::d::X as Y;"),
        ("d.rs", "use crate::e::X;"),
        ("e.rs", "use crate::d::X; use crate::f::X as Y;"),
        ("f.rs", ""),
    ];
    assert_eq!(cycles(&files), [vec!["a", "b", "c"], vec!["d", "e"]]);
}

#[test]
fn a_cycle_shows_the_imports_that_make_it() {
    let cycle = Cycle {
        modules: [vec!["a".to_owned()], vec!["b".to_owned()]].into(),
        imports: vec![(vec!["a".to_owned()], vec!["b".to_owned()], "super::b::B".to_owned())],
    };
    assert_eq!(cycle.to_string(), "a, b\n    a -> b by `super::b::B`");
}
