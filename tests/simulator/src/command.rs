//! The vocabulary of scripts: what a person, a fault or chance does to the world. Everything that a run does to its
//! world goes through a [`Command`], so that any run can be written down as a script and read again.

use std::time::Duration;

mod parse;
mod print;

pub use parse::{BadStep, GRAMMAR, parse_time};

/// Which hosts a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// One, by id.
    Id(u16),
    /// Every host.
    All,
    /// The one that runs the VM at that moment.
    VmHost,
    /// All but the one that runs the VM.
    Others,
}

/// What a path to storage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum StorageFault {
    Good,
    Stalled,
    Failing,
    ReadOnly,
    Full,
    Delay { by: Duration, once: bool },
    Slow { worst: Duration },
    Stale { by: Duration },
    TearsNextWrite,
    MisdirectsNextWrite { to: u16 },
}

/// What happens to a block on storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum BlockFault {
    Corrupt,
    Rots,
    Unreadable,
    TooNew,
    Empty,
    Heals,
}

/// What happens to the guest or its hypervisor process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum VmFault {
    Crashes,
    Hangs,
    Sick,
    Well,
    Pauses,
    Resumes,
    PowersOff,
    Vanishes,
}

/// What a host's power switch does when it is asked to switch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum SwitchFault {
    #[default]
    Works,
    Unreachable,
    /// It says off, and the host goes on.
    Lies,
    /// Nobody has one for this host.
    Missing,
}

/// How a migration that a person started ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum MigrationEnd {
    Arrives,
    Fails,
    LosesSource,
    LosesDestination,
}

/// What an operator does with the VM by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named for what happens")]
pub enum ByHand {
    Starts,
    Stops,
    Kills,
}

/// Which service.
pub use crate::host::Daemons;

/// What a host's block says of the VM on that host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is up, and the engine in it answers.
    Good,
    /// It is up, and the engine in it does not answer.
    Bad,
    /// It is up, and paused.
    Paused,
    /// It is not here, whatever the reason.
    Down,
}

/// What a script waits for or checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// The engine answers well, wherever.
    Healthy,
    /// No process with the VM exists.
    NoVm,
    /// A process with the VM exists there.
    VmOn(Who),
    /// It is the VM that ran when the last expectation was met.
    SameVm,
    /// It is another one than at the last expectation.
    OtherVm,
    /// The agent of this host is in a state of this name.
    State(Who, String),
    /// The agent of this host publishes this score.
    Score(Who, u32),
    /// On storage the block of this host says this of the VM.
    Block(Who, Said),
    /// The host has no power.
    Off(Who),
    /// All running agents have each other in their lists of live hosts.
    AllSeen,
    /// No other running agent has the host in its list of live hosts.
    Unseen(Who),
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named for what is done")]
pub enum Command {
    Boot(Who),
    PowerOff(Who),
    Freeze(Who),
    Thaw(Who),
    Kill(Daemons, Who),
    Restart(Daemons, Who),
    StopServices(Who),
    StartServices(Who),
    Storage(Who, StorageFault),
    Block(u16, BlockFault),
    Network(Who, f64),
    Bridge(Who, bool),
    Memory(Who, f64),
    Load(Who, f64),
    Vm(VmFault),
    FailStarts(Who, u32),
    Switch(Who, SwitchFault),
    FailMigrations(Who, u32),
    CanMigrate(Who, bool),
    AskMigration { at: Who, to: Option<u16> },
    ForcedMaintenance(Who),
    GuestMovesIn(Duration, Duration),
    GuestBootsIn(Duration, Duration),
    GuestIgnoresShutdown(bool),
    PageTakes(Duration),
    Migrate { to: u16, takes: Duration, end: MigrationEnd },
    ClockStep(Who, i64),
    ClockRate(Who, i32),
    GlobalMaintenance(bool, Who),
    LocalMaintenance(bool, Who),
    ByHand(ByHand, Who),
    HealAll,
    Expect(Expectation),
}

impl Command {
    /// What ends it, when it lasts for a time only.
    pub fn undone(&self) -> Option<Self> {
        Some(match self {
            Self::PowerOff(who) => Self::Boot(*who),
            Self::Freeze(who) => Self::Thaw(*who),
            Self::StopServices(who) => Self::StartServices(*who),
            Self::Storage(who, fault) if *fault != StorageFault::Good => {
                Self::Storage(*who, StorageFault::Good)
            }
            Self::Block(number, fault) if *fault != BlockFault::Heals => {
                Self::Block(*number, BlockFault::Heals)
            }
            Self::Network(who, _) => Self::Network(*who, 1.0),
            Self::Bridge(who, false) => Self::Bridge(*who, true),
            Self::Memory(who, _) => Self::Memory(*who, 16_000.0),
            Self::Load(who, _) => Self::Load(*who, 0.1),
            Self::Vm(VmFault::Sick) => Self::Vm(VmFault::Well),
            Self::Vm(VmFault::Pauses) => Self::Vm(VmFault::Resumes),
            Self::FailStarts(who, _) => Self::FailStarts(*who, 0),
            Self::Switch(who, fault) if *fault != SwitchFault::Works => {
                Self::Switch(*who, SwitchFault::Works)
            }
            Self::FailMigrations(who, _) => Self::FailMigrations(*who, 0),
            Self::CanMigrate(who, false) => Self::CanMigrate(*who, true),
            Self::GuestIgnoresShutdown(true) => Self::GuestIgnoresShutdown(false),
            Self::PageTakes(_) => Self::PageTakes(Duration::from_millis(50)),
            Self::GlobalMaintenance(true, who) => Self::GlobalMaintenance(false, *who),
            Self::LocalMaintenance(true, who) | Self::ForcedMaintenance(who) => {
                Self::LocalMaintenance(false, *who)
            }
            _ => return None,
        })
    }

    /// The hosts that it is for, if it is for hosts.
    pub fn who_mut(&mut self) -> Option<&mut Who> {
        match self {
            Self::Boot(who)
            | Self::PowerOff(who)
            | Self::Freeze(who)
            | Self::Thaw(who)
            | Self::Kill(_, who)
            | Self::Restart(_, who)
            | Self::StopServices(who)
            | Self::StartServices(who)
            | Self::Storage(who, _)
            | Self::Network(who, _)
            | Self::Bridge(who, _)
            | Self::Memory(who, _)
            | Self::Load(who, _)
            | Self::FailStarts(who, _)
            | Self::Switch(who, _)
            | Self::FailMigrations(who, _)
            | Self::CanMigrate(who, _)
            | Self::AskMigration { at: who, .. }
            | Self::ForcedMaintenance(who)
            | Self::ClockStep(who, _)
            | Self::ClockRate(who, _)
            | Self::GlobalMaintenance(_, who)
            | Self::LocalMaintenance(_, who)
            | Self::ByHand(_, who) => Some(who),
            Self::Block(..)
            | Self::Vm(_)
            | Self::GuestBootsIn(..)
            | Self::GuestMovesIn(..)
            | Self::GuestIgnoresShutdown(_)
            | Self::PageTakes(_)
            | Self::Migrate { .. }
            | Self::HealAll
            | Self::Expect(_) => None,
        }
    }
}

/// A command with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Time since the run began.
    pub at: Duration,
    /// What is done.
    pub command: Command,
    /// So long it lasts; for an expectation: so long it is waited for.
    pub lasts: Option<Duration>,
}

/// A time as [`parse_time`] reads it.
pub struct Time(pub Duration);

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
