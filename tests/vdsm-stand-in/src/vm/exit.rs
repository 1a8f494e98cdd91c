//! How a VM ended, in VDSM's numbers and words.

use engine_vm::VmExit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// VDSM's reasons for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reason {
    /// It never ran, or another error.
    Generic,
    /// QEMU died.
    LostQemu,
    /// It runs on another host now.
    Migrated,
    /// Somebody asked VDSM for it.
    AdminShutdown,
    /// The guest powered itself off.
    UserShutdown,
    /// It did not arrive.
    MigrationFailed,
    /// It was destroyed while it was being started.
    DestroyedOnStartup,
}

impl Reason {
    const fn number(self) -> i64 {
        match self {
            Self::Generic => 1,
            Self::LostQemu => 2,
            Self::Migrated => 4,
            Self::AdminShutdown => 6,
            Self::UserShutdown => 7,
            Self::MigrationFailed => 8,
            Self::DestroyedOnStartup => 10,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Generic => "VM terminated with error",
            Self::LostQemu => "Lost connection with qemu process",
            Self::Migrated => "Migration succeeded",
            Self::AdminShutdown => "Admin shut down from the engine",
            Self::UserShutdown => "User shut down from within the guest",
            Self::MigrationFailed => "VM failed to migrate",
            Self::DestroyedOnStartup => "VM destroyed during the startup",
        }
    }

    const fn is_error(self) -> bool {
        match self {
            Self::Generic | Self::LostQemu | Self::MigrationFailed => true,
            Self::Migrated | Self::AdminShutdown | Self::UserShutdown | Self::DestroyedOnStartup => false,
        }
    }
}

/// libvirt's words when another host has the lease.
const HELD: &str = "resource busy: Failed to acquire lock: Lease is held by another host";

/// An end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exit {
    reason: Reason,
    message: String,
}

impl Exit {
    pub fn new(reason: Reason) -> Self {
        Self { reason, message: reason.words().to_owned() }
    }

    /// An error with its own words.
    pub fn error(message: impl Into<String>) -> Self {
        Self { reason: Reason::Generic, message: message.into() }
    }

    /// The end of a VM that was `is_asked` to end, by a shutdown or by force.
    pub fn of(exit: Option<&VmExit>, is_incoming: bool, is_asked: bool) -> Self {
        match exit {
            Some(VmExit::Orderly { .. }) if is_asked => Self::new(Reason::AdminShutdown),
            Some(VmExit::Orderly { .. }) => Self::new(Reason::UserShutdown),
            Some(VmExit::MigratedAway) => Self::new(Reason::Migrated),
            Some(VmExit::LeaseRefused { .. }) => Self::error(HELD),
            Some(VmExit::StartFailed { .. }) if is_incoming => Self::new(Reason::MigrationFailed),
            Some(VmExit::StartFailed { detail }) => Self::error(start_failure(detail)),
            Some(VmExit::Crashed { .. }) | None => Self::new(Reason::LostQemu),
        }
    }

    /// Whether it runs on another host now.
    pub fn is_departure(&self) -> bool {
        self.reason == Reason::Migrated
    }

    /// The members of statistics and events.
    pub fn stats(&self) -> Value {
        json!({
            "exitCode": i64::from(self.reason.is_error()),
            "exitMessage": self.message,
            "exitReason": self.reason.number(),
            "timeOffset": "0",
        })
    }
}

/// libvirt's words for a lease that cannot be had; other failures as they are.
fn start_failure(detail: &str) -> String {
    if detail.contains("sanlock") { no_lease(detail) } else { detail.to_owned() }
}

/// sanlock says -28, which is "no space left" among the system's errors, when the lockspace is not joined.
pub(super) fn no_lease(detail: &str) -> String {
    let words = if detail.contains("-28") { "No space left on device" } else { detail };
    format!("Failed to acquire lock: {words}")
}

/// The end of a start that was refused because the lease is another's.
pub(super) fn held() -> Exit {
    Exit::error(HELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail() -> String {
        "x".to_owned()
    }

    #[test]
    fn ends_have_vdsms_numbers() {
        let asked = Exit::of(Some(&VmExit::Orderly { detail: detail() }), false, true).stats();
        assert_eq!(
            asked,
            json!({"exitCode": 0, "exitMessage": "Admin shut down from the engine", "exitReason": 6, "timeOffset": "0"})
        );
        let number = |exit: VmExit| Exit::of(Some(&exit), false, false).stats()["exitReason"].as_i64();
        assert_eq!(number(VmExit::Orderly { detail: detail() }), Some(7));
        assert_eq!(number(VmExit::Crashed { detail: detail() }), Some(2));
        assert_eq!(number(VmExit::MigratedAway), Some(4));
        let held = Exit::of(Some(&VmExit::LeaseRefused { detail: detail() }), false, false).stats();
        assert!(
            held["exitMessage"].as_str().is_some_and(|text| text.contains("Failed to acquire lock")),
            "{held}"
        );
    }
}
