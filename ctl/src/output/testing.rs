//! Rendering for snapshot tests. Compares nothing by itself.

use super::{Format, Output, Render};

/// Renders a view in all three formats, and its prose, if it has any, at the end.
pub(crate) fn all_formats<V: Render>(view: &V) -> String {
    let mut forms: Vec<String> = [Format::Table, Format::Json, Format::Yaml]
        .map(|format| {
            let mut bytes = Vec::new();
            Output::new(format, &mut bytes).show(view).unwrap();
            String::from_utf8(bytes).unwrap()
        })
        .into();
    forms.extend(Some(view.prose()).filter(|prose| !prose.is_empty()));
    forms.join("---\n")
}
