//! A judge of anything that claims to survive a power cut: what would the disk hold if the power
//! had failed at this very point?
//!
//! A program (the victim) works on a directory under strace, which writes down every file
//! operation and every line the victim says. [`Tape`] is that record. Played up to any event it
//! gives a [`Disk`]: what is durable, and what is only in the page cache. From that any number of
//! directories can be made which a power cut at this point may leave behind:
//!
//! - Of the sectors (512 bytes) written since the last fsync or fdatasync of their file, any subset
//!   has arrived, each in any state it had in between; so writes are torn, dropped and reordered.
//! - A file that grew or shrank since its last sync has any of the lengths it had; what is missing
//!   is zero.
//! - Names that were made, renamed or removed since the last fsync of their directory have happened
//!   up to any point, independently of other directories. Syncing a file does not sync its name.
//! - `sync_file_range`, and closing, make nothing durable.
//!
//! This is at least as unkind as ext4 and xfs are on honest drives. It does not model drives that
//! lie about a flush, or sectors that are themselves torn.

mod disk;
mod sectors;
mod strace;

pub use disk::{Disk, Dropped};
pub use strace::{Event, Tape};
