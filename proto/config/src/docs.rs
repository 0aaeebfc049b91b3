//! The generated parts of `docs/guide/config.md`, and the test that they are up to date.

use std::fmt::Write as _;
use std::path::Path;

use super::{Disturbs, Entry, Patchable, Unit, fields};

const GUIDE: &str = "../../docs/guide/config.md";
const REGENERATE: &str = "MUSTER_BLESS=1 cargo test -p muster-config docs";

fn table() -> String {
    let mut text = "| field | type | default | patch | a change | meaning |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for entry in fields() {
        let row = [
            format!("`{}`", entry.path()),
            entry.type_name(),
            entry.default_text(),
            patch(entry.patchable()).to_owned(),
            change(entry.disturbs()).to_owned(),
            entry.doc().to_owned(),
        ];
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text.push('\n');
    for entry in fields().filter(|entry| !entry.note().is_empty()) {
        writeln!(text, "- `{}`: {}", entry.path(), entry.note()).unwrap();
    }
    text
}

fn patch(patchable: Patchable) -> &'static str {
    match patchable {
        Patchable::Always => "yes",
        Patchable::ByName(_) => "by name",
        Patchable::Never(_) => "no",
    }
}

fn change(disturbs: Disturbs) -> &'static str {
    match disturbs {
        Disturbs::Nothing => "",
        Disturbs::Live => "live",
        Disturbs::Restart(Unit::Musterd) => "restarts musterd",
        Disturbs::Restart(Unit::Etcd) => "restarts etcd",
        Disturbs::Reboot => "reboots",
        Disturbs::BirthOnly => "fixed",
    }
}

fn birth_fields() -> String {
    let birth = fields().filter(|entry| entry.is_birth_field()).map(Entry::path);
    birth.fold(String::new(), |text, path| text + "- `" + path + "`\n")
}

/// The text with the part between the markers of that name replaced.
fn with_part(text: &str, name: &str, part: &str) -> String {
    let (begin, end) =
        (format!("<!-- begin {name}: generated -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{before}{begin}\n{part}\n{end}{after}")
}

#[test]
fn the_guide_has_every_field_as_the_table_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE);
    let found = std::fs::read_to_string(&path).unwrap();
    let wanted = with_part(&with_part(&found, "fields", &table()), "birth fields", &birth_fields());
    if found != wanted && std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(found == wanted, "{GUIDE} differs from the table of fields; run `{REGENERATE}`");
}
