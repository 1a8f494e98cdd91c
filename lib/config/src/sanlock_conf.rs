//! Whether this host's sanlock fires its watchdog when ha.toml says: `watchdog_fire_timeout` of sanlock.conf.
//!
//! sanlock itself decides with its own value when a silent host's leases may be taken. Releases before 3.9 know no such
//! setting: theirs is 60 s.

use crate::ha_toml::{LeaseAdapter, LeaseTable};
use crate::paths::Paths;

/// sanlock's own default, in seconds.
const DEFAULT: u32 = 60;

/// A sentence when the two differ, with both values.
pub fn warning(paths: &Paths, lease: &LeaseTable) -> Option<String> {
    if lease.adapter == LeaseAdapter::File {
        return None;
    }
    let file = paths.sanlock_conf();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let set = text.lines().rev().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if key.trim() == "watchdog_fire_timeout" { value.trim().parse::<u32>().ok() } else { None }
    });
    let theirs = set.unwrap_or(DEFAULT);
    let ours = lease.watchdog_timeout;
    (ours != theirs).then(|| {
        let origin = if set.is_some() { "has" } else { "does not set it, which means" };
        format!(
            "lease.watchdog_timeout is {ours}, and {} {origin} watchdog_fire_timeout = {theirs}: set it to {ours} there, on \
             all hosts, and restart sanlock (3.9 or later; earlier ones know only 60). Until then leases are free later, or \
             earlier, than is said here",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha_toml::RecoveryProfile;

    #[test]
    fn a_difference_is_said_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let judge = |profile: RecoveryProfile| warning(&paths, &profile.table());
        assert_eq!(judge(RecoveryProfile::Standard), None);
        let said = judge(RecoveryProfile::Fast).unwrap();
        assert!(said.starts_with("lease.watchdog_timeout is 30, and "), "{said}");
        assert!(said.contains("does not set it, which means watchdog_fire_timeout = 60"), "{said}");
        std::fs::create_dir_all(dir.path().join("etc/sanlock")).unwrap();
        std::fs::write(paths.sanlock_conf(), "# watchdog_fire_timeout = 60\nwatchdog_fire_timeout = 30\n")
            .unwrap();
        assert_eq!(judge(RecoveryProfile::Fast), None);
        assert!(judge(RecoveryProfile::Standard).unwrap().contains("has watchdog_fire_timeout = 30"));
        let file = LeaseTable { adapter: LeaseAdapter::File, ..RecoveryProfile::Standard.table() };
        assert_eq!(warning(&paths, &file), None);
    }
}
