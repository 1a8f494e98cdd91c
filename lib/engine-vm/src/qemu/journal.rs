//! How the VM fares and how it ended, from the events that QEMU itself wrote down.
//!
//! Functions over text, and one that reads it. The record is QEMU's, so it is true whoever was watching, or nobody.

use serde_json::Value;

use super::launch::LaunchMode;
use super::run_dir::{EVENTS_LOG, RunDir};
use crate::port::VmExit;

/// So much of the record is read.
const READ_LIMIT: usize = 1 << 20;

/// What the events say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// Reads the record in `dir`; of a very long one the end.
    pub fn load(dir: &RunDir) -> Self {
        let mut journal = Self::parse(&dir.tail(EVENTS_LOG, READ_LIMIT));
        let length = std::fs::metadata(dir.file(EVENTS_LOG)).map_or(0, |data| data.len());
        journal.has_started |= length > READ_LIMIT as u64;
        journal
    }

    /// Reads the record. A last line that was cut is passed over.
    pub fn parse(text: &str) -> Self {
        let mut journal = Self::default();
        for line in text.lines() {
            let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
            if value.get("return").is_some() {
                journal.has_started = true;
            }
            if let Some(name) = value.get("event").and_then(Value::as_str) {
                journal.add(name, &value["data"]);
            }
        }
        journal
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
}
