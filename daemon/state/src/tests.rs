//! Unit tests of `apply`: one per guarantee, and the exact message of each refusal.

mod admission;
mod etcd;
mod founding;
mod planner;
mod registry;
mod token;
mod view;

use super::sample::*;
use super::{Command, Outcome, Reason, Refusal};

fn refusal(reason: Reason, message: &str) -> Refusal {
    Refusal { reason, message: message.to_owned() }
}
