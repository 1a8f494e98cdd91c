//! How a VM ended, by libvirt's events. Source of the numbers: `virDomainEventStoppedDetailType` and its neighbours.

use virt::sys as c;

use super::look::{BY_COMMAND, Life};
use super::notes::Notes;
use crate::port::VmExit;

/// What is known of a VM that stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopped {
    /// libvirt's detail of the event.
    pub detail: u32,
    /// What was noted about the VM.
    pub notes: Notes,
    /// What was seen of it.
    pub vm: Life,
}

impl Stopped {
    /// How it ended; `None` when whoever started it knows better.
    pub fn exit(self) -> Option<VmExit> {
        let orderly = |detail: &str| Some(VmExit::Orderly { detail: detail.to_owned() });
        let crashed = |detail: &str| Some(VmExit::Crashed { detail: detail.to_owned() });
        let is_wanted = self.notes.is_destroying;
        match self.detail {
            c::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => Some(VmExit::MigratedAway),
            _ if self.notes.is_launching => None,
            c::VIR_DOMAIN_EVENT_STOPPED_DESTROYED | c::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN if is_wanted => {
                orderly(BY_COMMAND)
            }
            c::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => crashed(
                "somebody else destroyed it through libvirt (virsh destroy, or the lock manager's helper)",
            ),
            c::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN if self.vm.is_ended_by_signal => crashed(
                "a signal from this host ended QEMU, as sanlock sends it when the lease cannot be renewed",
            ),
            c::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => orderly("the guest powered itself off"),
            c::VIR_DOMAIN_EVENT_STOPPED_SAVED => orderly("its memory was saved to a file"),
            c::VIR_DOMAIN_EVENT_STOPPED_CRASHED => crashed("the guest crashed"),
            c::VIR_DOMAIN_EVENT_STOPPED_FAILED if !self.vm.has_run => None,
            c::VIR_DOMAIN_EVENT_STOPPED_FAILED => crashed("QEMU ended without a word, as when it is killed"),
            _ => crashed("libvirt gives a reason that is not known here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(detail: u32) -> Stopped {
        Stopped { detail, notes: Notes::default(), vm: Life { has_run: true, ..Life::default() } }
    }

    #[test]
    fn each_end_is_what_it_was() {
        let crashed = |stopped: Stopped| matches!(stopped.exit(), Some(VmExit::Crashed { .. }));
        let orderly = |stopped: Stopped| matches!(stopped.exit(), Some(VmExit::Orderly { .. }));
        assert!(orderly(stopped(c::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)));
        assert!(orderly(stopped(c::VIR_DOMAIN_EVENT_STOPPED_SAVED)));
        assert!(crashed(stopped(c::VIR_DOMAIN_EVENT_STOPPED_FAILED)));
        assert!(crashed(stopped(c::VIR_DOMAIN_EVENT_STOPPED_CRASHED)));
        assert!(crashed(stopped(c::VIR_DOMAIN_EVENT_STOPPED_DESTROYED)));
        assert!(crashed(stopped(99)));
        let killed = Stopped {
            vm: Life { has_run: true, is_ended_by_signal: true, ..Life::default() },
            ..stopped(c::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
        };
        assert!(crashed(killed));
        let notes = Notes { is_destroying: true, ..Notes::default() };
        assert!(orderly(Stopped { notes, ..killed }));
        assert!(orderly(Stopped { notes, ..stopped(c::VIR_DOMAIN_EVENT_STOPPED_DESTROYED) }));
        assert_eq!(stopped(c::VIR_DOMAIN_EVENT_STOPPED_MIGRATED).exit(), Some(VmExit::MigratedAway));
    }

    #[test]
    fn a_failed_start_is_told_by_whoever_started() {
        let never_ran = Stopped { vm: Life::default(), ..stopped(c::VIR_DOMAIN_EVENT_STOPPED_FAILED) };
        assert_eq!(never_ran.exit(), None);
        let notes = Notes { is_launching: true, ..Notes::default() };
        assert_eq!(Stopped { notes, ..stopped(c::VIR_DOMAIN_EVENT_STOPPED_DESTROYED) }.exit(), None);
    }
}
