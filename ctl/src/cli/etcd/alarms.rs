//! `etcd alarms`.

use clap::Args;
use muster_messages::operator::{EtcdAlarm, EtcdAlarmsReply, EtcdAlarmsRequest, EtcdDisarmRequest};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::client::{Api, CallKind};
use crate::output::{Output, Render, or_dash, table};

/// List etcd's alarms
#[derive(Debug, Args)]
pub(crate) struct Alarms {
    /// Clear the alarms, after their cause is gone
    #[arg(long)]
    disarm: bool,
}

impl Alarms {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let EtcdAlarmsReply { alarms } = if self.disarm {
            let (what, message) = ("disarm etcd's alarms", EtcdDisarmRequest {});
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
        let alarms = alarms.into_iter().map(AlarmView::from).collect();
        Ok(out.show(&AlarmsView { disarmed: self.disarm, alarms })?)
    }
}

#[derive(Debug, Serialize)]
struct AlarmsView {
    disarmed: bool,
    alarms: Vec<AlarmView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AlarmView {
    node: String,
    member_id: String,
    alarm: String,
}

impl From<EtcdAlarm> for AlarmView {
    fn from(EtcdAlarm { node, member_id, alarm }: EtcdAlarm) -> Self {
        Self { node, member_id, alarm }
    }
}

impl Render for AlarmsView {
    fn text(&self) -> String {
        if self.alarms.is_empty() {
            return "No alarms.".to_owned();
        }
        let rows = self
            .alarms
            .iter()
            .map(|alarm| [or_dash(&alarm.node), alarm.member_id.clone(), alarm.alarm.clone()]);
        let list = table(["NODE", "MEMBER", "ALARM"], rows);
        if self.disarmed { format!("{list}\n\nDisarmed.") } else { list }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn alarms_are_shown_in_every_form() {
        let alarm = EtcdAlarm {
            node: "cp-1".to_owned(),
            member_id: "8e9e05c52164694d".to_owned(),
            alarm: "NOSPACE".to_owned(),
        };
        let alarms = vec![alarm.into()];
        insta::assert_snapshot!(all_formats(&AlarmsView { disarmed: false, alarms }));
        assert_eq!(AlarmsView { disarmed: true, alarms: Vec::new() }.text(), "No alarms.");
    }
}
