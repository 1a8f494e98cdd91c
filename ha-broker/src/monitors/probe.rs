//! What the monitors have in common: measure once, and how often.

use std::fmt;
use std::future;
use std::time::Duration;

use async_trait::async_trait;

use super::kind::Kind;
use super::options::MonitorError;
use crate::verbs::MonitorOptions;

/// How often a monitor measures unless it says otherwise, begin to begin.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The text that `status_monitor` gives, in Python's spelling.
    pub value: String,
    /// What an operator should know about it: why it is not the best one.
    pub note: Option<String>,
}

impl Reading {
    /// A result that needs no explanation.
    pub fn plain(value: impl fmt::Display) -> Self {
        Self { value: value.to_string(), note: None }
    }

    /// A result with an explanation, if there is one.
    pub fn noted(value: impl fmt::Display, note: Option<String>) -> Self {
        Self { value: value.to_string(), note }
    }
}

/// A boolean as Python writes it.
pub fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// Measures one thing.
#[async_trait]
pub trait Probe: Send {
    /// Looks once. An error, in words that name what was looked at and what to do, means that there is no result
    /// now; the earlier one does not stand in for it.
    async fn measure(&mut self) -> Result<Reading, String>;

    /// Time from the begin of one measurement to the begin of the next.
    fn interval(&self) -> Duration {
        INTERVAL
    }

    /// After this long a measurement is given up and there is no result. Only a safety net: a probe's own
    /// deadlines are shorter.
    fn limit(&self) -> Duration {
        Duration::from_mins(1)
    }

    /// Completes when something happened that is worth a look before the interval is over.
    async fn woken(&mut self) {
        future::pending::<()>().await;
    }
}

/// Makes the probe of each monitor that is started.
pub trait ProbeFactory: Send + Sync {
    /// A probe that has measured nothing yet.
    ///
    /// # Errors
    /// When an option is missing or wrong, or what is to be measured cannot be set up.
    fn probe(&self, kind: Kind, options: &MonitorOptions) -> Result<Box<dyn Probe>, MonitorError>;
}
