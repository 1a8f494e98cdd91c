//! Which keys there are, and error texts that show the line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::fencing::is_secret_option;
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
            "engine_start",
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
    ("vdsm", &["address"]),
    ("libvirt", &["uri", "migrate_uri", "domain", "accel", "allow_unprotected"]),
    ("liveliness", &["urls", "expected", "timeout"]),
    ("socket", &["writers"]),
    ("metrics", &[]),
    ("policy", POLICY),
    (
        "rules",
        &[
            "restart_budget",
            "restart_window",
            "restart_pause",
            "debounce_bad",
            "debounce_samples",
            "start_stagger",
            "engine_resets",
            "sick_engine",
        ],
    ),
    ("fencing", &["host"]),
];

/// The keys of `[[fencing.host]]`; a test holds this against the type.
pub(super) const FENCING_HOST: &[&str] = &[
    "name",
    "host_id",
    "level",
    "agent",
    "options",
    "plug",
    "port",
    "password_file",
    "secret_files",
    "on_timeout",
    "off_timeout",
    "status_timeout",
];

/// The keys of `[policy]`.
pub(super) const POLICY: &[&str] = &[
    "retry_memory",
    "start_waits_for_liveness",
    "lease_refusal_is_no_failure",
    "local_maintenance_moves_vm",
    "start_needs_footing",
    "local_restart",
    "debounce",
    "cpu_never_evicts",
    "ranked_start",
    "storage_patience",
    "paused_policy",
    "blip_free_restart",
    "health_escalation",
    "stop_needs_cause",
    "lease_aware_start",
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
            return unknown(table.span().start, unknown_table(name));
        };
        let DeValue::Table(entries) = value.get_ref() else { continue };
        if let Some(key) = entries.keys().find(|key| !keys.contains(&key.get_ref().as_ref())) {
            return unknown(key.span().start, unknown_key(&format!("[{name}]"), keys, key.get_ref()));
        }
        if let Some(key) = unknown_in_fencing_host(name, entries) {
            let reason = unknown_key("[[fencing.host]]", FENCING_HOST, key.get_ref());
            return unknown(key.span().start, reason);
        }
    }
    Ok(())
}

/// The first key of an entry of `[[fencing.host]]` that is not in [`FENCING_HOST`].
fn unknown_in_fencing_host<'t>(table: &str, entries: &'t DeTable<'_>) -> Option<&'t Spanned<DeString<'t>>> {
    let DeValue::Array(hosts) = entries.get("host").filter(|_| table == "fencing")?.get_ref() else {
        return None;
    };
    hosts
        .iter()
        .filter_map(|host| match host.get_ref() {
            DeValue::Table(host) => Some(host),
            _ => None,
        })
        .flat_map(|host| host.keys())
        .find(|key| !FENCING_HOST.contains(&key.get_ref().as_ref()))
}

fn unknown_table(name: &str) -> String {
    let tables = || KNOWN.iter().map(|(known, _)| *known);
    let advice = if let Some(home) = home_of(name) {
        format!("{name} belongs into the table [{home}]")
    } else if let Some(near) = nearest(name, tables()) {
        format!("did you mean [{near}]?")
    } else {
        format!("its tables are {}", tables().collect::<Vec<_>>().join(", "))
    };
    format!("there is no {name:?} in this file; {advice}")
}

fn unknown_key(table: &str, keys: &[&str], name: &str) -> String {
    let advice = if let Some(near) = nearest(name, keys.iter().copied()) {
        format!("did you mean {near}?")
    } else if let Some(home) = home_of(name) {
        format!("it belongs into the table [{home}]")
    } else if keys.is_empty() {
        "this table has no keys yet".to_owned()
    } else {
        format!("its keys are {}", keys.join(", "))
    };
    format!("there is no key {name:?} in {table}; {advice}")
}

/// The table that has a key of this name.
fn home_of(key: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(_, keys)| keys.contains(&key)).map(|(table, _)| *table)
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
    (before + 1, without_secret(line).chars().take(200).collect())
}

/// A line up to the value of an option that holds a secret. There should be none in this file; where somebody wrote one,
/// the error that says so must not spread it.
fn without_secret(line: &str) -> String {
    let secret_at = line.match_indices('=').find(|(at, _)| {
        let key = line[..*at].trim_end_matches([' ', '\t', '"', '\'']);
        let word = key.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).next();
        word.is_some_and(is_secret_option)
    });
    match secret_at {
        Some((at, _)) => format!("{}= …", &line[..at]),
        None => line.to_owned(),
    }
}
