//! Binary entry point.

use std::process::ExitCode;

use clap::Parser;
use hosted_engine_cli::sandbox;

#[derive(Debug, Parser)]
enum Cli {
    /// A whole cluster on this machine, to try out and to break
    Sandbox(sandbox::SandboxArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    let Cli::Sandbox(args) = Cli::parse();
    sandbox::run(args)
}
