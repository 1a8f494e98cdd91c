//! When the whiteboard reads, how long it waits, and when it tries anew.

use std::time::Duration;

/// The times of the whiteboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From one read to the next; longer with very many hosts and with slow storage (see
    /// [`super::plan::cycle_length`]).
    pub cycle: Duration,
    /// When a request that has not come back counts as stuck.
    pub deadline: Duration,
    /// After a write of the cluster block was read back: time for another host's write of the same moment to
    /// show, before the change is acknowledged.
    pub settle: Duration,
    /// After this time of hanging, reading is tried on a fresh thread, and once more after as much again; from then on
    /// every [`PATIENT`], and when the kernel says that something came back.
    pub try_anew: Duration,
}

/// Fresh threads that are tried soon.
pub(super) const SOON: usize = 2;

/// From one fresh thread to the next after those: what hangs for so long is being repaired.
pub const PATIENT: Duration = Duration::from_mins(5);

impl Default for Timing {
    fn default() -> Self {
        Self {
            cycle: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            settle: Duration::from_millis(250),
            try_anew: Duration::from_secs(30),
        }
    }
}
