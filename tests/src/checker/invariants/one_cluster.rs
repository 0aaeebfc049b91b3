//! **Claim.** One token has one cluster: all nodes report the same cluster id at all times, and so
//! do their disks.

use super::Violation;
use crate::checker::history::ClusterIdReport;

/// Returns at most one violation: two reports that differ.
pub fn check(reports: &[ClusterIdReport]) -> Vec<Violation> {
    let Some(one) = reports.first() else { return Vec::new() };
    let other = reports.iter().find(|report| report.cluster != one.cluster);
    other
        .map(|other| Violation::TwoClusters { one: one.clone(), other: other.clone() })
        .into_iter()
        .collect()
}
