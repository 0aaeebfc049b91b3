//! Named places where a test may let the process die or stand still. Inert in every process whose
//! environment does not name one; a process that is told of a place that does not exist does not
//! start, so that no test can wait in vain for it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// What is written: the stages of a record, see `run.rs`.
const STAGES: [&str; 7] =
    ["promised", "inquired", "certified", "abandoned", "free", "born", "joined"];

/// What is sent to be answered: kinds of messages, see `run.rs`.
const REQUESTS: [&str; 5] = ["propose", "inquire", "settle", "born", "abandoned"];

/// What is only ever an answer: nothing comes back that would show that it has arrived, so there is
/// no place after it.
const ANSWERS: [&str; 4] = ["promise", "refuse", "standing", "vote"];

/// The name of every place that there is.
pub fn places() -> impl Iterator<Item = String> {
    let both = |what: &str, names: &[&str]| -> Vec<String> {
        let each =
            |name: &&str| ["before", "after"].map(|when| format!("birth.{what}.{name}.{when}"));
        names.iter().flat_map(each).collect()
    };
    let written = both("persist", &STAGES);
    let asked = both("send", &REQUESTS);
    let answered = ANSWERS.map(|kind| format!("birth.send.{kind}.before"));
    written.into_iter().chain(asked).chain(answered)
}

/// Far longer than it takes a signal to reach all threads.
const TAKEN: Duration = Duration::from_millis(200);

/// Called with the name of a place as it is passed, such as `birth.persist.promised.before`.
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// What the environment asks for, `PLACE` or `PLACE:stop`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Armed {
    place: String,
    signal: Signal,
}

/// Why a setting arms nothing. The node must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is set to {setting:?}, which is no fail point; it is for tests only, unset it",
    Hook::VARIABLE
)]
pub struct UnknownPlace {
    setting: String,
}

impl FromStr for Armed {
    type Err = UnknownPlace;

    fn from_str(setting: &str) -> Result<Self, UnknownPlace> {
        let (place, signal) = match setting.strip_suffix(":stop") {
            Some(place) => (place, Signal::STOP),
            None => (setting, Signal::KILL),
        };
        if places().any(|known| known == place) {
            Ok(Self { place: place.to_owned(), signal })
        } else {
            Err(UnknownPlace { setting: setting.to_owned() })
        }
    }
}

impl Hook {
    /// The environment variable that names the place, and nothing else does.
    pub const VARIABLE: &str = "MUSTER_FAILPOINT";

    pub fn new(at: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    /// Does nothing.
    pub fn inert() -> Self {
        Self::new(|_| {})
    }

    /// Sends this process `SIGKILL`, as a power cut would come, at the place that
    /// [`Hook::VARIABLE`] names; with `:stop` behind it `SIGSTOP` instead. Only the first time that
    /// the place is passed. Inert unless the variable is set, which only tests do.
    ///
    /// # Errors
    /// When the variable names no place.
    pub fn from_environment() -> Result<Self, UnknownPlace> {
        let setting = std::env::var_os(Self::VARIABLE);
        Self::from_setting(setting.map(|text| text.to_string_lossy().into_owned()).as_deref())
    }

    fn from_setting(setting: Option<&str>) -> Result<Self, UnknownPlace> {
        let Some(setting) = setting.filter(|text| !text.is_empty()) else {
            return Ok(Self::inert());
        };
        let Armed { place, signal } = setting.parse()?;
        tracing::warn!(place, ?signal, "a fail point is armed: this process ends itself there");
        let is_armed = AtomicBool::new(true);
        Ok(Self::new(move |at| {
            if at == place && is_armed.swap(false, Ordering::Relaxed) {
                kill_process(getpid(), signal).expect("a process may send itself signals");
                // Another thread may be the one to take it: this one goes no further until then.
                std::thread::sleep(TAKEN);
            }
        }))
    }

    /// Passes a place.
    pub fn pass(&self, place: &str) {
        (self.0)(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_armed_without_the_setting() {
        for setting in [None, Some("")] {
            let hook = Hook::from_setting(setting).unwrap();
            places().for_each(|place| hook.pass(&place));
        }
    }

    #[test]
    fn a_place_that_does_not_exist_is_refused() {
        for setting in [
            "nonsense",
            "birth.persist.promised",
            "birth.persist.promise.before",
            "birth.send.promised.before",
            "birth.send.promise.after",
            "birth.persist.promised.before:pause",
            "birth.persist.promised.before.",
        ] {
            let error = Hook::from_setting(Some(setting)).unwrap_err();
            assert!(error.to_string().contains(setting), "{error}");
        }
    }

    #[test]
    fn a_place_kills_unless_it_is_to_stop() {
        let armed = |setting: &str| setting.parse::<Armed>().unwrap();
        assert_eq!(armed("birth.send.vote.before").signal, Signal::KILL);
        let stop = armed("birth.persist.born.after:stop");
        assert_eq!((stop.place.as_str(), stop.signal), ("birth.persist.born.after", Signal::STOP));
    }
}
