//! A report for people: the log, one line for each event, and what went wrong.

use std::fmt::Write as _;
use std::time::Duration;

use crate::run::Report;
use crate::world::{Event, Kind};

fn stamp(at: Duration) -> String {
    format!("{}.{:03}", at.as_secs(), at.subsec_millis())
}

fn line(event: &Event) -> String {
    let host = event.host.map_or_else(String::new, |id| format!("host{id}"));
    let mark = match event.kind {
        Kind::Command => ">",
        Kind::Decision => " ",
        Kind::Vm => "*",
        Kind::World => "-",
        Kind::Violation => "!",
    };
    format!("{:>10} {mark} {host:<6} {}", stamp(event.at), event.text)
}

/// Every event: time in seconds, what it is (`>` a command, `*` the VM, `-` a host, its lease or storage, `!` a broken
/// promise, nothing for a decision), the host, and the words.
pub fn log(report: &Report) -> String {
    let mut text = String::new();
    for event in &report.log {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(event));
    }
    text
}

/// The same, each host's events in a column of its own.
pub fn lanes(report: &Report, hosts: u16, width: usize) -> String {
    let mut text = String::new();
    let column = (width.saturating_sub(12) / usize::from(hosts.max(1))).max(24);
    let _ = write!(text, "{:>10}  ", "seconds");
    for id in 1..=hosts {
        let _ = write!(text, "{:<column$}", format!("host{id}"));
    }
    text.push('\n');
    for event in &report.log {
        let words =
            wrap(&event.text, if event.host.is_some() { column - 2 } else { width.saturating_sub(14) });
        for (number, words) in words.iter().enumerate() {
            let at = if number == 0 { stamp(event.at) } else { String::new() };
            let indent = event.host.map_or(0, |id| usize::from(id - 1) * column);
            let mark = match (event.kind, number) {
                (Kind::Command, 0) => "> ",
                (Kind::Violation, 0) => "! ",
                _ => "",
            };
            let _ = writeln!(text, "{at:>10}  {:indent$}{mark}{words}", "");
        }
    }
    text
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

/// What went wrong, in sentences; empty when nothing did.
pub fn complaints(report: &Report) -> String {
    let mut text = String::new();
    for violation in &report.violations {
        let _ = writeln!(
            text,
            "BROKEN at {} s: {} {}: {}",
            stamp(violation.at),
            violation.promise,
            violation.promise.sentence(),
            violation.detail
        );
    }
    for unmet in &report.unmet {
        let _ = writeln!(text, "NOT MET: {unmet}");
    }
    for promise in &report.held {
        let _ = writeln!(text, "NOT BROKEN, as the scenario says it must be: {promise}");
    }
    text
}
