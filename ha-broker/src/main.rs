//! ovirt-ha-broker: reads the command line, sets up logging, runs the daemon.
//!
//! Exit codes: 0 a clean end, 1 a failure, 2 a wrong command line, 78 this host is not set up (or its configuration
//! cannot be used): starting again will not help before somebody changes a file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use ha_broker::daemon::{self, Setup, SetupError};
use ha_config::{ConfigError, Paths};

/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// The high-availability broker of the hosted engine: monitors this host, keeps its lease and its block on shared
/// storage, and serves the agent and the operator's command.
#[derive(Parser)]
#[command(name = "ovirt-ha-broker", version)]
struct Arguments {
    /// Directory that stands for / in every path
    #[arg(long, value_name = "DIR", env = ha_config::ROOT_ENV, default_value = "/")]
    root: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter such as `ha_broker=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ovirt-ha-broker: {error:#}");
            let config = error.is::<SetupError>() || error.is::<ConfigError>();
            if config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    // Sanlock needs absolute paths.
    let root = std::path::absolute(&arguments.root)
        .with_context(|| format!("--root {}", arguments.root.display()))?;
    let setup = Setup::load(Paths::new(root))?;
    daemon_log::start(&setup.paths.broker_log(), &arguments.log_level)?;
    daemon::run(&setup)
}
