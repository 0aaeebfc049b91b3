use std::time::Duration;

use muster_init::units::{UnitHealth, UnitName, UnitPhase, UnitStatus, etcd};
use muster_types::Role;

use super::readiness::{RaftReadiness, ReadinessInputs, waiting_for};
use super::*;

fn running(health: UnitHealth) -> PublishedUnit {
    let status = UnitStatus { phase: UnitPhase::Running, health, ..UnitStatus::STOPPED };
    PublishedUnit { status, ..PublishedUnit::STOPPED }
}

/// A member whose etcd is healthy.
fn member() -> StatusWriter {
    let status = StatusWriter::new(None, Vec::new());
    status.set_member();
    status.register_unit(etcd::NAME).publish(running(UnitHealth::Healthy));
    status
}

fn inputs(role: Role, status: &StatusWriter) -> ReadinessInputs {
    let raft = RaftReadiness { stuck_for: None, has_live_leader: true, founded: true, votes: true };
    ReadinessInputs {
        role,
        node: status.reader().get(NodeStatus::clone),
        has_certificate: true,
        raft: (role == Role::ControlPlane).then_some(raft),
    }
}

fn ready() -> ReadinessInputs {
    inputs(Role::ControlPlane, &member())
}

#[test]
fn a_node_with_everything_waits_for_nothing() {
    assert_eq!(waiting_for(&ready()), None);
    let worker = StatusWriter::new(None, Vec::new());
    worker.set_member();
    assert!(waiting_for(&inputs(Role::Worker, &worker)).unwrap().contains("reply"));
    worker.set_connected(true);
    assert_eq!(waiting_for(&inputs(Role::Worker, &worker)), None);
}

#[test]
fn the_first_missing_thing_is_named_not_what_follows_from_it() {
    let mut inputs = ready();
    inputs.raft = None;
    assert!(waiting_for(&inputs).unwrap().contains("leader"));
    inputs.raft = Some(RaftReadiness {
        stuck_for: Some(Duration::from_secs(3)),
        has_live_leader: false,
        founded: true,
        votes: false,
    });
    assert!(waiting_for(&inputs).unwrap().starts_with("its disk"));
    inputs.node.stage = Stage::Forming { waiting_for: Some("2 more".to_owned()) };
    assert_eq!(waiting_for(&inputs).unwrap(), "2 more");
    inputs.node.port_problem = Some("TCP port".to_owned());
    assert_eq!(waiting_for(&inputs).unwrap(), "TCP port");
    inputs.node.stage = Stage::Removed;
    assert!(waiting_for(&inputs).unwrap().contains("was removed from the cluster"));
}

#[test]
fn a_unit_s_own_reason_is_passed_on() {
    let with_etcd = |unit: PublishedUnit| {
        let mut inputs = ready();
        inputs.node.units.insert(etcd::NAME, unit);
        inputs
    };
    let backing_off = UnitStatus {
        phase: UnitPhase::BackingOff,
        last_error: Some("disk is full".to_owned()),
        ..UnitStatus::STOPPED
    };
    let published = PublishedUnit { status: backing_off, ..PublishedUnit::STOPPED };
    assert_eq!(waiting_for(&with_etcd(published)).unwrap(), "etcd to restart: disk is full");
    let blocked =
        PublishedUnit { blocked: Some("its turn".to_owned()), ..running(UnitHealth::Healthy) };
    assert_eq!(waiting_for(&with_etcd(blocked)).unwrap(), "its turn");
}

/// A new unit is its folder in `muster_init::units` and the line that registers it.
#[test]
fn a_registered_unit_is_waited_for_without_another_line() {
    let status = member();
    assert_eq!(waiting_for(&inputs(Role::ControlPlane, &status)), None);
    let kubelet = status.register_unit(UnitName::new("kubelet"));
    assert_eq!(waiting_for(&inputs(Role::ControlPlane, &status)).unwrap(), "kubelet to start");
    kubelet.publish(running(UnitHealth::Waiting("no container runtime".to_owned())));
    let waits = waiting_for(&inputs(Role::ControlPlane, &status)).unwrap();
    assert_eq!(waits, "kubelet: no container runtime");
    kubelet.publish(running(UnitHealth::Healthy));
    assert_eq!(waiting_for(&inputs(Role::ControlPlane, &status)), None);
}

#[test]
fn readers_are_notified_of_changes_only() {
    let status = StatusWriter::new(None, Vec::new());
    let etcd = status.register_unit(etcd::NAME);
    let mut reader = status.reader();
    etcd.publish(PublishedUnit::STOPPED);
    status.set_connected(false);
    assert!(!status.set_waiting_for(Some("its tasks to start".to_owned())));
    assert!(!reader.node.has_changed().unwrap());
    assert!(status.set_waiting_for(None));
    assert!(reader.node.has_changed().unwrap());
    reader.get_and_update(|_| ());
    etcd.publish(running(UnitHealth::Unknown));
    assert!(reader.node.has_changed().unwrap());
}

#[test]
fn an_address_that_is_lost_for_a_moment_stays_published() {
    let address: SocketAddr = "10.0.0.1:50000".parse().unwrap();
    let status = StatusWriter::new(None, vec![address]);
    status.set_addresses(Vec::new());
    assert_eq!(*status.reader().addresses().borrow(), [address]);
}
