//! The options that a caller gives a monitor, and what is said about wrong ones.

use std::str::FromStr;
use std::time::Duration;

use crate::verbs::MonitorOptions;

/// Why a monitor cannot be started, stopped or asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MonitorError {
    /// There is no such type.
    #[error("there is no monitor type '{kind}'; known are {known}")]
    UnknownKind {
        /// What was asked for, cut and escaped.
        kind: String,
        /// The types, separated by commas.
        known: String,
    },
    /// An option is missing or wrong.
    #[error("monitor {kind}: option {option} {problem}")]
    BadOption {
        /// The monitor's type.
        kind: &'static str,
        /// The option.
        option: &'static str,
        /// Its value, what is wrong with it, what is right.
        problem: String,
    },
    /// It was never started, or stopped.
    #[error("no monitor '{id}' is running; running are {running}")]
    NotRunning {
        /// What was asked for, cut and escaped.
        id: String,
        /// Those that run, separated by commas, or `none`.
        running: String,
    },
    /// The system did not give what the monitor needs to begin.
    #[error("monitor {kind} cannot start: {problem}")]
    Setup {
        /// The monitor's type.
        kind: &'static str,
        /// What failed and why.
        problem: String,
    },
}

/// Text of a caller that is shown back to it: at most 64 characters, nothing unprintable.
pub fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// The options of one monitor. A missing option, nil and an empty text are the same.
pub struct Options<'a> {
    kind: &'static str,
    given: &'a MonitorOptions,
}

impl<'a> Options<'a> {
    pub const fn new(kind: &'static str, given: &'a MonitorOptions) -> Self {
        Self { kind, given }
    }

    pub fn text(&self, option: &'static str) -> Option<&'a str> {
        self.given.get(option)?.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }

    pub fn needed(&self, option: &'static str, what: &str) -> Result<&'a str, MonitorError> {
        self.text(option).ok_or_else(|| self.bad(option, format!("is missing: give {what}")))
    }

    /// A number from `least` to `most`, or `default` when it is not given.
    pub fn number<T>(&self, option: &'static str, default: T, least: T, most: T) -> Result<T, MonitorError>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(text) = self.text(option) else { return Ok(default) };
        text.parse().ok().filter(|number| *number >= least && *number <= most).ok_or_else(|| {
            self.bad(option, format!("is '{}': give a number from {least} to {most}", shown(text)))
        })
    }

    /// Seconds, with a fraction or without.
    pub fn seconds(
        &self,
        option: &'static str,
        default: f64,
        least: f64,
        most: f64,
    ) -> Result<Duration, MonitorError> {
        self.number(option, default, least, most).map(Duration::from_secs_f64)
    }

    pub fn bad(&self, option: &'static str, problem: String) -> MonitorError {
        MonitorError::BadOption { kind: self.kind, option, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_nil_and_missing_options_are_the_same() {
        let given = MonitorOptions::from([("a".to_owned(), None), ("b".to_owned(), Some("  ".to_owned()))]);
        let options = Options::new("x", &given);
        for option in ["a", "b", "c"] {
            assert_eq!(options.text(option), None);
        }
        assert_eq!(
            options.needed("a", "an address").unwrap_err().to_string(),
            "monitor x: option a is missing: give an address"
        );
    }

    #[test]
    fn numbers_out_of_range_are_named_with_the_range() {
        let given = MonitorOptions::from([("count".to_owned(), Some("-3\u{1b}[2J".to_owned()))]);
        let error = Options::new("network", &given).number("count", 5, 1, 100).unwrap_err().to_string();
        assert_eq!(error, r"monitor network: option count is '-3\u{1b}[2J': give a number from 1 to 100");
        let given = MonitorOptions::from([("delay".to_owned(), Some("nan".to_owned()))]);
        assert!(Options::new("network", &given).seconds("delay", 0.5, 0.0, 60.0).is_err());
    }
}
