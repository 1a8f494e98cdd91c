//! `GET /metrics`: the same facts for Prometheus, in its text format. Pure text work on a status document.

use std::fmt::Write as _;
use std::time::Duration;

use broker_api::status::{HostRow, LeaseState, StatusDocument, StorageState};
use metadata_format::EngineStatus;

use super::Parts;

/// A page under construction. Each metric is written once, with its samples.
#[derive(Default)]
struct Page(String);

/// A metric's kind, as the format calls it.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

type Sample<'a> = (&'a [(&'a str, &'a str)], f64);

impl Page {
    /// One metric. Without a sample nothing is written.
    fn metric(&mut self, kind: Kind, name: &str, help: &str, samples: &[Sample<'_>]) {
        if samples.is_empty() {
            return;
        }
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (index, (label, text)) in labels.iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(text));
            }
            let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.metric(Kind::Gauge, name, help, &[(&[], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.metric(Kind::Counter, name, help, &[(&[], value)]);
    }
}

/// A label's value as the format wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[allow(clippy::cast_precision_loss, reason = "the format has floats only; counts stay far below 2^52")]
const fn number(value: u64) -> f64 {
    value as f64
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// The page.
pub fn render(parts: &Parts, status: &StatusDocument, report_age: Option<Duration>) -> String {
    let mut page = Page::default();
    let version: &[(&str, &str)] = &[("version", &status.broker_version)];
    page.metric(Kind::Gauge, "ovirt_ha_broker_info", "The broker's release.", &[(version, 1.0)]);
    if let Some(id) = status.host_id {
        page.gauge("ovirt_ha_host_id", "This host's id.", id.get().into());
    }
    storage(&mut page, parts, status);
    leases(&mut page, parts);
    if let Some(on) = status.global_maintenance {
        page.gauge("ovirt_ha_global_maintenance", "1 in global maintenance.", flag(on));
    }
    hosts(&mut page, status);
    if let Some(on) = status.watchdog {
        let help = "1 when sanlock has the watchdog reset this host if a lease cannot be renewed.";
        page.gauge("ovirt_ha_watchdog", help, flag(on));
    }
    if let Some(age) = report_age {
        page.gauge("ovirt_ha_agent_report_age_seconds", "Age of the agent's last report.", age.as_secs_f64());
    }
    let ages: Vec<([(&str, &str); 1], f64)> = status
        .monitors
        .iter()
        .filter_map(|(id, row)| Some(([("monitor", id.as_str())], number(row.age_secs?))))
        .collect();
    let ages: Vec<Sample<'_>> = ages.iter().map(|(labels, value)| (labels.as_slice(), *value)).collect();
    page.metric(Kind::Gauge, "ovirt_ha_monitor_age_seconds", "Age of a monitor's last result.", &ages);
    page.counter("ovirt_ha_wakes_total", "Events that woke the agent.", number(parts.wake.get()));
    page.0
}

fn storage(page: &mut Page, parts: &Parts, status: &StatusDocument) {
    let is = |wanted: &str| {
        let state = match status.storage {
            StorageState::Starting => "starting",
            StorageState::Connecting { .. } => "connecting",
            StorageState::Good { .. } => "good",
            StorageState::Stuck { .. } => "stuck",
            StorageState::Failed { .. } => "failed",
        };
        flag(state == wanted)
    };
    let samples: [Sample<'_>; 5] = [
        (&[("state", "starting")], is("starting")),
        (&[("state", "connecting")], is("connecting")),
        (&[("state", "good")], is("good")),
        (&[("state", "stuck")], is("stuck")),
        (&[("state", "failed")], is("failed")),
    ];
    page.metric(Kind::Gauge, "ovirt_ha_storage_state", "1 for the state of the metadata file.", &samples);
    let board = &parts.whiteboard;
    let counters = board.counters();
    page.gauge(
        "ovirt_ha_storage_stuck_seconds",
        "How long the oldest storage request has hung; 0 when none does.",
        board.stuck_for().as_secs_f64(),
    );
    page.gauge(
        "ovirt_ha_storage_hanging_threads",
        "Threads that hang in storage.",
        number(board.hanging_threads() as u64),
    );
    page.counter("ovirt_ha_storage_reads_total", "Reading cycles that came back.", number(counters.reads));
    page.counter(
        "ovirt_ha_storage_read_failures_total",
        "Reading cycles that failed or missed their deadline.",
        number(counters.read_failures),
    );
    page.counter(
        "ovirt_ha_storage_read_bytes_total",
        "Bytes read from the metadata file in cycles.",
        number(counters.read_bytes),
    );
    page.gauge(
        "ovirt_ha_storage_cycle_bytes",
        "Bytes that the last cycle read.",
        number(counters.last_cycle_bytes),
    );
    page.counter(
        "ovirt_ha_storage_read_seconds_total",
        "Time that reading cycles took.",
        counters.read_time.as_secs_f64(),
    );
    page.gauge(
        "ovirt_ha_storage_last_read_seconds",
        "Time that the last reading cycle took.",
        counters.last_read_time.as_secs_f64(),
    );
    page.counter("ovirt_ha_storage_writes_total", "Blocks written and read back.", number(counters.writes));
    page.counter(
        "ovirt_ha_storage_write_failures_total",
        "Block writes that were not acknowledged.",
        number(counters.write_failures),
    );
    page.counter(
        "ovirt_ha_storage_write_seconds_total",
        "Time that acknowledged writes took, with the reading back.",
        counters.write_time.as_secs_f64(),
    );
    page.gauge(
        "ovirt_ha_storage_last_write_seconds",
        "Time that the last acknowledged write took.",
        counters.last_write_time.as_secs_f64(),
    );
    page.gauge(
        "ovirt_ha_storage_waiting_writes",
        "Callers that wait for a write to begin.",
        number(board.waiting_writes() as u64),
    );
}

fn leases(page: &mut Page, parts: &Parts) {
    let held =
        |keeper: &crate::lockspace::Keeper| flag(matches!(keeper.kept().state, LeaseState::Held { .. }));
    let samples: [Sample<'_>; 2] = [
        (&[("lockspace", "hosted-engine")], held(&parts.lease)),
        (&[("lockspace", "storage-domain")], held(&parts.domain)),
    ];
    let name = "ovirt_ha_lease_held";
    page.metric(Kind::Gauge, name, "1 while this host holds its id in the lockspace.", &samples);
}

fn hosts(page: &mut Page, status: &StatusDocument) {
    struct Row {
        id: String,
        name: String,
        score: f64,
        live: f64,
        maintenance: f64,
        engine: f64,
        unchanged: Option<f64>,
    }
    let mut rows = Vec::new();
    let mut bad = 0;
    for (id, row) in &status.hosts {
        match row {
            HostRow::Bad { .. } => bad += 1,
            HostRow::Good(row) => rows.push(Row {
                id: id.to_string(),
                name: row.hostname.clone(),
                score: f64::from(row.score.0),
                live: flag(row.live),
                maintenance: flag(row.maintenance),
                engine: f64::from(EngineStatus::rank(&row.engine_status)),
                unchanged: row.unchanged_secs.map(number),
            }),
        }
    }
    let labels: Vec<[(&str, &str); 2]> =
        rows.iter().map(|row| [("host_id", row.id.as_str()), ("hostname", row.name.as_str())]).collect();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&Row) -> Option<f64>| {
        let samples: Vec<Sample<'_>> = rows
            .iter()
            .zip(&labels)
            .filter_map(|(row, labels)| Some((labels.as_slice(), value(row)?)))
            .collect();
        page.metric(Kind::Gauge, name, help, &samples);
    };
    each("ovirt_ha_host_score", "A host's score.", &|row| Some(row.score));
    each("ovirt_ha_host_live", "1 when the agent here takes the host for live.", &|row| Some(row.live));
    each("ovirt_ha_host_maintenance", "1 in local maintenance.", &|row| Some(row.maintenance));
    each(
        "ovirt_ha_host_engine",
        "Engine on the host: 0 unknown, 1 down, 2 paused, 3 up with bad health, 4 good.",
        &|row| Some(row.engine),
    );
    each("ovirt_ha_host_unchanged_seconds", "Time since the host's block changed.", &|row| row.unchanged);
    page.gauge("ovirt_ha_bad_blocks", "Host blocks that cannot be read or understood.", f64::from(bad));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_each_metric_has_its_header() {
        let mut page = Page::default();
        let labels: &[(&str, &str)] = &[("host", "a\"b\\c\nd"), ("x", "y")];
        page.metric(Kind::Gauge, "m", "two\nlines", &[(labels, 1.5), (&[], 2.0)]);
        page.metric(Kind::Counter, "none", "not written", &[]);
        assert_eq!(
            page.0,
            "# HELP m two\\nlines\n# TYPE m gauge\nm{host=\"a\\\"b\\\\c\\nd\",x=\"y\"} 1.5\nm 2\n"
        );
    }
}
