//! The engine VM as a process of a simulated host, and the guest in it.

use std::time::Duration;

use engine_vm::{VmActivity, VmExit};

use crate::handover::Arrival;

/// A hypervisor process with the VM.
#[derive(Debug, Clone)]
pub struct Process {
    /// Which one, counted over the whole run.
    pub instance: u64,
    /// What it does.
    pub activity: VmActivity,
    /// When its engine answers, if nothing comes between.
    pub healthy_at: Duration,
    /// It was asked to power down: what is under way is not taken back.
    pub asked_down: bool,
    /// It stands still between two hosts, and somebody sees to its lease.
    pub between: bool,
    /// Its migration is to be called off.
    pub called_off: bool,
    /// It was started to receive the VM.
    pub arrival: Option<Arrival>,
    /// It was killed: guest code never runs again, but the process waits for storage to die, and ends so.
    pub dying: Option<VmExit>,
}

impl Process {
    /// One that waits for the VM.
    pub fn arriving(arrival: Arrival) -> Self {
        Self {
            instance: 0,
            activity: VmActivity::MigrationDestination,
            healthy_at: Duration::MAX,
            asked_down: false,
            between: false,
            called_off: false,
            arrival: Some(arrival),
            dying: None,
        }
    }

    /// Whether it can take a guest that is sent.
    pub const fn waits_for_guest(&self) -> bool {
        self.arrival.is_some() && self.dying.is_none()
    }

    /// Whether nothing of a guest has come to it yet, or not all.
    pub fn is_empty(&self) -> bool {
        self.arrival.as_ref().is_some_and(|arrival| !arrival.is_loaded())
    }

    /// Whether it may write to the disk: guest code runs, or a write of it hangs in storage while it dies.
    pub fn may_write(&self) -> bool {
        self.executes() || (self.dying.is_some() && !self.between && self.arrival.is_none())
    }

    /// Whether guest code runs.
    pub fn executes(&self) -> bool {
        self.dying.is_none()
            && !self.between
            && match self.activity {
                VmActivity::Up
                | VmActivity::PoweringUp
                | VmActivity::PoweringDown
                | VmActivity::MigrationSource
                | VmActivity::RebootInProgress => true,
                VmActivity::Down
                | VmActivity::WaitForLaunch
                | VmActivity::Paused
                | VmActivity::PausedByIoError
                | VmActivity::MigrationDestination
                | VmActivity::RestoringState
                | VmActivity::SavingState => false,
            }
    }
}

/// The guest, wherever it runs.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Shortest and longest time from the start of the VM to an engine that answers.
    pub boot: (Duration, Duration),
    /// Shortest and longest time that it takes to power down.
    pub power_down: (Duration, Duration),
    /// It does not power down when asked.
    pub ignores_shutdown: bool,
    /// Its engine answers badly.
    pub sick: bool,
    /// Time that its page takes to answer.
    pub page_delay: Duration,
    /// It hangs: nothing in it answers. Ends with the VM.
    pub hangs: bool,
    /// Shortest and longest time that its memory needs from one host to another.
    pub moves: (Duration, Duration),
    /// Guest time between asking for a disk write and noticing that it failed.
    pub notices_io_error: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            boot: (Duration::from_secs(30), Duration::from_secs(90)),
            power_down: (Duration::from_secs(5), Duration::from_secs(20)),
            ignores_shutdown: false,
            sick: false,
            page_delay: Duration::from_millis(50),
            hangs: false,
            moves: (Duration::from_secs(5), Duration::from_secs(20)),
            notices_io_error: Duration::from_secs(1),
        }
    }
}
