//! ha.toml: what the older files have no place for. Every key is optional; an unknown key is refused with the nearest
//! known name, so that a typing error never passes for a setting.
//!
//! Times are numbers of seconds and may have a fraction.

mod check;
mod fencing;
mod keys;
mod layers;
mod lease;
mod libvirt;
mod migration;
mod relations;
mod rules;
mod vdsm;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::{ConfigError, Result};
use crate::paths::Paths;
use crate::text::host_in_url;

pub use fencing::{
    FencingAction, FencingHost, FencingTable, OptionText, check_option_value, is_secret_option,
};
pub use lease::{LeaseAdapter, LeaseTable, RecoveryProfile, profile_table};
pub use libvirt::{HOST as MIGRATION_HOST, LibvirtTable};
pub use migration::{MigrationTable, PortRange, PortRangeError};
pub use relations::Relation;
pub use rules::{RulesTable, SickEngine};
pub use vdsm::{HostPort, HostPortError, VdsmTable};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HaToml {
    /// `[vm]`
    pub vm: VmTable,
    /// `[lease]`
    pub lease: LeaseTable,
    /// `[score]`
    pub score: ScoreTable,
    /// `[timers]`
    pub timers: Timers,
    /// `[qemu]`
    pub qemu: QemuTable,
    /// `[vdsm]`
    pub vdsm: VdsmTable,
    /// `[migration]`
    pub migration: MigrationTable,
    /// `[libvirt]`
    pub libvirt: LibvirtTable,
    /// `[liveliness]`
    pub liveliness: LivelinessTable,
    /// `[socket]`
    pub socket: SocketTable,
    /// `[metrics]`
    pub metrics: MetricsTable,
    /// `[policy]`
    pub policy: PolicyTable,
    /// `[rules]`
    pub rules: RulesTable,
    /// `[fencing]`
    pub fencing: FencingTable,
}

/// Who runs the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// QEMU, started by this product itself under the VM's lease.
    #[default]
    Qemu,
    /// A libvirt daemon with its sanlock plug-in.
    Libvirt,
    /// VDSM.
    Vdsm,
}

/// `[vm]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmTable {
    /// Default `"qemu"`. A host that VDSM manages needs `"vdsm"`.
    pub hypervisor: Hypervisor,
}

/// Which score rules this cluster uses; they must be the same on all its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ScoreProfile {
    /// Base 2400: for clusters that this product sets up.
    #[serde(rename = "founding")]
    Founding,
    /// Base 3400: what the existing agents of a cluster reckon with.
    #[default]
    #[serde(rename = "ovirt-4.5")]
    Ovirt45,
}

/// `[score]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreTable {
    /// Default `"ovirt-4.5"`, so that a host can join an existing cluster; set-up of a new one writes `"founding"`.
    pub profile: ScoreProfile,
}

/// `[timers]`: all in seconds. [`HaToml::relations`] has the inequalities between them, the leases and the fixed
/// [`deadlines`](crate::deadlines); a file that breaks one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timers {
    /// Pause between two loops of the agent, 0.1 to 60; default 10, and 4 with the times of the profile `aggressive`.
    #[serde(rename = "loop", with = "seconds")]
    pub loop_interval: Duration,
    /// A host whose timestamp stood still for so long is not alive, 1 to 600; default 60, and 26 with the times of the
    /// profile `aggressive`.
    #[serde(with = "seconds")]
    pub host_alive: Duration,
    /// How long snapshots of the other hosts are kept, 2 to 86400; default 900.
    #[serde(with = "seconds")]
    pub history: Duration,
    /// The broker forgets the agent's list of live hosts after so long, 1 to 600; default 60.
    #[serde(with = "seconds")]
    pub alive_list: Duration,
    /// Starting the VM (reaching its lease, and the hypervisor up) may take so long, 1 to 86400; default 180.
    #[serde(with = "seconds")]
    pub engine_start: Duration,
    /// A started VM that is not healthy by then is stopped, 1 to 86400; default 600.
    #[serde(with = "seconds")]
    pub engine_starting: Duration,
    /// A VM whose engine is unhealthy for so long is stopped, 1 to 86400; default 300.
    #[serde(with = "seconds")]
    pub bad_health: Duration,
    /// A VM that was asked to shut down and still runs then is powered off, 1 to 86400; default 300.
    #[serde(with = "seconds")]
    pub engine_stop: Duration,
    /// How long a VM that is nowhere may be on its way, 1 to 86400; default 40.
    #[serde(with = "seconds")]
    pub maybe_away: Duration,
    /// Score 0 for so long after the VM died on this host, 1 to 86400; default 560.
    #[serde(with = "seconds")]
    pub unexpectedly_down: Duration,
    /// Failed starts are forgotten after so long, 1 to 86400; default 600.
    #[serde(with = "seconds")]
    pub retry_clear: Duration,
    /// Storage that has not answered a read or write by then is called stuck, 0.1 to 600; default 15.
    #[serde(with = "seconds")]
    pub storage_deadline: Duration,
    /// How often the broker reads the other hosts' blocks, 0.2 to 10; default 2. See [`Timers::poll`].
    #[serde(with = "seconds")]
    pub remote_poll: Duration,
}

impl Timers {
    /// Pause between two reads of the other hosts' blocks: at least two in a loop of the agent, however short that is.
    pub fn poll(&self) -> Duration {
        self.remote_poll.min(self.loop_interval / 2)
    }
}

impl Timers {
    /// The default of `loop` with the times of the profile `aggressive`.
    pub(crate) const AGGRESSIVE_LOOP: Duration = Duration::from_secs(4);
}

#[allow(clippy::duration_suboptimal_units, reason = "in seconds, as the file has them")]
impl Default for Timers {
    fn default() -> Self {
        Self {
            loop_interval: Duration::from_secs(10),
            host_alive: Duration::from_secs(60),
            history: Duration::from_secs(900),
            alive_list: Duration::from_secs(60),
            engine_start: Duration::from_secs(180),
            engine_starting: Duration::from_secs(600),
            bad_health: Duration::from_secs(300),
            engine_stop: Duration::from_secs(300),
            maybe_away: Duration::from_secs(40),
            unexpectedly_down: Duration::from_secs(560),
            retry_clear: Duration::from_secs(600),
            storage_deadline: Duration::from_secs(15),
            remote_poll: Duration::from_secs(2),
        }
    }
}

/// How QEMU runs guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// The kernel's virtualisation; refuse to start without it.
    Kvm,
    /// Emulation.
    Tcg,
}

/// `[qemu]`: only for `hypervisor = "qemu"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QemuTable {
    /// The program: a name looked up in PATH, or an absolute path; default `"qemu-system-x86_64"`.
    pub binary: String,
    /// Machine type, for example `"q35"`; default: vm.conf's `emulatedMachine`.
    pub machine: Option<String>,
    /// Default `"auto"`.
    pub accel: Accel,
    /// User that QEMU runs as, a name; default: the agent's own.
    pub user: Option<String>,
    /// Bridge for all of the VM's network cards; default: the one that vm.conf names, else hosted-engine.conf's.
    pub bridge: Option<String>,
    /// Added to QEMU's command line as they are; default none.
    pub extra_args: Vec<String>,
}

impl Default for QemuTable {
    fn default() -> Self {
        Self {
            binary: "qemu-system-x86_64".to_owned(),
            machine: None,
            accel: Accel::default(),
            user: None,
            bridge: None,
            extra_args: Vec::new(),
        }
    }
}

/// `[liveliness]`: how the engine says that it is well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LivelinessTable {
    /// Pages to ask in this order; the first that is good counts. `{fqdn}` stands for the engine's name.
    /// Default: the current engine's page and the founding design's.
    pub urls: Vec<String>,
    /// Text that the page contains when the engine is well; default `"DB Up!Welcome to Health Status!"`.
    pub expected: String,
    /// How long one page may take in seconds, 0.1 to 60; default 5.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for LivelinessTable {
    fn default() -> Self {
        Self {
            urls: vec![
                "http://{fqdn}/ovirt-engine/services/health".to_owned(),
                "http://{fqdn}/OvirtEngineWeb/HealthStatus".to_owned(),
            ],
            expected: "DB Up!Welcome to Health Status!".to_owned(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl LivelinessTable {
    /// The pages of the engine `fqdn`, which may be an address.
    pub fn urls_for(&self, fqdn: &str) -> Vec<String> {
        let fqdn = &host_in_url(fqdn);
        self.urls.iter().map(|url| url.replace("{fqdn}", fqdn)).collect()
    }
}

/// `[socket]`: the broker's socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketTable {
    /// Users, by name or number, that may write besides root and the broker's own user; default `["vdsm"]`. A name
    /// that this host does not have is passed over.
    pub writers: Vec<Writer>,
}

impl Default for SocketTable {
    fn default() -> Self {
        Self { writers: vec![Writer::Name("vdsm".to_owned())] }
    }
}

/// A user that may write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a user's name or number")]
pub enum Writer {
    /// By number.
    Uid(u32),
    /// By name.
    Name(String),
}

/// `[metrics]`: no keys yet; the broker's socket always answers `GET /metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsTable {}

/// `[policy]`: switches for behaviour that differs from the existing agent's; all on by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools, reason = "these are independent switches, each with its own name")]
pub struct PolicyTable {
    /// Forget failed starts after `timers.retry_clear`, instead of at the next look.
    pub retry_memory: bool,
    /// Decide about a start only once the history shows which hosts are alive.
    pub start_waits_for_liveness: bool,
    /// A start that was refused because another host holds the VM's lease does not count as a failed start.
    pub lease_refusal_is_no_failure: bool,
    /// Local maintenance moves the VM to another host first, as soon as one can take it.
    pub local_maintenance_moves_vm: bool,
    /// Start the VM only while the own block is written, the leases are held and storage works.
    pub start_needs_footing: bool,
    /// A crashed VM is started again on the same host at once when no better live host can take it, within `rules.restart_budget`; a lone host never rests for `timers.unexpectedly_down`.
    pub local_restart: bool,
    /// Network and bridge count against a running VM only when bad in `rules.debounce_bad` of `rules.debounce_samples` samples, and it moves only to a host whose own samples are as good.
    pub debounce: bool,
    /// Processor load and memory decide where the VM starts, never that a running one is stopped.
    pub cpu_never_evicts: bool,
    /// Among hosts with equal best scores the one with the lowest id starts the VM first, the others some seconds later.
    pub ranked_start: bool,
    /// A delay of storage changes nothing as long as the lease is renewed.
    pub storage_patience: bool,
    /// A VM that an I/O error paused goes on when its lease is still held and storage is back, and is otherwise ended and started where it can run.
    pub paused_policy: bool,
    /// A restarted agent asks the lock manager which hosts are alive, instead of waiting for `timers.host_alive`.
    pub blip_free_restart: bool,
    /// An engine that stays sick is reset step by step, at most `rules.engine_resets` times an hour.
    pub health_escalation: bool,
    /// A stop that was decided is looked at again before the guest is asked to power down: when the cause is gone by then, the VM stays.
    pub stop_needs_cause: bool,
    /// Before a start the lock manager is asked who holds the VM's lease: nothing is tried while that host may be alive, and the start follows within two seconds of its giving way.
    pub lease_aware_start: bool,
    /// The VM moves while it runs when another host takes it, where the hypervisor can; otherwise it is shut down here and started there.
    pub live_migration: bool,
}

impl Default for PolicyTable {
    fn default() -> Self {
        Self {
            retry_memory: true,
            start_waits_for_liveness: true,
            lease_refusal_is_no_failure: true,
            local_maintenance_moves_vm: true,
            start_needs_footing: true,
            local_restart: true,
            debounce: true,
            cpu_never_evicts: true,
            ranked_start: true,
            storage_patience: true,
            paused_policy: true,
            blip_free_restart: true,
            health_escalation: true,
            stop_needs_cause: true,
            lease_aware_start: true,
            live_migration: true,
        }
    }
}

impl HaToml {
    /// The keys of `[policy]`.
    pub const POLICY_KEYS: &[&str] = keys::POLICY;

    /// Reads and checks the file of this host; a missing file means all defaults.
    pub fn load(paths: &Paths) -> Result<Self> {
        match atomic::read_text(&paths.ha_toml()) {
            Err(error) if error.is_not_found() => Ok(Self::default()),
            Err(error) => Err(error),
            Ok(text) => Self::parse(paths, &text),
        }
    }

    /// Reads and checks a text as if it were the file of this host.
    pub fn parse(paths: &Paths, text: &str) -> Result<Self> {
        let path = paths.ha_toml();
        keys::refuse_unknown(&path, text)?;
        let mut this: Self = toml::from_str(text).map_err(|error| keys::syntax(&path, text, &error))?;
        this.follow_profile(|key| keys::sets(text, "timers", key));
        this.validate().map_err(|reason| ConfigError::Relation { path, reason })?;
        Ok(this)
    }

    /// Checks ranges and the relations between the times; the error says which rule is broken and what to do.
    pub fn validate(&self) -> Result<(), String> {
        check::ranges(self)?;
        self.lease.check(self.vm.hypervisor)?;
        self.rules.check(&self.timers)?;
        self.fencing.check()?;
        self.migration.check()?;
        check::together(self)
    }

    /// The relations between the times, with the present figures.
    pub fn relations(&self) -> Vec<Relation> {
        relations::all(self)
    }
}

/// Seconds as an integer or a float.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number of seconds")]
    enum Number {
        Whole(u32),
        Fraction(f64),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        match Number::deserialize(deserializer)? {
            Number::Whole(whole) => Ok(Duration::from_secs(whole.into())),
            Number::Fraction(fraction) => Duration::try_from_secs_f64(fraction)
                .map_err(|_| D::Error::custom("a number of seconds, 0 or more, expected")),
        }
    }
}

#[cfg(test)]
#[path = "ha_toml/tests.rs"]
mod tests;
