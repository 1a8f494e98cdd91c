//! `hosted-engine simulate`: rehearses a failure. It runs the shipped agents and brokers on simulated hosts, in virtual
//! time, and shows what they would do and how long the engine would be away.
//!
//! It touches nothing of this host but the files that it is told to write. What it prints on standard output is a
//! function of the scenario alone: the same today and tomorrow, here and elsewhere.

mod examples;
mod json;
mod soak;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgGroup, Args, value_parser};
use clock::{Clock, SystemClock};
use ha_config::{HaToml, Paths, atomic};
use ha_simulator::command::{GRAMMAR, parse_time};
use ha_simulator::run::{Plan, Report};
use ha_simulator::scenario::{Scenario, ScenarioError};
use ha_simulator::seeds::{self, Weather};
use ha_simulator::settings::Settings;
use ha_simulator::{html, run, summary, text};

use crate::terminal::{Exit, Terminal};

/// Rehearse a failure on simulated hosts: show what the agents would do, and why.
///
/// Exit code 0: everything was as the scenario expects and every promise was kept; 1: not so; 2: it could not be run.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("random").args(["seed", "soak"]).multiple(true))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct SimulateArgs {
    /// Scenario file, or the name of a shipped one: see --examples.
    #[arg(required_unless_present_any = ["seed", "soak", "grammar", "examples"], conflicts_with_all = ["seed", "soak"])]
    scenario: Option<PathBuf>,
    /// Give the hosts this host's timers, leases, rules, policy and score values; what the scenario sets itself goes
    /// before.
    #[arg(long)]
    like_here: bool,
    /// Show each host's events in a column of its own; the default where the terminal is wide enough.
    #[arg(long, conflicts_with = "lines")]
    lanes: bool,
    /// Show one line for each event.
    #[arg(long)]
    lines: bool,
    /// Show no timeline, only what came of it.
    #[arg(long, short)]
    quiet: bool,
    /// Print a report for programs, in JSON.
    #[arg(long, conflicts_with_all = ["quiet", "lanes", "lines"])]
    json: bool,
    /// Write the timeline as one HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Store the log in the scenario file, as what must come of it.
    #[arg(long, requires = "scenario", conflicts_with = "seed")]
    rewrite: bool,
    /// Run a random world instead of a scenario, and print its script.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run random worlds on all processors until so much time of clusters was simulated, from the world of --seed (or 1)
    /// on; of one that breaks a promise print the shortest script that does.
    #[arg(long, value_name = "TIME", value_parser = long_time, conflicts_with_all = ["json", "html", "keep", "lanes", "lines"])]
    soak: Option<Duration>,
    /// Hosts of the random world, 1 to 64; drawn without it.
    #[arg(long, value_name = "H", requires = "random", conflicts_with = "scenario", value_parser = value_parser!(u16).range(1..=64))]
    hosts: Option<u16>,
    /// How long faults happen in the random world: 90s, 20m, 3h; an hour without it.
    #[arg(long, value_name = "TIME", requires = "random", conflicts_with = "scenario", value_parser = time)]
    duration: Option<Duration>,
    /// Average time between two faults of the random world; drawn without it.
    #[arg(long, value_name = "TIME", requires = "random", conflicts_with = "scenario", value_parser = time)]
    between_faults: Option<Duration>,
    /// Write the random world's script to a scenario file.
    #[arg(long, value_name = "FILE", requires = "seed", conflicts_with = "scenario")]
    keep: Option<PathBuf>,
    /// Print the commands of scenario files.
    #[arg(long, exclusive = true)]
    grammar: bool,
    /// List the shipped scenarios.
    #[arg(long, exclusive = true)]
    examples: bool,
}

/// Longest time that faults may happen in a random world.
const LONGEST: Duration = Duration::from_hours(24 * 7);
/// Shortest time between two of them on average: a world must have time to be a world.
const SHORTEST: Duration = Duration::from_secs(1);
/// Columns of text output that goes to no terminal.
const USUAL_WIDTH: usize = 120;
/// Columns that a host's lane needs at least to be read with ease.
const LANE: usize = 38;

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).ok_or("write 90s, 20m or 3h")?;
    if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err("it must be from 1s to 168h".to_owned()) }
}

/// A time for --soak: cluster-years are what it is for.
fn long_time(text: &str) -> Result<Duration, String> {
    // Longer than any script may last.
    let hours = text.strip_suffix('h').and_then(|hours| hours.parse::<u32>().ok());
    let time = hours.map(|hours| Duration::from_hours(hours.into())).or_else(|| parse_time(text));
    time.filter(|time| *time >= SHORTEST).ok_or_else(|| "write 20m, 3h or 8766h (a year)".to_owned())
}

/// Carries it out.
pub fn run(args: &SimulateArgs, paths: &Paths, terminal: &mut Terminal) -> Exit {
    rehearse(args, paths, terminal).unwrap_or_else(|error| {
        terminal.complain(printable(&format!("{error:#}")));
        Exit::NOT_CONFIGURED
    })
}

fn rehearse(args: &SimulateArgs, paths: &Paths, terminal: &mut Terminal) -> Result<Exit> {
    if args.grammar {
        terminal.print(GRAMMAR);
        return Ok(Exit::OK);
    }
    if args.examples {
        terminal.print(&examples::list());
        return Ok(Exit::OK);
    }
    let settings = if args.like_here { Settings::of_host(paths)? } else { Settings::default() };
    if let Some(enough) = args.soak {
        return soak::simulate(args, enough, &weather(args, &settings)?, &settings, terminal);
    }
    let scenario = match (&args.scenario, args.seed) {
        (Some(file), _) => open(file, &settings)?,
        (None, Some(seed)) => random(args, seed, &settings, terminal)?,
        (None, None) => bail!("name a scenario; hosted-engine simulate --examples lists the shipped ones"),
    };
    let begin = SystemClock.monotonic();
    let report = play(&scenario.plan)?;
    let took = SystemClock.monotonic().saturating_since(begin);
    if !args.json {
        let (simulated, took) = (report.lasted.as_secs_f64(), took.as_secs_f64());
        terminal.complain(format!("simulated {simulated:.0} s in {took:.2} s"));
    }
    show(args, &scenario, &report, terminal)?;
    if let Some(file) = &args.html {
        save(file, &html::page(&scenario.title, &scenario.plan, &report))?;
    }
    if let (true, Some(file)) = (args.rewrite, &args.scenario) {
        save(file, &scenario.with_log(&report))?;
    }
    // Other settings give another log.
    let compared = scenario.log.as_ref().filter(|_| !args.like_here && !args.rewrite);
    let differs = compared.and_then(|expected| first_difference(expected, &text::log(&report)));
    if let Some(difference) = &differs {
        terminal.complain(printable(difference));
    }
    Ok(if report.is_good() && differs.is_none() { Exit::OK } else { Exit::FAILED })
}

/// A file, or a shipped scenario by its name.
fn open(file: &Path, settings: &Settings) -> Result<Scenario> {
    if let Some(text) = file.to_str().filter(|_| !file.exists()).and_then(examples::find) {
        return Ok(Scenario::parse_over(text, settings)?);
    }
    Scenario::load_over(file, settings).map_err(|error| match error {
        ScenarioError::Read { .. } => {
            anyhow!("{error}; hosted-engine simulate --examples lists the shipped scenarios")
        }
        ScenarioError::Line { .. } | ScenarioError::Settings(_) | ScenarioError::Plan(_) => {
            anyhow!("{}: {error}", file.display())
        }
    })
}

/// The scenario of a seed. What runs is what is printed, read again.
fn random(args: &SimulateArgs, seed: u64, settings: &Settings, terminal: &mut Terminal) -> Result<Scenario> {
    let weather = weather(args, settings)?;
    let script =
        Scenario::write_over(&format!("Random world {seed}."), &seeds::plan(seed, &weather), settings);
    if let Some(file) = &args.keep {
        save(file, &script)?;
    }
    if !args.quiet && !args.json {
        terminal.say(&script);
    }
    Ok(Scenario::parse(&script)?)
}

fn weather(args: &SimulateArgs, settings: &Settings) -> Result<Weather> {
    Ok(Weather {
        hosts: args.hosts,
        between_faults: args.between_faults,
        faulty: args.duration.unwrap_or(Weather::default().faulty),
        toml: HaToml::layered(&Paths::default(), &[&settings.toml()])?,
        agent: settings.agent.clone(),
        vary_leases: !args.like_here,
    })
}

/// Plays a plan on a thread of its own: the simulation is a runtime, and there may be one here already.
fn play(plan: &Plan) -> Result<Report> {
    std::thread::scope(|scope| {
        let played = std::thread::Builder::new()
            .name("simulation".to_owned())
            .spawn_scoped(scope, || run::run(plan))
            .context("no thread for the simulation")?;
        match played.join() {
            Ok(report) => Ok(report?),
            Err(_) => {
                bail!("the simulator itself has failed; this is a bug: please report it with the scenario")
            }
        }
    })
}

fn show(args: &SimulateArgs, scenario: &Scenario, report: &Report, terminal: &mut Terminal) -> Result<()> {
    let Scenario { title, plan, .. } = scenario;
    if args.json {
        let report = json::report(title, plan, report);
        terminal.say(serde_json::to_string(&report)?);
        return Ok(());
    }
    terminal.say(printable(&summary::headline(title, plan, report)));
    if !args.quiet {
        let timeline = match lanes(args, plan.shape.hosts, width_of_terminal()) {
            Some(width) => text::lanes(report, plan.shape.hosts, width),
            None => text::log(report),
        };
        terminal.say(printable(&timeline));
    }
    terminal.print(&printable(&summary::summary(plan, report)));
    Ok(())
}

/// The width for lanes, when the timeline is shown in lanes.
fn lanes(args: &SimulateArgs, hosts: u16, terminal: Option<usize>) -> Option<usize> {
    let wanted = usize::from(hosts) * LANE;
    if args.lanes {
        return Some(terminal.unwrap_or(USUAL_WIDTH).max(USUAL_WIDTH));
    }
    terminal.filter(|width| !args.lines && *width >= wanted)
}

/// Columns of the terminal on standard output; `None` when that is none.
fn width_of_terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

fn save(file: &Path, text: &str) -> Result<()> {
    Ok(atomic::write(file, text.as_bytes(), atomic::Mode::KeepOr644)?)
}

/// Where the log is not as the file has it.
fn first_difference(expected: &str, is: &str) -> Option<String> {
    let (mut expected, mut is) = (expected.lines(), is.lines());
    for number in 1.. {
        match (expected.next(), is.next()) {
            (None, None) => return None,
            (expected, is) if expected == is => {}
            (expected, is) => {
                return Some(format!(
                    "the log differs from the one in the file, first in its line {number}:\n  file: {}\n  now:  {}\n\
                     --rewrite stores this one",
                    expected.unwrap_or("(it ends)"),
                    is.unwrap_or("(it ends)")
                ));
            }
        }
    }
    None
}

/// A text of unknown origin as a terminal may have it: without what moves its cursor.
fn printable(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() && c != '\n';
    if text.contains(is_bad) { Cow::Owned(text.replace(is_bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests;
