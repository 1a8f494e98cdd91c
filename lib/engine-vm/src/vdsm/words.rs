//! VDSM's words for what a VM does. Source: `lib/vdsm/virt/vmstatus.py` of VDSM 4.5.

use vdsm_client::VmStats;

use crate::port::{VmActivity, VmError};

const WORDS: [(&str, VmActivity); 11] = [
    ("Up", VmActivity::Up),
    ("Down", VmActivity::Down),
    ("Migration Source", VmActivity::MigrationSource),
    ("Migration Destination", VmActivity::MigrationDestination),
    ("Paused", VmActivity::Paused),
    ("Powering down", VmActivity::PoweringDown),
    ("Powering up", VmActivity::PoweringUp),
    ("RebootInProgress", VmActivity::RebootInProgress),
    ("Restoring state", VmActivity::RestoringState),
    ("Saving State", VmActivity::SavingState),
    ("WaitForLaunch", VmActivity::WaitForLaunch),
];

/// What the VM does.
///
/// # Errors
/// [`VmError::Unreachable`] with the word when it is not one of VDSM's: nobody knows what it means.
pub(super) fn activity(stats: &VmStats) -> Result<VmActivity, VmError> {
    let Some(word) = stats.status.as_deref() else {
        return Err(VmError::Unreachable { detail: "VDSM does not tell the VM's status".to_owned() });
    };
    let Some((_, activity)) = WORDS.iter().find(|(known, _)| *known == word) else {
        let detail = format!("VDSM says that the VM is {word:?}, which this program does not know");
        return Err(VmError::Unreachable { detail });
    };
    Ok(match (activity, stats.pause_code.as_deref()) {
        (VmActivity::Paused, Some(code)) => paused(code),
        (activity, _) => *activity,
    })
}

/// Why a VM is paused: `NOERR` when somebody asked for it, `POSTCOPY` when its guest runs on the other host already, else
/// the error of its disk (`EIO`, `ENOSPC`, `EPERM`, `EOTHER`, and what else QEMU may name).
fn paused(code: &str) -> VmActivity {
    match code {
        "" | "NOERR" => VmActivity::Paused,
        "POSTCOPY" => VmActivity::MigrationSource,
        _ => VmActivity::PausedByIoError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &str, pause_code: Option<&str>) -> Result<VmActivity, VmError> {
        activity(&VmStats {
            status: Some(status.to_owned()),
            pause_code: pause_code.map(str::to_owned),
            ..VmStats::default()
        })
    }

    #[test]
    fn every_word_is_read_and_written_back() {
        for (word, activity) in WORDS {
            assert_eq!(read(word, None).unwrap(), activity);
            assert_eq!(activity.word(), word);
        }
    }

    #[test]
    fn only_a_disk_error_is_an_io_error() {
        assert_eq!(read("Paused", Some("NOERR")).unwrap(), VmActivity::Paused);
        for code in ["EIO", "ENOSPC", "EOTHER", "EPERM"] {
            assert_eq!(read("Paused", Some(code)).unwrap(), VmActivity::PausedByIoError);
        }
        assert_eq!(read("Paused", Some("POSTCOPY")).unwrap(), VmActivity::MigrationSource);
        // The code of an earlier pause stays for a while.
        assert_eq!(read("Up", Some("EIO")).unwrap(), VmActivity::Up);
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = read("Dreaming", None).unwrap_err();
        assert!(
            matches!(&error, VmError::Unreachable { detail } if detail.contains("\"Dreaming\"")),
            "{error}"
        );
        assert!(matches!(activity(&VmStats::default()), Err(VmError::Unreachable { .. })));
    }
}
