//! Unit tests of `apply`: one per guarantee, and the exact message of each refusal.

mod admission;
mod etcd;
mod founding;
mod planner;
mod registry;
mod token;
mod view;

use super::fixtures::*;
use super::{Command, Outcome, Refusal, RefusalKind};

fn refusal(kind: RefusalKind, message: &str) -> Refusal {
    Refusal { kind, message: message.to_owned() }
}
