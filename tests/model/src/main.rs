//! `ha-model`: checks the decision core in a small cluster and prints what came out. Exit status 1 when a property
//! does not hold.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ha_agent::core::Policy;
use ha_model::{Setup, check};

/// Explores every state of a small cluster of hosted-engine hosts that run the shipped decision core.
#[derive(Parser)]
struct Cli {
    /// Hosts in the cluster.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    hosts: u8,
    /// Faults that may happen in one run, of any kinds and at any moments.
    #[arg(long, default_value_t = 1)]
    faults: u8,
    /// Longest path to explore, in steps; everything if not given.
    #[arg(long)]
    depth: Option<usize>,
    /// The decision rules.
    #[arg(long, value_enum, default_value_t = Rules::Better)]
    policy: Rules,
}

/// Which switches of the decision rules are on.
#[derive(Clone, Copy, ValueEnum)]
enum Rules {
    /// None: the existing release.
    Plain,
    /// All: the defaults.
    Better,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let policy = match cli.policy {
        Rules::Plain => Policy::plain(),
        Rules::Better => Policy::default(),
    };
    let setup = Setup { policy, faults: cli.faults, mistake: None, only: None };
    let report = if cli.hosts == 2 { check::<2>(setup, cli.depth) } else { check::<3>(setup, cli.depth) };
    println!("{report}");
    if report.violated().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
