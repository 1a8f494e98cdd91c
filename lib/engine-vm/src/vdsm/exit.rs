//! How a VM ended, by VDSM's numbers.

use vdsm_client::VmStats;

use crate::lease::LeaseOwner;
use crate::port::VmExit;
use crate::under_libvirt::is_refusal;

/// `exitReason`. Source: `lib/vdsm/virt/vmexitreason.py` of VDSM 4.5.
const MIGRATED: i64 = 4;

/// What a reason means when the lease had nothing to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// As somebody wanted.
    Wanted,
    /// The VM runs on another host.
    Migrated,
    /// It never ran.
    NeverRan,
    /// It was running, if it ever was, and nobody wanted its end.
    Broken,
}

const REASONS: [(i64, Meaning); 15] = [
    (0, Meaning::Wanted),
    // An error without a name: nearly always that the start failed.
    (1, Meaning::Broken),
    // QEMU has ended.
    (2, Meaning::Broken),
    // libvirt refused to start it.
    (3, Meaning::NeverRan),
    (MIGRATED, Meaning::Migrated),
    // Saved to storage.
    (5, Meaning::Wanted),
    // Shut down or destroyed by command.
    (6, Meaning::Wanted),
    // Shut down from within.
    (7, Meaning::Wanted),
    // It did not arrive here.
    (8, Meaning::NeverRan),
    // libvirt has forgotten it.
    (9, Meaning::Broken),
    // Destroyed before it ran.
    (10, Meaning::NeverRan),
    // Ended on the host by somebody else: sanlock, an administrator.
    (11, Meaning::Broken),
    // A migration broke off when the guest was on both hosts.
    (12, Meaning::Broken),
    // It is to be started anew with other settings.
    (13, Meaning::Wanted),
    // It was paused for too long.
    (14, Meaning::Broken),
];

/// What VDSM says about a VM that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    code: Option<i64>,
    reason: Option<i64>,
    message: String,
}

impl Ended {
    pub fn of(stats: &VmStats) -> Self {
        Self {
            code: stats.exit_code,
            reason: stats.exit_reason,
            message: stats.exit_message.clone().unwrap_or_default(),
        }
    }

    fn meaning(&self) -> Meaning {
        let known = REASONS.iter().find(|(number, _)| Some(*number) == self.reason);
        match (known, self.code) {
            (Some((_, meaning)), _) => *meaning,
            (None, Some(0)) => Meaning::Wanted,
            (None, Some(_) | None) => Meaning::Broken,
        }
    }

    /// True when whoever owns the lease now may be why it ended.
    pub fn may_be_refused(&self, has_run: bool) -> bool {
        match self.meaning() {
            Meaning::NeverRan => true,
            Meaning::Broken => !has_run,
            Meaning::Wanted | Meaning::Migrated => false,
        }
    }

    /// How it ended. `has_run`: guest code was seen running. `owner`: whose the lease is, when that matters and sanlock
    /// tells.
    pub fn exit(&self, has_run: bool, owner: Option<&LeaseOwner>) -> VmExit {
        let detail = self.detail();
        if self.may_be_refused(has_run) {
            if let Some(LeaseOwner::Other { detail: owner }) = owner {
                return VmExit::LeaseRefused { detail: format!("{detail}; {owner}") };
            }
            if is_refusal(&self.message) {
                return VmExit::LeaseRefused { detail };
            }
        }
        match self.meaning() {
            Meaning::Wanted => VmExit::Orderly { detail },
            Meaning::Migrated => VmExit::MigratedAway,
            Meaning::NeverRan => VmExit::StartFailed { detail },
            Meaning::Broken if has_run => VmExit::Crashed { detail },
            // An error without a name at a start.
            Meaning::Broken if self.reason == Some(1) => VmExit::StartFailed { detail },
            Meaning::Broken => VmExit::Crashed { detail },
        }
    }

    fn detail(&self) -> String {
        let number =
            |number: Option<i64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
        let message = if self.message.is_empty() { "VDSM gives no reason" } else { &self.message };
        format!("{message} (exit reason {}, exit code {})", number(self.reason), number(self.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(reason: i64, code: i64, message: &str) -> Ended {
        Ended { code: Some(code), reason: Some(reason), message: message.to_owned() }
    }

    #[test]
    fn each_reason_is_what_it_says() {
        for (reason, meaning) in REASONS {
            let exit = ended(reason, 0, "text").exit(true, None);
            let is_right = match meaning {
                Meaning::Wanted => matches!(exit, VmExit::Orderly { .. }),
                Meaning::Migrated => exit == VmExit::MigratedAway,
                Meaning::NeverRan => matches!(exit, VmExit::StartFailed { .. }),
                Meaning::Broken => matches!(exit, VmExit::Crashed { .. }),
            };
            assert!(is_right, "{reason}: {exit:?}");
        }
        assert!(matches!(ended(99, 0, "").exit(true, None), VmExit::Orderly { .. }));
        assert!(matches!(ended(99, 1, "").exit(true, None), VmExit::Crashed { .. }));
        assert!(matches!(ended(1, 1, "no such file").exit(false, None), VmExit::StartFailed { .. }));
    }

    #[test]
    fn a_lease_that_another_host_owns_explains_only_a_failed_start() {
        let other = LeaseOwner::Other { detail: "the owner is host id 2".to_owned() };
        let exit = ended(1, 1, "boom").exit(false, Some(&other));
        assert!(
            matches!(&exit, VmExit::LeaseRefused { detail } if detail.contains("boom") && detail.contains("id 2"))
        );
        assert!(matches!(ended(1, 1, "boom").exit(true, Some(&other)), VmExit::Crashed { .. }));
        assert!(matches!(ended(6, 0, "bye").exit(false, Some(&other)), VmExit::Orderly { .. }));
        assert_eq!(ended(4, 0, "gone").exit(false, Some(&other)), VmExit::MigratedAway);
        assert!(matches!(
            ended(1, 1, "boom").exit(false, Some(&LeaseOwner::Nobody)),
            VmExit::StartFailed { .. }
        ));
    }

    #[test]
    fn texts_are_the_last_resort() {
        for text in [
            "internal error: Failed to acquire lock: error -243",
            "resource busy: Failed to acquire lock: Lease is held by another host",
            "Failed to get \"write\" lock Is another process using the image?",
            "Failed to get \"write\" lock\nIs another process using the image [/rhev/x]?",
        ] {
            assert!(matches!(ended(1, 1, text).exit(false, None), VmExit::LeaseRefused { .. }), "{text}");
            assert!(matches!(ended(2, 1, text).exit(true, None), VmExit::Crashed { .. }), "{text}");
        }
        for text in ["Failed to acquire lock: error -202", "Is another process using the image? No", ""] {
            assert!(matches!(ended(1, 1, text).exit(false, None), VmExit::StartFailed { .. }), "{text}");
        }
    }
}
