//! Facts about this machine: name, boot, addresses, free space. Each call reads them again. Nothing
//! is cached or decided here, except which address to advertise.

mod addresses;
mod host;

pub use addresses::{AddressScope, AddressesError, Interface, addresses, best_address, watch};
pub use host::{BootId, FactError, Space, boot_id, hostname, memory, space};
