//! What can go wrong between a client and the broker, each with what to do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Why a request to the broker gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket, or we may not connect to it.
    #[error(
        "cannot connect to the broker's socket {path}: {source}; is ovirt-ha-broker running \
         (systemctl status ovirt-ha-broker) and may this user connect?"
    )]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The broker took longer than the deadline. Whether the request was carried out is unknown.
    #[error("the broker did not answer {request} within {} s; its log may say what it waits for", .after.as_secs_f32())]
    Timeout {
        /// Verb or path that was asked.
        request: String,
        /// The deadline.
        after: Duration,
    },
    /// An answer with an HTTP status that is not success.
    #[error("the broker answered {request} with HTTP status {status}: {text}")]
    Http {
        /// Verb or path that was asked.
        request: String,
        /// HTTP status code.
        status: u16,
        /// The first line of the answer's body.
        text: String,
    },
    /// The broker says that the verb failed.
    #[error("the broker refused or failed {verb}: {message} (fault {code})")]
    Fault {
        /// The verb.
        verb: String,
        /// One of [`crate::xmlrpc::fault`].
        code: i64,
        /// The broker's words.
        message: String,
    },
    /// The answer `<nil/>`: how today's Python broker reports an error inside a verb.
    #[error("{verb} failed inside the broker, which did not say why; see its log")]
    NoResult {
        /// The verb.
        verb: String,
    },
    /// The connection broke, or the answer is not what the protocol says.
    #[error("bad answer of the broker to {request}: {detail}")]
    Protocol {
        /// Verb or path that was asked.
        request: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// Whether the broker was not there at all, so that nothing can have happened.
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// The fault code, when the broker itself refused.
    pub const fn fault_code(&self) -> Option<i64> {
        match self {
            Self::Fault { code, .. } => Some(*code),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Http { .. }
            | Self::NoResult { .. }
            | Self::Protocol { .. } => None,
        }
    }
}
