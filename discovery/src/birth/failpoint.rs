//! Named places where a test may let the process die.

use std::fmt;
use std::sync::Arc;

/// Called with the name of a place as it is passed, such as `birth.persist.promised.before`.
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    /// The environment variable that names the place to die at.
    pub const VARIABLE: &str = "MUSTER_FAILPOINT";

    pub fn new(at: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    /// Does nothing.
    pub fn inert() -> Self {
        Self::new(|_| {})
    }

    /// Aborts the process, as a power cut would, at the place that [`Hook::VARIABLE`] names. Inert
    /// unless the variable is set, which only tests do.
    pub fn from_environment() -> Self {
        match std::env::var(Self::VARIABLE) {
            Ok(name) if !name.is_empty() => Self::new(move |place| {
                if place == name {
                    std::process::abort();
                }
            }),
            Ok(_) | Err(_) => Self::inert(),
        }
    }

    /// Passes a place.
    pub fn pass(&self, place: &str) {
        (self.0)(place);
    }
}
