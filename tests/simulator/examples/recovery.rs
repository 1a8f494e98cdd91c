//! Measures how long the engine is away after each of many faults, with the plain and with the better rules.
//!
//! ```text
//! cargo run --release -p ha-simulator --example recovery -- --runs 10000 --docs docs
//! ```

use std::cmp::Reverse;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clock::{Clock, SystemClock};
use ha_config::ha_toml::RecoveryProfile;
use ha_simulator::recovery::figures::{Row, Sample, table};
use ha_simulator::recovery::plot::svg;
use ha_simulator::recovery::{Fault, Outcome, RecoveryError, Rules, measure, measure_many};
use ha_simulator::text;

/// How long the engine is away after each of many faults, with the plain and with the better rules.
#[derive(Parser)]
struct Args {
    /// Runs of each fault with each set of rules.
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// Only these faults, by name.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    faults: Vec<Fault>,
    /// The first run's seed; each further run has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; as many as there are processors without it.
    #[arg(long)]
    threads: Option<usize>,
    /// Prints what happens in the first run of each fault instead, with both sets of rules.
    #[arg(long)]
    log: bool,
    /// The leases' times: standard, fast or aggressive.
    #[arg(long, default_value = "standard", conflicts_with = "docs")]
    profile: RecoveryProfile,
    /// Writes recovery.md and recovery.svg into this folder; without it the table is printed.
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::find(name).ok_or_else(|| {
        format!("there is no such fault; known are {}", Fault::ALL.map(Fault::name).join(", "))
    })
}

/// A problem of this program.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Measure(#[from] RecoveryError),
    #[error("cannot write {}: {reason}", .path.display())]
    Write { path: PathBuf, reason: std::io::Error },
}

fn main() -> Result<(), Problem> {
    let args = Args::parse();
    let threads = args.threads.or_else(|| std::thread::available_parallelism().map(NonZero::get).ok());
    let threads = threads.unwrap_or(1);
    let named = args.faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",");
    let faults = if args.faults.is_empty() { Fault::ALL.to_vec() } else { args.faults };
    if args.log {
        return Ok(print_logs(&faults, args.seed)?);
    }
    let clock = SystemClock;
    let mut rows = Vec::new();
    for fault in faults {
        let begun = clock.monotonic();
        let plain = measure_many(args.profile, fault, Rules::Plain, args.seed, args.runs, threads)?;
        let better = measure_many(args.profile, fault, Rules::Better, args.seed, args.runs, threads)?;
        let took = clock.monotonic().saturating_since(begun);
        let [worst_plain, worst_better] = [&plain, &better].map(|outcomes| worst(outcomes, args.seed));
        eprintln!(
            "{:<24} {}; seeds of the longest outages: {worst_plain} plain, {worst_better} better",
            fault.name(),
            pace(&plain, &better, took)
        );
        rows.push(Row { fault, plain: Sample::new(&plain), better: Sample::new(&better) });
    }
    let Some(folder) = args.docs else {
        print!("{}", table(&rows));
        return Ok(());
    };
    let text = DOCUMENT
        .replace("{table}", table(&rows).trim_end())
        .replace("{runs}", &args.runs.to_string())
        .replace("{seed}", &args.seed.to_string())
        .replace("{faults}", &if named.is_empty() { named } else { format!(" --faults {named}") });
    // Its further sections are not made here.
    let kept = std::fs::read_to_string(folder.join("recovery.md")).unwrap_or_default();
    let text = text + kept.find("\n## ").map_or("", |at| &kept[at..]);
    for (name, text) in [("recovery.md", text), ("recovery.svg", svg(&rows))] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|reason| Problem::Write { path, reason })?;
    }
    Ok(())
}

/// What happens in one run of each fault with each set of rules.
fn print_logs(faults: &[Fault], seed: u64) -> Result<(), RecoveryError> {
    for fault in faults {
        for rules in [Rules::Plain, Rules::Better] {
            let (Outcome { outage, ending, .. }, report) = measure(*fault, rules, seed)?;
            println!("{}, {rules:?}: {:.1} s, {ending:?}", fault.name(), outage.as_secs_f64());
            print!("{}", text::log(&report));
        }
    }
    Ok(())
}

/// The seed of the longest outage; the first of several.
fn worst(outcomes: &[Outcome], base: u64) -> u64 {
    let longest = (base..).zip(outcomes).min_by_key(|(_, outcome)| Reverse(outcome.outage));
    longest.map_or(base, |(seed, _)| seed)
}

/// How fast it went.
#[allow(clippy::cast_precision_loss, reason = "far fewer runs than 2^52")]
fn pace(plain: &[Outcome], better: &[Outcome], took: Duration) -> String {
    let simulated: Duration = plain.iter().chain(better).map(|outcome| outcome.lasted).sum();
    let runs = (plain.len() + better.len()) as f64;
    let secs = took.as_secs_f64().max(0.001);
    format!(
        "{secs:.1} s, {:.0} runs/s, {:.1} cluster hours/s",
        runs / secs,
        simulated.as_secs_f64() / 3600.0 / secs
    )
}

/// What stands around the table.
const DOCUMENT: &str = "\
# How long the engine is away after a fault

![Seconds without a healthy engine](recovery.svg)

The shipped agent and broker of three hosts in the simulator, in virtual time: sanlock's I/O time-out N = 10 s, its
watchdog W = 60 s, founding score profile. Each fault is run {runs} times with the *plain* rules (all switches of
`[policy]` off, as the existing release decides) and {runs} times with the *better* rules (as shipped), from the same
seeds. A seed draws when the hosts boot, how fast their clocks are (100 ppm), how slow storage is (a request takes at
most 2 to 200 ms), at which moment of all timers the fault comes, and how long the guest boots: 30 to 90 s, which is
most of many figures below.

Seconds without a healthy engine, from the fault until it has been over and the engine healthy for two minutes. A
needless stop of a healthy engine counts like any other. *Undisturbed* is the share of runs without any outage.

{table}

```
cargo run --release -p ha-simulator --example recovery -- --runs {runs} --seed {seed}{faults} --docs docs
```
";
