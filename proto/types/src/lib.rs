//! Types shared by all parts of Muster: identifiers, names, numbers, roles, times, versions, the description
//! of an etcd member, and the bounds of what crosses the network. Plain data: no I/O, no clock, no runtime.

pub mod address;
pub mod error;
pub mod etcd;
pub mod format;
pub mod id;
pub mod limits;
pub mod name;
pub mod number;
pub mod role;
pub mod text;
pub mod time;
pub mod version;
pub mod wire;

pub use id::{ClusterId, NodeId, PublicKey};
pub use name::NodeName;
pub use role::{OperatorRole, Role};
pub use time::{DurationMillis, UnixMillis};
pub use version::{ConfigVersion, LogIndex};

/// The version of this build, as every node and `musterctl` report it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// UDP (QUIC) and TCP (operator API) port of every node, unless the config says otherwise.
pub const DEFAULT_PORT: u16 = 50_000;

/// Port of etcd's clients on every control-plane node (IANA: etcd-client).
pub const ETCD_CLIENT_PORT: u16 = 2379;

/// Port of etcd's peers on every control-plane node (IANA: etcd-server).
pub const ETCD_PEER_PORT: u16 = 2380;
