//! Removes secrets from text for people. Knows only the form of a token, not whether it is valid.

/// Number of characters after a dot that count as a token's secret. It has 38, but some may be
/// lost.
const MIN_SECRET_LEN: usize = 32;

/// Removes the secret of a token that was given as some other argument. A truncated repetition of
/// the secret is removed too.
pub(crate) fn redact_tokens(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "'\"`,;:/)".contains(c);
    let split = |piece: &str| piece.find(ends).unwrap_or(piece.len());
    let words = text.split('.').skip(1).map(|piece| &piece[..split(piece)]);
    let secrets: Vec<&str> = words.filter(|word| word.chars().count() >= MIN_SECRET_LEN).collect();
    let mut pieces = text.split('.');
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (word, rest) = piece.split_at(split(piece));
        let is_secret = !word.is_empty() && secrets.iter().any(|secret| secret.starts_with(word));
        shown.push('.');
        shown.push_str(if is_secret { "…" } else { word });
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_show_the_secret_of_a_token() {
        let secret = "a2".repeat(19);
        for (around, shown) in [
            (["'", "'"], "'abc.…'"),
            (["\"", "\" is no name"], "\"abc.…\" is no name"),
            (["read /", "/context.yaml: not found"], "read /abc.…/context.yaml: not found"),
            (["look up ", ":50000"], "look up abc.…:50000"),
            (["", ""], "abc.…"),
        ] {
            let [before, after] = around;
            assert_eq!(redact_tokens(&format!("{before}abc.{secret}{after}")), shown);
        }
        let twice = format!("'abc.{secret}': \"abc.{}\" is no role, such as a.b", &secret[..9]);
        assert_eq!(redact_tokens(&twice), "'abc.…': \"abc.…\" is no role, such as a.b");
        for same in ["", ".", "10.0.0.1:50000. See `cp-1.example`…", secret.as_str()] {
            assert_eq!(redact_tokens(same), same);
        }
        assert_eq!(
            redact_tokens(&format!("a.{}", &secret[..MIN_SECRET_LEN - 1])).len(),
            MIN_SECRET_LEN + 1
        );
    }
}
