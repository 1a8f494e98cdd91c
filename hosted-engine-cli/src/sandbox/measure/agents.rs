//! What the agents said, by their logs: when, in which state, and why.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use clock::Monotonic;

use crate::sandbox::cluster::Cluster;
use crate::sandbox::layout::HostNumber;

/// One line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at: Monotonic,
    /// On which host.
    pub host: HostNumber,
    /// The state that the line tells; `None` when it is about something else.
    pub state: Option<String>,
    /// It is a warning or an error.
    pub warns: bool,
    /// The reasons, or the whole text of a line about something else; empty when nothing is new since the last step.
    pub text: String,
}

impl Said {
    /// Reads `2026-01-31T12:00:00.123456Z  INFO module::path: text`. `lead` is what the time of day is ahead of the
    /// monotonic clock.
    fn parse(line: &str, host: HostNumber, lead: Duration) -> Option<Self> {
        let (stamp, rest) = line.split_once(' ')?;
        let stamp: jiff::Timestamp = stamp.parse().ok()?;
        let wall = Duration::try_from(stamp.as_duration()).ok()?;
        let (level, rest) = rest.trim_start().split_once(' ')?;
        let (_module, text) = rest.split_once(": ")?;
        let (state, text) = match text.strip_prefix("Current state ") {
            None => (None, text),
            Some(told) => {
                let (state, told) = told.split_once(" (score: ")?;
                (Some(state.to_owned()), told.split_once("): ").map_or("", |(_, reasons)| reasons))
            }
        };
        Some(Self {
            at: Monotonic::from_duration(wall.checked_sub(lead)?),
            host,
            state,
            warns: matches!(level, "WARN" | "ERROR"),
            text: text.to_owned(),
        })
    }

    /// What it says without its figures: a timer that runs is no news.
    fn shape(&self) -> String {
        let words = self.text.chars().filter(|c| !c.is_ascii_digit());
        format!("{} {}", self.state.as_deref().unwrap_or_default(), words.collect::<String>())
    }
}

/// All that the agents of a cluster have said so far, in the order of time.
pub fn read(cluster: &Cluster, lead: Duration) -> Vec<Said> {
    let mut all = Vec::new();
    for host in cluster.hosts() {
        // A host that was never started has no log.
        let log = fs::read(cluster.layout().host(host.number).agent_log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        all.extend(log.lines().filter_map(|line| Said::parse(line, host.number, lead)));
    }
    all.sort_by_key(|said| said.at);
    all
}

/// Whether every agent's last step found nothing new, so that what is said next is about what happens next.
pub fn at_rest(said: &[Said], hosts: &[HostNumber]) -> bool {
    hosts.iter().all(|host| {
        let mut steps = said.iter().rev().filter(|one| one.host == *host && one.state.is_some());
        match (steps.next(), steps.next()) {
            (Some(last), Some(before)) => last.text.is_empty() || last.shape() == before.shape(),
            _ => false,
        }
    })
}

/// The first thing after `fault` that an agent had not said before it: that something is wrong was noticed then.
pub fn first_news(said: &[Said], fault: Monotonic) -> Option<&Said> {
    let mut known: BTreeMap<HostNumber, Vec<String>> = BTreeMap::new();
    for one in said.iter().filter(|one| one.at < fault) {
        let known = known.entry(one.host).or_default();
        // A state that was left may come again, and is news then.
        if one.state.is_some() && !one.text.is_empty() {
            known.clear();
        }
        known.push(one.shape());
    }
    said.iter().filter(|one| one.at >= fault).find(|one| {
        let is_telling = if one.state.is_some() { !one.text.is_empty() } else { one.warns };
        is_telling && !known.get(&one.host).is_some_and(|known| known.contains(&one.shape()))
    })
}

/// The state that `host`'s agent was in at `at`, as it had said by then.
pub fn state_at(said: &[Said], host: HostNumber, at: Monotonic) -> Option<&str> {
    let mut before = said.iter().rev().filter(|one| one.host == host && one.at <= at);
    before.find_map(|one| one.state.as_deref())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `secs host state text`: a line about something else has `-` for its state.
    pub(in super::super) fn log(lines: &str) -> Vec<Said> {
        let parse = |line: &str| {
            let mut words = line.trim().splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (at, host, state, text) = (word(), word(), word(), word());
            Said {
                at: Monotonic::from_duration(Duration::from_secs_f64(at.parse().unwrap())),
                host: HostNumber(host.parse().unwrap()),
                state: (state != "-").then(|| state.to_owned()),
                warns: state == "-",
                text: text.to_owned(),
            }
        };
        lines.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }

    #[test]
    fn lines_are_read_as_the_daemons_write_them() {
        let lead = Duration::from_secs(1_795_270_600);
        let read = |line| Said::parse(line, HostNumber(2), lead);
        let line = "2026-11-21T14:20:03.250000Z  INFO ha_agent::agent::publish: Current state EngineDown (score: 2400): \
                    the engine VM runs on host1 (id 1)";
        let said = read(line).unwrap();
        assert_eq!(said.at.since_start(), Duration::from_millis(203_250));
        assert_eq!(said.state.as_deref(), Some("EngineDown"));
        assert_eq!((said.text.as_str(), said.warns), ("the engine VM runs on host1 (id 1)", false));
        let line = "2026-11-21T14:20:03.250000Z  INFO ha_agent::agent::publish: Current state EngineUp (score: 2400)";
        assert_eq!(read(line).unwrap().text, "");
        let line = "2026-11-21T14:20:03.250000Z  WARN ha_agent::agent: no answer: none";
        let said = read(line).unwrap();
        assert_eq!((said.state, said.text.as_str(), said.warns), (None, "no answer: none", true));
        for other in ["", "rubbish", "2026-11-21T14:20:03Z", "2026-11-21 14:20:03 100 [9]: s1 renewed"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn news_is_what_was_not_said_before_the_fault() {
        let said = log("
            1 1 EngineUp the engine VM runs on this host
            2 2 EngineDown waiting, 50 s left
            11 1 EngineUp
            12 2 EngineDown waiting, 40 s left
            21 1 EngineUp
            22 2 EngineDown waiting, 30 s left
            29 2 - storage fails
            32 2 EngineDown the engine VM runs nowhere");
        assert!(at_rest(&said[..4], &[HostNumber(1), HostNumber(2)]));
        assert!(!at_rest(&said, &[HostNumber(1), HostNumber(2)]));
        assert!(!at_rest(&said[..4], &[HostNumber(3)]));
        let news = first_news(&said, Monotonic::from_secs(20)).unwrap();
        assert_eq!((news.at, news.text.as_str()), (Monotonic::from_secs(29), "storage fails"));
        assert_eq!(first_news(&said[..6], Monotonic::from_secs(20)), None);
        assert_eq!(state_at(&said, HostNumber(1), Monotonic::from_secs(30)), Some("EngineUp"));
        assert_eq!(state_at(&said, HostNumber(1), Monotonic::default()), None);
    }
}
