//! Repeats one probe on its schedule and keeps its last result. Knows nothing of what is measured.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_api::status::MonitorRow;
use clock::{Clock, Monotonic};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::probe::{Probe, Reading};

/// Events may bring a look forward, but not more often than this: a hypervisor that chatters must not keep us busy.
const LEAST_GAP: Duration = Duration::from_millis(250);

/// The last result of one monitor.
#[derive(Debug, Clone, Default)]
struct Last {
    value: Option<String>,
    at: Option<Monotonic>,
    error: Option<String>,
}

/// Where a monitor's task leaves its result for readers.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Last>);

impl Slot {
    /// A slot that reads `value` until the first measurement.
    pub fn assuming(value: Option<String>) -> Self {
        Self(Mutex::new(Last { value, ..Last::default() }))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last value.
    pub fn value(&self) -> Option<String> {
        self.last().value.clone()
    }

    /// The last result as a row of a status display.
    pub fn row(&self, now: Monotonic) -> MonitorRow {
        let last = self.last().clone();
        MonitorRow {
            value: last.value,
            age_secs: last.at.map(|at| now.saturating_since(at).as_secs()),
            error: last.error,
        }
    }

    /// Puts a result in; true when the value is another one than before.
    fn put(&self, result: Result<Reading, String>, now: Monotonic) -> bool {
        let (value, error) = match result {
            Ok(reading) => (Some(reading.value), reading.note),
            Err(error) => (None, Some(error)),
        };
        let mut last = self.last();
        let changed = last.value != value;
        *last = Last { value, at: Some(now), error };
        changed
    }
}

/// Measures for ever. A changed value is told to `changes`, if given.
pub async fn run(
    kind: &'static str,
    mut probe: Box<dyn Probe>,
    slot: Arc<Slot>,
    clock: Arc<dyn Clock>,
    changes: Option<watch::Sender<u64>>,
) {
    let mut last_error = None;
    loop {
        let begun = Instant::now();
        let limit = probe.limit();
        let result = time::timeout(limit, probe.measure()).await.unwrap_or_else(|_| {
            Err(format!("no result within {} s; it will be tried again", limit.as_secs()))
        });
        let error = match &result {
            Ok(reading) => reading.note.clone(),
            Err(error) => Some(error.clone()),
        };
        if error != last_error {
            if let Some(error) = &error {
                tracing::warn!(monitor = kind, "{error}");
            } else {
                tracing::info!(monitor = kind, "good again");
            }
            last_error = error;
        }
        if slot.put(result, clock.monotonic())
            && let Some(changes) = &changes
        {
            changes.send_modify(|count| *count += 1);
        }
        let next = begun + probe.interval();
        tokio::select! {
            biased;
            () = probe.woken() => time::sleep_until(begun + LEAST_GAP).await,
            () = time::sleep_until(next) => {}
        }
    }
}
