//! `--replay`: feeds recorded observations to the decision core and prints its decisions.
//!
//! Drives [`crate::core`] as the real loop does, on a clock that the recording owns. Performs nothing.

pub mod scenario;

use serde_json::{Value, json};

use crate::core::{
    Action, ActionResult, Core, Decision, Input, Limits, Policy, Profile, Secs, Settings, State, Then, Wait,
    Weights, decide,
};
use scenario::{Scenario, ScenarioError, Tick};

/// Seconds that a step with a wait asks for.
const DELAY: u64 = 10;
/// More steps than this without a wait cannot come from one tick.
const STEPS_MAX: usize = 100;

/// Replays a file's text and gives `{"steps": […]}`. `plain` turns all policy switches off.
pub fn replay(text: &str, plain: bool) -> Result<Value, ScenarioError> {
    let scenario = Scenario::parse(text)?;
    let mut weights = Weights::of(scenario.profile.unwrap_or(Profile::Ovirt45));
    for (key, value) in &scenario.score_cfg {
        weights.set(key, &value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))?;
    }
    let settings = Settings {
        host_id: scenario.host_id,
        weights,
        policy: if plain { Policy::plain() } else { Policy::default() },
        limits: Limits::default(),
    };
    let mut run = Run { settings, core: Core::default(), now: Secs(0), steps: Vec::new() };
    for index in 0..scenario.ticks.len() {
        run.tick(&scenario, index)?;
    }
    Ok(json!({ "steps": run.steps }))
}

struct Run {
    settings: Settings,
    core: Core,
    now: Secs,
    steps: Vec<Value>,
}

/// What is recorded of a step beside the core's own state.
struct Step {
    tick: usize,
    clock: Secs,
    refreshed: bool,
    wait: Wait,
    actions: Vec<Value>,
    reasons: Vec<String>,
}

impl Run {
    fn tick(&mut self, scenario: &Scenario, index: usize) -> Result<(), ScenarioError> {
        for step in 0..STEPS_MAX {
            let tick = scenario.tick(index, step)?;
            self.now = self.now.max(Secs(tick.time));
            if self.step(scenario, &tick, index) == Wait::Delay {
                return Ok(());
            }
            self.now = self.now.plus(tick.step_secs);
        }
        let what = format!("more than {STEPS_MAX} steps without a wait");
        Err(ScenarioError::Tick { tick: index, what })
    }

    fn step(&mut self, scenario: &Scenario, tick: &Tick, index: usize) -> Wait {
        let clock = self.now;
        let refreshed = self.core.needs_look(clock);
        let mut input = if refreshed {
            let look = scenario.observation(tick, clock);
            self.now = look.finished;
            Input::Look(Box::new(look))
        } else {
            Input::SameLook
        };
        let mut reasons = Vec::new();
        let mut actions = Vec::new();
        loop {
            let (core, decision) = decide(std::mem::take(&mut self.core), input, &self.settings);
            self.core = core;
            reasons.extend(decision.reasons.iter().map(ToString::to_string));
            let action = match decision.then {
                Then::Act(action) => action,
                Then::Next(wait) => {
                    let step = Step { tick: index, clock, refreshed, wait, actions, reasons };
                    self.record(&decision, &step);
                    return wait;
                }
            };
            self.now = self.now.plus(tick.action_secs);
            let worked = match action {
                Action::StartVm => tick.start_vm_ok,
                Action::StopVm | Action::ForceStopVm => tick.stop_vm_ok,
                // No recording has a paused VM or a live migration.
                Action::ResumeVm
                | Action::SendVm { .. }
                | Action::ReceiveVm { .. }
                | Action::EndArrival
                | Action::CancelMigration => true,
            };
            actions.push(match action {
                Action::StartVm => json!({ "action": "START_VM", "result": worked }),
                Action::ResumeVm => json!({ "action": "RESUME_VM", "result": worked }),
                Action::SendVm { to } => json!({ "action": "SEND_VM", "to": to, "result": worked }),
                Action::ReceiveVm { from } => {
                    json!({ "action": "RECEIVE_VM", "from": from, "result": worked })
                }
                Action::EndArrival => json!({ "action": "END_ARRIVAL", "result": worked }),
                Action::CancelMigration => json!({ "action": "CANCEL_MIGRATION", "result": worked }),
                Action::StopVm => json!({ "action": "STOP_VM", "force": false, "result": worked }),
                Action::ForceStopVm => json!({ "action": "STOP_VM", "force": true, "result": worked }),
            });
            input = Input::Done(if worked {
                ActionResult::Done
            } else {
                ActionResult::Failed { detail: "as recorded".to_owned() }
            });
        }
    }

    fn record(&mut self, decision: &Decision, step: &Step) {
        let core = &self.core;
        let view = core.view.as_ref();
        let secs = |at: Option<Secs>| at.map(|at| at.0);
        let mut metadata = json!({});
        if core.state != State::StartState {
            let own = core.metadata(&self.settings.limits);
            metadata = json!({
                "maintenance": own.maintenance,
                "state": own.state.name(),
                "stopped": own.stopped,
            });
            let offset = view.map_or(0, |view| view.look.wall_offset);
            if let Some(at) = own.timeout {
                metadata["timeout"] =
                    json!(metadata_format::ctime(at.on_wall(offset), &jiff::tz::TimeZone::system()));
            }
        }
        let engine = view.and_then(|view| view.best_engine.engine.as_ref());
        self.steps.push(json!({
            "tick": step.tick,
            "clock": step.clock.0,
            "refreshed": step.refreshed,
            "from": decision.from.name(),
            "state": core.state.name(),
            "delay": if step.wait == Wait::Delay { DELAY } else { 0 },
            "score": core.score.total,
            "actions": step.actions,
            "reasons": step.reasons,
            "metadata": metadata,
            "data": {
                "timeout_start_time": secs(core.timer),
                "engine_vm_retry_count": core.retries.count,
                "engine_vm_retry_time": secs(core.retries.last),
                "best_engine_host_id": view.map(|view| view.best_engine.host.id),
                "best_engine_vm": engine.map(|engine| engine.vm),
                "best_score_host_id": view.and_then(|view| view.best_score.as_ref()).map(|(host, _)| host.id),
                "alive_hosts": view.map(|view| view.alive.clone()).unwrap_or_default(),
                "collect_start": view.map(|view| view.look.started.0),
                "collect_finish": view.map(|view| view.look.finished.0),
                "history_len": core.history.len(),
            },
        }));
    }
}
