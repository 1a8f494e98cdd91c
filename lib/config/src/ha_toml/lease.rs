//! `[lease]`: who keeps the leases, how fast a lost host's leases are free, and which lease protects the VM.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::{HaToml, Hypervisor, Timers};

/// Seconds between two looks of multipathd at a path, its own default (`polling_interval`).
const POLLING: u32 = 5;

/// Who keeps the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseAdapter {
    /// The sanlock daemon: leases on shared storage, for any number of hosts.
    #[default]
    Sanlock,
    /// File locks of one kernel: for a single machine only.
    File,
}

/// How fast the VM of a lost host is free for another one: a pair of sanlock's I/O time-out N and the watchdog's fire
/// time-out W. The faster, the shorter a stall of storage that is survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoveryProfile {
    /// N = 10, W = 60: sanlock's own values.
    #[default]
    Standard,
    /// N = 5, W = 30.
    Fast,
    /// N = 2, W = 10.
    Aggressive,
}

impl RecoveryProfile {
    /// All of them, the slowest first.
    pub const ALL: [Self; 3] = [Self::Standard, Self::Fast, Self::Aggressive];

    /// Its name in ha.toml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Fast => "fast",
            Self::Aggressive => "aggressive",
        }
    }

    /// N and W in seconds.
    pub const fn times(self) -> (u32, u32) {
        match self {
            Self::Standard => (10, 60),
            Self::Fast => (5, 30),
            Self::Aggressive => (2, 10),
        }
    }

    /// The table with these times and all else as it is by default.
    pub fn table(self) -> LeaseTable {
        let (io_timeout, watchdog_timeout) = self.times();
        LeaseTable { io_timeout, watchdog_timeout, ..LeaseTable::default() }
    }
}

impl fmt::Display for RecoveryProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RecoveryProfile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == name);
        known.ok_or_else(|| format!("{name:?} is no profile; use {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// `[lease]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LeaseFile")]
pub struct LeaseTable {
    /// Default `"sanlock"`.
    pub adapter: LeaseAdapter,
    /// sanlock's I/O time-out N in whole seconds, 1 to 60, the same on all hosts; default 10, sanlock's own.
    pub io_timeout: u32,
    /// Watchdog fire time-out W in whole seconds, the same on all hosts; default 60, sanlock's own. Only read, to
    /// reckon when a silent host's lease is free.
    pub watchdog_timeout: u32,
    /// The lease of the storage domain's xleases volume that protects the VM, the same on all hosts; `None`: the lease of
    /// the VM's disk.
    pub vm: Option<String>,
}

/// The table as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LeaseFile {
    adapter: LeaseAdapter,
    profile: Option<RecoveryProfile>,
    io_timeout: Option<u32>,
    watchdog_timeout: Option<u32>,
    vm: Option<String>,
}

impl TryFrom<LeaseFile> for LeaseTable {
    type Error = String;

    fn try_from(file: LeaseFile) -> Result<Self, String> {
        let (n, w) = file.profile.unwrap_or_default().times();
        if let Some(profile) = file.profile {
            for (key, value, wanted) in
                [("io_timeout", file.io_timeout, n), ("watchdog_timeout", file.watchdog_timeout, w)]
            {
                if let Some(value) = value.filter(|value| *value != wanted) {
                    return Err(format!(
                        "lease.{key} = {value} contradicts lease.profile = \"{profile}\", which has {key} = {wanted}: \
                         leave one of the two keys out"
                    ));
                }
            }
        }
        Ok(Self {
            adapter: file.adapter,
            io_timeout: file.io_timeout.unwrap_or(n),
            watchdog_timeout: file.watchdog_timeout.unwrap_or(w),
            vm: file.vm,
        })
    }
}

impl Default for LeaseTable {
    fn default() -> Self {
        let (io_timeout, watchdog_timeout) = RecoveryProfile::default().times();
        Self { adapter: LeaseAdapter::default(), io_timeout, watchdog_timeout, vm: None }
    }
}

impl LeaseTable {
    /// The profile with just these times.
    pub fn profile(&self) -> Option<RecoveryProfile> {
        let times = (self.io_timeout, self.watchdog_timeout);
        RecoveryProfile::ALL.into_iter().find(|profile| profile.times() == times)
    }

    /// 8N: so long after its last renewal sanlock starts to kill a lease's holders. Storage that stalls for less is
    /// survived if it answers in time for one renewal.
    pub const fn lost_after(&self) -> Duration {
        Duration::from_secs(8 * self.io_timeout as u64)
    }

    /// 8N + W: so long after its last renewal a lease can be taken by another host.
    pub const fn dead_after(&self) -> Duration {
        Duration::from_secs(8 * self.io_timeout as u64 + self.watchdog_timeout as u64)
    }

    /// 2N: the time between two renewals.
    pub const fn renewal(&self) -> Duration {
        Duration::from_secs(2 * self.io_timeout as u64)
    }

    /// The greatest `no_path_retry` with which multipath, looking every `polling` seconds, gives up before the lease is
    /// lost: paths that come back later could bring a dead host's writes back.
    pub const fn most_path_retries(&self, polling: u32) -> u32 {
        8 * self.io_timeout / if polling == 0 { POLLING } else { polling }
    }

    /// What is wrong with it as such.
    pub(super) fn check(&self, hypervisor: Hypervisor) -> Result<(), String> {
        for (name, value, least, most) in [
            ("lease.io_timeout", self.io_timeout, 1, 60),
            ("lease.watchdog_timeout", self.watchdog_timeout, 5, 600),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} = {value} must be from {least} to {most} whole seconds"));
            }
        }
        let Some(name) = &self.vm else { return Ok(()) };
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'\\');
        if !(1..=48).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(format!(
                "lease.vm = {name:?} must be the name of a lease: 1 to 48 printable ASCII characters without space, ':' \
                 and '\\'"
            ));
        }
        if self.adapter == LeaseAdapter::File {
            return Err(format!("lease.vm = {name:?} needs lease.adapter = \"sanlock\", and it is \"file\""));
        }
        if hypervisor == Hypervisor::Vdsm {
            return Err(format!(
                "lease.vm = {name:?} is not for vm.hypervisor = \"vdsm\": VDSM always takes the lease of the engine VM's \
                 disk; a VM lease beside it is set in the engine"
            ));
        }
        Ok(())
    }
}

impl HaToml {
    /// With the times of the profile `aggressive` the timers that are not set follow: twice the loop must be less than W,
    /// and a lost host must not look alive for longer than its leases last. `sets` says whether a key of `[timers]` is set.
    pub(super) fn follow_profile(&mut self, sets: impl Fn(&str) -> bool) {
        if self.lease.profile() != Some(RecoveryProfile::Aggressive) {
            return;
        }
        if !sets("loop") {
            self.timers.loop_interval = Timers::AGGRESSIVE_LOOP;
        }
        if !sets("host_alive") {
            self.timers.host_alive = self.lease.dead_after();
        }
    }
}

/// The profiles side by side, as text for people: what each requires and what it gives. Times in seconds.
pub fn profile_table() -> String {
    let mut out = format!(
        "{:<11} {:>3} {:>3} {:>8} {:>14} {:>13} {:>17}\n",
        "profile", "N", "W", "renewal", "stall survived", "lease is free", "no_path_retry max"
    );
    for profile in RecoveryProfile::ALL {
        let table = profile.table();
        let row = format!(
            "{:<11} {:>3} {:>3} {:>8} {:>14} {:>13} {:>17}\n",
            profile.name(),
            table.io_timeout,
            table.watchdog_timeout,
            table.renewal().as_secs(),
            format!("< {}", table.lost_after().as_secs()),
            table.dead_after().as_secs(),
            table.most_path_retries(POLLING)
        );
        out.push_str(&row);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;

    fn parse(text: &str) -> Result<HaToml, String> {
        HaToml::parse(&Paths::default(), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_is_its_times_and_fits_all_other_timers() {
        for profile in RecoveryProfile::ALL {
            let toml = parse(&format!("[lease]\nprofile = \"{profile}\"\n")).unwrap();
            assert_eq!((toml.lease.io_timeout, toml.lease.watchdog_timeout), profile.times());
            assert_eq!(toml.lease.profile(), Some(profile));
            assert_eq!(profile.name().parse(), Ok(profile));
            assert_eq!(toml.lease, profile.table());
        }
        assert_eq!(parse("").unwrap().lease.profile(), Some(RecoveryProfile::Standard));
        assert_eq!(parse("[lease]\nio_timeout = 7\n").unwrap().lease.profile(), None);
        let aggressive = parse("[lease]\nprofile = \"aggressive\"\n").unwrap();
        assert_eq!(aggressive.timers.loop_interval, Duration::from_secs(4));
        assert_eq!(aggressive.timers.host_alive, Duration::from_secs(26));
        let own = parse("[lease]\nprofile = \"aggressive\"\n[timers]\nloop = 3\nhost_alive = 60\n").unwrap();
        assert_eq!(own.timers.loop_interval, Duration::from_secs(3));
        assert_eq!(own.timers.host_alive, Duration::from_mins(1));
        let error = parse("[lease]\nprofile = \"aggressive\"\n[timers]\nloop = 10\n").unwrap_err();
        assert!(error.contains("timers.loop (10 s) × 3 must be at most timers.host_alive (26 s)"), "{error}");
    }

    #[test]
    fn times_beside_a_profile_are_its_own_or_refused_with_both_values() {
        assert!(parse("[lease]\nprofile = \"fast\"\nio_timeout = 5\n").is_ok());
        for (text, says) in [
            (
                "profile = \"fast\"\nio_timeout = 10\n",
                "lease.io_timeout = 10 contradicts lease.profile = \"fast\", which has io_timeout = 5",
            ),
            (
                "profile = \"standard\"\nwatchdog_timeout = 30\n",
                "lease.watchdog_timeout = 30 contradicts lease.profile = \"standard\", which has watchdog_timeout = 60",
            ),
        ] {
            let error = parse(&format!("[lease]\n{text}")).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(parse("[lease]\nprofile = \"quick\"\n").unwrap_err().contains("quick"));
    }

    #[test]
    fn the_vms_lease_must_be_one_that_can_be() {
        let vm = "[lease]\nvm = \"engine\"\n";
        assert_eq!(parse(vm).unwrap().lease.vm.as_deref(), Some("engine"));
        let wrong = [
            ("[lease]\nvm = \"\"\n", "must be the name of a lease"),
            ("[lease]\nvm = \"a b\"\n", "must be the name of a lease"),
            ("[lease]\nvm = \"a\"\nadapter = \"file\"\n", "needs lease.adapter = \"sanlock\""),
            ("[lease]\nvm = \"a\"\n[vm]\nhypervisor = \"vdsm\"\n", "is not for vm.hypervisor = \"vdsm\""),
        ];
        for (text, says) in wrong {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_table_of_profiles() {
        let wanted = "\
profile       N   W  renewal stall survived lease is free no_path_retry max
standard     10  60       20           < 80           140                16
fast          5  30       10           < 40            70                 8
aggressive    2  10        4           < 16            26                 3
";
        assert_eq!(profile_table(), wanted);
    }
}
