//! sanlock, which keeps the VM from running twice, and the watchdog, which ends a host that lost its leases.

use std::path::Path;
use std::time::Duration;

use sanlock_client::{Client, DaemonSettings, Version};

use super::{Finding, Host};

const ASK: Duration = Duration::from_secs(5);
/// The first release whose answers this program knows.
const OLDEST: (u16, u16) = (3, 8);

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let sanlock = Client::new(host.paths.sanlock_socket()).with_deadline(ASK);
    let version = sanlock.version().map_err(|error| error.to_string());
    let settings = sanlock.settings().ok();
    judge(version, settings.as_ref(), Path::new("/dev/watchdog").exists())
}

fn judge(
    version: Result<Version, String>,
    settings: Option<&DaemonSettings>,
    has_device: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    match version {
        Err(error) => {
            found.push(Finding::blocker(
                format!("sanlock does not answer ({error})"),
                "install it and start it: systemctl enable --now sanlock. Without it nothing keeps the VM from running twice",
            ));
        }
        Ok(version) if (u16::from(version.major), u16::from(version.minor)) < OLDEST => {
            found.push(Finding::warning(
                format!(
                    "sanlock {version} is older than what this was tested with ({}.{})",
                    OLDEST.0, OLDEST.1
                ),
                "take a newer one",
            ));
        }
        Ok(_) => {}
    }
    let risk = "a host that freezes and thaws may run a second engine VM for a moment";
    match settings.and_then(|settings| settings.uses_watchdog) {
        Some(false) => found.push(Finding::warning(
            format!("sanlock uses no watchdog: {risk}"),
            "load a watchdog driver, start wdmd, and set use_watchdog = 1 in /etc/sanlock/sanlock.conf",
        )),
        _ if !has_device => found.push(Finding::warning(
            format!("there is no /dev/watchdog: {risk}"),
            "load the driver of the board's watchdog, or softdog when it has none (modprobe softdog)",
        )),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::preflight::Severity;

    #[test]
    fn no_sanlock_stops_and_no_watchdog_warns() {
        let version = |major, minor| Ok(Version { major, minor, patch: 0, protocol: 1 });
        let settings = |uses| DaemonSettings {
            uses_watchdog: Some(uses),
            io_timeout: None,
            watchdog_fire_timeout: None,
        };
        assert_eq!(judge(version(3, 8), Some(&settings(true)), true), []);
        let found = judge(Err("refused".to_owned()), None, false);
        assert_eq!(
            found.iter().map(|f| f.severity).collect::<Vec<_>>(),
            [Severity::Blocker, Severity::Warning]
        );
        assert!(found[1].what.starts_with("there is no /dev/watchdog"));
        let found = judge(version(3, 6), Some(&settings(false)), true);
        assert!(
            found[0].what.contains("older") && found[1].what.starts_with("sanlock uses no watchdog"),
            "{found:?}"
        );
    }
}
