//! Extracts the last error from etcd's log.

#[cfg(test)]
mod fuzz;

use serde::Deserialize;

/// A line of etcd's log (zap's JSON encoding).
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
    #[serde(default)]
    error: String,
}

/// Returns the last error among these lines: the last entry of level error or worse, else the last
/// line that is no log entry (a panic, a wrong flag).
pub(super) fn last_error(lines: &[String]) -> Option<String> {
    let logged = lines.iter().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut complaints = logged
        .filter(|line| ["error", "dpanic", "panic", "fatal"].contains(&line.level.as_str()))
        .map(|Line { msg, error, .. }| match error.as_str() {
            "" => msg,
            error => format!("{msg}: {error}"),
        });
    let plain = || lines.iter().rev().find(|line| !line.starts_with('{'));
    complaints.next().or_else(|| plain().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaint_is_found_among_the_chatter() {
        let fatal = r#"{"level":"fatal","ts":"t","caller":"c","msg":"discovery failed","error":"bind: address already in use","stacktrace":"s"}"#;
        let info = r#"{"level":"info","ts":"t","caller":"c","msg":"closing"}"#;
        let lines = [info, fatal, info].map(str::to_owned);
        let said = last_error(&lines).unwrap();
        assert_eq!(said, "discovery failed: bind: address already in use");
        assert_eq!(last_error(&[info.to_owned()]), None);
        let lines = [info, "flag provided but not defined: -x"].map(str::to_owned);
        assert_eq!(last_error(&lines).as_deref(), Some("flag provided but not defined: -x"));
    }
}
