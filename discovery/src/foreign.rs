//! Sanitises text from other machines for this one's log, status and errors. Any peer may send any
//! text, and must not forge log lines or control an operator's terminal.

/// Maximum length of sanitised text, in bytes.
const MOST: usize = 512;

/// Returns the text as one line of bounded length.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars().map(|c| if is_plain(c) { c } else { ' ' }) {
        if plain.len() + c.len_utf8() > MOST {
            break;
        }
        plain.push(c);
    }
    plain
}

/// Returns true unless the character is a control character or changes the writing direction.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_stay_on_one_line_and_steer_no_terminal() {
        let foul = "no\r\n2026-01-01 INFO all is well\u{1b}[2J\u{9b}31m\u{202e}";
        assert_eq!(plain(foul), "no  2026-01-01 INFO all is well [2J 31m ");
        assert_eq!(plain("wählt é"), "wählt é");
    }

    #[test]
    fn foreign_words_are_cut_between_characters() {
        assert_eq!(plain(&"x".repeat(100_000)).len(), MOST);
        let cut = plain(&"€".repeat(1000));
        assert!(cut.len() <= MOST && cut.chars().all(|c| c == '€'), "{cut}");
    }
}
