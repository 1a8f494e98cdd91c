//! How libvirt's lock manager behaves, whoever gives libvirt its orders: VDSM's adapter and libvirt's own need it.

use crate::lease::{LeaseError, LeaseOwner};
use crate::port::{LeaseHolding, VmActivity};

/// Whether the VM is protected, by what it does and whose the lease is.
///
/// libvirt takes the lease before any guest code runs, gives it back while the guest stands still, and takes the very same
/// version of it again before the guest goes on, or lets it stand.
pub(crate) fn holding(activity: VmActivity, owner: Result<LeaseOwner, LeaseError>) -> LeaseHolding {
    let (is_other, detail) = match owner {
        Err(error) => return LeaseHolding::Unknown { detail: error.to_string() },
        Ok(LeaseOwner::ThisHost) => return LeaseHolding::Held,
        Ok(LeaseOwner::Nobody) => (false, "nobody owns the lease".to_owned()),
        Ok(LeaseOwner::Other { detail }) => (true, detail),
    };
    match activity {
        VmActivity::Down => LeaseHolding::NoVm,
        VmActivity::WaitForLaunch | VmActivity::RestoringState | VmActivity::MigrationDestination => {
            LeaseHolding::Pending { detail: format!("{detail}; no guest code runs yet") }
        }
        VmActivity::Paused | VmActivity::PausedByIoError if !is_other => LeaseHolding::Pending {
            detail: format!(
                "{detail}; the guest stands still, and goes on only when the lease is taken again"
            ),
        },
        // Between two hosts it is neither's for a moment, or the other's before VDSM knows.
        VmActivity::MigrationSource | VmActivity::SavingState => {
            LeaseHolding::Unknown { detail: format!("{detail}; it may be being handed over") }
        }
        VmActivity::Paused
        | VmActivity::PausedByIoError
        | VmActivity::PoweringUp
        | VmActivity::Up
        | VmActivity::PoweringDown
        | VmActivity::RebootInProgress => LeaseHolding::Lost { detail },
    }
}

/// Ends of messages by which libvirt and QEMU say that somebody else has the lease or the image. Used only when neither
/// the numbers nor sanlock tell.
const REFUSALS: [&str; 4] = [
    "Failed to acquire lock: error -243",
    "Failed to acquire lock: Lease is held by another host",
    "Is another process using the image?",
    "Is another process using the image ]?",
];

/// True when a message says so. QEMU names the image in brackets in the last form.
pub(crate) fn is_refusal(message: &str) -> bool {
    let message = message.trim_end();
    let plain = match message.rsplit_once('[') {
        Some((before, after)) if after.ends_with("]?") => format!("{before}]?"),
        _ => message.to_owned(),
    };
    REFUSALS.iter().any(|refusal| plain.ends_with(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [VmActivity; 12] = [
        VmActivity::Down,
        VmActivity::WaitForLaunch,
        VmActivity::PoweringUp,
        VmActivity::Up,
        VmActivity::PoweringDown,
        VmActivity::Paused,
        VmActivity::PausedByIoError,
        VmActivity::MigrationSource,
        VmActivity::MigrationDestination,
        VmActivity::RebootInProgress,
        VmActivity::RestoringState,
        VmActivity::SavingState,
    ];

    fn lost(owner: &LeaseOwner) -> Vec<VmActivity> {
        let is_lost = |activity: &VmActivity| {
            matches!(holding(*activity, Ok(owner.clone())), LeaseHolding::Lost { .. })
        };
        ALL.into_iter().filter(is_lost).collect()
    }

    #[test]
    fn a_guest_that_runs_without_its_lease_has_lost_it() {
        use VmActivity::{Paused, PausedByIoError, PoweringDown, PoweringUp, RebootInProgress, Up};
        assert_eq!(lost(&LeaseOwner::Nobody), [PoweringUp, Up, PoweringDown, RebootInProgress]);
        let other = LeaseOwner::Other { detail: "host 2".to_owned() };
        let with_paused = [PoweringUp, Up, PoweringDown, Paused, PausedByIoError, RebootInProgress];
        assert_eq!(lost(&other), with_paused);
        assert_eq!(lost(&LeaseOwner::ThisHost), []);
        assert_eq!(holding(Up, Ok(LeaseOwner::ThisHost)), LeaseHolding::Held);
    }

    #[test]
    fn a_guest_that_stands_still_takes_it_later() {
        for activity in [VmActivity::Paused, VmActivity::PausedByIoError, VmActivity::WaitForLaunch] {
            assert!(matches!(holding(activity, Ok(LeaseOwner::Nobody)), LeaseHolding::Pending { .. }));
        }
        let error = || Err(LeaseError::Unavailable("no daemon".to_owned()));
        assert!(matches!(holding(VmActivity::Up, error()), LeaseHolding::Unknown { .. }));
        assert!(matches!(
            holding(VmActivity::MigrationSource, Ok(LeaseOwner::Nobody)),
            LeaseHolding::Unknown { .. }
        ));
    }
}
