//! Words of another machine on their way into this one's log, status and errors. Whoever answers at
//! an address may say anything, and a stranger must not write lines of its own into a log or steer
//! an operator's terminal.

/// The most that is kept of it, in bytes.
const MOST: usize = 512;

/// One line of bounded length.
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

/// Neither a control character nor one that turns the direction of writing.
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
