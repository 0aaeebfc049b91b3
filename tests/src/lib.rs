//! The lab: hosts as network namespaces, real `musterd` processes in them, faults by name, waits
//! that name their condition. No mocks: everything that runs here is what operators run. The tests
//! themselves are in `e2e`.

pub mod address_change;
pub mod attack;
pub mod checker;
pub mod cluster;
pub mod cluster_id_on_disk;
pub mod ctl;
pub mod dns;
pub mod documented_steps;
pub mod exclusive;
pub mod first_seconds;
pub mod lab;
pub mod loopback;
pub mod operator;
pub mod paused_etcd;
pub mod power_cut;
pub mod report;
pub mod resource_usage;
pub mod secrets;
pub mod store;
pub mod wait;

pub use cluster::{Cluster, Discovery, Plan};
pub use lab::{Host, Lab, exclusive_scenario, scenario};
pub use paused_etcd::{PausedEtcd, PausedStep};
pub use report::report;
pub use wait::until;
