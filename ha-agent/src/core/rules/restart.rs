//! `local_restart`: a VM that died here is started here again, when nobody could do it better.
//!
//! A crash leaves the VM's lease free at once and this host fit, so no other host has to be waited for. Beyond the
//! budget the host itself is suspect: then the others come first, and without others it only pauses.

use super::{Outcome, Step, To};
use crate::core::memory::Purpose;
use crate::core::reason::Reason;
use crate::core::score::Factor;
use crate::core::state::State;
use crate::core::state::Wait::{Delay, No};

impl Step<'_> {
    /// The VM died here. Where that leads, when it is to be started here at once; otherwise the notes say why not.
    pub(super) fn restart_here(&mut self, detail: &str) -> Option<Outcome> {
        if !self.settings.policy.local_restart {
            return None;
        }
        if let Some(reason) = self.start_barred() {
            self.notes.push(reason);
            return None;
        }
        let now = self.view.look.finished;
        // What the monitors say now; only the memory was still measured with the VM in it.
        let sheet = self.core.sheet(State::EngineDown, &self.view.look.local, self.settings);
        let score = sheet.leaving_out(Factor::is_memory);
        if let Some((host, theirs)) = self.view.best_score.clone().filter(|(_, theirs)| *theirs > score) {
            self.notes.push(Reason::BetterHost { score, host, theirs });
            return None;
        }
        let budget = Purpose::Restart.budget(&self.settings.limits);
        let used = self.core.memory.spent(Purpose::Restart).used(budget, now);
        if used >= budget.times {
            self.notes.push(Reason::RestartBudgetUsed { times: budget.times, window: budget.window });
            return None;
        }
        self.spend = Some(Purpose::Restart);
        let reason = Reason::RestartsHere {
            detail: detail.to_owned(),
            number: used.saturating_add(1),
            times: budget.times,
            window: budget.window,
        };
        Some(To(State::EngineStart, No, reason))
    }

    /// The VM died here and other hosts come first. With the switch a host that nobody can stand in for only pauses.
    pub(super) fn resting(&mut self) -> Outcome {
        let stay = |reason| To(State::EngineUnexpectedlyDown, Delay, reason);
        let resting = Reason::Resting { left: self.time_left() };
        if !self.settings.policy.local_restart || self.view.best_score.is_some() {
            return stay(resting);
        }
        if let Some(reason) = self.start_barred() {
            self.notes.push(reason);
            return stay(resting);
        }
        let pause = self.settings.limits.restart_pause;
        let rested = self.core.timer.map_or(0, |since| self.view.look.finished.since(since));
        match pause.saturating_sub(rested) {
            0 => To(State::EngineStart, No, Reason::RestartsAlone { pause }),
            left => {
                self.again_in = Some(left);
                stay(Reason::PausesAlone { left })
            }
        }
    }

    /// What forbids a start here beside the order of the hosts.
    fn start_barred(&self) -> Option<Reason> {
        let look = &self.view.look;
        let needed = self.settings.limits.alive;
        if look.global_maintenance {
            Some(Reason::GlobalMaintenance)
        } else if look.local.maintenance {
            Some(Reason::LocalMaintenance)
        } else if self.best_engine_up() {
            Some(Reason::EngineElsewhere { host: self.view.best_engine.host.clone() })
        } else if self.only_vouched_for() || self.core.history.tells_liveness(look.started, needed) {
            self.no_footing().map(|cause| Reason::StartWithheld { cause })
        } else {
            Some(Reason::HistoryTooShort { secs: self.core.history.span(), needed })
        }
    }
}
