//! How often something may be done within a span of time. Pure: the instants come from observations.
//!
//! Memory is bounded: never more instants are kept than the budget allows.

use std::collections::VecDeque;

use super::rebase::ClockShift;
use super::time::Secs;

/// When something was done, the oldest first. Which budget these instants are held against is the caller's, and the
/// same each time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spent {
    at: VecDeque<Secs>,
}

/// At most `times` within `window` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// How often.
    pub times: u32,
    /// Seconds; an instant counts until it is that old.
    pub window: u64,
}

impl Spent {
    /// How often it was done within the window that ends at `now`.
    pub(super) fn used(&self, budget: Budget, now: Secs) -> u32 {
        let used = self.at.iter().filter(|at| now.since(**at) < budget.window).count();
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    /// Seconds until it may be done again: 0 when it may be now, `None` when the budget is 0.
    pub(super) fn free_in(&self, budget: Budget, now: Secs) -> Option<u64> {
        if self.used(budget, now) < budget.times {
            return Some(0);
        }
        // The oldest of as many instants as are allowed has to leave the window.
        let back = usize::try_from(budget.times).unwrap_or(usize::MAX);
        let oldest = self.at.iter().nth_back(back.checked_sub(1)?)?;
        Some(oldest.plus(budget.window).since(now))
    }

    /// It is done now.
    pub(super) fn spend(&mut self, budget: Budget, now: Secs) {
        self.at.push_back(now);
        let most = usize::try_from(budget.times).unwrap_or(usize::MAX);
        while self.at.len() > most {
            self.at.pop_front();
        }
    }

    /// Moves the instants to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { at } = self;
        for at in at {
            *at = shift.instant(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_often_as_allowed_and_again_when_the_oldest_is_out_of_the_window() {
        let budget = Budget { times: 2, window: 100 };
        let mut spent = Spent::default();
        spent.spend(budget, Secs(1000));
        assert_eq!((spent.used(budget, Secs(1010)), spent.free_in(budget, Secs(1010))), (1, Some(0)));
        spent.spend(budget, Secs(1030));
        assert_eq!((spent.used(budget, Secs(1099)), spent.free_in(budget, Secs(1099))), (2, Some(1)));
        assert_eq!((spent.used(budget, Secs(1100)), spent.free_in(budget, Secs(1100))), (1, Some(0)));
    }

    #[test]
    fn a_budget_of_0_is_never_free_and_nothing_is_kept_for_it() {
        let none = Budget { times: 0, window: 100 };
        let mut spent = Spent::default();
        spent.spend(none, Secs(5));
        assert_eq!((spent.free_in(none, Secs(5000)), spent), (None, Spent::default()));
    }

    #[test]
    fn memory_is_bounded_by_the_budget() {
        let budget = Budget { times: 3, window: 600 };
        let mut spent = Spent::default();
        for second in 0..1000 {
            spent.spend(budget, Secs(second));
        }
        assert_eq!(spent.at.len(), 3);
    }
}
