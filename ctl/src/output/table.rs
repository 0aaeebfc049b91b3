//! Tables without borders: easy to read, and easy to process with `cut` or `awk`.

use comfy_table::{ContentArrangement, Table, presets};

/// Renders columns under upper-case heads. Columns are only as wide as their content; lines are
/// never wrapped.
pub(crate) fn table<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    for row in rows {
        // One line per row, even if a cell contains line breaks.
        table.add_row(row.map(|cell| cell.replace(['\n', '\r'], " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Returns `None` for an empty text, which means "none" in a message.
pub(crate) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Returns `-` for an empty text, so that no column is ever empty.
pub(crate) fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_types::text::sanitize_lines;

    #[test]
    fn a_cell_can_neither_forge_a_row_nor_steer_the_terminal() {
        let row = ["cp-1\ncp-9  yes".to_owned(), "\u{1b}[2J\u{9b}1mx".to_owned()];
        let shown = sanitize_lines(&table(["NAME", "WAITS FOR"], [row]));
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
}
