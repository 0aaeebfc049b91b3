//! Fail points: named points at which a test may kill or stop the process. Inert unless the
//! environment names one. A process with an unknown name in its environment does not start, so that
//! no test can wait for it in vain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// Persisted records by stage, see `driver.rs`.
const STAGES: [&str; 7] =
    ["promised", "inquired", "certified", "abandoned", "free", "born", "joined"];

/// Messages sent as requests, by kind, see `driver.rs`.
const REQUESTS: [&str; 5] = ["propose", "inquire", "settle", "born", "abandoned"];

/// Messages sent only as replies. No response shows that they have arrived, so there is no fail
/// point after them.
const REPLIES: [&str; 4] = ["promise", "refuse", "inquiry-reply", "vote"];

/// Names of all fail points.
pub fn fail_point_names() -> impl Iterator<Item = String> {
    let both = |what: &str, names: &[&str]| -> Vec<String> {
        let each =
            |name: &&str| ["before", "after"].map(|when| format!("birth.{what}.{name}.{when}"));
        names.iter().flat_map(each).collect()
    };
    let written = both("persist", &STAGES);
    let asked = both("send", &REQUESTS);
    let answered = REPLIES.map(|kind| format!("birth.send.{kind}.before"));
    written.into_iter().chain(asked).chain(answered)
}

/// Far longer than it takes a signal to reach all threads.
const SIGNAL_DELIVERY: Duration = Duration::from_millis(200);

/// Callback for each fail point that is hit, by name, such as `birth.persist.promised.before`.
#[derive(Clone)]
pub struct FailPointHook(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for FailPointHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FailPointHook")
    }
}

/// Parsed setting: `NAME` or `NAME:stop`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Armed {
    name: String,
    signal: Signal,
}

/// The setting names no fail point. The node must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}={setting:?} names no fail point; it is for tests only, unset it",
    FailPointHook::VARIABLE
)]
pub struct UnknownFailPoint {
    setting: String,
}

impl FromStr for Armed {
    type Err = UnknownFailPoint;

    fn from_str(setting: &str) -> Result<Self, UnknownFailPoint> {
        let (name, signal) = match setting.strip_suffix(":stop") {
            Some(name) => (name, Signal::STOP),
            None => (setting, Signal::KILL),
        };
        if fail_point_names().any(|known| known == name) {
            Ok(Self { name: name.to_owned(), signal })
        } else {
            Err(UnknownFailPoint { setting: setting.to_owned() })
        }
    }
}

impl FailPointHook {
    /// The environment variable with the name of the fail point; the only way to arm one.
    pub const VARIABLE: &str = "MUSTER_FAILPOINT";

    pub fn new(at: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    /// Returns a hook that does nothing.
    pub fn noop() -> Self {
        Self::new(|_| {})
    }

    /// Returns a hook that sends this process `SIGKILL`, like a power cut, at the fail point that
    /// [`FailPointHook::VARIABLE`] names; with the suffix `:stop`, `SIGSTOP`. Only the first hit counts.
    /// Inert unless the variable is set, which only tests do.
    ///
    /// # Errors
    /// When the variable names no fail point.
    pub fn from_environment() -> Result<Self, UnknownFailPoint> {
        let setting = std::env::var_os(Self::VARIABLE);
        Self::from_setting(setting.map(|text| text.to_string_lossy().into_owned()).as_deref())
    }

    fn from_setting(setting: Option<&str>) -> Result<Self, UnknownFailPoint> {
        let Some(setting) = setting.filter(|text| !text.is_empty()) else {
            return Ok(Self::noop());
        };
        let Armed { name, signal } = setting.parse()?;
        tracing::warn!(name, ?signal, "fail point armed; this process will signal itself there");
        let is_armed = AtomicBool::new(true);
        Ok(Self::new(move |at| {
            if at == name && is_armed.swap(false, Ordering::Relaxed) {
                kill_process(getpid(), signal).expect("a process may signal itself");
                // Another thread may take the signal; wait here until it does.
                std::thread::sleep(SIGNAL_DELIVERY);
            }
        }))
    }

    /// Hits a fail point.
    pub fn hit(&self, name: &str) {
        (self.0)(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_armed_without_the_setting() {
        for setting in [None, Some("")] {
            let hook = FailPointHook::from_setting(setting).unwrap();
            fail_point_names().for_each(|name| hook.hit(&name));
        }
    }

    #[test]
    fn an_unknown_fail_point_is_rejected() {
        for setting in [
            "nonsense",
            "birth.persist.promised",
            "birth.persist.promise.before",
            "birth.send.promised.before",
            "birth.send.promise.after",
            "birth.persist.promised.before:pause",
            "birth.persist.promised.before.",
        ] {
            let error = FailPointHook::from_setting(Some(setting)).unwrap_err();
            assert!(error.to_string().contains(setting), "{error}");
        }
    }

    #[test]
    fn a_fail_point_kills_unless_it_is_to_stop() {
        let armed = |setting: &str| setting.parse::<Armed>().unwrap();
        assert_eq!(armed("birth.send.vote.before").signal, Signal::KILL);
        let stop = armed("birth.persist.born.after:stop");
        assert_eq!((stop.name.as_str(), stop.signal), ("birth.persist.born.after", Signal::STOP));
    }
}
