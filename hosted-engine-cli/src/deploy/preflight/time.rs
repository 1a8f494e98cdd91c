//! Is the clock set by a time server? Leases do not need it; logs of several hosts, certificates and the engine do.

use super::{Finding, Host};
use crate::deploy::Call;

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    // The kernel's own flag, whoever sets the clock.
    let systemd =
        host.hear(&Call::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]));
    let chrony = match systemd {
        Some(_) => None,
        None => host.hear(&Call::new("chronyc").args(["-n", "tracking"])),
    };
    judge(systemd.as_deref(), chrony.as_deref()).into_iter().collect()
}

fn judge(systemd: Option<&str>, chrony: Option<&str>) -> Option<Finding> {
    let advice = "set the clock from the same time servers on all hosts: systemctl enable --now chronyd (on Debian chrony)";
    let what = match (systemd, chrony) {
        (Some(text), _) if text.trim() == "yes" => return None,
        (None, Some(text))
            if text.lines().any(|line| line.starts_with("Leap status") && line.ends_with("Normal")) =>
        {
            return None;
        }
        (Some(_), _) | (_, Some(_)) => "this host's clock is not synchronised with a time server",
        (None, None) => "nobody on this host tells whether its clock is synchronised",
    };
    Some(Finding::warning(what, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_program_may_vouch_for_the_clock() {
        assert_eq!(judge(Some("yes\n"), None), None);
        assert!(judge(Some("no\n"), None).unwrap().what.contains("not synchronised"));
        let tracking =
            "Reference ID    : C0A80101 (192.168.1.1)\nStratum         : 3\nLeap status     : Normal\n";
        assert_eq!(judge(None, Some(tracking)), None);
        assert!(judge(None, Some(&tracking.replace("Normal", "Not synchronised"))).is_some());
        assert!(judge(None, None).unwrap().what.contains("nobody"));
    }
}
