//! Disables core dumps: they would contain the keys of the authorities, this node and every token.

use rustix::io;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Disables core dumps of this process, however the system collects them, and of its children.
///
/// For a process that is not dumpable, the kernel writes no core to a file or a collector. It also
/// denies other processes of the same user access to its memory (prctl(2), `PR_SET_DUMPABLE`).
/// Children start dumpable again, so they get the resource limit, which they inherit. Root can
/// still debug a running node: a debugger with `CAP_SYS_PTRACE` needs neither.
pub fn disable() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}
