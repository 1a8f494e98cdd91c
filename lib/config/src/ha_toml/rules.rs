//! `[rules]`: the figures behind the switches of `[policy]`, with their ranges.

use std::time::Duration;

use serde::Deserialize;

use super::{Timers, seconds};

/// `[rules]`: they should be the same on all hosts. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesTable {
    /// How often a crashed VM is started again on the same host at once, within `restart_window`, 0 to 20; default 3.
    pub restart_budget: u32,
    /// The time in which these restarts are counted, 1 to 86400; default 600.
    #[serde(with = "seconds")]
    pub restart_window: Duration,
    /// How long a host rests after a crash when no other host can start the VM, 1 to 3600, and not longer than
    /// `timers.unexpectedly_down`; default 60.
    #[serde(with = "seconds")]
    pub restart_pause: Duration,
    /// Samples of the network or the bridge that must be bad, of the last `debounce_samples`, before they count against
    /// a running VM; also as many samples in a row must show another host better. 1 to 20; default 3.
    pub debounce_bad: u32,
    /// Samples that are looked at, 1 to 20, and not fewer than `debounce_bad`; default 4.
    pub debounce_samples: u32,
    /// Time between two equally good hosts that may start the VM, 0 to 60; default 5.
    #[serde(with = "seconds")]
    pub start_stagger: Duration,
    /// Resets of a sick engine by this host within an hour, 1 to 20; default 3.
    pub engine_resets: u32,
    /// What such a reset is; default `["shutdown", "force"]`.
    pub sick_engine: SickEngine,
}

/// The steps of a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub enum SickEngine {
    /// `["shutdown", "force"]`: the guest is asked to power down, and ended after `timers.engine_stop`.
    #[default]
    ShutdownThenForce,
    /// `["force"]`: the VM is ended at once.
    Force,
    /// `[]`: it is never reset.
    Never,
}

impl TryFrom<Vec<String>> for SickEngine {
    type Error = String;

    fn try_from(steps: Vec<String>) -> Result<Self, String> {
        let names: Vec<_> = steps.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["shutdown", "force"] => Ok(Self::ShutdownThenForce),
            ["force"] => Ok(Self::Force),
            [] => Ok(Self::Never),
            other => Err(format!(
                "rules.sick_engine = {other:?} must be [\"shutdown\", \"force\"], [\"force\"] or []"
            )),
        }
    }
}

impl Default for RulesTable {
    fn default() -> Self {
        Self {
            restart_budget: 3,
            restart_window: Duration::from_mins(10),
            restart_pause: Duration::from_mins(1),
            debounce_bad: 3,
            debounce_samples: 4,
            start_stagger: Duration::from_secs(5),
            engine_resets: 3,
            sick_engine: SickEngine::default(),
        }
    }
}

impl RulesTable {
    /// Ranges, and the relations between these figures and the times.
    pub(super) fn check(&self, timers: &Timers) -> Result<(), String> {
        for (name, value, least, most) in [
            ("restart_budget", self.restart_budget, 0, 20),
            ("debounce_bad", self.debounce_bad, 1, 20),
            ("debounce_samples", self.debounce_samples, 1, 20),
            ("engine_resets", self.engine_resets, 1, 20),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("rules.{name} = {value} must be a whole number from {least} to {most}"));
            }
        }
        for (name, value, least, most) in [
            ("restart_window", self.restart_window, 1.0, 86400.0),
            ("restart_pause", self.restart_pause, 1.0, 3600.0),
            ("start_stagger", self.start_stagger, 0.0, 60.0),
        ] {
            let value = value.as_secs_f64();
            if !(least..=most).contains(&value) {
                return Err(format!("rules.{name} = {value} must be from {least} to {most} seconds"));
            }
        }
        if self.debounce_bad > self.debounce_samples {
            return Err(format!(
                "rules.debounce_samples ({}) must be at least rules.debounce_bad ({}): \
                 otherwise a bad network would never count against a running VM",
                self.debounce_samples, self.debounce_bad
            ));
        }
        if self.restart_pause > timers.unexpectedly_down {
            return Err(format!(
                "timers.unexpectedly_down ({} s) must be at least rules.restart_pause ({} s): \
                 a host that nobody can stand in for must not rest longer than the others",
                timers.unexpectedly_down.as_secs_f64(),
                self.restart_pause.as_secs_f64()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HaToml;
    use super::*;
    use crate::paths::Paths;

    fn parse(text: &str) -> Result<RulesTable, String> {
        let toml = HaToml::parse(&Paths::default(), text).map_err(|error| error.to_string())?;
        Ok(toml.rules)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn keys_are_read() {
        let rules = parse(
            "[rules]\nrestart_budget = 0\nrestart_window = 60\nrestart_pause = 1.5\ndebounce_bad = 1\n\
             debounce_samples = 1\nstart_stagger = 0\nengine_resets = 20\nsick_engine = [\"force\"]\n",
        );
        let wanted = RulesTable {
            restart_budget: 0,
            restart_window: Duration::from_mins(1),
            restart_pause: Duration::from_millis(1500),
            debounce_bad: 1,
            debounce_samples: 1,
            start_stagger: Duration::ZERO,
            engine_resets: 20,
            sick_engine: SickEngine::Force,
        };
        assert_eq!(rules, Ok(wanted));
        let sick = |text| parse(text).map(|rules| rules.sick_engine);
        assert_eq!(sick("[rules]\nsick_engine = []\n"), Ok(SickEngine::Never));
        let both = "[rules]\nsick_engine = [\"shutdown\", \"force\"]\n";
        assert_eq!(sick(both), Ok(SickEngine::ShutdownThenForce));
    }

    #[test]
    fn values_out_of_range_are_refused_with_key_value_and_range() {
        for (key, value, says) in [
            ("restart_budget", "21", "rules.restart_budget = 21 must be a whole number from 0 to 20"),
            ("restart_window", "0", "rules.restart_window = 0 must be from 1 to 86400 seconds"),
            ("restart_pause", "0.5", "rules.restart_pause = 0.5 must be from 1 to 3600 seconds"),
            ("debounce_bad", "0", "rules.debounce_bad = 0 must be a whole number from 1 to 20"),
            ("debounce_samples", "21", "rules.debounce_samples = 21 must be a whole number from 1 to 20"),
            ("start_stagger", "61", "rules.start_stagger = 61 must be from 0 to 60 seconds"),
            ("engine_resets", "0", "rules.engine_resets = 0 must be a whole number from 1 to 20"),
            (
                "sick_engine",
                "[\"force\", \"shutdown\"]",
                "rules.sick_engine = [\"force\", \"shutdown\"] must be",
            ),
        ] {
            let text = error(&format!("[rules]\n{key} = {value}\n"));
            assert!(text.contains(says), "{text}");
        }
        assert!(error("[rules]\nrestart_budgt = 1\n").contains("did you mean restart_budget?"));
    }

    #[test]
    fn figures_must_fit_together() {
        let text = error("[rules]\ndebounce_bad = 5\n");
        assert!(
            text.contains("rules.debounce_samples (4) must be at least rules.debounce_bad (5)"),
            "{text}"
        );
        assert!(parse("[rules]\ndebounce_bad = 4\n").is_ok());
        let text = error("[rules]\nrestart_pause = 561\n");
        assert!(
            text.contains("timers.unexpectedly_down (560 s) must be at least rules.restart_pause (561 s)")
        );
        assert!(parse("[rules]\nrestart_pause = 560\n").is_ok());
    }
}
