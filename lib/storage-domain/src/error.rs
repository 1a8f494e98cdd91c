//! Why the storage domain cannot be used.

use std::fmt;
use std::path::PathBuf;

use ha_config::ConfigError;
use vdsm_client::{CallError, code};

use crate::link::LinkError;
use crate::status::explain;
use crate::step::{Step, Volume};

/// A connection that VDSM could not make or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which; without secrets.
    pub label: String,
    /// VDSM's status of it.
    pub code: i64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {}): {}", self.label, self.code, explain(self.code))
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// hosted-engine.conf has not what is needed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A call to VDSM.
    #[error("waited for {step}: {problem}")]
    Call {
        /// What it was for.
        step: Step,
        /// VDSM's or the client's words, without secrets.
        problem: String,
    },
    /// Not one connection could be made.
    #[error("VDSM cannot connect the storage server: {}", listed(.0))]
    NotConnected(Vec<Failure>),
    /// Connections that could not be ended.
    #[error("VDSM cannot disconnect the storage server: {}", listed(.0))]
    NotDisconnected(Vec<Failure>),
    /// The domain is mounted by another name; mounting it twice would have two paths to one lease.
    #[error(
        "the storage domain is mounted at {} already, and by hosted-engine.conf (storage) it belongs to {}: put this \
         host into maintenance in the engine, disconnect the storage (or reboot), and connect again",
        actual.display(),
        expected.display()
    )]
    OtherMount {
        /// Where the configuration has it.
        expected: PathBuf,
        /// Where it is.
        actual: PathBuf,
    },
    /// VDSM does not find the domain.
    #[error(
        "VDSM finds no storage domain {sd} on what it connected: is sdUUID in hosted-engine.conf right, and is it the \
         right storage?"
    )]
    NoDomain {
        /// Its uuid.
        sd: String,
    },
    /// A volume that VDSM does not find.
    #[error(
        "VDSM finds no {volume} (image {image}, volume {uuid}; code {code}): are its uuids in hosted-engine.conf right? \
         If it was lost, deploy must make it again"
    )]
    NoVolume {
        /// Which.
        volume: Volume,
        /// Its image's uuid.
        image: String,
        /// Its uuid.
        uuid: String,
        /// VDSM's code.
        code: i64,
    },
    /// A link.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl DomainError {
    /// A failed call that is nothing special.
    pub(crate) fn call(step: &Step, error: &CallError) -> Self {
        Self::Call { step: step.clone(), problem: error.to_string() }
    }

    /// A failed `Image.prepare`.
    pub(crate) fn prepare(volume: Volume, image: &str, uuid: &str, error: &CallError) -> Self {
        match error.code() {
            Some(code @ (code::NO_SUCH_VOLUME | code::NO_IMAGE_PATH | code::NO_SUCH_IMAGE)) => {
                Self::NoVolume { volume, image: image.to_owned(), uuid: uuid.to_owned(), code }
            }
            Some(_) | None => Self::call(&Step::Prepare(volume), error),
        }
    }
}

fn listed(failures: &[Failure]) -> String {
    failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("; ")
}
