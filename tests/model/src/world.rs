//! The cluster as the model sees it: hosts, the VM, its lease, shared storage. Plain data that can be hashed.
//!
//! Time is not part of it: whatever is timed is counted in ticks since it happened, and a count stops growing
//! where a larger one would mean nothing else. So states repeat, and the space of states closes.

use metadata_format::VmState;

use crate::cores::CoreId;

/// A host, counted from 0. Its host id is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostNo(pub u8);

impl HostNo {
    /// As an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }

    /// All hosts of a cluster of `N`.
    pub fn all<const N: usize>() -> impl Iterator<Item = Self> {
        (0..u8::MAX).map(Self).take(N)
    }
}

impl std::fmt::Display for HostNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {}", u16::from(self.0) + 1)
    }
}

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World<const N: usize> {
    /// The hosts.
    pub hosts: [Host<N>; N],
    /// Who the VM's lease names as its owner.
    pub lease: Option<HostNo>,
    /// What the cluster block says.
    pub global_maintenance: bool,
    /// Faults that may still happen.
    pub faults_left: u8,
    /// What went wrong in the last step.
    pub alarms: Alarms,
}

/// What must never happen in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Alarms {
    /// A host asked for an action on the VM in a look that showed global maintenance.
    pub acted_in_global_maintenance: bool,
    /// A host asked for a start in a look that showed no footing.
    pub started_without_footing: bool,
    /// A step went on and on without a delay.
    pub endless_step: bool,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host<const N: usize> {
    /// Whether it runs at all.
    pub power: Power,
    /// Its agent; `None` while it is not running.
    pub agent: Option<Agent>,
    /// The VM here.
    pub vm: Vm,
    /// How the last VM here ended.
    pub exit: Exit,
    /// What its engine-health monitor said last.
    pub monitored: VmState,
    /// Its way to shared storage.
    pub storage: Storage<N>,
    /// Its gateway answers.
    pub network: bool,
    /// Local maintenance.
    pub maintenance: bool,
    /// The next start here fails.
    pub next_start_fails: bool,
    /// Ticks since its leases were renewed, at most [`EXPIRED`](crate::environment::EXPIRED).
    pub silent: u8,
    /// Ticks for which it has renewed its leases without a gap, at most [`LOST`](crate::environment::LOST).
    pub joined: u8,
    /// Its block on shared storage; `None` before it was first written.
    pub block: Option<Block>,
    /// Its block before that.
    pub block_before: Option<Block>,
    /// How many times each host wrote its block since this one's agent read it, at most [`UNREAD_MAX`].
    pub unread: [u8; N],
}

/// Where counting unread writes ends. The core compares a timestamp for equality with those that it read before,
/// no more. It has read at most one write beyond the one that `unread` counts from (the newest, before a stale
/// read), and a stale read gives the write before the newest: from 3 on, both are new to it in any case.
pub const UNREAD_MAX: u8 = 3;

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// It does.
    On,
    /// Frozen as a whole, and may go on as if nothing had been.
    Frozen,
    /// Crashed, or reset by its watchdog.
    Off,
}

/// A running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agent {
    /// What it remembers, on a clock that stood at the origin when it last looked.
    pub core: CoreId,
    /// Ticks since then, at most [`SINCE_LOOK_MAX`].
    pub since_look: u8,
    /// Ticks since it wrote its block, or began to try. At most [`UNWRITTEN_MAX`].
    pub unwritten: u8,
    /// It looked in this tick.
    pub looked: bool,
}

/// Where counting ticks since the last look ends: by then every timer has fired and every window is over.
pub const SINCE_LOOK_MAX: u8 = 7;

/// Where counting ticks without a written block ends: well past [`Limits::alive`](ha_agent::core::Limits::alive).
pub const UNWRITTEN_MAX: u8 = 4;

/// The VM on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vm {
    /// There is none.
    Absent,
    /// It boots; its engine answers from the next tick on.
    Booting,
    /// It runs and its engine answers.
    Healthy,
    /// It runs and its engine does not answer; it does not power down when asked to.
    Sick,
    /// It powers down and is gone by the next tick.
    PoweringDown,
    /// QEMU paused it because of an I/O error.
    Paused {
        /// Its engine did not answer before.
        sick: bool,
    },
}

/// How the last VM on a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// There was none since the host came up.
    NoTrace,
    /// Powered down, or destroyed.
    Orderly,
    /// Died or was killed.
    Crashed,
    /// It never ran: its lease was held elsewhere.
    LeaseRefused,
    /// It never ran for another reason.
    StartFailed,
}

/// A host's way to shared storage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Storage<const N: usize> {
    /// Reads and writes work.
    Reachable,
    /// They do not; the broker goes on showing what it read last.
    Cut {
        /// Per host: its block and the count of unread writes, as of the cut.
        kept: [Sight; N],
    },
}

/// A block as a broker shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sight {
    /// The contents.
    pub block: Option<Block>,
    /// How many times it was written since the agent read it before.
    pub unread: i8,
}

/// What a host says on shared storage, as far as decisions need it. Its timestamp is kept as counts of unread
/// writes by the readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// The score.
    pub score: u16,
    /// What its monitor looked at.
    pub engine: EngineFacts,
}

/// What the engine-health monitor classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineFacts {
    /// The VM.
    pub vm: Vm,
    /// How the last one ended.
    pub exit: Exit,
    /// What the monitor said last.
    pub monitored: VmState,
}

impl<const N: usize> Host<N> {
    /// What its engine-health monitor looks at.
    pub const fn engine(&self) -> EngineFacts {
        EngineFacts { vm: self.vm, exit: self.exit, monitored: self.monitored }
    }

    /// Its reads and writes reach shared storage.
    pub const fn reaches_storage(&self) -> bool {
        matches!(self.storage, Storage::Reachable)
    }

    /// A VM here can write to the shared disk at this moment.
    pub fn vm_can_write(&self) -> bool {
        let runs = match self.vm {
            Vm::Booting | Vm::Healthy | Vm::Sick | Vm::PoweringDown => true,
            Vm::Absent | Vm::Paused { .. } => false,
        };
        runs && self.power == Power::On && self.reaches_storage()
    }

    /// The engine in the VM here serves its users.
    pub fn engine_serves(&self) -> bool {
        self.vm == Vm::Healthy && self.vm_can_write()
    }

    /// Its agent takes its next look in this tick.
    pub fn will_look(&self) -> bool {
        self.power == Power::On && self.agent.is_some_and(|agent| !agent.looked)
    }
}

impl<const N: usize> World<N> {
    /// That host.
    pub const fn host(&self, no: HostNo) -> &Host<N> {
        &self.hosts[no.at()]
    }

    /// That host.
    pub const fn host_mut(&mut self, no: HostNo) -> &mut Host<N> {
        &mut self.hosts[no.at()]
    }

    /// The hosts with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (HostNo, &Host<N>)> {
        HostNo::all::<N>().zip(&self.hosts)
    }
}
