//! What a run comes down to: when the engine answered, why it was away and why it came back, when the VM ran where.
//! Drawn from the track and the log of a [`Report`]; the pictures, summaries and JSON are all made of it.

use std::time::Duration;

use crate::command::{Command, Expectation, Step};
use crate::run::{Plan, Report};
use crate::track::{Answer, Doing, HostView, Since};
use crate::world::{Event, Kind};

/// A time in which something was the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Band<T> {
    /// From when on.
    pub from: Duration,
    /// Until when; the end of the run, when it lasted.
    pub to: Duration,
    /// What was so.
    pub what: T,
}

/// Merges samples into bands of what `look` sees; `None` leaves a gap.
pub fn bands<S, T: PartialEq>(
    samples: &[Since<S>],
    end: Duration,
    look: impl Fn(&S) -> Option<T>,
) -> Vec<Band<T>> {
    let mut bands: Vec<Band<T>> = Vec::new();
    for (number, sample) in samples.iter().enumerate() {
        let to = samples.get(number + 1).map_or(end, |next| next.at);
        let Some(what) = look(&sample.what) else { continue };
        match bands.last_mut() {
            Some(last) if last.to == sample.at && last.what == what => last.to = to,
            _ if to > sample.at => bands.push(Band { from: sample.at, to, what }),
            _ => {}
        }
    }
    bands
}

/// A time without an engine that answers, after it had answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When it stopped to answer.
    pub from: Duration,
    /// When it answered again; `None` when it did not.
    pub to: Option<Duration>,
    /// What happened at its begin.
    pub began: String,
    /// Why it ended; `None` when it did not.
    pub ended: Option<String>,
}

impl Outage {
    /// For how long, when the run ended at `end`.
    pub fn lasted(&self, end: Duration) -> Duration {
        self.to.unwrap_or(end).saturating_sub(self.from)
    }
}

/// What became of an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It held then.
    Met(Duration),
    /// It did not hold in time.
    NotMet,
    /// The run ended before, at a broken promise.
    NotReached,
}

/// An expectation of the script and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Since when.
    pub from: Duration,
    /// So long it was waited for.
    pub within: Option<Duration>,
    /// What was expected.
    pub what: Expectation,
    /// What became of it.
    pub outcome: Outcome,
}

impl Expected {
    /// In words, what became of it.
    pub fn words(&self) -> String {
        match self.outcome {
            Outcome::Met(at) if at == self.from => "met at once".to_owned(),
            Outcome::Met(at) => {
                format!("met after {:.1} s", at.saturating_sub(self.from).as_secs_f64())
            }
            Outcome::NotMet => "NOT MET".to_owned(),
            Outcome::NotReached => "not reached".to_owned(),
        }
    }
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// When which engine answered well.
    pub healthy: Vec<Band<Answer>>,
    /// When it did not, after it first had.
    pub outages: Vec<Outage>,
    /// Starts of the VM.
    pub starts: u64,
    /// The script's expectations, in the order of time.
    pub expected: Vec<Expected>,
}

impl Story {
    /// Tells what came of a plan.
    pub fn of(plan: &Plan, report: &Report) -> Self {
        let healthy = healthy(report);
        let mut outages: Vec<Outage> = healthy
            .windows(2)
            .filter(|pair| pair[0].to < pair[1].from)
            .map(|pair| outage(report, &pair[0], Some(&pair[1])))
            .collect();
        if let Some(last) = healthy.last().filter(|last| last.to < report.lasted) {
            outages.push(outage(report, last, None));
        }
        Self { healthy, outages, starts: report.starts, expected: expected(&plan.script, report) }
    }

    /// When the engine first answered.
    pub fn first_answer(&self) -> Option<Duration> {
        self.healthy.first().map(|band| band.from)
    }

    /// How long the engine was away altogether, until the end of the run.
    pub fn away(&self, lasted: Duration) -> Duration {
        self.outages.iter().map(|outage| outage.lasted(lasted)).sum()
    }
}

fn healthy(report: &Report) -> Vec<Band<Answer>> {
    let bands = bands(&report.track.engine, report.lasted, |answer| *answer);
    // The sample says from when on it is to be healthy.
    let begin = |band: Band<Answer>| Band { from: band.from.max(band.what.from), ..band };
    bands.into_iter().map(begin).filter(|band| band.from < band.to).collect()
}

fn outage(report: &Report, before: &Band<Answer>, after: Option<&Band<Answer>>) -> Outage {
    Outage {
        from: before.to,
        to: after.map(|after| after.from),
        began: cause(report, before.to).map_or_else(|| "nobody did anything".to_owned(), words),
        ended: after.map(|after| ending(report, before.what, after)),
    }
}

/// The last thing before a moment that a person, a fault, a host or the VM did.
fn cause(report: &Report, moment: Duration) -> Option<&Event> {
    report.log.iter().rev().filter(|event| event.at <= moment).find(|event| match event.kind {
        Kind::Command => !event.text.starts_with("expect "),
        Kind::Vm | Kind::World => true,
        Kind::Decision | Kind::Violation => false,
    })
}

/// An event's words with its host.
fn words(event: &Event) -> String {
    match (event.kind, event.host) {
        (Kind::Command, _) => format!("`{}`", event.text),
        (_, Some(id)) => format!("host{id}: {}", event.text),
        (_, None) => event.text.clone(),
    }
}

fn ending(report: &Report, before: Answer, after: &Band<Answer>) -> String {
    let Answer { host, instance, .. } = after.what;
    if instance != before.instance {
        started(report, host, instance)
    } else if host != before.host {
        format!("the VM had moved from host{} to host{host}", before.host)
    } else {
        let last = cause(report, after.from).map(words).unwrap_or_default();
        format!("the same VM answers again, on host{host}; last: {last}")
    }
}

/// Who started that VM, when, and why.
fn started(report: &Report, host: u16, instance: u64) -> String {
    let samples = &report.track.hosts[usize::from(host) - 1];
    let is_it = |view: &HostView| view.vm.is_some_and(|vm| vm.instance == instance);
    let Some(start) = samples.iter().find(|sample| is_it(&sample.what)) else {
        return format!("the VM had moved to host{host}");
    };
    let states = bands(samples, report.lasted, |view| view.agent.clone());
    let decided = states.iter().rev().find(|band| band.from <= start.at && band.what == "EngineStart");
    let why = decided.and_then(|band| decision(report, host, band.from));
    let at = start.at.as_secs_f64();
    match why {
        Some(event) => format!("host{host} started the VM at {at:.1} s: {}", event.text),
        None => format!("the VM was started on host{host} at {at:.1} s"),
    }
}

/// What the agent of a host said at that moment, when it said something new.
pub fn decision(report: &Report, host: u16, moment: Duration) -> Option<&Event> {
    let is_it =
        |event: &&Event| event.kind == Kind::Decision && event.host == Some(host) && event.at == moment;
    report.log.iter().rev().find(is_it)
}

fn expected(script: &[Step], report: &Report) -> Vec<Expected> {
    let mut steps: Vec<&Step> = script.iter().collect();
    steps.sort_by_key(|step| step.at);
    let mut met = report.met.iter();
    steps
        .into_iter()
        .filter_map(|step| match &step.command {
            Command::Expect(what) => Some((step, what)),
            _ => None,
        })
        .map(|(step, what)| Expected {
            from: step.at,
            within: step.lasts,
            what: what.clone(),
            outcome: match met.next() {
                Some(Some(at)) => Outcome::Met(*at),
                Some(None) => Outcome::NotMet,
                None => Outcome::NotReached,
            },
        })
        .collect()
}

impl Doing {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Runs => "the VM runs",
            Self::PowersDown => "the VM powers down",
            Self::Leaves => "the VM migrates away",
            Self::Stopped => "the VM stands still",
            Self::Dying => "the VM was killed and waits for storage to die",
        }
    }
}
