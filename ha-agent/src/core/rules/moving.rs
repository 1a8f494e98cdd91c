//! Live migration away from this host, with the switch `live_migration`: from the decision that the VM is to leave to
//! its end.
//!
//! ```text
//!  hand-over, maintenance, request ──▶ EngineMigratingAway ──destination is ready──▶ send ──▶ in progress ──▶ EngineDown
//!         │ it cannot be moved           │ no answer in time │                                   │ failed
//!         ▼                              ▼                   ▼                                   ▼
//!   EngineStop (a request: refused)   EngineStop (a request: EngineUp)                        EngineUp
//! ```
//! What the destination does is in [`receive`](super::receive). Nothing here touches the lease: the two hypervisors hand
//! it over, and only one of them can have it.

use metadata_format::{HostId, VmState};

use super::{Act, Outcome, Step, To};
use crate::core::View;
use crate::core::input::{Action, ActionResult, Migrates, Migration, MigrationRequest};
use crate::core::liveness::Witness;
use crate::core::move_reason::{MoveReason, NoMigration};
use crate::core::moves::{self, Cause, Moving};
use crate::core::reason::{HostName, Reason};
use crate::core::state::State;
use crate::core::state::Wait::{Delay, No};
use crate::core::time::Secs;

/// Seconds between two looks while a migration is under way: it ends at any moment, and people watch it.
const LOOK_EVERY: u64 = 2;
/// Seconds that a hypervisor has to say that a migration which it accepted is under way.
const BEGINS_WITHIN: u64 = 15;

/// Seconds that a hypervisor which knows the VM as down has to say how its migration ended.
const ARRIVES_WITHIN: u64 = 120;

fn moved(to: State, wait: super::Wait, reason: MoveReason) -> Outcome {
    To(to, wait, Reason::Move(reason))
}

impl Step<'_> {
    pub(super) fn now(&self) -> Secs {
        self.view.look.finished
    }

    fn end_move(&mut self, failure: Option<String>) {
        let now = self.now();
        self.moves.end(failure, now, &self.settings.limits);
    }

    /// The VM leaves for `to`: while it runs, or by a shutdown where that cannot be.
    pub(super) fn leaves(&mut self, to: HostName, cause: Cause, reason: Reason) -> Outcome {
        match self.no_migration(cause) {
            None => {
                self.notes.push(reason);
                self.begin(to, cause)
            }
            Some(why) => {
                // Without the switch nobody expects anything else.
                if why != NoMigration::SwitchedOff {
                    self.notes.push(Reason::Move(MoveReason::NotMigrated { why }));
                }
                To(State::EngineStop, Delay, reason)
            }
        }
    }

    fn begin(&mut self, to: HostName, cause: Cause) -> Outcome {
        self.asks(to.clone(), cause, Vec::new());
        moved(State::EngineMigratingAway, No, MoveReason::Begins { to })
    }

    /// The host `to` is asked to get ready; the others of `asked` did not.
    fn asks(&mut self, to: HostName, cause: Cause, asked: Vec<HostId>) {
        let since = self.now();
        self.moves.current = Some(Moving { to: Some(to), since, asked, cause, sent: None, down: None });
    }

    /// Why the VM cannot be moved now.
    fn no_migration(&self, cause: Cause) -> Option<NoMigration> {
        if !self.settings.policy.live_migration {
            return Some(NoMigration::SwitchedOff);
        }
        if let Migrates::Never { why } = &self.view.look.local.migrates {
            return Some(NoMigration::Adapter { why: why.clone() });
        }
        if let Some(why) = self.not_well(cause) {
            return Some(why);
        }
        // A person may try as often as it pleases.
        let failures = moves::failures(&self.settings.limits);
        let used = self.moves.failures.used(failures, self.now());
        (cause.request().is_none() && used >= failures.times)
            .then_some(NoMigration::FailedLately { times: used, window: failures.window })
    }

    /// A VM that stands still or ends cannot be moved; a sick one is not handed over, for a start may heal it.
    fn not_well(&self, cause: Cause) -> Option<NoMigration> {
        let local = &self.view.look.local;
        let runs = local.vm() == VmState::Up
            && local.engine.as_ref().is_some_and(|status| status.detail == "Up")
            && local.io_error_pause.is_none();
        let sick = cause == Cause::HandOver && self.health() != metadata_format::Health::Good;
        (!runs || sick).then(|| NoMigration::VmNotWell { detail: self.vm_detail() })
    }

    /// An operator's request: taken, refused or left to wait.
    pub(super) fn asked_to_move(&mut self) -> Option<Outcome> {
        let request = self.view.look.local.migration_request?;
        if self.moves.answered == Some(request.asked_at) {
            return None;
        }
        match self.core.state {
            // Soon over, or busy with an earlier one.
            State::StartState
            | State::ReinitializeFSM
            | State::UnknownLocalVmState
            | State::EngineStart
            | State::EngineMaybeAway
            | State::EngineMigratingAway
            | State::AgentStopped => return None,
            State::EngineStop | State::EngineForceStop => {
                self.refuse(request, NoMigration::BeingStopped);
                return None;
            }
            State::EngineStarting
            | State::EngineUp
            | State::EngineUpBadHealth
            | State::EngineDown
            | State::EngineUnexpectedlyDown
            | State::LocalMaintenance
            | State::GlobalMaintenance => {}
        }
        match self.view.look.local.vm() {
            // So is a migration that is under way.
            VmState::Up if matches!(self.view.look.local.migration, Some(Migration::InProgress { .. })) => {
                return None;
            }
            // It is about to be noticed.
            VmState::Up if matches!(self.core.state, State::EngineDown | State::EngineUnexpectedlyDown) => {
                return None;
            }
            VmState::Up => {}
            VmState::Unknown => return None,
            VmState::Down | VmState::DownUnexpected | VmState::DownMissing => {
                let host = self.best_engine_up().then(|| self.view.best_engine.host.clone());
                self.refuse(request, NoMigration::NotHere { host });
                return None;
            }
        }
        let cause = Cause::Request { asked_at: request.asked_at };
        if let Some(why) = self.no_migration(cause) {
            self.refuse(request, why);
            return None;
        }
        if self.view.witness != Witness::History {
            self.notes.push(Reason::Move(MoveReason::RequestWaits));
            return None;
        }
        match self.target_of(request) {
            Ok(to) => {
                self.notes.push(Reason::Move(MoveReason::RequestTaken { to: to.clone() }));
                Some(self.begin(to, cause))
            }
            Err(why) => {
                self.refuse(request, why);
                None
            }
        }
    }

    fn refuse(&mut self, request: MigrationRequest, why: NoMigration) {
        let to = request.to.map(|id| self.host_named(id));
        let now = self.now();
        self.moves.refuse(request.asked_at, to, why.to_string(), now);
        self.notes.push(Reason::Move(MoveReason::RequestRefused { why }));
    }

    fn target_of(&self, request: MigrationRequest) -> Result<HostName, NoMigration> {
        match request.to {
            None => self.targets().into_iter().next().map(|(host, _)| host).ok_or(NoMigration::NoFitHost),
            Some(id) if id == self.settings.host_id => Err(NoMigration::ToItself),
            Some(id) => self.unfit(id).map_or_else(|| Ok(self.host_named(id)), Err),
        }
    }

    /// Why that host cannot take the VM.
    fn unfit(&self, id: HostId) -> Option<NoMigration> {
        let Some(remote) = self.view.look.hosts.iter().find(|host| host.id == id) else {
            return Some(NoMigration::NoSuchHost { id: id.get() });
        };
        let Some(block) = &remote.block else { return Some(NoMigration::Unreadable { id: id.get() }) };
        let host = || View::host_name(id, &block.hostname);
        if !self.view.alive.contains(&id) {
            Some(NoMigration::NotAlive { host: host() })
        } else if block.score.0 == 0 {
            Some(NoMigration::NotFit { host: host() })
        } else {
            None
        }
    }

    /// The host with that id, by its name if its block tells that.
    pub(super) fn host_named(&self, id: HostId) -> HostName {
        let block =
            self.view.look.hosts.iter().find(|host| host.id == id).and_then(|host| host.block.as_ref());
        View::host_name(id, block.map_or("unnamed", |block| block.hostname.as_str()))
    }

    /// The VM leaves although this agent did not ask for it, or no longer knows that it did.
    pub(super) fn found_moving(&mut self) -> Option<Outcome> {
        let leaves = matches!(self.view.look.local.migration, Some(Migration::InProgress { .. }));
        if !(leaves && self.settings.policy.live_migration) {
            return None;
        }
        let local = &self.view.look.local;
        let id = self.moves.before.or(local.announced);
        let asked = local.migration_request.filter(|request| {
            self.moves.answered != Some(request.asked_at) && (request.to.is_none() || request.to == id)
        });
        // Then it is what the agent began before it was started again.
        let cause = asked.map_or(Cause::Found, |request| Cause::Request { asked_at: request.asked_at });
        let to = id.map(|id| self.host_named(id));
        let now = self.now();
        self.moves.current =
            Some(Moving { to, since: now, asked: Vec::new(), cause, sent: Some(now), down: None });
        Some(moved(State::EngineMigratingAway, No, MoveReason::Found))
    }

    /// What was begun is brought to its end in global maintenance too, and a person may ask for it there.
    pub(super) fn moves_in_maintenance(&self) -> bool {
        self.core.state == State::EngineMigratingAway
            && self
                .moves
                .current
                .as_ref()
                .is_some_and(|moving| moving.sent.is_some() || moving.cause.request().is_some())
    }

    /// The state has lasted for longer than a migration may take. Only that of a VM that is here can be called off.
    pub(super) fn migration_too_slow(&self, limit: u64) -> Option<Outcome> {
        let running = matches!(self.view.look.local.migration, Some(Migration::InProgress { .. }));
        let here = self.view.look.local.vm() == VmState::Up;
        (running && here && self.settings.policy.live_migration)
            .then_some(Act(Action::CancelMigration, Reason::Move(MoveReason::TooSlow { limit })))
    }

    pub(super) fn migrating_away(&mut self) -> Outcome {
        let migration = self.view.look.local.migration.clone();
        if !self.settings.policy.live_migration {
            return match migration {
                Some(Migration::Finished) => {
                    moved(State::EngineDown, Delay, MoveReason::Finished { to: None })
                }
                Some(Migration::Failed { detail }) => {
                    moved(State::ReinitializeFSM, No, MoveReason::Failed { detail })
                }
                None => moved(State::ReinitializeFSM, No, MoveReason::NotMigrating),
                Some(Migration::InProgress { .. } | Migration::Unknown) => {
                    moved(State::EngineMigratingAway, Delay, MoveReason::GoesOn { to: None, percent: None })
                }
            };
        }
        self.note_down();
        let Some(moving) = self.moves.current.clone() else {
            return moved(State::ReinitializeFSM, No, MoveReason::NotMigrating);
        };
        match (moving.sent, migration) {
            // Whatever the hypervisor says of a migration, a VM that is gone is not on its way any more. One that ended in
            // order has most likely arrived, and its hypervisor is about to say so.
            (Some(sent), Some(Migration::InProgress { .. })) if self.is_gone(&moving) => {
                self.not_seen(&moving, sent)
            }
            (_, Some(Migration::InProgress { transferred, remaining })) => {
                self.in_progress(&moving, transferred, remaining)
            }
            (Some(_), Some(Migration::Finished)) => {
                self.end_move(None);
                moved(State::EngineDown, Delay, MoveReason::Finished { to: moving.to })
            }
            (Some(_), Some(Migration::Failed { detail })) => self.move_failed(detail),
            (Some(_), Some(Migration::Unknown)) => self.goes_on(&moving, None),
            (Some(sent), None) => self.not_seen(&moving, sent),
            (None, _) => self.not_sent(&moving),
        }
    }

    /// Takes note of since when the VM has been down here.
    fn note_down(&mut self) {
        let now = self.now();
        let is_down = self.view.look.local.vm().is_down();
        if let Some(moving) = &mut self.moves.current {
            moving.down = is_down.then(|| moving.down.unwrap_or(now));
        }
    }

    /// The VM that was sent is here no more, and did not arrive elsewhere either.
    fn is_gone(&self, moving: &Moving) -> bool {
        match self.view.look.local.vm() {
            VmState::DownUnexpected => true,
            VmState::Down | VmState::DownMissing => {
                moving.down.is_some_and(|since| self.now().since(since) > ARRIVES_WITHIN)
            }
            VmState::Up | VmState::Unknown => false,
        }
    }

    fn goes_on(&mut self, moving: &Moving, percent: Option<u64>) -> Outcome {
        self.again_in = Some(LOOK_EVERY);
        let to = moving.to.clone();
        moved(State::EngineMigratingAway, Delay, MoveReason::GoesOn { to, percent })
    }

    fn in_progress(&mut self, moving: &Moving, transferred: u64, remaining: u64) -> Outcome {
        let now = self.now();
        if let Some(current) = &mut self.moves.current {
            current.sent = current.sent.or(Some(now));
        }
        if let Some(to) = &moving.to
            && self.view.witness == Witness::History
            && !self.view.alive.contains(&to.id)
            && self.view.look.local.vm() == VmState::Up
        {
            let reason = MoveReason::TargetDied { to: to.clone() };
            return Act(Action::CancelMigration, Reason::Move(reason));
        }
        let percent = transferred.saturating_mul(100).checked_div(transferred.saturating_add(remaining));
        self.goes_on(moving, percent)
    }

    /// The guest goes on here.
    fn move_failed(&mut self, detail: String) -> Outcome {
        self.end_move(Some(detail.clone()));
        moved(State::EngineUp, Delay, MoveReason::Failed { detail })
    }

    /// The hypervisor, which was told to send the VM, knows of no migration.
    fn not_seen(&mut self, moving: &Moving, sent: Secs) -> Outcome {
        let detail = self.vm_detail();
        match self.view.look.local.vm() {
            VmState::Up if self.now().since(sent) < BEGINS_WITHIN => self.goes_on(moving, None),
            VmState::Up | VmState::Unknown => self.move_failed(NoMigration::Vanished.to_string()),
            VmState::Down => {
                self.end_move(Some(detail.clone()));
                To(State::EngineDown, Delay, Reason::VmDown { detail })
            }
            VmState::DownUnexpected => {
                self.end_move(Some(detail.clone()));
                self.died(detail)
            }
            VmState::DownMissing => {
                self.end_move(Some(detail.clone()));
                To(State::EngineMaybeAway, No, Reason::VmVanished { detail })
            }
        }
    }

    /// The destination was asked to get ready.
    fn not_sent(&mut self, moving: &Moving) -> Outcome {
        let Some(to) = moving.to.clone() else { return self.move_failed(NoMigration::Vanished.to_string()) };
        if let Some(why) = self.not_wanted(moving) {
            return self.given_up(why);
        }
        if let Some(why) = self.unfit(to.id) {
            return self.goes_elsewhere(moving, &why).unwrap_or_else(|| self.given_up(why));
        }
        let ready = match &self.view.look.local.migrates {
            Migrates::Arranged => true,
            Migrates::Prepared => self.ready_at(to.id).is_some(),
            Migrates::Never { why } => return self.move_failed(why.clone()),
        };
        if ready {
            return Act(Action::SendVm { to: to.id }, Reason::Move(MoveReason::Sends { to }));
        }
        let secs = self.now().since(moving.since);
        let limit = self.settings.limits.migration_answer;
        if secs <= limit {
            self.again_in = Some(LOOK_EVERY);
            return moved(State::EngineMigratingAway, Delay, MoveReason::Asked { to, secs, limit });
        }
        let why = NoMigration::Unanswered { host: to, secs: limit };
        if let Some(outcome) = self.goes_elsewhere(moving, &why) {
            return outcome;
        }
        if let Some(why) = self.new_host_of(moving) {
            return self.given_up(why);
        }
        self.end_move(Some(why.to_string()));
        let state = if moving.cause.request().is_some() { State::EngineUp } else { State::EngineStop };
        moved(state, Delay, MoveReason::GivenUp { why })
    }

    /// It stays. Nothing was tried: this is no failure of the hypervisors.
    fn given_up(&mut self, why: NoMigration) -> Outcome {
        let failures = self.moves.failures.clone();
        self.end_move(Some(why.to_string()));
        self.moves.failures = failures;
        moved(State::EngineUp, Delay, MoveReason::GivenUp { why })
    }

    /// In maintenance that nobody forced: one of the hosts that were asked has been alive for less time than it takes to
    /// learn who is alive and to answer then. It may answer soon, which is worth more than a start there.
    fn new_host_of(&self, moving: &Moving) -> Option<NoMigration> {
        if moving.cause != Cause::Maintenance || self.view.look.local.force_maintenance {
            return None;
        }
        let (settled, limits) = (&self.core.memory.settled, &self.settings.limits);
        let asked = moving.asked.iter().copied().chain(moving.to.as_ref().map(|to| to.id));
        let needed = limits.alive + limits.migration_answer;
        let new = asked.filter_map(|id| Some((settled.settles_in(id, self.now(), needed)?, id)));
        let (left, id) = new.min()?;
        Some(NoMigration::UnansweredByNew { host: self.host_named(id), left })
    }

    /// The host that was asked does not take it: the next one is.
    fn goes_elsewhere(&mut self, moving: &Moving, why: &NoMigration) -> Option<Outcome> {
        let to = self.next_target(moving)?;
        let mut asked = moving.asked.clone();
        asked.extend(moving.to.as_ref().map(|to| to.id));
        self.asks(to.clone(), moving.cause, asked);
        Some(moved(State::EngineMigratingAway, No, MoveReason::Elsewhere { why: why.clone(), to }))
    }

    /// Why the VM should not be sent any more, before it is.
    fn not_wanted(&mut self, moving: &Moving) -> Option<NoMigration> {
        let wanted = match moving.cause {
            Cause::HandOver => self.hand_over_due(&[]).is_some(),
            Cause::Maintenance => self.view.look.local.maintenance,
            Cause::Request { .. } | Cause::Found => true,
        };
        if wanted { self.not_well(moving.cause) } else { Some(NoMigration::NotNeeded) }
    }

    /// Where that host waits for the VM from here.
    fn ready_at(&self, id: HostId) -> Option<&str> {
        self.view.ready_at(id, self.settings.host_id)
    }

    /// Nothing of a migration is left when its state is.
    pub(super) fn forget_moves(&mut self, to: State) {
        if !matches!(to, State::StartState | State::ReinitializeFSM | State::EngineStarting) {
            self.moves.before = None;
        }
        if to == State::EngineMigratingAway || to == State::UnknownLocalVmState {
            return;
        }
        if self.moves.current.as_ref().is_some_and(|moving| moving.cause.request().is_some()) {
            // Whoever asked is told.
            self.end_move(Some(NoMigration::NotNeeded.to_string()));
        }
        self.moves.current = None;
    }
}

impl View {
    /// Where the host `id` waits for the VM from `source`.
    pub fn ready_at(&self, id: HostId, source: HostId) -> Option<&str> {
        let block = self.look.hosts.iter().find(|host| host.id == id)?.block.as_ref()?;
        block.ready.as_ref().filter(|ready| ready.from == source).map(|ready| ready.uri.as_str())
    }
}

/// Where the result of a migration's action leads.
pub(super) fn after_move(from: State, action: Action, result: ActionResult) -> Outcome {
    let failure = match result {
        ActionResult::Done | ActionResult::Ready { .. } => None,
        ActionResult::Refused { detail } | ActionResult::Failed { detail } => Some(detail),
        ActionResult::Waits { .. } => return To(State::ReinitializeFSM, Delay, Reason::ResultLost),
    };
    match (action, failure) {
        (Action::SendVm { .. }, None) => moved(State::EngineMigratingAway, Delay, MoveReason::Sent),
        (Action::SendVm { .. }, Some(detail)) => moved(State::EngineUp, Delay, MoveReason::Failed { detail }),
        (Action::CancelMigration, None) => moved(from, Delay, MoveReason::Cancelled),
        (Action::CancelMigration, Some(detail)) => moved(from, Delay, MoveReason::CancelFailed { detail }),
        (Action::ReceiveVm { .. }, None) => moved(from, Delay, MoveReason::Ready),
        (Action::ReceiveVm { .. }, Some(detail)) => moved(from, Delay, MoveReason::ReadyFailed { detail }),
        (Action::EndArrival, None) => moved(from, Delay, MoveReason::ArrivalEnded),
        (Action::EndArrival, Some(detail)) => moved(from, Delay, MoveReason::ArrivalEndFailed { detail }),
        (Action::StartVm | Action::StopVm | Action::ForceStopVm | Action::ResumeVm, _) => {
            To(State::ReinitializeFSM, Delay, Reason::ResultLost)
        }
    }
}
