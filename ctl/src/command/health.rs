//! `health`: checks the cluster and reports which checks fail.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use muster_messages::operator::{Check, HealthReply, HealthRequest};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::members;
use crate::connect::{Api, CALL, CallError, Kind};
use crate::failure::{Failure, chain, summary};
use crate::output::{Output, Progress, View, table};

/// Default limit of `--wait`; `--timeout` overrides it.
const WAIT: Duration = Duration::from_mins(5);

/// Interval between two checks while waiting.
const LOOK: Duration = Duration::from_millis(500);

/// Check the cluster; exit code 3 if a check fails
#[derive(Debug, Args)]
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
        let deadline = Instant::now() + timeout.unwrap_or(if self.wait { WAIT } else { CALL });
        // No call outlasts the deadline by more than one interval.
        let left = || deadline.saturating_duration_since(Instant::now()).clamp(LOOK, CALL);
        // Without member names, only the failed checks show whether anything has changed.
        let mut names = Vec::new();
        let mut progress = Progress::new();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            ticks.tick().await;
            if self.wait {
                api.set_timeout(left());
            }
            let outcome = ask(api).await.map(HealthView::from);
            let late = !self.wait || Instant::now() + LOOK > deadline;
            match &outcome {
                Ok(view) if view.healthy || late => break outcome,
                Err(error) if late || !passes(error) => break outcome,
                Ok(view) => {
                    if progress.is_plain() {
                        api.set_timeout(left());
                        if let Ok(reply) = members::ask(api).await {
                            names = reply.members.into_iter().map(|member| member.name).collect();
                        }
                    }
                    let substance = view.substance(names.iter().map(String::as_str));
                    progress.tell("health", &substance, &view.missing());
                }
                Err(CallError::NoCluster { nodes, .. }) => {
                    for node in nodes {
                        progress.say(&node.name, &node.awaits);
                    }
                }
                Err(error) => progress.tell("health", &substance_of(error), &summary(error)),
            }
        };
        progress.finish();
        let view = outcome?;
        out.show(&view)?;
        if view.healthy { Ok(()) } else { Err(Failure::NotHealthy(view.missing())) }
    }
}

/// Key of a transient failure: its kind and the endpoints. The text may differ at each check, but
/// the failure is printed again only when this key changes.
pub(crate) fn substance_of(error: &CallError) -> String {
    match error {
        CallError::Unreachable { attempts, .. } => {
            let asked: Vec<&str> = attempts.iter().map(|a| a.endpoint.as_str()).collect();
            format!("no answer from {}", asked.join(" "))
        }
        CallError::NotReady { endpoint, .. } => format!("{endpoint} is not ready"),
        CallError::LostTouch { endpoint, .. } => format!("lost {endpoint}"),
        other => chain(other),
    }
}

/// Returns true for a transient failure, which may pass by itself.
pub(crate) fn passes(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NoCluster { .. }
            | CallError::Unreachable { .. }
            | CallError::NotReady { .. }
            | CallError::LostTouch { .. }
    )
}

/// Asks any node to run the health checks.
pub(crate) async fn ask(api: &mut Api) -> Result<HealthReply, CallError> {
    api.call(Kind::Idempotent, "check the health", HealthRequest {}, async |client, request| {
        client.health(request).await
    })
    .await
}

/// The checks and their overall result.
#[derive(Debug, Serialize)]
pub(crate) struct HealthView {
    pub(crate) healthy: bool,
    checks: Vec<CheckView>,
}

#[derive(Debug, Serialize)]
struct CheckView {
    name: String,
    passed: bool,
    detail: String,
}

impl From<HealthReply> for HealthView {
    fn from(reply: HealthReply) -> Self {
        let checks: Vec<CheckView> = reply
            .checks
            .into_iter()
            .map(|Check { name, passed, detail }| CheckView { name, passed, detail })
            .collect();
        // An empty list proves nothing, so it counts as unhealthy.
        let healthy = !checks.is_empty() && checks.iter().all(|check| check.passed);
        Self { healthy, checks }
    }
}

impl HealthView {
    /// Lists the failed checks on one line.
    pub(crate) fn missing(&self) -> String {
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        format!("not healthy: {}", failed.join("; "))
    }

    /// Key of the failed checks: their names and the `members` that they mention. The rest of the
    /// text may change at each check, as durations and counts do.
    pub(crate) fn substance<'a>(&self, members: impl Iterator<Item = &'a str>) -> String {
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

impl View for HealthView {
    fn text(&self) -> String {
        let rows = self.checks.iter().map(|check| {
            let passed = if check.passed { "ok" } else { "FAILED" };
            [check.name.clone(), passed.to_owned(), check.detail.clone()]
        });
        table(["CHECK", "RESULT", "DETAIL"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_forms;

    fn reply(passed: bool) -> HealthReply {
        let check = |name: &str, passed, detail: &str| Check {
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
        };
        let checks = vec![
            check("raft", true, "leader cp-1, 3 voters"),
            check("etcd", passed, "cp-2 does not answer"),
        ];
        HealthReply { checks }
    }

    #[test]
    fn one_failed_check_is_ill_health() {
        let view = HealthView::from(reply(false));
        assert!(!view.healthy);
        assert_eq!(view.missing(), "not healthy: etcd: cp-2 does not answer");
        insta::assert_snapshot!(all_forms(&view));
        assert!(HealthView::from(reply(true)).healthy);
        assert!(!HealthView::from(HealthReply::default()).healthy);
    }

    /// Regression: each check printed a line because a count of seconds changed.
    #[test]
    fn ill_health_is_told_again_when_a_check_or_a_node_changes() {
        let substance = |checks: &[(&str, &str)]| {
            let checks = checks.iter().map(|(name, detail)| Check {
                name: (*name).to_owned(),
                passed: detail.is_empty(),
                detail: (*detail).to_owned(),
            });
            let view = HealthView::from(HealthReply { checks: checks.collect() });
            view.substance(["cp-1", "cp-2", "cp-12"].into_iter())
        };
        let first = substance(&[("raft", ""), ("etcd", "cp-1: no answer for 3 s; cp-2: no space")]);
        assert_eq!(first, "etcd: cp-1 cp-2");
        for same in ["cp-1: no answer for 4 s; cp-2: no space", "cp-2: no answer; cp-1: refused"] {
            assert_eq!(substance(&[("raft", ""), ("etcd", same)]), first);
        }
        for other in ["cp-1: no answer for 3 s", "cp-12: no answer for 3 s; cp-2: no space"] {
            assert_ne!(substance(&[("raft", ""), ("etcd", other)]), first);
        }
        let raft = ("raft", "no leader for 3 s");
        assert_ne!(substance(&[raft, ("etcd", "cp-1: no answer; cp-2: no space")]), first);
    }
}
