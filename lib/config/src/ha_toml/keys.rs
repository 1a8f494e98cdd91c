//! Which keys there are, and error texts that show the line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Result};
use crate::text::nearest;

/// All tables with their keys; a test holds this against the types.
pub(super) const KNOWN: &[(&str, &[&str])] = &[
    ("vm", &["hypervisor"]),
    ("lease", &["adapter", "io_timeout", "watchdog_timeout"]),
    ("score", &["profile"]),
    (
        "timers",
        &[
            "loop",
            "host_alive",
            "history",
            "alive_list",
            "engine_starting",
            "bad_health",
            "engine_stop",
            "maybe_away",
            "unexpectedly_down",
            "retry_clear",
            "storage_deadline",
        ],
    ),
    ("qemu", &["binary", "machine", "accel", "user", "bridge", "extra_args"]),
    ("liveliness", &["urls", "expected", "timeout"]),
    ("socket", &["writers"]),
    ("metrics", &[]),
    ("policy", &[]),
];

/// Refuses the first key that is not in [`KNOWN`].
pub(super) fn refuse_unknown(path: &Path, text: &str) -> Result<()> {
    let document = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
    let unknown = |at: usize, reason: String| {
        let (line, text) = line_at(text, at);
        Err(ConfigError::Syntax { path: path.to_owned(), line, text, reason })
    };
    for (table, value) in document.get_ref() {
        let name: &str = table.get_ref();
        let Some((_, keys)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            let mut reason = format!("there is no {name:?} in this file");
            if let Some((home, _)) = KNOWN.iter().find(|(_, keys)| keys.contains(&name)) {
                reason += &format!("; {name} belongs into the table [{home}]");
            } else if let Some(near) = nearest(name, KNOWN.iter().map(|(known, _)| *known)) {
                reason += &format!("; did you mean [{near}]?");
            } else {
                reason += &format!("; its tables are {}", list(KNOWN.iter().map(|(known, _)| *known)));
            }
            return unknown(table.span().start, reason);
        };
        let DeValue::Table(entries) = value.get_ref() else { continue };
        for key in entries.keys() {
            let key_name: &str = key.get_ref();
            if keys.contains(&key_name) {
                continue;
            }
            let mut reason = format!("there is no key {key_name:?} in [{name}]");
            if let Some(near) = nearest(key_name, keys.iter().copied()) {
                reason += &format!("; did you mean {near}?");
            } else if let Some((home, _)) = KNOWN.iter().find(|(_, keys)| keys.contains(&key_name)) {
                reason += &format!("; it belongs into the table [{home}]");
            } else if keys.is_empty() {
                reason += "; this table has no keys yet";
            } else {
                reason += &format!("; its keys are {}", list(keys.iter().copied()));
            }
            return unknown(key.span().start, reason);
        }
    }
    Ok(())
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The error of the TOML reader with the line it is about.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let (line, shown) = line_at(text, error.span().map_or(0, |span| span.start));
    ConfigError::Syntax {
        path: path.to_owned(),
        line,
        text: shown,
        reason: error.message().replace('\n', " "),
    }
}

/// Number (from 1) and text of the line that holds byte `at`.
fn line_at(text: &str, at: usize) -> (usize, String) {
    let before = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    let line = text.lines().nth(before).unwrap_or_default();
    (before + 1, line.chars().take(200).collect())
}
