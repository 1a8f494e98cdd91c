//! Gathers the evidence of one play into its timeline.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};

use super::agents::{self, Said};
use super::leases::Looked;
use super::parts::{self, Parts, Seen, seconds};
use super::{Event, Run, Source, Timeline, rounded};
use crate::sandbox::cluster::Cluster;
use crate::sandbox::layout::HostNumber;
use crate::sandbox::timeline;

/// What a play leaves behind.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Which scenario.
    pub scenario: String,
    /// When the fault was injected.
    pub fault: Monotonic,
    /// The agents had nothing new to say before it.
    pub at_rest: bool,
    /// When the engine was good again; `None` when it was never disturbed.
    pub good: Option<Monotonic>,
    /// Where the VM was, and where it is now.
    pub hosts: (HostNumber, HostNumber),
    /// What the observer saw.
    pub observed: &'a timeline::Timeline,
    /// What the lock managers said.
    pub looked: &'a [Looked],
    /// What the scenario itself had to say.
    pub marks: &'a [(Monotonic, String)],
    /// Two guests wrote to the disk at the same time.
    pub mixed: bool,
    /// How long a guest that moved while it ran stood still.
    pub stood_still: Option<Duration>,
}

/// The timeline of a play on `cluster`.
pub fn timeline(cluster: &Cluster, evidence: &Evidence<'_>) -> Timeline {
    let state = cluster.state();
    let said = agents::read(cluster, SystemClock.wall_lead());
    let changes: Vec<_> = evidence.observed.changes_since(evidence.fault).copied().collect();
    let parts = if let Some(good) = evidence.good {
        parts::of(&Seen {
            fault: evidence.fault,
            good,
            at_rest: evidence.at_rest,
            from: evidence.hosts.0,
            changes: &changes,
            said: &said,
            looked: evidence.looked,
        })
    } else {
        let news = evidence.at_rest.then(|| agents::first_news(&said, evidence.fault)).flatten();
        Parts { noticed: news.map(|news| seconds(evidence.fault, news.at)), ..Parts::default() }
    };
    let wall = jiff::Timestamp::from_second(SystemClock.wall().0).unwrap_or_default();
    let run = Run {
        scenario: evidence.scenario.clone(),
        hypervisor: state.hypervisor,
        hosts: state.hosts,
        io_timeout: state.io_timeout,
        ended: wall.to_string(),
        from: evidence.hosts.0.0,
        to: evidence.hosts.1.0,
        recovery: evidence.good.map(|good| rounded(seconds(evidence.fault, good))),
        most_qemus: evidence.observed.most_qemus(),
        mixed: evidence.mixed,
        stood_still: evidence.stood_still.map(|time| rounded(time.as_secs_f64())),
        parts: parts.rounded(),
    };
    Timeline { run, events: events(evidence, &changes, &said) }
}

fn events(evidence: &Evidence<'_>, changes: &[(Monotonic, timeline::Change)], said: &[Said]) -> Vec<Event> {
    let event = |at: Monotonic, host: Option<HostNumber>, source, text: String| Event {
        at: rounded(seconds(evidence.fault, at)),
        host: host.map(|host| host.0),
        source,
        text,
    };
    let mut all = vec![event(evidence.fault, None, Source::Scenario, evidence.scenario.clone())];
    all.extend(evidence.marks.iter().map(|(at, text)| event(*at, None, Source::Scenario, text.clone())));
    all.extend(
        changes.iter().map(|(at, change)| event(*at, change.host(), Source::Observer, change.to_string())),
    );
    let told = said.iter().filter(|one| one.at >= evidence.fault && !one.text.is_empty());
    all.extend(told.map(|one| {
        let text = match &one.state {
            Some(state) => format!("{state}: {}", one.text),
            None => one.text.clone(),
        };
        event(one.at, Some(one.host), Source::Agent, text)
    }));
    // Renewals are no news.
    let mut last = BTreeMap::new();
    for one in evidence.looked {
        let words = one.lease.map_or("its lock manager does not tell".to_owned(), |lease| lease.to_string());
        if last.insert(one.host, words.clone()).as_ref() != Some(&words) && one.at >= evidence.fault {
            all.push(event(one.at, Some(one.host), Source::Sanlock, words));
        }
    }
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all
}
