//! The report for programs. Times are seconds since the run began.

use std::time::Duration;

use ha_simulator::invariant::Promise;
use ha_simulator::run::{Plan, Report};
use ha_simulator::story::{Outcome, Story};
use ha_simulator::world::Kind;
use serde_json::{Value, json};

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// What came of a plan.
pub fn report(title: &str, plan: &Plan, report: &Report) -> Value {
    let story = Story::of(plan, report);
    let outages: Vec<Value> = story
        .outages
        .iter()
        .map(|outage| {
            json!({
                "from": secs(outage.from),
                "to": outage.to.map(secs),
                "began": outage.began,
                "ended": outage.ended,
            })
        })
        .collect();
    let expectations: Vec<Value> = story
        .expected
        .iter()
        .map(|one| {
            let (outcome, met_at) = match one.outcome {
                Outcome::Met(at) => ("met", Some(secs(at))),
                Outcome::NotMet => ("not met", None),
                Outcome::NotReached => ("not reached", None),
            };
            json!({
                "at": secs(one.from),
                "within": one.within.map(secs),
                "what": one.what.to_string(),
                "outcome": outcome,
                "met_at": met_at,
            })
        })
        .collect();
    let broken: Vec<Value> = report
        .violations
        .iter()
        .map(|violation| {
            json!({
                "at": secs(violation.at),
                "promise": violation.promise.name(),
                "sentence": violation.promise.sentence(),
                "detail": violation.detail,
            })
        })
        .collect();
    let names = |promises: &[Promise]| promises.iter().map(|one| one.name()).collect::<Vec<_>>();
    let events: Vec<Value> = report
        .log
        .iter()
        .map(|event| {
            let kind = match event.kind {
                Kind::Command => "command",
                Kind::Decision => "decision",
                Kind::Vm => "vm",
                Kind::World => "world",
                Kind::Violation => "violation",
            };
            json!({ "at": secs(event.at), "host": event.host, "kind": kind, "text": event.text })
        })
        .collect();
    json!({
        "title": title,
        "good": report.is_good(),
        "hosts": plan.shape.hosts,
        "seed": plan.shape.seed,
        "lasted": secs(report.lasted),
        "first_answer": story.first_answer().map(secs),
        "away": secs(story.away(report.lasted)),
        "outages": outages,
        "starts": story.starts,
        "expectations": expectations,
        "broken": broken,
        "not_broken_but_meant": names(&report.held),
        "events": events,
    })
}
