//! How the VM fares and how it ended, from the events that QEMU itself wrote down.
//!
//! Functions over text, and one that reads it. The record is QEMU's, so it is true whoever was watching, or nobody.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::launch::LaunchMode;
use super::run_dir::{EVENTS_KEPT, EVENTS_LOG, RunDir};
use crate::port::VmExit;

/// The part of the record that is read at each look is kept shorter than this by cutting.
const CUT_LIMIT: u64 = 256 << 10;
/// So much is read at most, from the end, when nobody cuts.
const READ_LIMIT: u64 = 1 << 20;

/// What the events said that are no longer read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Kept {
    /// The record is read from this byte on.
    offset: u64,
    /// What stood before it.
    journal: Journal,
}

/// What the events say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one VM, not states of a machine")]
pub struct Journal {
    /// The main loop ran: QEMU got as far as answering its monitors.
    pub has_started: bool,
    /// The guest's processors were started again at least once. A plain start is not an event.
    pub was_resumed: bool,
    /// Stopped last, not resumed.
    pub is_stopped: bool,
    /// Asked to power down since it last booted.
    pub is_powering_down: bool,
    /// An I/O error stopped it last.
    pub is_io_error: bool,
    /// A migration came to its end and the guest was not resumed here since.
    pub is_migrated: bool,
    /// QEMU's reason for its own end.
    pub shutdown: Option<String>,
}

impl Journal {
    /// Reads the record in `dir`.
    pub fn load(dir: &RunDir) -> Self {
        loop {
            let kept = Kept::load(dir);
            let mut journal = kept.journal.clone();
            match File::open(dir.file(EVENTS_LOG)).and_then(|file| Part::read(&file, kept.offset)) {
                Ok(part) => journal.read(&part, kept.offset),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "cannot read QEMU's record of events"),
            }
            // Cut meanwhile? Then what was read may have been a hole.
            if Kept::load(dir).offset == kept.offset {
                return journal;
            }
        }
    }

    /// Gives back the memory of a long record's beginning, once what it said is written down. The record keeps its
    /// length, so nothing that QEMU adds at the same time can be lost.
    pub fn cut(dir: &RunDir) -> io::Result<()> {
        let file = match File::options().read(true).write(true).open(dir.file(EVENTS_LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        // One at a time: another who cuts now does the same.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let mut kept = Kept::load(dir);
        if file.metadata()?.len().saturating_sub(kept.offset) < CUT_LIMIT {
            return Ok(());
        }
        let mut part = Part::read(&file, kept.offset)?;
        let Some(end) = part.bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        part.bytes.truncate(end + 1);
        kept.journal.read(&part, kept.offset);
        kept.offset = part.start + part.bytes.len() as u64;
        dir.write(EVENTS_KEPT, &kept)?;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&file, mode, 0, kept.offset)?)
    }

    /// Reads the record. A last line that was cut is passed over.
    pub fn parse(text: &str) -> Self {
        let mut journal = Self::default();
        journal.add_lines(text.as_bytes());
        journal
    }

    /// Goes on with `part`, which was to begin at `offset`.
    fn read(&mut self, part: &Part, offset: u64) {
        // So much was only ever written by a QEMU that got going.
        self.has_started |= part.start > offset;
        self.add_lines(&part.bytes);
    }

    fn add_lines(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            if value.get("return").is_some() {
                self.has_started = true;
            }
            if let Some(name) = value.get("event").and_then(Value::as_str) {
                self.add(name, &value["data"]);
            }
        }
    }

    /// Adds one event.
    pub fn add(&mut self, name: &str, data: &Value) {
        match name {
            "STOP" => self.is_stopped = true,
            "RESUME" => {
                self.was_resumed = true;
                self.is_stopped = false;
                self.is_io_error = false;
                // Arrived, if it was a migration: the next one leads away.
                self.is_migrated = false;
            }
            "POWERDOWN" => self.is_powering_down = true,
            "RESET" => self.is_powering_down = false,
            "BLOCK_IO_ERROR" if data["action"] == "stop" => self.is_io_error = true,
            "MIGRATION" => self.is_migrated = data["status"] == "completed",
            "SHUTDOWN" => self.shutdown = Some(data["reason"].as_str().unwrap_or("unknown").to_owned()),
            _ => {}
        }
    }
}

impl Kept {
    /// Nothing, if nothing was cut or it cannot be read.
    fn load(dir: &RunDir) -> Self {
        dir.read(EVENTS_KEPT).unwrap_or_default().unwrap_or_default()
    }
}

/// Some of the record.
struct Part {
    start: u64,
    bytes: Vec<u8>,
}

impl Part {
    /// From `offset` on; of very much, the end.
    fn read(file: &File, offset: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let start = offset.max(length.saturating_sub(READ_LIMIT));
        let mut bytes = vec![0; usize::try_from(length.saturating_sub(start)).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        Ok(Self { start, bytes })
    }
}

/// What is known about a VM that is gone.
#[derive(Debug, Clone, Copy)]
pub struct Remains<'a> {
    /// How it was started.
    pub mode: LaunchMode,
    /// Its events.
    pub journal: &'a Journal,
    /// We were destroying it.
    pub is_destroyed: bool,
    /// The end of QEMU's standard error.
    pub log: &'a str,
}

/// How it ended.
pub fn exit_of(remains: Remains<'_>) -> VmExit {
    let Remains { mode, journal, is_destroyed, log } = remains;
    let last_words = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
    let with_log = |text: &str| {
        if last_words.is_empty() {
            text.to_owned()
        } else {
            format!("{text}; QEMU's last words: {last_words}")
        }
    };
    let is_arrival = mode == LaunchMode::Incoming && !journal.was_resumed;
    if journal.is_migrated && !is_arrival {
        return VmExit::MigratedAway;
    }
    if is_destroyed {
        return VmExit::Orderly { detail: "destroyed on request".to_owned() };
    }
    if !journal.has_started {
        return VmExit::StartFailed { detail: with_log("QEMU ended before it was ready") };
    }
    if is_arrival {
        return VmExit::StartFailed { detail: with_log("the migration to this host did not complete") };
    }
    match journal.shutdown.as_deref() {
        Some("guest-shutdown") => VmExit::Orderly { detail: "the guest powered itself off".to_owned() },
        Some("guest-reset") => VmExit::Orderly { detail: "the guest reset, which ends it".to_owned() },
        Some("host-qmp-system-reset") => {
            VmExit::Orderly { detail: "reset through QEMU's monitor, which ends it".to_owned() }
        }
        Some("host-qmp-quit") => VmExit::Orderly { detail: "ended through QEMU's monitor".to_owned() },
        Some("guest-panic") => VmExit::Crashed { detail: "the guest's kernel panicked".to_owned() },
        Some("host-signal") => VmExit::Crashed { detail: with_log("QEMU was ended by a signal") },
        Some(other) => VmExit::Crashed { detail: with_log(&format!("QEMU shut down: {other}")) },
        None => VmExit::Crashed { detail: with_log("QEMU died without a word: killed, or crashed") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(mode: LaunchMode, events: &str, is_destroyed: bool) -> VmExit {
        let journal = Journal::parse(events);
        exit_of(Remains {
            mode,
            journal: &journal,
            is_destroyed,
            log: "warning: x\nterminating on signal 15\n\n",
        })
    }

    const STARTED: &str = "{\"QMP\": {}}\n{\"return\": {}}\n";

    #[test]
    fn each_end_has_its_name() {
        use LaunchMode::{Incoming, Run};
        let with = |event: &str| format!("{STARTED}{event}\n");
        let reason = |reason: &str| {
            with(&format!("{{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"{reason}\"}}}}"))
        };
        let migrated = with(r#"{"event": "STOP"}{"event": "x"}"#)
            + "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\n";
        assert!(matches!(exit(Run, &reason("guest-shutdown"), false), VmExit::Orderly { .. }));
        assert!(matches!(exit(Run, &reason("host-qmp-quit"), false), VmExit::Orderly { .. }));
        assert!(matches!(exit(Run, &reason("host-signal"), false),
            VmExit::Crashed { detail } if detail.ends_with("terminating on signal 15")));
        assert!(matches!(exit(Run, STARTED, false), VmExit::Crashed { .. }));
        assert!(matches!(exit(Run, STARTED, true), VmExit::Orderly { .. }));
        assert!(matches!(exit(Run, "{\"QMP\": {}}\n", false), VmExit::StartFailed { .. }));
        assert_eq!(exit(Run, &migrated, false), VmExit::MigratedAway);
        assert_eq!(exit(Run, &(migrated.clone() + &reason("host-qmp-quit")), true), VmExit::MigratedAway);
        assert!(matches!(exit(Incoming, &migrated, false), VmExit::StartFailed { .. }));
        let arrived = migrated + "{\"event\": \"RESUME\"}\n";
        assert!(matches!(exit(Incoming, &arrived, false), VmExit::Crashed { .. }));
    }

    #[test]
    fn the_record_tells_what_the_guest_does() {
        let text = format!(
            "{STARTED}{}\n{}\n{}\n{{\"event\": \"RES",
            r#"{"event": "POWERDOWN"}"#,
            r#"{"event": "STOP"}"#,
            r#"{"event": "BLOCK_IO_ERROR", "data": {"action": "stop"}}"#
        );
        let journal = Journal::parse(&text);
        assert!(journal.has_started && journal.is_powering_down && journal.is_stopped && journal.is_io_error);
        let journal = Journal::parse(&(text + "ET\"}\n{\"event\": \"RESUME\"}\n"));
        assert!(
            !journal.is_powering_down && !journal.is_stopped && !journal.is_io_error && journal.was_resumed
        );
    }

    #[test]
    fn a_long_record_is_cut_and_says_what_it_said() {
        use std::io::Write;
        use std::os::unix::fs::MetadataExt;

        let temporary = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = RunDir::new(temporary.path());
        Journal::cut(&dir).unwrap();
        let mut qemu = File::options().append(true).create(true).open(dir.file(EVENTS_LOG)).unwrap();
        write!(qemu, "{STARTED}{{\"event\": \"RESUME\"}}\n{{\"event\": \"POWERDOWN\"}}\n").unwrap();
        let fill = "{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\n".repeat(8000);
        for _ in 0..3 {
            qemu.write_all(fill.as_bytes()).unwrap();
            qemu.write_all(b"{\"event\": \"ST").unwrap();
            Journal::cut(&dir).unwrap();
            // The half line was not lost, and what was cut off still counts.
            qemu.write_all(b"OP\"}\n").unwrap();
            let journal = Journal::load(&dir);
            assert!(journal.has_started && journal.was_resumed && journal.is_powering_down);
            assert!(journal.is_stopped && !journal.is_migrated);
            qemu.write_all(b"{\"event\": \"RESUME\"}\n").unwrap();
            assert!(!Journal::load(&dir).is_stopped);
        }
        let data = qemu.metadata().unwrap();
        assert!(data.len() > 3 * fill.len() as u64);
        assert!(data.blocks() * 512 < CUT_LIMIT, "{} blocks", data.blocks());
    }
}
