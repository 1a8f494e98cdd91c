//! Which QEMUs of the sandbox have a guest that runs or may go on, from QEMU's own record of events, or from what libvirt
//! keeps of its QEMUs.
//!
//! During a live migration there are two QEMUs: one with the guest, and one that waits for it, or has sent it away.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use engine_vm::qemu::journal::Journal;
use engine_vm::qemu::run_dir::RunDir;

use super::libvirtd::Kept;
use super::procs::Process;

/// What a QEMU is to its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Booted here; it runs, or is stopped and can go on.
    Booted,
    /// Came from another host; it runs, or is stopped and can go on.
    Arrived,
    /// Stopped, not by an error: sent away, or about to be. It goes on here if it does not arrive.
    Leaving,
    /// Not here yet.
    Awaited,
    /// Sent away completely.
    Left,
}

impl Guest {
    /// The one of a QEMU; `None` when that has ended since it was seen. Without a record there is one, to be on the safe side.
    pub fn of(qemu: &Process) -> Option<Self> {
        let proc = Path::new("/proc").join(qemu.pid.to_string());
        let is_incoming = qemu.arguments.iter().any(|argument| argument == "-incoming");
        let kept = domain(&qemu.arguments).map(|domain| Kept::file(&proc.join("root"), domain));
        // libvirt writes it before it starts QEMU.
        let guest = match kept.and_then(|file| fs::read_to_string(file).ok()) {
            Some(kept) => Self::judge_domain(is_incoming, Kept::parse(&kept).as_ref()),
            // Its working directory is its run directory, wherever its host has that.
            None => Self::judge(is_incoming, &Journal::load(&RunDir::new(proc.join("cwd")))),
        };
        // Its records are found by its process: a source that just ended would seem to be one that runs.
        qemu.goes_on().then_some(guest)
    }

    fn judge_domain(is_incoming: bool, kept: Option<&Kept>) -> Self {
        let here = if is_incoming { Self::Arrived } else { Self::Booted };
        let Some(kept) = kept.filter(|kept| kept.state == "paused") else { return here };
        match (kept.reason.as_str(), kept.phase.as_str()) {
            // Its processors have never been let go, for which it needs the lease.
            ("starting up", _) => Self::Awaited,
            ("migration", "prepare" | "finish3") if kept.job == "migration in" => Self::Awaited,
            ("migration", "perform3_done" | "confirm3") if kept.job == "migration out" => Self::Left,
            ("migration", "perform3") if kept.job == "migration out" => Self::Leaving,
            _ => here,
        }
    }

    fn judge(is_incoming: bool, journal: &Journal) -> Self {
        match (is_incoming, journal.was_resumed) {
            (true, false) => Self::Awaited,
            _ if journal.is_stopped && journal.is_migrated => Self::Left,
            _ if journal.is_stopped && !journal.is_io_error => Self::Leaving,
            (true, true) => Self::Arrived,
            (false, _) => Self::Booted,
        }
    }

    /// Whether there is one that runs or may go on.
    pub const fn is_here(self) -> bool {
        matches!(self, Self::Booted | Self::Arrived | Self::Leaving)
    }
}

/// A source hears last that its guest goes on elsewhere: of a stopped one whose guest has arrived, the guest has left.
pub fn settle<K>(guests: &mut BTreeMap<K, Guest>) {
    if guests.values().any(|guest| *guest == Guest::Arrived) {
        guests.values_mut().filter(|guest| **guest == Guest::Leaving).for_each(|guest| *guest = Guest::Left);
    }
}

/// The VM's name, which is the domain's where libvirt started the QEMU.
fn domain(arguments: &[String]) -> Option<&str> {
    let name = arguments.iter().skip_while(|argument| *argument != "-name").nth(1)?;
    name.split(',').find_map(|part| part.strip_prefix("guest="))
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
        assert_eq!(of(false, &[stop]), Guest::Leaving);
        let error = r#"{"event": "BLOCK_IO_ERROR", "data": {"action": "stop"}}"#;
        assert_eq!(of(false, &[error, stop]), Guest::Booted);
        assert_eq!(of(false, &[stop, completed]), Guest::Left);
        assert_eq!(of(false, &[stop, completed, resume]), Guest::Booted);
        assert_eq!(of(true, &[]), Guest::Awaited);
        assert_eq!(of(true, &[completed]), Guest::Awaited);
        assert_eq!(of(true, &[completed, resume]), Guest::Arrived);
        assert_eq!(of(true, &[completed, resume, stop, completed]), Guest::Left);
        assert!(Guest::Arrived.is_here() && !Guest::Awaited.is_here() && !Guest::Left.is_here());
    }

    #[test]
    fn a_source_that_has_not_heard_yet_is_no_second_guest_and_one_that_runs_is() {
        let settled = |source, destination| {
            let mut guests = BTreeMap::from([(1, source), (2, destination)]);
            settle(&mut guests);
            guests.into_values().filter(|guest| guest.is_here()).count()
        };
        assert_eq!(settled(Guest::Leaving, Guest::Awaited), 1);
        assert_eq!(settled(Guest::Leaving, Guest::Arrived), 1);
        assert_eq!(settled(Guest::Booted, Guest::Arrived), 2);
        // Started anew beside a stopped one that may go on.
        assert_eq!(settled(Guest::Leaving, Guest::Booted), 2);
    }

    #[test]
    fn libvirt_keeps_on_which_side_a_guest_is() {
        let of = |is_incoming, state: &str, reason: &str, job: &str, phase: &str| {
            let [state, reason, job, phase] = [state, reason, job, phase].map(str::to_owned);
            Guest::judge_domain(is_incoming, Some(&Kept { state, reason, job, phase }))
        };
        assert_eq!(of(false, "paused", "starting up", "none", ""), Guest::Awaited);
        assert_eq!(of(false, "running", "booted", "none", ""), Guest::Booted);
        assert_eq!(of(false, "paused", "ioerror", "none", ""), Guest::Booted);
        // A source that is stopped and has not sent all can go on by itself.
        assert_eq!(of(false, "running", "booted", "migration out", "perform3"), Guest::Booted);
        assert_eq!(of(false, "paused", "migration", "migration out", "perform3"), Guest::Leaving);
        assert_eq!(of(false, "paused", "migration", "migration out", "perform3_done"), Guest::Left);
        assert_eq!(of(false, "paused", "migration", "migration out", "confirm3_cancelled"), Guest::Booted);
        assert_eq!(of(true, "paused", "migration", "migration in", "prepare"), Guest::Awaited);
        assert_eq!(of(true, "running", "migrated", "migration in", "finish3"), Guest::Arrived);
        assert_eq!(of(true, "paused", "migration", "migration out", "confirm3"), Guest::Left);
        assert_eq!(Guest::judge_domain(false, None), Guest::Booted);

        let arguments = |name: &str| ["qemu-system-x86_64", "-name", name, "-S"].map(str::to_owned);
        assert_eq!(domain(&arguments("guest=HostedEngine,debug-threads=on")), Some("HostedEngine"));
        assert_eq!(domain(&arguments("HostedEngine")), None);
        assert_eq!(domain(&[]), None);
    }
}
