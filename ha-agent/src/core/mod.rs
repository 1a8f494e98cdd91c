//! The decision core: given what was, and what is seen now, what to do and why.
//!
//! [`decide`] is a function: the state and an input go in, the next state and a [`Decision`] come out. It
//! touches nothing: no I/O, no clock (time is inside the observation), no locks, no randomness. The driver
//! (`agent`), `--replay` and the simulator all run this same code.
//!
//! A step starts with a look. When the decision says [`Then::Act`], the caller does the action and feeds its
//! result with [`Input::Done`]; only then the step is over and the state has changed.

mod budget;
mod debounce;
pub mod fencing;
pub mod input;
pub mod liveness;
mod memory;
mod move_reason;
mod moves;
pub mod policy;
pub mod publish;
pub mod reason;
pub mod rebase;
mod rules;
pub mod score;
mod settled;
pub mod state;
pub mod time;

use metadata_format::{EngineStatus, HostId, Score};

pub use input::{
    Action, ActionResult, Footing, Input, LeaseOwner, Local, Migrates, Migration, MigrationRequest,
    Observation, OwnerLife, PausedLease, Ready, RemoteBlock, RemoteHost,
};
pub use liveness::{History, Witness};
pub use memory::Memory;
pub use move_reason::{MoveReason, NoMigration};
pub use moves::{Moved, Moves, Moving};
pub use policy::{Limits, Policy, Settings, SickEngine};
pub use publish::StateMetadata;
pub use reason::{HostName, NoFooting, Reason};
use rules::Outcome;
use score::Factor;
pub use score::{Profile, ScoreSheet, Weights};
pub use state::{State, Wait};
pub use time::Secs;

/// Seconds from the decision that the VM is to leave this host to the look at its cause that `stop_needs_cause` asks for:
/// time for what changes at the same moment, and no more. A sick engine has the whole loop, in which it is asked anew.
const STOP_LOOK: u64 = 1;

/// Everything that the core remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct Core {
    /// The state.
    pub state: State,
    /// When the state's timer started; `None` while none runs.
    pub timer: Option<Secs>,
    /// Failed starts.
    pub retries: Retries,
    /// Tries to let the VM go on that an I/O error paused; `None` when it was not so paused at the last step.
    pub resumes: Option<Retries>,
    /// The past.
    pub history: History,
    /// The last look and what follows from it; `None` before the first.
    pub view: Option<View>,
    /// The score as of the end of the last step: the one that the other hosts see.
    pub score: ScoreSheet,
    /// The action that the running step waits for.
    pub pending: Option<Action>,
    /// What the rules behind the policy's switches remember.
    pub memory: Memory,
}

/// Failed tries that are not forgotten yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retries {
    /// How many in a row.
    pub count: u32,
    /// When the last was made.
    pub last: Option<Secs>,
}

/// A look at the world and what was derived from it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The look.
    pub look: Observation,
    /// The other hosts that are alive.
    pub alive: Vec<HostId>,
    /// By whose word.
    pub witness: Witness,
    /// The host with the most engine; this host when equal.
    pub best_engine: BestEngine,
    /// The live other host with the highest score, if that is above 0; the first one when equal.
    pub best_score: Option<(HostName, Score)>,
}

/// Where there is the most engine.
#[derive(Debug, Clone, PartialEq)]
pub struct BestEngine {
    /// On which host.
    pub host: HostName,
    /// Its status; `None` when it is this host and its monitor has no result.
    pub engine: Option<EngineStatus>,
}

/// What comes after a call of [`decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Do this and feed the result; the step is not over.
    Act(Action),
    /// The step is over; the next one follows as said.
    Next(Wait),
}

/// The result of one call of [`decide`].
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The state in which the step began.
    pub from: State,
    /// The state now. The same as `from` when an action is asked for.
    pub to: State,
    /// What comes next.
    pub then: Then,
    /// Why; the last one is the rule that decided.
    pub reasons: Vec<Reason>,
    /// Seconds after this step's look after which the next step should follow, if that is sooner than usual.
    pub again_in: Option<u64>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            state: State::StartState,
            timer: None,
            retries: Retries::default(),
            resumes: None,
            history: History::default(),
            view: None,
            score: ScoreSheet::default(),
            pending: None,
            memory: Memory::default(),
        }
    }
}

impl Core {
    /// Whether a step at `now` should look afresh: it should not when the last look was completed in this
    /// very second.
    pub fn needs_look(&self, now: Secs) -> bool {
        self.view.as_ref().is_none_or(|view| view.look.finished != now)
    }

    /// When the running timer of the state fires.
    pub fn deadline(&self, limits: &Limits) -> Option<Secs> {
        Some(self.timer?.plus(self.state.timer(limits)?.limit))
    }

    /// The core of an agent that was told to stop: score 0, nothing decided any more. For the last publication.
    #[must_use]
    pub fn stopped(mut self, settings: &Settings) -> Self {
        self.state = State::AgentStopped;
        self.timer = None;
        self.pending = None;
        self.compute_score(settings);
        self
    }

    fn absorb(&mut self, look: Observation, settings: &Settings) {
        let limits = &settings.limits;
        let (witness, alive) =
            self.history.who_is_alive(&look, limits.alive, settings.policy.blip_free_restart);
        let view_of = |host: &RemoteHost| host.block.clone().map(|block| (host.id, block));
        let blocks: Vec<_> = alive.into_iter().filter_map(view_of).collect();

        let own = HostName { id: settings.host_id, name: "this host".to_owned() };
        let mut best_engine = BestEngine { host: own, engine: look.local.engine.clone() };
        let mut best_rank = rank(look.local.engine.as_ref());
        let mut best_score: Option<(HostName, Score)> = None;
        for (id, block) in &blocks {
            if rank(block.engine.as_ref()) > best_rank {
                best_rank = rank(block.engine.as_ref());
                let host = View::host_name(*id, &block.hostname);
                best_engine = BestEngine { host, engine: block.engine.clone() };
            }
            if block.score > best_score.as_ref().map_or(Score(0), |(_, score)| *score) {
                best_score = Some((View::host_name(*id, &block.hostname), block.score));
            }
        }

        if let Some(last) = self.retries.last {
            let since_last = if settings.policy.retry_memory {
                i64::try_from(look.finished.since(last)).unwrap_or(i64::MAX)
            } else {
                look.finished.on_wall(look.wall_offset).saturating_sub_unsigned(last.0)
            };
            if since_last >= i64::try_from(limits.retry_window).unwrap_or(i64::MAX) {
                self.retries = Retries::default();
            }
        }

        // Both wait for samples, and neither for the other: another host's lead is counted from the first bad sample of
        // this host, before it costs points.
        let now = self.sheet(self.state, &look.local, settings);
        let own = [&self.score, &now].map(|sheet| Self::defended(sheet, settings.policy).0);
        let bar = own[0].min(own[1]).saturating_add(limits.hand_over_margin);
        self.memory.lead.take(&blocks, Score(bar));
        self.memory.samples.take(&look, limits);
        if settings.policy.live_migration && !matches!(look.local.migrates, Migrates::Never { .. }) {
            self.memory.settled.take(&blocks, look.finished, limits.alive + limits.migration_answer);
        } else {
            self.memory.settled.forget();
        }
        self.history.push(&look, limits.history, limits.alive);
        if self.state == State::StartState {
            self.memory.moves.before = look.local.announced;
        }
        let alive = blocks.into_iter().map(|(id, _)| id).collect();
        self.view = Some(View { look, alive, witness, best_engine, best_score });
    }

    /// Remembers how a start went.
    fn count_start(&mut self, result: &ActionResult, policy: Policy) {
        let count = match result {
            ActionResult::Done => 0,
            ActionResult::Waits { .. } | ActionResult::Ready { .. } => return,
            ActionResult::Refused { .. } if policy.lease_refusal_is_no_failure => return,
            ActionResult::Refused { .. } | ActionResult::Failed { .. } => {
                self.retries.count.saturating_add(1)
            }
        };
        self.retries = Retries { count, last: self.view.as_ref().map(|view| view.look.finished) };
    }

    /// Ends a step: moves, runs or clears the timer, computes the score.
    fn enter(&mut self, to: State, settings: &Settings) {
        if to != self.state {
            self.timer = None;
        } else if self.timer.is_none() && self.state.timer(&settings.limits).is_some() {
            self.timer = self.view.as_ref().map(|view| view.look.finished);
        }
        self.state = to;
        if self.waits_for_storage(settings.policy) {
            self.timer = None;
        }
        let paused = self.view.as_ref().is_some_and(|view| view.look.local.io_error_pause.is_some());
        self.resumes = paused.then(|| self.resumes.unwrap_or_default());
        self.compute_score(settings);
    }

    fn compute_score(&mut self, settings: &Settings) {
        let mut local = self.view.as_ref().map_or_else(Local::default, |view| view.look.local.clone());
        if settings.policy.debounce && debounce::protects(self.state) {
            local = self.memory.samples.steady(&local, &settings.limits);
        }
        self.score = self.sheet(self.state, &local, settings);
    }

    /// The score that this host would have in `state` with these monitors.
    fn sheet(&self, state: State, local: &Local, settings: &Settings) -> ScoreSheet {
        let facts = score::Facts {
            state,
            local,
            load: self.history.load_average(),
            retries: self.retries.count,
            maintenance_counts: settings.policy.local_maintenance_moves_vm,
        };
        score::score(&facts, &settings.weights, &settings.limits)
    }

    /// What a score weighs against better hosts while the VM runs here.
    fn defended(sheet: &ScoreSheet, policy: Policy) -> Score {
        if policy.cpu_never_evicts { sheet.leaving_out(Factor::is_load) } else { sheet.total }
    }
}

/// How much engine; nobody knows counts as none at all.
fn rank(status: Option<&EngineStatus>) -> u8 {
    status.map_or(0, EngineStatus::rank)
}

/// Takes a step, or the rest of one. Total: any input gives a decision.
pub fn decide(mut core: Core, input: Input, settings: &Settings) -> (Core, Decision) {
    let from = core.state;
    let mut reasons = Vec::new();
    let mut again_in = None;
    let outcome = match (input, core.pending.take()) {
        (Input::Done(result), Some(action)) => {
            if action == Action::StartVm {
                core.count_start(&result, settings.policy);
            }
            if action == Action::ResumeVm {
                let count = core.resumes.unwrap_or_default().count.saturating_add(1);
                let last = core.view.as_ref().map(|view| view.look.finished);
                core.resumes = Some(Retries { count, last });
            }
            if let Some(view) = &core.view {
                core.memory.moves.acted(action, &result, view.look.finished, &settings.limits);
            }
            rules::after_action(core.state, action, result, core.retries.count)
        }
        (input, pending) => {
            if pending.is_some() {
                reasons.push(Reason::ResultLost);
            }
            if let Input::Look(look) = input {
                core.absorb(*look, settings);
            }
            match &core.view {
                Some(view) => {
                    let now = view.look.finished;
                    let ruling = rules::step(&core, view, settings);
                    reasons.extend(ruling.notes);
                    again_in = ruling.again_in;
                    core.memory.due = ruling.due;
                    core.memory.moves = ruling.moves;
                    if let Some(purpose) = ruling.spend {
                        core.memory.spend(purpose, &settings.limits, now);
                    }
                    ruling.outcome
                }
                // Nothing was ever seen: nothing can be decided.
                None => Outcome::To(core.state, Wait::Delay, Reason::AgentStarted),
            }
        }
    };
    let (then, reason) = match outcome {
        Outcome::Act(action, reason) => {
            core.pending = Some(action);
            (Then::Act(action), reason)
        }
        Outcome::To(to, wait, reason) => {
            core.enter(to, settings);
            (Then::Next(wait), reason)
        }
    };
    if core.state == State::EngineStop && settings.policy.stop_needs_cause && reason.asks_vm_to_leave() {
        again_in = Some(STOP_LOOK);
    }
    reasons.push(reason);
    let decision = Decision { from, to: core.state, then, reasons, again_in };
    (core, decision)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
