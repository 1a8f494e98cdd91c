//! What a step of the decision core is fed: one look at the world, or the result of an action.
//!
//! Plain data, made by the driver, by `--replay` or by the simulator. Time is inside it. Nothing here reads
//! or writes anything.

use metadata_format::{EngineStatus, HostId, Score, VmState};

use super::time::Secs;

/// The input of one call of [`decide`](super::decide).
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A fresh look at the world: a new step.
    Look(Box<Observation>),
    /// A new step on what the last look showed, because the clock has not moved on by a whole second since.
    SameLook,
    /// The action that the last call asked for is done: the same step goes on.
    Done(ActionResult),
}

/// One look at the world.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Monotonic second when collecting began: the timestamp of the host's own block.
    pub started: Secs,
    /// Monotonic second when it was complete: "now" for timers.
    pub finished: Secs,
    /// Wall clock − monotonic clock, in seconds. Only for texts.
    pub wall_offset: i64,
    /// The cluster block says global maintenance.
    pub global_maintenance: bool,
    /// The other hosts' blocks, in block order. This host's own block is not among them.
    pub hosts: Vec<RemoteHost>,
    /// This host.
    pub local: Local,
    /// The hosts whose host id leases are live, this one included, by the lock manager; `None` when it cannot say that of
    /// every host.
    pub lock_manager_live: Option<Vec<HostId>>,
    /// What this host's own claim to its block and its storage stands on.
    pub footing: Footing,
}

/// Another host's block.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHost {
    /// Number of the block, and of the host.
    pub id: HostId,
    /// Its contents; `None` when they did not parse.
    pub block: Option<RemoteBlock>,
}

/// A block that parsed, as far as decisions need it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteBlock {
    /// The writer's monotonic seconds, which count from its boot. Only that it changes or goes back means
    /// anything here.
    pub host_ts: i64,
    /// Its score.
    pub score: Score,
    /// Its engine status; `None` when the field held no object.
    pub engine: Option<EngineStatus>,
    /// Its name.
    pub hostname: String,
    /// It says that it moves, or wants to move, the VM to that host.
    pub migration_to: Option<HostId>,
    /// It says that it can receive the VM.
    pub ready: Option<Ready>,
}

/// A host is ready to receive the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// From that host.
    pub from: HostId,
    /// At that address of the hypervisor.
    pub uri: String,
}

/// This host's monitors and files.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, read from a file or a monitor")]
pub struct Local {
    /// Share of network tries that succeeded, 0.0 to 1.0; `None` before the first result.
    pub network: Option<f64>,
    /// Whether the management bridge is up; `None` before the first result.
    pub bridge: Option<bool>,
    /// Memory free for a VM, in MB.
    pub mem_free: Option<f64>,
    /// Busy share of the processors without the engine VM, 0.0 to 1.0.
    pub cpu_load: Option<f64>,
    /// Share of memory in use, 0.0 to 1.0 (founding profile only).
    pub mem_load: Option<f64>,
    /// The engine VM on this host; `None` when the monitor has no result or none that can be read.
    pub engine: Option<EngineStatus>,
    /// Local maintenance, from ha.conf.
    pub maintenance: bool,
    /// Memory that the VM needs, in MB: `memSize` of vm.conf.
    pub min_memory: u64,
    /// vm.conf is up to date with shared storage.
    pub conf_up_to_date: bool,
    /// ha.conf says that local maintenance need not wait for another host: the VM may be shut down.
    pub force_maintenance: bool,
    /// Whether the VM can be moved while it runs.
    pub migrates: Migrates,
    /// What an operator asked for, unless it was answered.
    pub migration_request: Option<MigrationRequest>,
    /// The VM is arriving here: its process exists, and no guest code runs in it yet.
    pub arriving: bool,
    /// The destination that this host's own block names on storage.
    pub announced: Option<HostId>,
    /// How far a live migration away from this host is; `None` when none was started.
    pub migration: Option<Migration>,
    /// How the lease stands of a VM that an I/O error paused; `None` when it is not so paused, or nobody knows.
    pub io_error_pause: Option<PausedLease>,
}

impl Local {
    /// The VM's state on this host. No result counts as unknown: nobody knows.
    pub fn vm(&self) -> VmState {
        self.engine.as_ref().map_or(VmState::Unknown, |status| status.vm)
    }
}

/// Whether a VM that an I/O error paused may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedLease {
    /// It owns its lease.
    Held,
    /// It does not, or did not and was ended for it.
    Lost,
    /// The lock manager does not say.
    Unknown,
}

/// A live migration away from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migration {
    /// Running.
    InProgress {
        /// Bytes sent so far.
        transferred: u64,
        /// Bytes still to send, as estimated.
        remaining: u64,
    },
    /// The guest runs at the destination.
    Finished,
    /// It did not work; the guest goes on here.
    Failed {
        /// Why, in the hypervisor's words.
        detail: String,
    },
    /// The hypervisor did not say.
    Unknown,
}

/// Whether the VM can be moved while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Migrates {
    /// The destination gets ready first and says where to send the VM.
    Prepared,
    /// The hypervisors arrange it themselves.
    Arranged,
    /// It cannot.
    Never {
        /// Why, in words.
        why: String,
    },
}

impl Default for Migrates {
    fn default() -> Self {
        Self::Never { why: "the hypervisor was not asked whether it can".to_owned() }
    }
}

/// An operator's request to move the VM away from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationRequest {
    /// To that host; `None` leaves the choice to us.
    pub to: Option<HostId>,
    /// Which request, by the broker's clock.
    pub asked_at: i64,
}

/// Whether the other hosts can still see this one as alive, and whether a VM started here could be protected.
/// `None` means: not known, and not held against a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footing {
    /// When the own block was last written and read back; before the first time, when the driver began to try.
    pub last_acknowledged: Option<Secs>,
    /// Whether the host id lease is held.
    pub host_lease: Option<bool>,
    /// For how many seconds a request to shared storage has hung or failed; `None` when storage works.
    pub storage_stuck: Option<u64>,
    /// The host whose hold on the VM's lease forbids a start; asked while the last step waited for it.
    pub lease_owner: Option<LeaseOwner>,
}

/// What the core wants done to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start the VM here, under its lease.
    StartVm,
    /// Ask the guest to power down.
    StopVm,
    /// End the VM at once.
    ForceStopVm,
    /// Let a paused VM go on; refused unless it owns its lease.
    ResumeVm,
    /// Begin to send the VM to that host, which is ready for it or arranges that itself.
    SendVm {
        /// The destination.
        to: HostId,
    },
    /// Get this host ready to receive the VM.
    ReceiveVm {
        /// The source.
        from: HostId,
    },
    /// End what waits here for a VM that nobody sends. A guest that has arrived meanwhile is left alone.
    EndArrival,
    /// Call the migration away from here off.
    CancelMigration,
}

/// The host that holds the VM's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOwner {
    /// Its id in the lockspace.
    pub host: u64,
    /// How it is.
    pub life: OwnerLife,
    /// Seconds until the lease can be taken at the latest; `None` while the owner renews.
    pub free_in: Option<u64>,
}

/// How the owner of a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerLife {
    /// It renews.
    Live,
    /// It stopped renewing.
    Failing,
    /// Not known yet.
    Unknown,
}

/// How an action went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionResult {
    /// It worked (for a shutdown: the guest was asked).
    Done,
    /// A start that another host's hold on the VM's lease forbade. Nothing is wrong with this host.
    Refused {
        /// Who holds it, in words.
        detail: String,
    },
    /// A start that was not tried: the lock manager names a host that holds the VM's lease.
    Waits {
        /// Who.
        owner: LeaseOwner,
    },
    /// This host is ready to receive the VM.
    Ready {
        /// At that address of the hypervisor.
        uri: String,
    },
    /// It did not.
    Failed {
        /// Why, in words.
        detail: String,
    },
}
