//! The lab: hosts as network namespaces, real `musterd` processes in them, faults by name, waits
//! that say what they wait for. No mocks: everything that runs here is what operators run.

pub mod attack;
pub mod belonging;
pub mod checker;
pub mod cluster;
pub mod ctl;
pub mod dns;
pub mod exclusive;
pub mod footprint;
pub mod held;
pub mod lab;
pub mod loopback;
pub mod manual;
pub mod moved;
pub mod newcomer;
pub mod operator;
pub mod power_cut;
pub mod secrets;
pub mod store;
pub mod tell;
pub mod wait;

pub use cluster::{Cluster, Discovery, Plan};
pub use held::{Held, Work};
pub use lab::{Host, Lab, exclusive_scenario, scenario};
pub use tell::tell;
pub use wait::until;
