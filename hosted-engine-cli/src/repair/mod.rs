//! Repair of what hosts share: forgetting a host's block, mending the `hosted-engine` lockspace or writing it anew.
//!
//! ```text
//!  look ── refuse what is provably in use (no switch overrides that)
//!    └──── refuse what is not known to be safe (--force, --force-cleanup override that)
//!            └── copy to the backup directory ── write ── read back
//! ```
//!
//! Where this host's broker runs, it does what only it may do: it owns this host's id. Nothing else than the named
//! block, volume or sectors is written.

mod clean;
mod liveness;
mod lockspace;
mod mend;
mod signs;

pub(crate) use clean::forget_this_host;
pub use clean::{CleanMetadataArgs, clean_metadata};
pub(crate) use liveness::read_block;
pub use lockspace::{ReinitializeLockspaceArgs, reinitialize_lockspace};
pub(crate) use signs::refuse_life;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use broker_api::BrokerClient;
use broker_api::status::StatusDocument;
use ha_config::{HostedEngineConf, Paths};

/// Exit codes, those of the existing tools where they tell failures apart.
pub mod exit {
    /// Refused: it is not safe, or not forced.
    pub const REFUSED: u8 = 1;
    /// This host is not deployed.
    pub const NOT_DEPLOYED: u8 = 1;
    /// Deployment of this host is not complete.
    pub const NOT_CONFIGURED: u8 = 255;
    /// A service that is needed does not run or refused.
    pub const SERVICE: u8 = 254;
}

/// Why a repair command stopped, in words for the operator.
#[derive(Debug)]
pub struct Stop {
    /// Exit code.
    pub code: u8,
    /// What is said on standard error.
    pub text: String,
}

impl Stop {
    fn refused(text: impl Into<String>) -> Self {
        Self { code: exit::REFUSED, text: text.into() }
    }

    fn service(text: impl Into<String>) -> Self {
        Self { code: exit::SERVICE, text: text.into() }
    }
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::refused(error.to_string())
    }
}

/// Runs a command to its exit code.
fn finish(work: impl Future<Output = Result<(), Stop>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    match runtime.block_on(work) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(stop) => {
            eprintln!("{}", stop.text);
            Ok(ExitCode::from(stop.code))
        }
    }
}

/// This host's configuration; a stop that says what to do when it is not deployed.
pub fn deployed(paths: &Paths) -> Result<HostedEngineConf, Stop> {
    let not_deployed = || Stop { code: exit::NOT_DEPLOYED, text: "You must run deploy first".to_owned() };
    let conf = match HostedEngineConf::load(&crate::setup::absolute(paths)?) {
        Err(error) if error.is_not_found() => return Err(not_deployed()),
        other => other?,
    };
    if conf.vmid().is_err() {
        return Err(not_deployed());
    }
    if !conf.is_configured()? {
        let text = format!(
            "The deployment of this host is not complete ({}: host_id and configured=True are needed)",
            paths.hosted_engine_conf().display()
        );
        return Err(Stop { code: exit::NOT_CONFIGURED, text });
    }
    Ok(conf)
}

/// This host's broker, if it runs.
enum Broker {
    Absent,
    Runs {
        client: BrokerClient,
        /// What it says; `None` from a broker that has no such document.
        status: Option<Box<StatusDocument>>,
    },
}

impl Broker {
    async fn find(paths: &Paths) -> Result<Self, Stop> {
        let client = BrokerClient::new(paths.broker_socket());
        match client.status().await {
            Ok(status) => Ok(Self::Runs { client, status: status.map(Box::new) }),
            Err(error) if error.is_connect() => Ok(Self::Absent),
            Err(error) => Err(Stop::service(format!(
                "The broker of this host runs and does not answer as it should: {error}. Restart ovirt-ha-broker, or \
                 stop it to go on without it"
            ))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
