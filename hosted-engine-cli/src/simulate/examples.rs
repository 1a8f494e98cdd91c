//! The shipped scenarios: `etc/simulate`, part of the binary too, so that they can be played where nothing is installed.

use std::fmt::Write as _;

use ha_simulator::scenario::Scenario;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../etc/simulate/", $name, ".scenario")))),*]
    };
}

/// Names and texts.
pub const ALL: &[(&str, &str)] = shipped![
    "host-power-loss",
    "gateway-cut",
    "storage-stall-short",
    "storage-stall-long",
    "maintenance",
    "lone-host-crash",
    "frozen-host-watchdog",
    "frozen-host-no-watchdog",
];

/// The text of a shipped scenario.
pub fn find(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// One line for each: name and first sentence.
pub fn list() -> String {
    ALL.iter().fold(String::new(), |mut list, (name, text)| {
        let title = Scenario::parse(text).map(|scenario| scenario.title).unwrap_or_default();
        let sentence = title.split_once(". ").map_or(title.as_str(), |(first, _)| first);
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{name:<24} {}", sentence.trim_end_matches('.'));
        list
    })
}
