//! What may be asked of a hypervisor about the engine VM. No adapter's particulars here.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// What the VM is doing on this host, in the words that host blocks and `--vm-status` use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VmActivity {
    /// No VM on this host.
    #[serde(rename = "Down")]
    Down,
    /// Being created; no guest code has run.
    #[serde(rename = "WaitForLaunch")]
    WaitForLaunch,
    /// Started, not yet known to be past its firmware.
    #[serde(rename = "Powering up")]
    PoweringUp,
    /// Running.
    #[serde(rename = "Up")]
    Up,
    /// Told to shut down, still running.
    #[serde(rename = "Powering down")]
    PoweringDown,
    /// Its processors are stopped: by an operator, or for another reason that does not end by itself.
    #[serde(rename = "Paused")]
    Paused,
    /// Its processors are stopped since a read or write of its disk failed; it can go on when storage works again.
    #[serde(rename = "Paused by an I/O error")]
    PausedByIoError,
    /// Leaving for another host.
    #[serde(rename = "Migration Source")]
    MigrationSource,
    /// Arriving from another host; no guest code runs here yet.
    #[serde(rename = "Migration Destination")]
    MigrationDestination,
    /// The guest restarts.
    #[serde(rename = "RebootInProgress")]
    RebootInProgress,
    /// Memory is being read back from a saved state.
    #[serde(rename = "Restoring state")]
    RestoringState,
    /// Memory is being saved.
    #[serde(rename = "Saving State")]
    SavingState,
}

impl VmActivity {
    /// The word as VDSM and host blocks write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "Down",
            Self::WaitForLaunch => "WaitForLaunch",
            Self::PoweringUp => "Powering up",
            Self::Up => "Up",
            Self::PoweringDown => "Powering down",
            // Readers know one word for both.
            Self::Paused | Self::PausedByIoError => "Paused",
            Self::MigrationSource => "Migration Source",
            Self::MigrationDestination => "Migration Destination",
            Self::RebootInProgress => "RebootInProgress",
            Self::RestoringState => "Restoring state",
            Self::SavingState => "Saving State",
        }
    }
}

/// How the last VM on this host ended. Kept by the adapter until the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum VmExit {
    /// The guest powered itself off (asked to or by its own will), or we destroyed it.
    Orderly {
        /// In words.
        detail: String,
    },
    /// The process died or was killed by somebody else.
    Crashed {
        /// Exit status or signal, in words.
        detail: String,
    },
    /// The VM runs on another host now.
    MigratedAway,
    /// It never ran: its lease is held elsewhere (sanlock -243 and its kin).
    LeaseRefused {
        /// What the lock manager said.
        detail: String,
    },
    /// It never ran for another reason.
    StartFailed {
        /// What the hypervisor said.
        detail: String,
    },
}

/// Whether the running VM's lease is ours at this moment, as the lock manager says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LeaseHolding {
    /// The lock manager names this VM's process as the owner.
    Held,
    /// The VM's process exists and does not own its lease: it must be destroyed, never resumed.
    Lost {
        /// What the lock manager said.
        detail: String,
    },
    /// The lock manager did not answer.
    Unknown {
        /// The error, in words.
        detail: String,
    },
    /// No guest code runs, and the hypervisor takes the lease before any does, or gives up: nothing to protect now.
    Pending {
        /// What is being waited for.
        detail: String,
    },
    /// No VM process, so nothing to hold.
    NoVm,
}

/// One look at the VM on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// What it is doing.
    pub activity: VmActivity,
    /// How the last one ended; only with [`VmActivity::Down`].
    pub exit: Option<VmExit>,
    /// Whether its lease is ours.
    pub lease: LeaseHolding,
    /// Process id of the hypervisor process, as this host sees it, where the hypervisor tells it.
    pub pid: Option<u32>,
}

impl VmStatus {
    /// True while a hypervisor process with this VM exists on this host, whatever it does.
    pub fn exists(&self) -> bool {
        self.activity != VmActivity::Down
    }
}

/// What a start of the VM would find, as the lock manager sees its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOutlook {
    /// Nobody, or only a host that is dead: a start can have it.
    Free,
    /// A host that may run the VM: a start would be refused.
    Held {
        /// Its id in the lockspace.
        host_id: u64,
        /// How it is.
        life: OwnerLife,
        /// The lease can be taken so long from now at the latest, should the owner not renew until then; `None` while it
        /// renews.
        free_in: Option<Duration>,
    },
}

/// How the owner of a lease is, as this host's lock manager sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerLife {
    /// It renews its host id.
    Live,
    /// It has not renewed for so long that its own lock manager is ending the VM, if it can.
    Failing,
    /// Not watched for long enough to say.
    Unknown,
}

/// Something that happened to the VM. Events may be lost; a status never lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEvent {
    /// The activity may have changed: look again.
    Changed(VmActivity),
    /// The VM is gone.
    Ended(VmExit),
    /// The guest was stopped by an I/O error on its disk.
    IoErrorPause,
}

/// How to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartMode {
    /// Start and run.
    #[default]
    Run,
    /// Start with stopped processors; the operator continues it on the console.
    Paused,
}

/// Where a live migration goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationTarget {
    /// The destination hypervisor's address in the form that the adapter understands: `tcp:host:port` or
    /// `unix:path` for QEMU, a connection URI for libvirt, `host[:port]` for VDSM.
    pub uri: String,
}

/// How a destination gets ready for a live migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// [`EngineVm::prepare_incoming`] there first; its answer is what [`EngineVm::migrate`] is given.
    Prepared,
    /// The hypervisors arrange it themselves.
    Arranged {
        /// What `migrate` is given: the address of the destination, `{host}` standing for its name.
        uri: String,
    },
    /// This adapter, as it is configured, cannot migrate.
    Never {
        /// Why, for operators.
        why: String,
    },
}

/// How far a live migration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationProgress {
    /// None was started.
    None,
    /// Running.
    Active {
        /// Bytes of guest memory moved so far.
        transferred: u64,
        /// Bytes still to move, as estimated.
        remaining: u64,
    },
    /// The guest runs at the destination.
    Completed,
    /// It did not work; the guest goes on here.
    Failed {
        /// The hypervisor's words.
        detail: String,
    },
}

/// Which of the VM's consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Text, on its first serial port.
    Serial,
    /// Its screen: VNC or SPICE.
    Graphical,
}

/// Where a console client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleAddress {
    /// `vnc`, `spice` or `serial`.
    pub kind: String,
    /// `host:port`, or a path of a Unix socket.
    pub address: String,
}

/// What a VM uses of the host's processors, as its hypervisor measures it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CpuUse {
    /// So much CPU time since it started.
    Since(Duration),
    /// So many processors were kept busy lately, 0 or more: 1.5 is one and a half.
    Lately(f64),
    /// It runs, and nothing was measured yet.
    NotMeasured,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Another host holds the VM's lease, so the VM must not start here.
    #[error("the engine VM's lease is held elsewhere: {detail}")]
    LeaseHeld {
        /// What the lock manager said.
        detail: String,
    },
    /// The lock manager cannot protect the VM now, so it must not start.
    #[error("the engine VM cannot be protected by a lease: {detail}")]
    NoLease {
        /// What is missing.
        detail: String,
    },
    /// There is a VM already.
    #[error("the engine VM exists on this host already{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    AlreadyExists {
        /// The hypervisor's process, where the hypervisor tells it.
        pid: Option<u32>,
    },
    /// There is none to act on.
    #[error("the engine VM does not run on this host")]
    NotRunning,
    /// The hypervisor cannot be asked.
    #[error("cannot reach the hypervisor: {detail}")]
    Unreachable {
        /// The error, in words.
        detail: String,
    },
    /// It was asked and refused, or failed.
    #[error("the hypervisor failed to {action}: {detail}")]
    Failed {
        /// The call, as a verb phrase.
        action: &'static str,
        /// The hypervisor's words.
        detail: String,
    },
    /// The VM's description cannot be used.
    #[error("the engine VM's configuration is not usable: {detail}")]
    Config {
        /// Which key or device, its value, and what to do.
        detail: String,
    },
    /// This adapter cannot do that.
    #[error("the {adapter} adapter cannot {action}")]
    Unsupported {
        /// The adapter's name.
        adapter: &'static str,
        /// The call, as a verb phrase.
        action: &'static str,
    },
}

impl VmError {
    /// The same without a secret that the hypervisor may have repeated.
    #[must_use]
    pub fn without(self, secret: &str) -> Self {
        let hidden = |detail: String| if secret.is_empty() { detail } else { detail.replace(secret, "…") };
        match self {
            Self::LeaseHeld { detail } => Self::LeaseHeld { detail: hidden(detail) },
            Self::NoLease { detail } => Self::NoLease { detail: hidden(detail) },
            Self::Unreachable { detail } => Self::Unreachable { detail: hidden(detail) },
            Self::Failed { action, detail } => Self::Failed { action, detail: hidden(detail) },
            Self::Config { detail } => Self::Config { detail: hidden(detail) },
            Self::AlreadyExists { .. } | Self::NotRunning | Self::Unsupported { .. } => self,
        }
    }
}

/// The engine VM on this host.
#[async_trait]
pub trait EngineVm: Send + Sync {
    /// Looks at the VM now. An error means that nobody knows, and is shown as `unknown`.
    async fn status(&self) -> Result<VmStatus, VmError>;

    /// Starts the VM under its lease; returns once the hypervisor process owns the lease and runs (not: once
    /// the guest has booted). Stale remains of an earlier VM are cleaned first.
    async fn start(&self, mode: StartMode) -> Result<(), VmError>;

    /// Who holds the VM's lease, asked before a start. An error means that nobody knows: only a start can tell then.
    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError>;

    /// Returns within about a second of the moment when the owner that [`Self::lease_outlook`] named last gives way;
    /// never, when it named none. Cheap: nothing is read from storage.
    async fn lease_gives_way(&self);

    /// Asks the guest to power down; returns once it was asked. `message` is for the guest's users.
    async fn shutdown(&self, delay: Duration, message: &str) -> Result<(), VmError>;

    /// Ends the VM at once; returns once its process is gone.
    async fn destroy(&self) -> Result<(), VmError>;

    /// Stops the guest's processors.
    async fn pause(&self) -> Result<(), VmError>;

    /// Lets them go on; refused unless the lease is held, or is taken before they do.
    async fn resume(&self) -> Result<(), VmError>;

    /// How live migrations work with this adapter as it is configured. Asks nobody.
    fn receiver(&self) -> Receiver;

    /// Gets this host ready to receive the VM and returns where the source must send it.
    async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError>;

    /// Starts a live migration away from this host; returns once it was started.
    async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError>;

    /// Asks for an end of the migration away from this host: the guest is to go on here. Returns once it was asked;
    /// [`Self::migration_progress`] tells what became of it, for it may be too late. Nothing to do is no error.
    async fn migrate_cancel(&self) -> Result<(), VmError>;

    /// How far it is. What is told ends with the VM: one that runs since then has no part in it.
    async fn migration_progress(&self) -> Result<MigrationProgress, VmError>;

    /// Sets a console password that ends after `valid`. The password never reaches logs or process arguments.
    async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError>;

    /// Where a console client connects.
    async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError>;

    /// What the VM uses of the host's processors; `None` when there is no VM.
    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError>;

    /// A stream of events from now on. Receivers that fall behind lose events and must look again.
    fn events(&self) -> broadcast::Receiver<VmEvent>;
}
