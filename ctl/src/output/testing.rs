//! Rendering for snapshot tests. Compares nothing by itself.

use super::{Format, Output, Render};

/// Renders a view in all three formats.
pub(crate) fn all_formats<V: Render>(view: &V) -> String {
    [Format::Table, Format::Json, Format::Yaml]
        .map(|format| {
            let mut bytes = Vec::new();
            Output::new(format, &mut bytes).show(view).unwrap();
            String::from_utf8(bytes).unwrap()
        })
        .join("---\n")
}
