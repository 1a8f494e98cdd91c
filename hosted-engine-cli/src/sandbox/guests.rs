//! Which QEMUs of the sandbox have a guest that runs or may go on, from QEMU's own record of events.
//!
//! During a live migration there are two QEMUs: one with the guest, and one that waits for it, or has sent it away.

use std::path::Path;

use engine_vm::qemu::journal::Journal;
use engine_vm::qemu::run_dir::RunDir;

use super::procs::Process;

/// What a QEMU is to its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Booted here; it runs, or is stopped and can go on.
    Booted,
    /// Came from another host; it runs, or is stopped and can go on.
    Arrived,
    /// Not here yet.
    Awaited,
    /// Sent away completely.
    Left,
}

impl Guest {
    /// The one of a QEMU. Without its record there is one, to be on the safe side.
    pub fn of(qemu: &Process) -> Self {
        // Its working directory is its run directory, wherever its host has that.
        let dir = RunDir::new(Path::new("/proc").join(qemu.pid.to_string()).join("cwd"));
        let is_incoming = qemu.arguments.iter().any(|argument| argument == "-incoming");
        Self::judge(is_incoming, &Journal::load(&dir))
    }

    fn judge(is_incoming: bool, journal: &Journal) -> Self {
        match (is_incoming, journal.was_resumed) {
            (true, false) => Self::Awaited,
            _ if journal.is_stopped && journal.is_migrated => Self::Left,
            (true, true) => Self::Arrived,
            (false, _) => Self::Booted,
        }
    }

    /// Whether there is one that runs or may go on.
    pub const fn is_here(self) -> bool {
        matches!(self, Self::Booted | Self::Arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_on_one_side_at_each_moment_of_a_migration() {
        let stop = r#"{"event": "STOP"}"#;
        let completed = r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#;
        let resume = r#"{"event": "RESUME"}"#;
        let of = |is_incoming, lines: &[&str]| Guest::judge(is_incoming, &Journal::parse(&lines.join("\n")));
        assert_eq!(of(false, &[]), Guest::Booted);
        // A source that is stopped and has not sent all can go on by itself.
        assert_eq!(of(false, &[stop]), Guest::Booted);
        assert_eq!(of(false, &[stop, completed]), Guest::Left);
        assert_eq!(of(false, &[stop, completed, resume]), Guest::Booted);
        assert_eq!(of(true, &[]), Guest::Awaited);
        assert_eq!(of(true, &[completed]), Guest::Awaited);
        assert_eq!(of(true, &[completed, resume]), Guest::Arrived);
        assert_eq!(of(true, &[completed, resume, stop, completed]), Guest::Left);
        assert!(Guest::Arrived.is_here() && !Guest::Awaited.is_here() && !Guest::Left.is_here());
    }
}
