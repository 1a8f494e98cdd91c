//! A run in a few lines of text: what is shown, what was expected, how long the engine was away, what was broken.

use std::fmt::Write as _;
use std::time::Duration;

use crate::command::Time;
use crate::invariant::Promise;
use crate::run::{Plan, Report};
use crate::story::{Outcome, Story};

fn secs(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What is shown, on how many hosts, for how long.
pub fn headline(title: &str, plan: &Plan, report: &Report) -> String {
    let hosts = count(plan.shape.hosts.into(), "host", "hosts");
    let watchdog = if plan.shape.has_watchdog { "with a watchdog" } else { "without a watchdog" };
    let title = if title.is_empty() { "(no title)" } else { title };
    let (n, w) = (plan.shape.io_timeout(), plan.shape.watchdog());
    format!(
        "{title}\n{hosts} {watchdog}, sanlock's time-outs {n} s and {w} s, seed {}; {} of simulated time\n",
        plan.shape.seed,
        secs(report.lasted)
    )
}

/// What became of it.
pub fn summary(plan: &Plan, report: &Report) -> String {
    let story = Story::of(plan, report);
    let mut text = String::new();
    // Writing to a string cannot fail.
    match story.first_answer() {
        Some(at) => {
            let _ = writeln!(text, "The engine first answered at {}.", secs(at));
        }
        None => text.push_str("The engine never answered.\n"),
    }
    if story.first_answer().is_some() {
        if story.outages.is_empty() {
            text.push_str("From then on it was never away.\n");
        } else {
            let away = secs(story.away(report.lasted));
            let _ = match story.outages.len() {
                1 => writeln!(text, "It was away once, for {away}:"),
                times => writeln!(text, "It was away {times} times, for {away} altogether:"),
            };
        }
    }
    for outage in &story.outages {
        let _ = writeln!(
            text,
            "  {} from {} to {}",
            secs(outage.lasted(report.lasted)),
            secs(outage.from),
            outage.to.map_or_else(|| "the end of the run".to_owned(), secs)
        );
        let _ = writeln!(text, "    it began: {}", outage.began);
        if let Some(ended) = &outage.ended {
            let _ = writeln!(text, "    it ended: {ended}");
        }
    }
    let _ = writeln!(text, "Starts of the VM: {}.", story.starts);
    expectations(&mut text, &story);
    promises(&mut text, plan, report);
    text
}

fn expectations(text: &mut String, story: &Story) {
    if story.expected.is_empty() {
        return;
    }
    let met = story.expected.iter().filter(|one| matches!(one.outcome, Outcome::Met(_))).count();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "Expectations met: {met} of {}.", story.expected.len());
    for one in &story.expected {
        let within = one.within.map(|time| format!(" within {}", Time(time))).unwrap_or_default();
        let _ = writeln!(text, "  {} {}{within}: {}", Time(one.from), one.what, one.words());
    }
}

fn promises(text: &mut String, plan: &Plan, report: &Report) {
    // Writing to a string cannot fail.
    for violation in &report.violations {
        let _ = writeln!(
            text,
            "BROKEN PROMISE at {}: {} ({}): {}",
            secs(violation.at),
            violation.promise.sentence(),
            violation.promise,
            violation.detail
        );
    }
    for promise in &report.held {
        let _ = writeln!(text, "NOT BROKEN, as the scenario says it must be: {promise}");
    }
    let meant: Vec<&Promise> = plan.breaks.iter().filter(|one| !report.held.contains(one)).collect();
    for promise in &meant {
        let _ = writeln!(text, "Broken, as the scenario says it must be: {} ({promise})", promise.sentence());
    }
    if report.violations.is_empty() {
        let others = if meant.is_empty() { "" } else { " others" };
        let _ = writeln!(text, "Promises kept: all {}{others}.", Promise::ALL.len() - meant.len());
    }
}
