//! `etcd alarms`.

use clap::Args;
use muster_messages::operator::{EtcdAlarm, EtcdAlarmsReply, EtcdAlarmsRequest, EtcdDisarmRequest};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::parse;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, non_empty, or_dash, table};

/// List etcd's alarms, or disarm them
#[derive(Debug, Args)]
pub(crate) struct Alarms {
    /// Disarm the NOSPACE alarms, after space was freed
    #[arg(long)]
    disarm: bool,
    /// Disarm the CORRUPT alarm of MEMBER (name or etcd id): etcd found that its data differ from
    /// the other members', and would serve them as they are
    #[arg(long, value_name = "MEMBER", conflicts_with = "disarm", value_parser = parse::node)]
    disarm_corrupt: Option<String>,
}

impl Alarms {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let disarms = self.disarm || self.disarm_corrupt.is_some();
        let EtcdAlarmsReply { alarms } = if disarms {
            let corrupt_member = self.disarm_corrupt.unwrap_or_default();
            let (what, message) = ("disarm etcd's alarms", EtcdDisarmRequest { corrupt_member });
            api.call(CallKind::Idempotent, what, message, async |client, request| {
                client.etcd_disarm(request).await
            })
            .await?
        } else {
            let (what, message) = ("list etcd's alarms", EtcdAlarmsRequest {});
            api.call(CallKind::Idempotent, what, message, async |client, request| {
                client.etcd_alarms(request).await
            })
            .await?
        };
        let alarms: Vec<_> = alarms.into_iter().map(AlarmView::from).collect();
        Ok(out.show(&AlarmsView { disarmed: alarms.iter().any(|a| a.disarmed), alarms })?)
    }
}

#[derive(Debug, Serialize)]
struct AlarmsView {
    /// At least one alarm was disarmed.
    disarmed: bool,
    alarms: Vec<AlarmView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AlarmView {
    /// None if no member has the id.
    node: Option<String>,
    member_id: String,
    alarm: String,
    disarmed: bool,
}

impl From<EtcdAlarm> for AlarmView {
    fn from(EtcdAlarm { node, member_id, alarm, disarmed }: EtcdAlarm) -> Self {
        Self { node: non_empty(node), member_id, alarm, disarmed }
    }
}

impl AlarmsView {
    /// The member of a CORRUPT alarm that is still active, as `--disarm-corrupt` takes it.
    fn corrupt_member(&self) -> Option<&str> {
        let active = |alarm: &&AlarmView| alarm.alarm == "CORRUPT" && !alarm.disarmed;
        let alarm = self.alarms.iter().find(active)?;
        Some(alarm.node.as_deref().unwrap_or(&alarm.member_id))
    }
}

impl Render for AlarmsView {
    fn text(&self) -> String {
        if self.alarms.is_empty() {
            return String::new();
        }
        let rows = self.alarms.iter().map(|alarm| {
            let state = if alarm.disarmed { "disarmed" } else { "active" };
            [
                or_dash(alarm.node.clone().unwrap_or_default()),
                alarm.member_id.clone(),
                alarm.alarm.clone(),
                state.to_owned(),
            ]
        });
        table(["NODE", "MEMBER", "ALARM", "STATE"], rows)
    }

    fn prose(&self) -> String {
        if self.alarms.is_empty() {
            return "No alarms.".to_owned();
        }
        let Some(member) = self.corrupt_member() else { return String::new() };
        format!(
            "CORRUPT: the data of {member} differ from the other members'. Replace that member, or \
             accept its data as they are: `musterctl etcd alarms --disarm-corrupt {member}`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn alarms_are_shown_in_every_form() {
        let full = EtcdAlarm {
            node: "cp-1".to_owned(),
            member_id: "8e9e05c52164694d".to_owned(),
            alarm: "NOSPACE".to_owned(),
            disarmed: true,
        };
        let (member_id, alarm) = ("abc".to_owned(), "CORRUPT".to_owned());
        let corrupt = EtcdAlarm { member_id, alarm, ..EtcdAlarm::default() };
        let alarms = vec![full.into(), corrupt.into()];
        insta::assert_snapshot!(all_formats(&AlarmsView { disarmed: true, alarms }));
        assert_eq!(AlarmsView { disarmed: false, alarms: Vec::new() }.prose(), "No alarms.");
    }
}
