//! What a cluster's storage domain and its hosts' files are made of: the pieces that the steps of deployment write.

pub(crate) mod domain;
mod find;
mod host;
pub(crate) mod leases;
mod libvirt;
mod report;
mod vm;
pub(crate) mod volume;

#[cfg(test)]
mod tests;

pub use find::ClusterConf;
pub use host::HostSpec;
pub(crate) use host::refuse_other_host;
pub(crate) use leases::grid_for;
pub use leases::{LOCKSPACE_NAME, Leases};
pub use libvirt::{LibvirtChange, libvirt_changes};
pub use report::{Lines, Quiet, Report};
pub use vm::VmSpec;
pub(crate) use volume::BLANK_UUID;

use std::path::{Path, PathBuf};

use ha_config::conf_archive::ArchiveError;
use ha_config::{ConfigError, Paths};
use sanlock_client::SanlockError;

use crate::shared_file::SharedFileError;

/// Why set-up stopped. What it had done so far is taken up or removed by the next run.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something is in the way.
    #[error("{} exists already: {advice}", path.display())]
    Exists {
        /// What.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The request cannot be carried out.
    #[error("{0}")]
    Refused(String),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration volume.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A volume.
    #[error(transparent)]
    Shared(#[from] SharedFileError),
    /// The lock manager.
    #[error("{what}: {source}")]
    Sanlock {
        /// What was being done.
        what: String,
        /// Its words.
        source: SanlockError,
    },
    /// The operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// The same paths with an absolute root: sanlock, a process with another working directory, needs them.
pub(crate) fn absolute(paths: &Paths) -> Result<Paths, SetupError> {
    std::path::absolute(paths.root()).map(Paths::new).map_err(io("find the place of", paths.root()))
}

/// Makes [`SetupError::Io`]; for `map_err`.
pub(crate) fn io<'p>(
    action: &'static str,
    path: &'p Path,
) -> impl FnOnce(std::io::Error) -> SetupError + use<'p> {
    move |source| SetupError::Io { action, path: path.to_owned(), source }
}
