//! `health`: checks the cluster and reports which checks fail.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use clap::Args;
use muster_messages::operator::{Check, HealthReply};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::failure::{CommandError, ExitCode, Failure, summary};
use super::failure_tolerance::FailureToleranceView;
use crate::client::{Api, CALL_TIMEOUT, CallError};
use crate::output::{Output, Progress, Render, print_notice, table};

/// Default limit of `--wait`; `--timeout` overrides it.
const WAIT_TIMEOUT: Duration = Duration::from_mins(5);

/// Interval between two checks while waiting.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Check the cluster; exit code 3 if a check fails
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    musterctl health\n  \
    musterctl health --wait --timeout 10m            after a start or a change\n  \
    musterctl health -o json | jq .failureTolerance")]
pub(crate) struct Health {
    /// Wait until the cluster is healthy, at most for --timeout
    #[arg(long)]
    wait: bool,
}

impl Health {
    pub(crate) async fn run(
        self,
        api: &mut Api,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let deadline =
            Instant::now() + timeout.unwrap_or(if self.wait { WAIT_TIMEOUT } else { CALL_TIMEOUT });
        // No call outlasts the deadline by more than one interval.
        let left = || {
            deadline.saturating_duration_since(Instant::now()).clamp(CHECK_INTERVAL, CALL_TIMEOUT)
        };
        // Without member names, only the failed checks show whether anything has changed.
        let mut names = Vec::new();
        let mut progress = Progress::new();
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut verdict = LastVerdict::default();
        let outcome = loop {
            ticks.tick().await;
            if self.wait {
                api.set_timeout(left());
            }
            let outcome = api.check_health().await.map(HealthView::from);
            let late = !self.wait || Instant::now() + CHECK_INTERVAL > deadline;
            match &outcome {
                Ok(view) if view.healthy => break outcome,
                Err(error) if !error.is_transient() => break outcome,
                Ok(_) | Err(_) if late => break verdict.or(outcome),
                Ok(view) => {
                    if progress.is_plain() {
                        api.set_timeout(left());
                        if let Ok(reply) = api.list_members().await {
                            names = reply.members.into_iter().map(|member| member.name).collect();
                        }
                    }
                    let change_key = view.change_key(names.iter().map(String::as_str));
                    progress.update_keyed("health", &change_key, &view.failed_checks());
                }
                Err(CallError::NoCluster { nodes, .. }) => {
                    for node in nodes {
                        progress.update(&node.name, &node.waiting_for);
                    }
                }
                Err(error) => {
                    progress.update_keyed("health", &error.change_key(), &summary(error));
                }
            }
            verdict.record(outcome);
        };
        progress.finish();
        report(&outcome?, out)
    }
}

/// Shows the checks. The verdict decides the exit code, even if it cannot be shown.
fn report(view: &HealthView, out: &mut Output<'_>) -> Result<(), Failure> {
    let shown = out.show(view);
    if view.healthy {
        return Ok(shown?);
    }
    if let Err(error) = shown
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        print_notice(&format!("write the output: {error}"));
    }
    Err(NotHealthy(view.summary()).into())
}

/// The verdict of the previous check: unhealthy, not ready or no cluster. The deadline may cut off
/// the next check, which then has none. An unanswered check before the deadline voids it.
#[derive(Default)]
struct LastVerdict(Option<Result<HealthView, CallError>>);

impl LastVerdict {
    fn record(&mut self, outcome: Result<HealthView, CallError>) {
        self.0 = Some(outcome).filter(|outcome| !is_unanswered(outcome));
    }

    /// Returns the outcome of the last check, or this verdict if that check was not answered.
    fn or(self, last: Result<HealthView, CallError>) -> Result<HealthView, CallError> {
        if is_unanswered(&last) { self.0.unwrap_or(last) } else { last }
    }
}

fn is_unanswered(outcome: &Result<HealthView, CallError>) -> bool {
    matches!(outcome, Err(CallError::Unreachable { .. } | CallError::OutcomeUnknown { .. }))
}

/// Outcome of a completed check: the cluster is not healthy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotHealthy(String);

impl CommandError for NotHealthy {
    fn exit_code(&self) -> ExitCode {
        ExitCode::NotReady
    }
}

/// The checks and their overall result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthView {
    pub(crate) healthy: bool,
    checks: Vec<CheckView>,
    /// None if the node does not report it.
    failure_tolerance: Option<FailureToleranceView>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    name: String,
    passed: bool,
    /// The condition could not be checked.
    unknown: bool,
    detail: String,
}

impl From<HealthReply> for HealthView {
    fn from(reply: HealthReply) -> Self {
        let checks: Vec<CheckView> = reply
            .checks
            .into_iter()
            .map(|Check { name, passed, detail, unknown }| CheckView {
                name,
                passed,
                unknown,
                detail,
            })
            .collect();
        // An empty list proves nothing, so it counts as unhealthy.
        let healthy = !checks.is_empty() && checks.iter().all(|check| check.passed);
        let failure_tolerance = reply.failure_tolerance.map(FailureToleranceView::from);
        Self { healthy, checks, failure_tolerance }
    }
}

impl HealthView {
    /// Lists the failed checks on one line.
    pub(crate) fn failed_checks(&self) -> String {
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        format!("not healthy: {}", failed.join("; "))
    }

    /// Counts the failed checks.
    fn summary(&self) -> String {
        let failed = self.checks.iter().filter(|check| !check.passed).count();
        format!("not healthy: {failed} of {} checks failed", self.checks.len())
    }

    /// Key of the failed checks: their names and the `members` that they mention. The rest of the
    /// text may change at each check, as durations and counts do.
    pub(crate) fn change_key<'a>(&self, members: impl Iterator<Item = &'a str>) -> String {
        let members: BTreeSet<&str> = members.collect();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let failed = self.checks.iter().filter(|check| !check.passed).map(|check| {
            let words: BTreeSet<&str> = check.detail.split(|c| !is_name(c)).collect();
            let named: Vec<&str> = members.intersection(&words).copied().collect();
            format!("{}: {}", check.name, named.join(" "))
        });
        failed.collect::<Vec<_>>().join("; ")
    }
}

impl Render for HealthView {
    fn text(&self) -> String {
        let rows = self.checks.iter().map(|check| {
            let result = match (check.passed, check.unknown) {
                (true, _) => "ok",
                (false, true) => "UNKNOWN",
                (false, false) => "FAILED",
            };
            [check.name.clone(), result.to_owned(), check.detail.clone()]
        });
        let tolerance = self.failure_tolerance.iter().map(|tolerance| {
            let result = if tolerance.warning.is_some() { "WARNING" } else { "ok" };
            ["failure tolerance".to_owned(), result.to_owned(), tolerance.describe()]
        });
        let rows = rows.chain(tolerance);
        table(["CHECK", "RESULT", "DETAIL"], rows)
    }
}

#[cfg(test)]
mod tests {
    use muster_messages::operator::FailureTolerance;

    use super::*;
    use crate::output::testing::all_formats;

    fn reply(passed: bool) -> HealthReply {
        let check = |name: &str, passed, detail: &str| Check {
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
            unknown: false,
        };
        let checks = vec![
            check("raft", true, "leader cp-1, 3 voters"),
            check("etcd", passed, "cp-2 does not answer"),
            Check { unknown: !passed, ..check("alarms", passed, "unknown: no answer") },
        ];
        let warning = "2 control-plane nodes: if one fails, the cluster stops".to_owned();
        let tolerance = FailureTolerance { control_planes: 2, answering: 2, tolerance: 0, warning };
        HealthReply { checks, failure_tolerance: Some(tolerance) }
    }

    #[test]
    fn one_failed_check_is_ill_health() {
        let view = HealthView::from(reply(false));
        assert!(!view.healthy);
        assert_eq!(
            view.failed_checks(),
            "not healthy: etcd: cp-2 does not answer; alarms: unknown: no answer"
        );
        assert_eq!(view.summary(), "not healthy: 2 of 3 checks failed");
        insta::assert_snapshot!(all_formats(&view));
        assert!(HealthView::from(reply(true)).healthy);
        assert!(!HealthView::from(HealthReply::default()).healthy);
    }

    /// Regression: each check printed a line because a count of seconds changed.
    #[test]
    fn ill_health_is_reported_again_when_a_check_or_a_node_changes() {
        let change_key = |checks: &[(&str, &str)]| {
            let checks = checks.iter().map(|(name, detail)| Check {
                name: (*name).to_owned(),
                passed: detail.is_empty(),
                detail: (*detail).to_owned(),
                unknown: false,
            });
            let checks = checks.collect();
            let view = HealthView::from(HealthReply { checks, failure_tolerance: None });
            view.change_key(["cp-1", "cp-2", "cp-12"].into_iter())
        };
        let first =
            change_key(&[("raft", ""), ("etcd", "cp-1: no answer for 3 s; cp-2: no space")]);
        assert_eq!(first, "etcd: cp-1 cp-2");
        for same in ["cp-1: no answer for 4 s; cp-2: no space", "cp-2: no answer; cp-1: refused"] {
            assert_eq!(change_key(&[("raft", ""), ("etcd", same)]), first);
        }
        for other in ["cp-1: no answer for 3 s", "cp-12: no answer for 3 s; cp-2: no space"] {
            assert_ne!(change_key(&[("raft", ""), ("etcd", other)]), first);
        }
        let raft = ("raft", "no leader for 3 s");
        assert_ne!(change_key(&[raft, ("etcd", "cp-1: no answer; cp-2: no space")]), first);
    }
}
