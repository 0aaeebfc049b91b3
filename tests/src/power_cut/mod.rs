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
//!   [`Disk::with_names_in_any_order`]: or any of them without those before.
//! - `sync_file_range`, and closing, make nothing durable.
//!
//! This is at least as unkind as ext4 and xfs are on honest drives. It does not model drives that lie about
//! a flush, sectors that are themselves torn, or a sync that fails and is asked for again.

mod disk;
mod mutant;
mod sectors;
mod strace;

pub use disk::{Disk, Dropped};
pub use mutant::Mutation;
pub use strace::{Event, Trace};

/// A directory for what a victim or a cut leaves: in memory where there is such a place, since what
/// is judged is the model's disk and not this machine's.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}
