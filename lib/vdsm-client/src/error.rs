//! How a call can end badly.

use std::time::Duration;

use thiserror::Error;

/// How a call can end badly. What matters to a caller is whether the verb may have been executed: only
/// [`CallError::Unreachable`] says that it was not; [`CallError::Server`] that it failed; the others leave it open.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// There was no connection in the time that the call had; nothing was sent.
    #[error("VDSM cannot be reached: {detail}")]
    Unreachable {
        /// Why, with what to do when we know.
        detail: String,
    },
    /// There was no answer in time. The verb may have been executed, or may still be.
    #[error("VDSM did not answer {method} within {} s", after.as_secs_f64())]
    Deadline {
        /// The verb.
        method: String,
        /// How long the call could take.
        after: Duration,
    },
    /// The connection ended between request and answer. The verb may have been executed.
    #[error("the connection to VDSM ended before it answered {method}: whether it was done is unknown")]
    Lost {
        /// The verb.
        method: String,
    },
    /// The server says no.
    #[error("VDSM refused {method}: {message} (code {code})")]
    Server {
        /// The verb.
        method: String,
        /// See [`crate::code`].
        code: i64,
        /// The server's words.
        message: String,
    },
    /// The server's answer is not what the verb should answer.
    #[error("VDSM's answer to {method} is not understood: {detail}")]
    Answer {
        /// The verb.
        method: String,
        /// What was expected and what came.
        detail: String,
    },
}

impl CallError {
    /// The server's error number, when the server answered with one; see [`crate::code`].
    pub fn code(&self) -> Option<i64> {
        match self {
            CallError::Server { code, .. } => Some(*code),
            CallError::Unreachable { .. }
            | CallError::Deadline { .. }
            | CallError::Lost { .. }
            | CallError::Answer { .. } => None,
        }
    }
}
