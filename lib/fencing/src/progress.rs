//! What happens while a host is switched, for whoever waits.

use std::fmt;
use std::time::Duration;

use crate::switch::{Action, Power};

/// Is told each step when it happens.
pub type Report<'a> = dyn FnMut(&Progress) + Send + 'a;

/// One step. Its text is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something in the configuration that works and should be changed.
    Advice {
        /// The power switch.
        switch: String,
        /// What should be changed.
        text: String,
    },
    /// An agent was started.
    Asked {
        /// For what.
        action: Action,
        /// The power switch.
        switch: String,
    },
    /// The agent said that it failed; the power itself is looked at before that is believed.
    Complained {
        /// What it was asked for.
        action: Action,
        /// What it said.
        error: String,
    },
    /// The power has not changed yet.
    Waiting {
        /// What was asked for.
        action: Action,
        /// Time since then.
        after: Duration,
        /// What the status said; `None` when it had no answer.
        seen: Option<Power>,
    },
    /// The status shows that it is done.
    Confirmed {
        /// What was asked for.
        action: Action,
        /// Time since then.
        after: Duration,
    },
    /// A level failed.
    LevelFailed {
        /// What was asked for.
        action: Action,
        /// Its number in the order in which levels are tried, from 1.
        level: usize,
        /// Why.
        error: String,
        /// Whether another level is tried now.
        more: bool,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Advice { switch, text } => write!(f, "{switch}: {text}"),
            Self::Asked { action, switch } => write!(f, "{action}: asked {switch}"),
            Self::Complained { action, error } => write!(f, "{action}: {error}; looking at the power"),
            Self::Waiting { action, after, seen: Some(power) } => {
                write!(f, "{action}: the power is still {power} after {:.0} s", after.as_secs_f64())
            }
            Self::Waiting { action, after, seen: None } => {
                write!(f, "{action}: no answer about the power after {:.0} s", after.as_secs_f64())
            }
            Self::Confirmed { action, after } => {
                write!(f, "{action}: confirmed after {:.0} s", after.as_secs_f64())
            }
            Self::LevelFailed { action, level, error, more } => {
                let then = if *more { "; trying the next level" } else { "" };
                write!(f, "{action}: level {level} failed: {error}{then}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_one_line() {
        let after = Duration::from_millis(4200);
        let (action, error) = (Action::Off, "it burns".to_owned());
        for (step, line) in [
            (Progress::Asked { action, switch: "fence_x at y".to_owned() }, "off: asked fence_x at y"),
            (Progress::Confirmed { action, after }, "off: confirmed after 4 s"),
            (
                Progress::Waiting { action, after, seen: Some(Power::On) },
                "off: the power is still on after 4 s",
            ),
            (Progress::Waiting { action, after, seen: None }, "off: no answer about the power after 4 s"),
            (Progress::Complained { action, error: error.clone() }, "off: it burns; looking at the power"),
            (Progress::LevelFailed { action, level: 2, error, more: false }, "off: level 2 failed: it burns"),
        ] {
            assert_eq!(step.to_string(), line);
        }
    }
}
