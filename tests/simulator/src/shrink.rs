//! Shrinking: the shortest script that still breaks the promise that a run broke.
//!
//! First the shortest prefix, then one step after the other is left out as long as the same promise breaks. Chance
//! stays as it is: what a step would have drawn is drawn from the same seed.

use std::time::Duration;

use crate::command::{Command, Step};
use crate::invariant::Promise;
use crate::run::{Plan, Report, run};

/// Runs that are spent on one shrinking.
const TRIES: usize = 400;

/// The promise that a report is about.
fn broken(report: &Report) -> Option<Promise> {
    report.violations.first().map(|violation| violation.promise)
}

struct Shrinker {
    promise: Promise,
    tries: usize,
    best: Plan,
}

impl Shrinker {
    /// Takes `script` over if it still breaks the promise.
    fn try_script(&mut self, script: Vec<Step>) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let plan = Plan { script, ..self.best.clone() };
        let still = run(&plan).is_ok_and(|report| broken(&report) == Some(self.promise));
        if still {
            self.best = plan;
        }
        still
    }
}

/// Whether a step must stay: without a boot there is no host, and without the healing no recovery can be asked for.
fn is_frame(step: &Step) -> bool {
    step.at < Duration::from_mins(1) && matches!(step.command, Command::Boot(_))
        || matches!(step.command, Command::HealAll)
}

/// The shortest plan that breaks the same promise as `plan`; `plan` itself when it breaks none.
pub fn shortest(plan: &Plan) -> Plan {
    let Some(promise) = run(plan).ok().as_ref().and_then(broken) else { return plan.clone() };
    let mut shrinker = Shrinker { promise, tries: TRIES, best: plan.clone() };
    // What comes after the first broken promise plays no part, unless recovery is what was broken.
    let (mut few, mut many) = (0, plan.script.len());
    while few < many {
        let middle = few.midpoint(many);
        let prefix = plan.script.iter().enumerate();
        let script = prefix.filter(|(at, step)| *at < middle || is_frame(step)).map(|(_, step)| step.clone());
        if shrinker.try_script(script.collect()) {
            many = middle;
        } else {
            few = middle + 1;
        }
    }
    // Large parts first, then single steps.
    let mut size = shrinker.best.script.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < shrinker.best.script.len() {
            let script = &shrinker.best.script;
            let end = (at + size).min(script.len());
            let without: Vec<Step> = (script.iter().enumerate())
                .filter(|(place, step)| !(at..end).contains(place) || is_frame(step))
                .map(|(_, step)| step.clone())
                .collect();
            if without.len() == script.len() || !shrinker.try_script(without) {
                at = end;
            }
        }
        size /= 2;
    }
    shrinker.best
}
