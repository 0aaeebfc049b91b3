//! Tests durability: computes what the disk may hold if the power fails at any point.
//!
//! A program (the victim) works on a directory under strace, which records every file operation and
//! every line that the victim prints. [`Trace`] is that record. Played up to any event it gives a
//! [`Disk`]: what is durable, and what is only in the page cache. From it any number of directories
//! can be made that a power cut at this point may leave:
//!
//! - Of the sectors (512 bytes) written since the last fsync or fdatasync of their file, any subset
//!   has arrived, each in any state it had in between. So writes are torn, dropped and reordered.
//! - A file that grew or shrank since its last sync has any of the lengths it had. Missing bytes
//!   are zero.
//! - Names that were made, renamed or removed since the last fsync of their directory have changed
//!   up to any point, independently of other directories. A sync of a file does not sync its name.
//!   With [`Disk::with_names_in_any_order`], any of these changes may have arrived without earlier
//!   ones.
//! - `sync_file_range` and close make nothing durable.
//!
//! The model is at least as strict as ext4 and xfs on honest drives. It does not cover drives that
//! lie about a flush, torn sectors, or a failed sync that is repeated.

mod disk;
mod mutant;
mod sectors;
mod strace;

pub use disk::{Disk, Dropped};
pub use mutant::Mutation;
pub use strace::{Event, Trace};

/// Makes a directory for a victim's or a cut's files, in memory if possible: the test is about the
/// modelled disk, not this machine's.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}
