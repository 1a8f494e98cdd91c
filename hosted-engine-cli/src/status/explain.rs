//! `--vm-status --explain`: what this host's agent said about its last decision, and what its monitors see.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::View;
use super::view::{safe, stamp};

/// The text after the rows.
pub fn explain(view: &View, zone: &TimeZone) -> String {
    // Writing to a String cannot fail; hence the ignored results.
    let mut text = String::from("\n\n--== This host explains ==--\n\n");
    let Some(document) = &view.document else {
        text.push_str("This broker is of a release that does not explain itself\n");
        return text;
    };
    match &document.agent {
        None => text.push_str("The agent has not spoken for 60 s: is ovirt-ha-agent running on this host?\n"),
        Some(agent) => {
            let _ = writeln!(text, "{:35}: {}", "State", safe(&agent.state));
            let _ = writeln!(text, "{:35}: {}", "Score", agent.score);
            for term in &agent.score_terms {
                let _ = writeln!(text, "\t{:+} {} ({})", term.points, safe(&term.name), safe(&term.reason));
            }
            if let Some(at) = agent.timeout_at {
                let _ = writeln!(text, "{:35}: {}", "The state's timer fires at", stamp(at, zone));
            }
            for reason in &agent.reasons {
                let _ = writeln!(text, "{:35}: {}", "Because", safe(reason));
            }
        }
    }
    for (id, monitor) in &document.monitors {
        let value = monitor.value.as_deref().map_or_else(|| "no result yet".to_owned(), safe);
        let age = monitor.age_secs.map(|age| format!(", {age} s ago")).unwrap_or_default();
        let error = monitor.error.as_deref().map(|error| format!("; {}", safe(error))).unwrap_or_default();
        let _ = writeln!(text, "{:35}: {value}{age}{error}", format!("Monitor {}", safe(id)));
    }
    text
}
