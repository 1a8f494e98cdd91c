//! What the rules behind the policy's switches remember from step to step. Each part is bounded by its own module.
//!
//! Pure. All of it is kept whether its switch is on or off, and used only when it is on.

use super::budget::{Budget, Spent};
use super::debounce::{Lead, Samples};
use super::moves::Moves;
use super::policy::Limits;
use super::rebase::ClockShift;
use super::settled::Settled;
use super::time::Secs;

/// The memory of the rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// Restarts after a crash.
    pub restarts: Spent,
    /// Resets of a sick engine.
    pub resets: Spent,
    /// Since when this host has been due to start the VM; `None` when it is not.
    pub due: Option<Secs>,
    /// The last samples of this host's network and bridge.
    pub samples: Samples,
    /// The other hosts' lead.
    pub lead: Lead,
    /// How long the other hosts have been alive; empty where the VM cannot be moved while it runs.
    pub settled: Settled,
    /// Live migrations.
    pub moves: Moves,
}

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Starting the VM again on this host after a crash.
    Restart,
    /// Stopping a VM whose engine is sick.
    Reset,
}

impl Purpose {
    /// How often it may be done.
    pub(super) const fn budget(self, limits: &Limits) -> Budget {
        match self {
            Self::Restart => Budget { times: limits.restart_budget, window: limits.restart_window },
            Self::Reset => Budget { times: limits.engine_resets, window: limits.engine_reset_window },
        }
    }
}

impl Memory {
    /// When that was done.
    pub(super) const fn spent(&self, purpose: Purpose) -> &Spent {
        match purpose {
            Purpose::Restart => &self.restarts,
            Purpose::Reset => &self.resets,
        }
    }

    /// That is done now.
    pub(super) fn spend(&mut self, purpose: Purpose, limits: &Limits, now: Secs) {
        let spent = match purpose {
            Purpose::Restart => &mut self.restarts,
            Purpose::Reset => &mut self.resets,
        };
        spent.spend(purpose.budget(limits), now);
    }

    /// Moves it all to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { restarts, resets, due, samples, lead, settled, moves } = self;
        restarts.rebase(shift);
        resets.rebase(shift);
        *due = due.map(|at| shift.instant(at));
        samples.rebase(shift);
        lead.rebase(shift);
        settled.rebase(shift);
        moves.rebase(shift);
    }
}
