//! The line `fencing=` of a host block's part for people: which hosts its writer switches off, or has switched off.
//!
//! ```text
//! fencing=2 4711 off 1700000000 3400, 5 99 claimed 1700000300 3400
//!         │ │    │   │          └ the writer's score when it claimed: of two claims the higher one wins
//!         │ │    │   └ wall clock of the phase's begin, seconds since 1970; for people only
//!         │ │    └ claimed, begun, off, failed
//!         │ └ the timestamp in the dead host's last record: which of its deaths this is about
//!         └ the dead host's id
//! fencing_switches=2 5     the hosts that the writer can switch
//! ```
//!
//! The writer of the block is the one that fences. A reader that does not understand an entry leaves it out: an entry
//! can only forbid a deed or tell of one. Pure.

use std::fmt;

use crate::{HostId, Score};

/// Key of the line with the entries.
pub const FENCING_KEY: &str = "fencing";
/// Key of the line with the hosts that the writer can switch.
pub const SWITCHES_KEY: &str = "fencing_switches";
/// Most entries of a line; more would not fit beside the other lines for certain.
pub const MOST_ENTRIES: usize = 4;
/// Most hosts in the line of switches.
pub const MOST_SWITCHES: usize = 256;

/// How far a fencing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FencingPhase {
    /// Announced: its writer waits whether another host claims it too.
    Claimed,
    /// The switch was asked.
    Begun,
    /// The power was seen off after that.
    Off,
    /// It could not be switched off, or nobody knows.
    Failed,
}

impl FencingPhase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Claimed, Self::Begun, Self::Off, Self::Failed];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Begun => "begun",
            Self::Off => "off",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for FencingPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One entry: what its writer does, or did, about one death of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FencingEntry {
    /// The dead host.
    pub host: HostId,
    /// The timestamp in its last record.
    pub stamp: i64,
    /// How far it is.
    pub phase: FencingPhase,
    /// Since when, on the writer's wall clock in seconds since 1970.
    pub since: i64,
    /// The writer's score when it claimed.
    pub score: Score,
}

impl FencingEntry {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let host = HostId::new(words.next()?.parse().ok()?).ok()?;
        let stamp = words.next()?.parse().ok()?;
        let word = words.next()?;
        let phase = FencingPhase::ALL.into_iter().find(|phase| phase.word() == word)?;
        let since = words.next()?.parse().ok()?;
        let score = Score(words.next()?.parse().ok()?);
        Some(Self { host, stamp, phase, since, score })
    }
}

impl fmt::Display for FencingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, stamp, phase, since, score } = self;
        write!(f, "{host} {stamp} {phase} {since} {score}")
    }
}

/// The value of the line; at most [`MOST_ENTRIES`] of them, the last ones.
pub fn fencing_line(entries: &[FencingEntry]) -> String {
    let kept = &entries[entries.len().saturating_sub(MOST_ENTRIES)..];
    kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The value of the line of switches.
pub fn switches_line(hosts: &[HostId]) -> String {
    hosts.iter().take(MOST_SWITCHES).map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn line<'a>(extra: &'a str, key: &str) -> &'a str {
    extra.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
}

/// The entries in a block's part for people.
pub fn fencing_entries(extra: &str) -> Vec<FencingEntry> {
    line(extra, FENCING_KEY).split(',').filter_map(FencingEntry::parse).take(MOST_ENTRIES).collect()
}

/// The hosts that the writer of a block can switch, by its part for people.
pub fn fencing_switches(extra: &str) -> Vec<HostId> {
    let ids = line(extra, SWITCHES_KEY).split_ascii_whitespace();
    ids.filter_map(|id| HostId::new(id.parse().ok()?).ok()).take(MOST_SWITCHES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> HostId {
        HostId::new(id).expect("valid")
    }

    fn entry(host: u16, phase: FencingPhase) -> FencingEntry {
        FencingEntry { host: id(host), stamp: 4711, phase, since: 1_700_000_000, score: Score(3400) }
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let entries = FencingPhase::ALL.map(|phase| entry(7, phase));
        let text = format!("state=EngineDown\nfencing={}\nother=1", fencing_line(&entries));
        assert_eq!(fencing_entries(&text), entries);
        assert_eq!(fencing_line(&entries[..1]), "7 4711 claimed 1700000000 3400");
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let text = "fencing=2 1 off 5 9, 2 1 melted 5 9, 0 1 off 5 9, 3 x off 5 9, , 4 -7 begun 5 9 later";
        let hosts: Vec<_> = fencing_entries(text).iter().map(|entry| entry.host.get()).collect();
        assert_eq!(hosts, [2, 4]);
        assert_eq!(fencing_entries("fencing_switches=2\nstate=x"), []);
    }

    #[test]
    fn the_lines_are_bounded() {
        let many: Vec<_> = (1..=9).map(|host| entry(host, FencingPhase::Off)).collect();
        let kept = fencing_entries(&format!("fencing={}", fencing_line(&many)));
        assert_eq!(kept.iter().map(|entry| entry.host.get()).collect::<Vec<_>>(), [6, 7, 8, 9]);
        let all: Vec<_> = (1..=2000).map(id).collect();
        let text = format!("fencing_switches={}", switches_line(&all));
        assert_eq!(fencing_switches(&text), all[..MOST_SWITCHES]);
        let longest = FencingEntry {
            stamp: i64::MIN,
            since: i64::MIN,
            score: Score(u32::MAX),
            ..entry(2000, FencingPhase::Claimed)
        };
        let bytes = text.len() + fencing_line(&[longest; 9]).len();
        assert!(bytes < crate::BLOCK_SIZE - crate::CRITICAL_SIZE - 1024, "{bytes} bytes");
    }
}
