//! Failure tolerance, as the cluster reports it. Computes nothing.

use muster_messages::operator::FailureTolerance;
use serde::Serialize;

use crate::output::non_empty;

/// The number of control-plane nodes that may fail before there is no majority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailureToleranceView {
    control_planes: u32,
    answering: u32,
    pub(crate) tolerance: u32,
    pub(crate) warning: Option<String>,
}

impl From<FailureTolerance> for FailureToleranceView {
    fn from(reply: FailureTolerance) -> Self {
        let FailureTolerance { control_planes, answering, tolerance, warning } = reply;
        Self { control_planes, answering, tolerance, warning: non_empty(warning) }
    }
}

impl FailureToleranceView {
    /// Describes the tolerance in one line, with the warning.
    pub(crate) fn describe(&self) -> String {
        let Self { control_planes, answering, tolerance, warning } = self;
        let nodes = format!("{tolerance}, with {answering} of {control_planes} voters up");
        match warning {
            Some(warning) => format!("{nodes}: {warning}"),
            None => nodes,
        }
    }
}

/// The tolerance before and after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ToleranceChange {
    pub(crate) before: FailureToleranceView,
    pub(crate) after: FailureToleranceView,
}

impl ToleranceChange {
    /// Describes the change. `None` if it changes nothing.
    pub(crate) fn describe(&self) -> Option<String> {
        let Self { before, after } = self;
        if before == after {
            return None;
        }
        let tolerance =
            format!("Failure tolerance: {} before, {} after", before.tolerance, after.tolerance);
        Some(match &after.warning {
            Some(warning) => format!("{tolerance}. {warning}."),
            None => format!("{tolerance}."),
        })
    }

    /// Control-plane nodes and tolerance as table cells: `3 -> 2`.
    pub(crate) fn cells(&self) -> [String; 2] {
        let Self { before, after } = self;
        [
            format!("{} -> {}", before.control_planes, after.control_planes),
            format!("{} -> {}", before.tolerance, after.tolerance),
        ]
    }
}
