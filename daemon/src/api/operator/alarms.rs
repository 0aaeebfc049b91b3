//! etcd's alarms as operators see them: with the names of members, and which of them a call disarms.

use std::collections::BTreeMap;

use muster_init::units::etcd::client::{Alarm, AlarmKind};
use muster_messages::operator as wire;
use muster_state::ClusterState;
use muster_types::etcd::EtcdMemberId;
use tonic::Status;

/// Separates an alarm from the member that has it, in the errors of a member's status.
const OF: &str = " alarm of ";

/// Returns the alarms that a call disarms: the CORRUPT alarm of `corrupt_member` (a name or an id),
/// otherwise every NOSPACE alarm.
pub(super) fn select(
    alarms: &[Alarm],
    names: &BTreeMap<EtcdMemberId, String>,
    corrupt_member: &str,
) -> Result<Vec<Alarm>, Status> {
    let of_kind = |kind| alarms.iter().copied().filter(move |alarm| alarm.kind == kind);
    if corrupt_member.is_empty() {
        return Ok(of_kind(AlarmKind::NoSpace).collect());
    }
    let is_named = |alarm: &Alarm| {
        names.get(&alarm.member).is_some_and(|name| name == corrupt_member)
            || alarm.member.to_string() == corrupt_member
    };
    let found: Vec<_> = of_kind(AlarmKind::Corrupt).filter(is_named).collect();
    if found.is_empty() {
        return Err(Status::not_found(format!(
            "etcd has no CORRUPT alarm of {corrupt_member}; `musterctl etcd alarms` lists the alarms"
        )));
    }
    Ok(found)
}

/// Converts alarms to a reply.
pub(super) fn reply(
    names: &BTreeMap<EtcdMemberId, String>,
    alarms: &[Alarm],
    disarmed: &[Alarm],
) -> wire::EtcdAlarmsReply {
    let alarm = |alarm: &Alarm| wire::EtcdAlarm {
        node: names.get(&alarm.member).cloned().unwrap_or_default(),
        member_id: alarm.member.to_string(),
        alarm: alarm.kind.to_string(),
        disarmed: disarmed.contains(alarm),
    };
    wire::EtcdAlarmsReply { alarms: alarms.iter().map(alarm).collect() }
}

/// Returns the name of a member, or its id.
pub(super) fn member_name(names: &BTreeMap<EtcdMemberId, String>, member: EtcdMemberId) -> String {
    let name = names.get(&member).filter(|name| !name.is_empty());
    name.cloned().unwrap_or_else(|| format!("unknown member {member}"))
}

/// Names the members in the errors of a member's status.
pub(super) fn readable(errors: Vec<String>, state: &ClusterState) -> Vec<String> {
    let planned = state.etcd().nodes();
    let names = planned
        .filter_map(|(_, record)| Some((record.phase.member_id()?, record.peer.name.to_string())));
    let names: BTreeMap<_, _> = names.collect();
    errors.into_iter().map(|error| describe(&error, &names).unwrap_or(error)).collect()
}

/// Returns true for an alarm that [`readable`] has described.
pub(super) fn is_alarm(error: &str) -> bool {
    error.contains(OF)
}

/// Describes an alarm in etcd's form, `memberID:4664183033634515198 alarm:CORRUPT`. etcd omits the
/// id 0. `None` for any other error.
fn describe(error: &str, names: &BTreeMap<EtcdMemberId, String>) -> Option<String> {
    let (mut member, mut alarm) = (0, None);
    for word in error.split_whitespace() {
        match word.split_once(':')? {
            ("memberID", id) => member = id.parse().ok()?,
            ("alarm", kind) => alarm = Some(kind),
            _ => return None,
        }
    }
    Some(format!("{}{OF}{}", alarm?, member_name(names, EtcdMemberId(member))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<EtcdMemberId, String> {
        [(1, "cp-1"), (0xbe, "cp-2")].map(|(id, name)| (EtcdMemberId(id), name.to_owned())).into()
    }

    const fn alarm(member: u64, kind: AlarmKind) -> Alarm {
        Alarm { member: EtcdMemberId(member), kind }
    }

    /// Regression: `--disarm` cleared CORRUPT too.
    #[test]
    fn corruption_is_disarmed_only_by_name() {
        let (full, corrupt) = (alarm(1, AlarmKind::NoSpace), alarm(0xbe, AlarmKind::Corrupt));
        let unknown = alarm(0, AlarmKind::Corrupt);
        let alarms = [full, corrupt, unknown, alarm(1, AlarmKind::Unknown(7))];
        let select = |member: &str| select(&alarms, &names(), member);
        assert_eq!(select("").unwrap(), [full]);
        assert_eq!(select("cp-2").unwrap(), [corrupt]);
        assert_eq!(select(&EtcdMemberId(0xbe).to_string()).unwrap(), [corrupt]);
        assert_eq!(select(&EtcdMemberId(0).to_string()).unwrap(), [unknown]);
        for other in ["cp-1", "cp-3"] {
            let message = select(other).unwrap_err().message().to_owned();
            assert!(message.contains(&format!("no CORRUPT alarm of {other}")), "{message}");
        }
        let told = reply(&names(), &alarms, &[corrupt]).alarms;
        assert_eq!(
            told.iter().map(|a| a.disarmed).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert_eq!((told[1].node.as_str(), told[2].node.as_str()), ("cp-2", ""));
    }

    /// Regression: the id was decimal, unlike everywhere else, or missing.
    #[test]
    fn an_alarm_in_a_status_names_its_member() {
        let told = |error: &str| describe(error, &names());
        assert_eq!(told("memberID:190 alarm:CORRUPT ").unwrap(), "CORRUPT alarm of cp-2");
        assert_eq!(
            told("memberID:2748 alarm:NOSPACE").unwrap(),
            "NOSPACE alarm of unknown member abc"
        );
        assert_eq!(told("alarm:CORRUPT ").unwrap(), "CORRUPT alarm of unknown member 0");
        assert!(is_alarm(&told("alarm:CORRUPT").unwrap()));
        for other in ["etcdserver: no leader", "memberID:x alarm:CORRUPT", "memberID:1", ""] {
            assert!(told(other).is_none(), "{other}");
        }
    }
}
