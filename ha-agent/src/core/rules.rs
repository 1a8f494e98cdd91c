//! The transition rules: one exhaustive match over the states.
//!
//! Order of a step: the state's timer, its guards, then its own rules, the first that holds. Pure.

mod paused;

use metadata_format::{Health, VmState};

use super::input::{Action, ActionResult};
use super::liveness::Witness;
use super::memory::Purpose;
use super::moves::{Cause, Moves};
use super::policy::Settings;
use super::reason::{HostName, NoFooting, Reason};
use super::state::{Guard, State, Wait};
use super::time::Secs;
use super::{Core, View};

mod hand_over;
mod moving;
mod receive;
mod restart;
mod sick;
mod target;
mod turn;

/// What a rule says.
pub(super) enum Outcome {
    /// Go to (or stay in) a state.
    To(State, Wait, Reason),
    /// Do something first; [`after_action`] tells where to go then.
    Act(Action, Reason),
}

use Outcome::{Act, To};
use Wait::{Delay, No};

/// A rule's view of the world.
pub(super) struct Step<'a> {
    core: &'a Core,
    view: &'a View,
    settings: &'a Settings,
    /// What else is worth saying, before the rule's own reason.
    notes: Vec<Reason>,
    /// These become the ruling's.
    again_in: Option<u64>,
    due: Option<Secs>,
    spend: Option<Purpose>,
    moves: Moves,
}

/// What a step says.
pub(super) struct Ruling {
    /// What to do.
    pub outcome: Outcome,
    /// Further reasons beside the outcome's own.
    pub notes: Vec<Reason>,
    /// Seconds after which the next step is wanted, if sooner than usual.
    pub again_in: Option<u64>,
    /// Since when this host has been due to start the VM; `None` when it is not.
    pub due: Option<Secs>,
    /// The budget that is drawn on.
    pub spend: Option<Purpose>,
    /// What is remembered of live migrations from now on.
    pub moves: Moves,
}

/// What a timer that fired leads to.
enum Fired {
    /// Where the state's timer says.
    Plain,
    /// Nowhere: guards and rules decide.
    Rules,
    /// Elsewhere.
    Instead(Outcome),
}

/// Takes one step: timer, guards, rules.
pub(super) fn step(core: &Core, view: &View, settings: &Settings) -> Ruling {
    let moves = core.memory.moves.clone();
    let mut step =
        Step { core, view, settings, notes: Vec::new(), again_in: None, due: None, spend: None, moves };
    let outcome = (step.asked_to_move())
        .or_else(|| step.receives())
        .or_else(|| step.timer())
        .or_else(|| step.guards())
        .unwrap_or_else(|| step.rules());
    if let To(to, ..) = &outcome {
        step.forget_moves(*to);
    }
    let Step { notes, again_in, due, spend, moves, .. } = step;
    Ruling { outcome, notes, again_in, due, spend, moves }
}

impl Step<'_> {
    fn timer(&mut self) -> Option<Outcome> {
        let state = self.core.state;
        let timer = state.timer(&self.settings.limits)?;
        let since = self.core.timer?;
        if self.core.waits_for_storage(self.settings.policy) {
            return None;
        }
        if since.plus(timer.limit) >= self.view.look.finished {
            return None;
        }
        match self.fired(timer.limit) {
            Fired::Plain => {
                let reason = Reason::TimerFired { state, limit: timer.limit };
                Some(To(timer.to, timer.wait, reason))
            }
            Fired::Rules => None,
            Fired::Instead(outcome) => Some(outcome),
        }
    }

    /// What the policy's switches make of a timer that fired.
    fn fired(&mut self, limit: u64) -> Fired {
        match self.core.state {
            State::EngineStarting | State::EngineUpBadHealth => self.sick_timer(limit),
            State::EngineMaybeAway => match self.view.look.local.vm() {
                VmState::DownUnexpected | VmState::DownMissing => {
                    let detail = self.vm_detail();
                    self.restart_here(&detail).map_or(Fired::Plain, Fired::Instead)
                }
                VmState::Up | VmState::Down | VmState::Unknown => Fired::Plain,
            },
            State::EngineMigratingAway => self.migration_too_slow(limit).map_or(Fired::Rules, Fired::Instead),
            State::StartState
            | State::ReinitializeFSM
            | State::EngineDown
            | State::EngineStart
            | State::EngineUp
            | State::EngineStop
            | State::EngineForceStop
            | State::EngineUnexpectedlyDown
            | State::UnknownLocalVmState
            | State::LocalMaintenance
            | State::GlobalMaintenance
            | State::AgentStopped => Fired::Plain,
        }
    }

    fn guards(&self) -> Option<Outcome> {
        self.core.state.guards().iter().find_map(|guard| match guard {
            Guard::Global => (self.view.look.global_maintenance && !self.moves_in_maintenance())
                .then_some(To(State::GlobalMaintenance, Delay, Reason::GlobalMaintenance)),
            Guard::Unknown => (self.view.look.local.vm() == VmState::Unknown).then(|| {
                let reason = Reason::LocalVmUnknown { detail: self.vm_detail() };
                To(State::UnknownLocalVmState, Delay, reason)
            }),
            Guard::Local => {
                self.local_guard().then_some(To(State::LocalMaintenance, Delay, Reason::LocalMaintenance))
            }
        })
    }

    /// Local maintenance as a guard. With the switch it waits until the VM is known to be away.
    fn local_guard(&self) -> bool {
        let local = &self.view.look.local;
        let vm_first =
            self.settings.policy.local_maintenance_moves_vm && self.core.state != State::LocalMaintenance;
        local.maintenance && (!vm_first || local.vm().is_down())
    }

    fn rules(&mut self) -> Outcome {
        match self.core.state {
            State::StartState => To(State::ReinitializeFSM, Delay, Reason::AgentStarted),
            State::ReinitializeFSM => match self.view.look.local.vm() {
                VmState::Up => To(State::EngineStarting, No, Reason::VmRunsHere),
                VmState::Down | VmState::DownUnexpected | VmState::DownMissing | VmState::Unknown => {
                    To(State::EngineDown, Delay, Reason::NoVmHere)
                }
            },
            State::EngineDown => self.engine_down(),
            State::EngineStart => {
                self.due = self.core.memory.due;
                Act(Action::StartVm, Reason::Starting)
            }
            State::EngineStarting => self.paused().unwrap_or_else(|| self.engine_starting()),
            State::EngineUp | State::EngineUpBadHealth => self.paused().unwrap_or_else(|| self.engine_up()),
            State::EngineStop => self.engine_stop(),
            State::EngineForceStop => Act(Action::ForceStopVm, Reason::Ending),
            State::EngineMaybeAway => self.engine_maybe_away(),
            State::EngineUnexpectedlyDown => {
                if self.best_engine_up() && self.best_engine_is_ours() {
                    To(State::EngineUp, Delay, Reason::VmBack)
                } else {
                    self.resting()
                }
            }
            State::UnknownLocalVmState
                if self.settings.policy.live_migration && self.moves.current.is_some() =>
            {
                To(State::EngineMigratingAway, No, Reason::LocalVmKnown)
            }
            State::UnknownLocalVmState => To(State::ReinitializeFSM, No, Reason::LocalVmKnown),
            State::LocalMaintenance => To(State::ReinitializeFSM, Delay, Reason::LocalMaintenanceEnded),
            State::GlobalMaintenance => To(State::ReinitializeFSM, Delay, Reason::GlobalMaintenanceEnded),
            State::EngineMigratingAway => self.migrating_away(),
            State::AgentStopped => To(State::AgentStopped, Delay, Reason::AgentStopping),
        }
    }

    fn engine_down(&mut self) -> Outcome {
        if self.best_engine_up() {
            return if self.best_engine_is_ours() {
                // Not straight to EngineUp: an engine that is still booting would count as unhealthy.
                To(State::EngineStarting, No, Reason::VmRunsHere)
            } else {
                let reason = Reason::EngineElsewhere { host: self.view.best_engine.host.clone() };
                To(State::EngineDown, Delay, reason)
            };
        }
        let stay = |reason| To(State::EngineDown, Delay, reason);
        let needed = self.settings.limits.alive;
        let secs = self.core.history.span();
        let look_began = self.view.look.started;
        let too_early = self.settings.policy.start_waits_for_liveness
            && !self.core.history.tells_liveness(look_began, needed);
        if (secs < needed || too_early) && !self.only_vouched_for() {
            if self.settings.policy.start_waits_for_liveness {
                // At the very second, so that hosts that booted together take their turns in order.
                self.again_in = Some((needed + 1).saturating_sub(secs).max(1));
            }
            return stay(Reason::HistoryTooShort { secs, needed });
        }
        if let Some(outcome) = self.on_its_way() {
            return outcome;
        }
        // The score that the others saw last. Equal scores may both try: the lease lets one succeed.
        let score = self.core.score.total;
        if let Some((host, theirs)) = self.view.best_score.clone().filter(|(_, theirs)| *theirs > score) {
            return stay(Reason::BetterHost { score, host, theirs });
        }
        if let Some(cause) = self.no_footing() {
            return stay(Reason::StartWithheld { cause });
        }
        self.take_turn()
    }

    fn no_footing(&self) -> Option<NoFooting> {
        if !self.settings.policy.start_needs_footing {
            return None;
        }
        let look = &self.view.look;
        let limit = self.settings.limits.alive;
        let silent = look.footing.last_acknowledged.map(|at| look.finished.since(at));
        if let Some(secs) = look.footing.storage_stuck {
            Some(NoFooting::StorageStuck { secs })
        } else if look.footing.host_lease == Some(false) {
            Some(NoFooting::HostLeaseNotHeld)
        } else {
            silent.filter(|secs| *secs > limit).map(|secs| NoFooting::BlockNotWritten { secs, limit })
        }
    }

    fn engine_starting(&mut self) -> Outcome {
        match self.view.look.local.vm() {
            VmState::Up => {
                if let Some(outcome) = self.found_moving().or_else(|| self.maintenance_moves_vm()) {
                    outcome
                } else if self.health() == Health::Good {
                    To(State::EngineUp, Delay, Reason::EngineHealthy)
                } else {
                    To(State::EngineStarting, Delay, self.unhealthy(self.settings.limits.starting))
                }
            }
            VmState::Down => To(State::EngineForceStop, No, Reason::TakenOver { detail: self.vm_detail() }),
            VmState::DownUnexpected => {
                let detail = self.vm_detail();
                let restart = self.restart_here(&detail);
                restart.unwrap_or(To(State::EngineMaybeAway, No, Reason::VmVanished { detail }))
            }
            VmState::DownMissing | VmState::Unknown => {
                To(State::EngineMaybeAway, No, Reason::VmVanished { detail: self.vm_detail() })
            }
        }
    }

    fn engine_up(&mut self) -> Outcome {
        let detail = self.vm_detail();
        match self.view.look.local.vm() {
            VmState::Down => return To(State::EngineMaybeAway, Delay, Reason::VmDown { detail }),
            VmState::DownUnexpected => return self.died(detail),
            VmState::Up | VmState::DownMissing | VmState::Unknown => {}
        }
        if let Some(outcome) = self.found_moving() {
            return outcome;
        }
        if !self.best_engine_up() {
            return To(State::EngineMaybeAway, No, Reason::VmVanished { detail });
        }
        if !self.best_engine_is_ours() && !self.only_vouched_for() {
            let reason = Reason::VmAlsoRunsOn { host: self.view.best_engine.host.clone() };
            return To(State::EngineStop, Delay, reason);
        }
        if let Some(outcome) = self.maintenance_moves_vm() {
            return outcome;
        }
        if let Some(outcome) = self.hand_over() {
            return outcome;
        }
        self.note_bad_samples();
        if self.health() == Health::Bad {
            To(State::EngineUpBadHealth, Delay, self.unhealthy(self.settings.limits.bad_health))
        } else {
            To(State::EngineUp, Delay, Reason::EngineRuns)
        }
    }

    /// With the switch: the VM leaves a host in local maintenance as soon as another host can take it.
    fn maintenance_moves_vm(&mut self) -> Option<Outcome> {
        if !(self.settings.policy.local_maintenance_moves_vm && self.view.look.local.maintenance) {
            return None;
        }
        match self.maintenance_target() {
            Some(to) => {
                let reason = Reason::MaintenanceMovesVm { to: to.clone() };
                Some(self.leaves(to, Cause::Maintenance, reason))
            }
            None if self.view.look.local.force_maintenance => {
                Some(To(State::EngineStop, Delay, Reason::MaintenanceForced))
            }
            None => {
                self.notes.push(Reason::MaintenanceWaits);
                None
            }
        }
    }

    /// The host that takes the VM from one in maintenance.
    fn maintenance_target(&self) -> Option<HostName> {
        if self.only_vouched_for() {
            return None;
        }
        self.targets().into_iter().next().map(|(host, _)| host)
    }

    /// With the switch: local maintenance asks for the VM to leave, and it can.
    fn maintenance_stops_vm(&self) -> bool {
        let local = &self.view.look.local;
        self.settings.policy.local_maintenance_moves_vm
            && local.maintenance
            && (local.force_maintenance || self.maintenance_target().is_some())
    }

    fn engine_stop(&mut self) -> Outcome {
        let local = &self.view.look.local;
        if local.vm() != VmState::Up {
            return To(State::EngineDown, Delay, Reason::VmStopped);
        }
        if local.engine.as_ref().is_some_and(|status| status.detail == "Paused") {
            return To(State::EngineForceStop, No, Reason::VmPaused);
        }
        if self.core.timer.is_none() && self.cause_is_gone() {
            return To(State::EngineUp, Delay, Reason::StopNotNeeded);
        }
        match self.core.timer {
            None => Act(Action::StopVm, Reason::ShuttingDown),
            Some(since) => {
                let secs = self.view.look.finished.since(since);
                let reason = Reason::ShutdownGoesOn { secs, limit: self.settings.limits.stop };
                To(State::EngineStop, Delay, reason)
            }
        }
    }

    /// With the switch: nothing asks any more for the stop that the step before decided on.
    fn cause_is_gone(&mut self) -> bool {
        self.settings.policy.stop_needs_cause
            && self.health() == Health::Good
            && (self.best_engine_is_ours() || self.only_vouched_for())
            && !self.maintenance_stops_vm()
            && self.hand_over_due(&[]).is_none()
    }

    fn engine_maybe_away(&mut self) -> Outcome {
        let detail = self.vm_detail();
        match self.view.look.local.vm() {
            VmState::Down => To(State::EngineDown, Delay, Reason::VmDown { detail }),
            VmState::DownUnexpected => self.died(detail),
            VmState::Up => To(State::EngineUp, Delay, Reason::VmBack),
            VmState::DownMissing | VmState::Unknown if self.best_engine_up() => {
                let reason = Reason::EngineElsewhere { host: self.view.best_engine.host.clone() };
                To(State::EngineDown, Delay, reason)
            }
            VmState::DownMissing | VmState::Unknown => {
                To(State::EngineMaybeAway, Delay, Reason::LookingElsewhere { left: self.time_left() })
            }
        }
    }

    /// The other hosts are alive by the lock manager's word only. Their agents may not run and their blocks be old:
    /// enough to wait for them with a start, not to end a VM that runs.
    fn only_vouched_for(&self) -> bool {
        self.view.witness == Witness::LockManager
    }

    /// The VM ended without being asked to.
    fn died(&mut self, detail: String) -> Outcome {
        let restart = self.restart_here(&detail);
        restart.unwrap_or(To(State::EngineUnexpectedlyDown, Delay, Reason::VmDiedUnexpectedly { detail }))
    }

    fn best_engine_up(&self) -> bool {
        self.view.best_engine.engine.as_ref().is_some_and(|status| status.vm == VmState::Up)
    }

    fn best_engine_is_ours(&self) -> bool {
        self.view.best_engine.host.id == self.settings.host_id
    }

    fn health(&self) -> Health {
        self.view.look.local.engine.as_ref().map_or(Health::Unknown, |status| status.health)
    }

    fn vm_detail(&self) -> String {
        match &self.view.look.local.engine {
            Some(status) => status.reason.clone().unwrap_or_else(|| status.detail.clone()),
            None => "no result from the engine-health monitor".to_owned(),
        }
    }

    /// Seconds until this state's timer fires, if it runs.
    fn time_left(&self) -> Option<u64> {
        let timer = self.core.state.timer(&self.settings.limits)?;
        Some(self.core.timer?.plus(timer.limit).since(self.view.look.finished))
    }
}

/// Where an action's result leads. The action was asked for by the state that stands beside it here.
pub(super) fn after_action(from: State, action: Action, result: ActionResult, failures: u32) -> Outcome {
    match (action, result) {
        (Action::ResumeVm, result) => paused::after_resume(from, result),
        (
            Action::SendVm { .. } | Action::ReceiveVm { .. } | Action::EndArrival | Action::CancelMigration,
            result,
        ) => moving::after_move(from, action, result),
        (Action::StartVm, ActionResult::Done) => To(State::EngineStarting, Delay, Reason::Started),
        (Action::StartVm, ActionResult::Failed { detail }) => {
            To(State::EngineDown, Delay, Reason::StartFailed { failures, detail })
        }
        (Action::StartVm, ActionResult::Refused { detail }) => {
            To(State::EngineDown, Delay, Reason::StartRefused { detail })
        }
        (Action::StartVm, ActionResult::Waits { owner }) => {
            To(State::EngineDown, Delay, Reason::LeaseWaits { owner })
        }
        // Only a start waits for a lease, and only a destination gets ready: taken for an action whose outcome is not known.
        (Action::StopVm | Action::ForceStopVm, ActionResult::Waits { .. })
        | (Action::StartVm | Action::StopVm | Action::ForceStopVm, ActionResult::Ready { .. }) => {
            To(State::ReinitializeFSM, Delay, Reason::ResultLost)
        }
        (Action::StopVm, ActionResult::Done) => To(State::EngineStop, Delay, Reason::ShutdownAsked),
        (Action::StopVm, ActionResult::Refused { detail } | ActionResult::Failed { detail }) => {
            To(State::ReinitializeFSM, Delay, Reason::ShutdownFailed { detail })
        }
        (Action::ForceStopVm, ActionResult::Done) => To(State::EngineDown, Delay, Reason::Ended),
        (Action::ForceStopVm, ActionResult::Refused { detail } | ActionResult::Failed { detail }) => {
            To(State::ReinitializeFSM, Delay, Reason::EndFailed { detail })
        }
    }
}

impl View {
    pub(super) fn host_name(id: metadata_format::HostId, name: &str) -> HostName {
        HostName { id, name: name.to_owned() }
    }
}
