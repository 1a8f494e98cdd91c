//! `health_escalation`: what is done about a VM that runs while the engine in it does not answer.
//!
//! ```text
//! EngineStarting ──600 s──┬─ budget ──▶ EngineStop ──300 s──▶ EngineForceStop     (sick_engine = ["shutdown", "force"])
//! EngineUpBadHealth ─300 s┘         ──▶ EngineForceStop                           (["force"])
//!        ▲  └─ no budget, or [] : stays, and says when the next reset is possible
//!        └──── no budget, or [] : from EngineStarting
//! ```

use metadata_format::{Health, VmState};

use super::{Fired, Step, To};
use crate::core::memory::Purpose;
use crate::core::policy::SickEngine;
use crate::core::reason::{NextStep, Reason, ResetBy};
use crate::core::state::State;
use crate::core::state::Wait::{Delay, No};

impl Step<'_> {
    /// The timer of a state with a sick engine fired.
    pub(super) fn sick_timer(&mut self, limit: u64) -> Fired {
        if !self.settings.policy.health_escalation {
            return Fired::Plain;
        }
        let state = self.core.state;
        let starting = state == State::EngineStarting;
        let sick = match self.health() {
            Health::Good => false,
            Health::Bad => true,
            // A VM that never was healthy has to prove it; of one that was, nobody says that it is not.
            Health::Unknown => starting,
        };
        let look = &self.view.look;
        if look.global_maintenance || look.local.vm() != VmState::Up || !sick {
            return Fired::Rules;
        }
        let by = match self.settings.limits.sick_engine {
            SickEngine::ShutdownThenForce => Some(ResetBy::Shutdown),
            SickEngine::Force => Some(ResetBy::Force),
            SickEngine::LeftAlone => None,
        };
        let (used, times, free_in) = self.resets();
        if let Some(by) = by.filter(|_| free_in == Some(0)) {
            self.spend = Some(Purpose::Reset);
            let number = used.saturating_add(1);
            let reason = Reason::EngineReset { state, limit, by, number, times };
            return Fired::Instead(match by {
                ResetBy::Shutdown => To(State::EngineStop, Delay, reason),
                ResetBy::Force => To(State::EngineForceStop, No, reason),
            });
        }
        if starting {
            let reason = Reason::EngineSick { detail: self.vm_detail(), next: self.next_reset(0) };
            return Fired::Instead(To(State::EngineUpBadHealth, Delay, reason));
        }
        Fired::Rules
    }

    /// Why the state is kept while the engine is not healthy, with what comes next. `limit` is the time that the state
    /// allows, for when its timer does not run yet.
    pub(super) fn unhealthy(&self, limit: u64) -> Reason {
        let detail = self.vm_detail();
        let left = self.time_left();
        let starting = self.core.state == State::EngineStarting;
        match (self.settings.policy.health_escalation, starting) {
            (false, false) => Reason::BadHealth { detail, left },
            (false, true) => Reason::PoweringUp { detail, left },
            (true, false) => Reason::EngineSick { detail, next: self.next_reset(left.unwrap_or(limit)) },
            (true, true) => Reason::SlowStart { detail, next: self.next_reset(left.unwrap_or(limit)) },
        }
    }

    /// What comes next when the engine stays sick for `left` more seconds.
    fn next_reset(&self, left: u64) -> NextStep {
        let (used, _, free_in) = self.resets();
        let by = match self.settings.limits.sick_engine {
            SickEngine::ShutdownThenForce => ResetBy::Shutdown,
            SickEngine::Force => ResetBy::Force,
            SickEngine::LeftAlone => return NextStep::Never,
        };
        match free_in {
            None => NextStep::Never,
            Some(secs) if secs > left => NextStep::BudgetUsed { resets: used, secs },
            Some(_) => NextStep::Reset { by, secs: left },
        }
    }

    /// Resets within the last hour, how many are allowed, and in how many seconds the next one is.
    fn resets(&self) -> (u32, u32, Option<u64>) {
        let now = self.view.look.finished;
        let budget = Purpose::Reset.budget(&self.settings.limits);
        let spent = self.core.memory.spent(Purpose::Reset);
        (spent.used(budget, now), budget.times, spent.free_in(budget, now))
    }
}
