//! vdsm-stand-in: reads the command line and serves, or makes certificates. For tests only; never installed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use vdsm_stand_in::args::{Arguments, Command, Serve};
use vdsm_stand_in::{certificates, server};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::MakeCertificates(wanted)) => certificates::make(wanted),
        None => serve(&arguments.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vdsm-stand-in: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Serve) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log_level)
        .with_context(|| format!("--log-level {}", arguments.log_level))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(server::run(arguments));
    // What hangs with the storage is not waited for.
    runtime.shutdown_timeout(Duration::ZERO);
    done
}
