//! Parsers of arguments and options. An error is one line: the given value, the accepted values,
//! and an example. Does not parse endpoints: `client` does, because it resolves them too.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use muster_types::limits::MAX_DESCRIPTION;
use muster_types::name::is_operator_name;
use muster_types::number::parse_digits;
use muster_types::{NodeId, NodeName};

/// Parses a whole number.
pub(crate) fn number(text: &str, range: RangeInclusive<u32>, example: u32) -> Result<u32, String> {
    parse_digits(text).filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = range.into_inner();
        format!("{text:?} is not a whole number from {least} to {most}, such as {example}")
    })
}

/// Parses the number of founders.
pub(crate) fn founders(text: &str) -> Result<u8, String> {
    match parse_digits(text) {
        Some(number @ (1 | 3 | 5 | 7)) => Ok(number),
        _ => Err(format!(
            "{text:?} is not 1, 3, 5 or 7, such as 3 (an even number tolerates no more failures than \
             one less)"
        )),
    }
}

/// Parses a node's name.
pub(crate) fn node_name(text: &str) -> Result<NodeName, String> {
    text.parse().map_err(|error| format!("{error}, such as cp-1"))
}

/// Parses a node's name or id.
pub(crate) fn node(text: &str) -> Result<String, String> {
    if text.parse::<NodeId>().is_ok() {
        return Ok(text.to_owned());
    }
    node_name(text).map(String::from)
}

/// Parses a path. `-` means standard output to many programs, and would become a file here.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" | "-" => Err(format!("{text:?} is not a path here; a file of that name is ./-")),
        path => Ok(path.into()),
    }
}

/// Parses a cluster's name, which follows the rules of node names.
pub(crate) fn cluster_name(text: &str) -> Result<NodeName, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not a cluster name: 1 to 63 lower-case letters, digits or '-', the \
             first and last not a '-', such as prod"
        )
    })
}

/// Parses an operator's name.
pub(crate) fn operator(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is not an operator's name: 1 to 63 letters, digits or '-_.@', such as alice"
        )
    };
    is_operator_name(text).then(|| text.to_owned()).ok_or_else(wrong)
}

/// Parses the description of a token.
pub(crate) fn description(text: &str) -> Result<String, String> {
    if text.len() <= MAX_DESCRIPTION && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let start: String = text.chars().take(20).collect();
    Err(format!(
        "invalid description {start:?}: must be one line of at most {MAX_DESCRIPTION} bytes, such as \
         \"rack 7\""
    ))
}

/// Shortest accepted duration. The wire format is milliseconds, and 0 means none.
const MIN_DURATION: Duration = Duration::from_millis(1);

/// Longest accepted duration: a hundred years, small enough to add to any time without overflow.
const MAX_DURATION: Duration = Duration::from_hours(100 * 365 * 24);

/// Parses a duration such as `750ms`, `10s`, `5m` or `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unsigned = (!text.starts_with('+')).then_some(text);
    let parsed: Option<jiff::SignedDuration> = unsigned.and_then(|text| text.parse().ok());
    let parsed = parsed.ok_or_else(|| {
        format!("{text:?} is not a duration: numbers with h, m, s or ms, such as 750ms, 10s, 5m or 1h 30m")
    })?;
    // A negative duration is too short as well.
    let parsed = Duration::try_from(parsed).unwrap_or_default();
    if parsed < MIN_DURATION {
        return Err(format!("{text:?} is too short for a duration: 1ms or more, such as 10s"));
    }
    if parsed > MAX_DURATION {
        return Err(format!("{text:?} is too long for a duration: 876000h at most, such as 24h"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_and_in_their_range() {
        assert_eq!(number("3", 1..=9, 5), Ok(3));
        for bad in ["", "0", "10", "-1", "+3", "1.5", "x", "99999999999"] {
            let error = number(bad, 1..=9, 5).unwrap_err();
            assert_eq!(error, format!("{bad:?} is not a whole number from 1 to 9, such as 5"));
        }
        for bad in ["0", "2", "9", "+3", "x"] {
            assert!(
                founders(bad).unwrap_err().starts_with(&format!("{bad:?} is not 1, 3, 5 or 7"))
            );
        }
    }

    #[test]
    fn names_say_what_they_are_names_of() {
        assert!(node_name("A").unwrap_err().starts_with("\"A\" is not a node name: "));
        assert!(cluster_name("A").unwrap_err().starts_with("\"A\" is not a cluster name: "));
        assert!(operator("").unwrap_err().starts_with("\"\" is not an operator's name: "));
        assert!(description("a\nb").unwrap_err().contains("invalid description \"a\\nb\""));
        assert_eq!(node(&"a".repeat(52)).is_ok(), "a".repeat(52).parse::<NodeId>().is_ok());
    }

    #[test]
    fn durations_have_a_unit_and_can_be_added_to_a_time() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("750ms"), Ok(Duration::from_millis(750)));
        assert_eq!(duration("876000h"), Ok(MAX_DURATION));
        for (bad, words) in [
            ("", "is not a duration: numbers with h, m, s or ms, such as"),
            ("5", "is not a duration"),
            ("soon", "is not a duration"),
            ("1d", "is not a duration"),
            ("+5s", "is not a duration"),
            ("-5s", "is too short"),
            ("0s", "is too short for a duration: 1ms or more, such as"),
            ("999us", "is too short"),
            ("876001h", "is too long for a duration: 876000h at most, such as"),
            ("2562047788015215h", "is too long"),
        ] {
            let error = duration(bad).unwrap_err();
            assert!(error.starts_with(&format!("{bad:?} {words}")), "{error}");
        }
    }
}
