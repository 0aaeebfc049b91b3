//! Text of other machines, made safe for this one's log, status and errors. Any host may answer at
//! an address. Its text must not add lines to a log or steer an operator's terminal.

/// The longest line that [`sanitize`] returns, in bytes.
const MAX_LINE: usize = 512;

/// One line of at most 512 bytes: control characters and those that change the direction
/// of writing become spaces.
pub fn sanitize(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if is_safe(c) { c } else { ' ' }) {
        if line.len() + c.len_utf8() > MAX_LINE {
            break;
        }
        line.push(c);
    }
    line
}

/// Like [`sanitize`], for text of any length that may have several lines.
pub fn sanitize_lines(text: &str) -> String {
    text.chars().map(|c| if is_safe(c) || c == '\n' { c } else { ' ' }).collect()
}

/// Neither a control character nor one that changes the direction of writing (Unicode TR 36,
/// section 3.6; CVE-2021-42574).
pub fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_one_line_and_cannot_control_a_terminal() {
        let unsafe_text = "no\r\n2026-01-01 INFO all is well\u{1b}[2J\u{9b}31m\u{202e}";
        assert_eq!(sanitize(unsafe_text), "no  2026-01-01 INFO all is well [2J 31m ");
        assert_eq!(sanitize("wählt é"), "wählt é");
    }

    #[test]
    fn foreign_text_is_cut_between_characters() {
        assert_eq!(sanitize(&"x".repeat(100_000)).len(), MAX_LINE);
        let cut = sanitize(&"€".repeat(1000));
        assert!(cut.len() <= MAX_LINE && cut.chars().all(|c| c == '€'), "{cut}");
    }
}
