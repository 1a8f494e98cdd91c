//! `--soak`: random worlds on all processors, for as long as asked; and of the first that breaks a promise, the
//! shortest script that still does.

use std::time::Duration;

use anyhow::{Result, bail};
use clock::{Clock, SystemClock};
use ha_simulator::scenario::Scenario;
use ha_simulator::seeds::{self, Weather};
use ha_simulator::settings::Settings;
use ha_simulator::soak::{Soaked, soak};
use ha_simulator::{run, shrink, text};

use super::{SimulateArgs, printable};
use crate::terminal::{Exit, Terminal};

/// Simulates until so much time of clusters was simulated, or a promise broke.
pub(super) fn simulate(
    args: &SimulateArgs,
    enough: Duration,
    weather: &Weather,
    settings: &Settings,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let first = args.seed.unwrap_or(1);
    let begin = SystemClock.monotonic();
    let done = soak(weather, first, enough, 1, &|_| ());
    let took = SystemClock.monotonic().saturating_since(begin);
    if let Some((seed, error)) = &done.refused {
        bail!("random world {seed} cannot be run: {error}");
    }
    terminal.say(headline(&done, took));
    let Some(failure) = done.failures.first() else { return Ok(Exit::OK) };
    let plan = seeds::plan(failure.seed, weather);
    terminal.say(format!(
        "\nRandom world {} breaks a promise. It is run again by:\n  hosted-engine simulate --seed {}{}\n\n{}",
        failure.seed,
        failure.seed,
        options(args),
        printable(&text::complaints(&failure.report))
    ));
    let short = shrink::shortest(&plan);
    let report = run::run(&short)?;
    let title = format!("Random world {}, shortened.", failure.seed);
    terminal.say(format!(
        "The shortest script that was found to do the same:\n\n{}",
        Scenario::write_over(&title, &short, settings)
    ));
    terminal.say(printable(&text::log(&report)));
    terminal.print(&printable(&text::complaints(&report)));
    Ok(Exit::FAILED)
}

/// The options that make the same weather.
fn options(args: &SimulateArgs) -> String {
    let mut options = Vec::new();
    if args.like_here {
        options.push(" --like-here".to_owned());
    }
    options.extend(args.hosts.map(|hosts| format!(" --hosts {hosts}")));
    let times = [("--duration", args.duration), ("--between-faults", args.between_faults)];
    options.extend(
        times.into_iter().filter_map(|(option, time)| Some(format!(" {option} {}s", time?.as_secs_f64()))),
    );
    options.concat()
}

fn headline(done: &Soaked, took: Duration) -> String {
    let hours = done.simulated.as_secs_f64() / 3600.0;
    format!(
        "{} random worlds, {hours:.0} cluster-hours, {} faults and commands, {} starts of the VM, {} broken promises: \
         {:.1} cluster-hours per second",
        done.runs,
        done.commands,
        done.starts,
        done.failures.len(),
        hours / took.as_secs_f64().max(0.001)
    )
}
