//! No core of this process is ever written: it would hold the keys of the authorities, of this node
//! and of every token.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids cores of this process, whatever the system does with them, and of its children.
///
/// The kernel hands no core of a process that is not dumpable to a file or to a collector, and lets
/// no other process of the same user read its memory (prctl(2), `PR_SET_DUMPABLE`). Children
/// begin dumpable again, so they get the limit, which they inherit. Who has to debug a running node
/// still can, as root: a debugger with `CAP_SYS_PTRACE` needs neither.
pub fn forbid() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}
