//! The same memory on other clocks.
//!
//! Decisions depend on differences between instants, and on whether another host's timestamp has changed or
//! gone back, never on the readings themselves. So a core whose instants are all moved by the same number of seconds, and whose
//! timestamps of one writer are all moved by the same amount, decides as before when its input is moved with it.
//! The model checker brings cores to one origin with this, so that states which differ in the date alone are one
//! state. Every type here is taken apart field by field: a new field does not compile until it is thought of.

use metadata_format::HostId;

use super::{Core, Retries, Secs};

/// How far the origins of the clocks move forward; readings become smaller by as much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClockShift {
    /// Seconds of this host's monotonic clock.
    pub own: u64,
    /// Of other hosts' timestamps; 0 for hosts that are not named.
    pub remote: Vec<(HostId, i64)>,
    /// What is not told apart on the new clocks; `None` when everything is.
    pub horizon: Option<Horizon>,
}

/// Where different memories mean the same to every later decision, except for figures in its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Instants before this one become it. Right when it lies further back than all spans in the limits.
    pub instant: Secs,
    /// Timestamps below this become it. Right when no block will ever show it, or a lower one: a timestamp means
    /// something only by being equal to a later one, or above it.
    pub stamp: i64,
    /// Counts of samples above this become it. Right when it is the count that the limits ask for.
    pub samples: u32,
}

impl ClockShift {
    /// An instant of this host's clock. One before the new origin becomes 0.
    pub(super) fn instant(&self, at: Secs) -> Secs {
        let moved = Secs(at.0.saturating_sub(self.own));
        self.horizon.map_or(moved, |horizon| moved.max(horizon.instant))
    }

    /// A timestamp that `writer` wrote.
    pub(super) fn stamp(&self, writer: HostId, stamp: i64) -> i64 {
        let shift = self.remote.iter().find(|(id, _)| *id == writer).map_or(0, |(_, shift)| *shift);
        let moved = stamp.wrapping_sub(shift);
        self.horizon.map_or(moved, |horizon| moved.max(horizon.stamp))
    }

    /// A count of samples.
    pub(super) fn samples(&self, count: u32) -> u32 {
        self.horizon.map_or(count, |horizon| count.min(horizon.samples))
    }
}

impl Core {
    /// This core, between two steps, on shifted clocks. The last look is forgotten: only a fresh one may follow.
    #[must_use]
    pub fn rebased(self, shift: &ClockShift) -> Self {
        let Self { state, timer, retries, mut history, view: _, score, pending, mut memory, resumes } = self;
        let tries = |Retries { count, last }| Retries { count, last: last.map(|at| shift.instant(at)) };
        history.rebase(shift);
        memory.rebase(shift);
        Self {
            state,
            timer: timer.map(|at| shift.instant(at)),
            retries: tries(retries),
            history,
            view: None,
            score,
            pending,
            memory,
            resumes: resumes.map(tries),
        }
    }
}

#[cfg(test)]
#[path = "rebase_tests.rs"]
mod tests;
