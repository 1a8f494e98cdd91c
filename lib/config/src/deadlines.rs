//! Deadlines that nobody sets: how long a step inside one of the daemons may take at most. They stand here because the
//! timers of ha.toml must fit to them (see [`HaToml::relations`](crate::HaToml::relations)).

use std::time::Duration;

/// How long the VM's launcher may take from its start until it becomes QEMU: two conversations with the lock manager,
/// and some more.
pub const LAUNCH: Duration = Duration::from_secs(50);

/// How long QEMU may take from its start to its first answer.
pub const QEMU_READY: Duration = Duration::from_secs(30);
