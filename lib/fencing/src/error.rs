//! Why a power switch could not do what it was told. No text here has a secret: what an agent said went through
//! [`redact`](crate::redact) first.

use std::fmt;
use std::time::Duration;

use crate::metadata::MetadataError;
use crate::options::OptionError;
use crate::secret_file::SecretFileError;
use crate::storage::StorageResetError;
use crate::switch::Action;

/// Why a power switch could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The program is not there, or the system would not start it.
    #[error(
        "{agent} cannot be started: {source}{}",
        if source.kind() == std::io::ErrorKind::NotFound { " (is the package fence-agents installed?)" } else { "" }
    )]
    Start {
        /// The program's path.
        agent: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// It did not end in time and was killed. Whether it did anything is not known.
    #[error("{agent} did not end within {:.0} s when asked for \"{action}\" and was killed{said}", after.as_secs_f64())]
    Deadline {
        /// The program's path.
        agent: String,
        /// What it was asked for.
        action: Action,
        /// The time it had.
        after: Duration,
        /// What it had said by then.
        said: Said,
    },
    /// It said that it failed.
    #[error("{agent} failed at \"{action}\": {end}{said}")]
    Failed {
        /// The program's path.
        agent: String,
        /// What it was asked for.
        action: Action,
        /// How it ended.
        end: End,
        /// What it said.
        said: Said,
    },
    /// Its exit code and its words about the power do not go together, so that neither is believed.
    #[error("{agent} did not say clearly whether the power is on: {end}{said}")]
    Unclear {
        /// The program's path.
        agent: String,
        /// How it ended.
        end: End,
        /// What it said.
        said: Said,
    },
    /// It did not describe itself.
    #[error("{agent}: {source}")]
    Metadata {
        /// The program's path.
        agent: String,
        /// What is wrong.
        source: MetadataError,
    },
    /// The configured options are not what it takes.
    #[error("{agent}: {source}")]
    Option {
        /// The program's path.
        agent: String,
        /// What is wrong and what to do.
        source: OptionError,
    },
    /// It cannot do what is needed.
    #[error("{agent} has no action \"{action}\", so that it cannot {needed_to}")]
    NoAction {
        /// The program's path.
        agent: String,
        /// What it lacks.
        action: Action,
        /// What for.
        needed_to: &'static str,
    },
    /// The reset through storage did not do it.
    #[error("reset through storage: {0}")]
    Storage(#[from] StorageResetError),
    /// A password cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The agent said that it was done, and its status does not show it.
    #[error("{agent} was asked for \"{action}\", and {:.0} s later that is not confirmed: {seen}", after.as_secs_f64())]
    NotConfirmed {
        /// The program's path.
        agent: String,
        /// What it was asked for.
        action: Action,
        /// Time since then.
        after: Duration,
        /// What the last look at the power showed.
        seen: String,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl FenceError {
    /// The agent gave up waiting for the power to change, which may still happen. fence-agents' library (`fencing.py`,
    /// `EC_WAITING_ON` and `EC_WAITING_OFF`) says so in these words; its exit code is 1 as with any other failure.
    pub(crate) fn gave_up_waiting(&self) -> bool {
        matches!(self, Self::Failed { said, .. } if said.0.contains("Timed out waiting to power"))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Code(code) => write!(f, "exit code {code}"),
        }
    }
}

/// The end of what an agent said, on one line and without secrets; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said(pub String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.0) }
    }
}
