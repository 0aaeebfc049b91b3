//! What is so on this machine: name, boot, addresses, free space. Read anew at each call; nothing
//! is kept and nothing is decided, except which address others are told.

mod addresses;
mod host;

pub use addresses::{AddressesError, Interface, Reach, addresses, best, watch};
pub use host::{BootId, FactError, Space, boot_id, hostname, memory, space};
