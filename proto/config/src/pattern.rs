//! Glob patterns that match node names.

use muster_types::NodeName;

/// A glob over node names: `*` matches any characters, `?` exactly one, the rest is literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*' | b'?')
            });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{} is not a pattern for node names: 1 to 63 lower-case letters, digits, '-', '*' \
                 or '?'",
                super::value::quoted(text)
            ))
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name it matches, if it has no wildcard.
    pub(super) fn literal(&self) -> Option<NodeName> {
        self.0.parse().ok()
    }

    /// Backtracks to the last `*` only, so the cost is at most the product of both lengths.
    pub(super) fn matches(&self, name: &NodeName) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_str().as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p + 1, n));
                    p += 1;
                }
                Some(&byte) if byte == b'?' || byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((after, taken)) => {
                        star = Some((after, taken + 1));
                        p = after;
                        n = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}
