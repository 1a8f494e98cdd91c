//! Runs random worlds until so many cluster-hours were simulated: `soak [HOURS] [HOSTS] [FIRST SEED] [plain]`.
use std::time::Duration;

use clock::{Clock, SystemClock};
use ha_config::{HaToml, Paths};
use ha_simulator::scenario::{Scenario, plain_policy};
use ha_simulator::{run, seeds, shrink, soak, text};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u64>().ok());
    let plain = args.iter().any(|arg| arg == "plain");
    let toml = if plain { plain_policy() } else { String::new() };
    let toml = HaToml::parse(&Paths::default(), &toml).expect("known keys");
    let weather = seeds::Weather {
        hosts: number(1).filter(|hosts| *hosts > 0).and_then(|hosts| u16::try_from(hosts).ok()),
        toml,
        ..seeds::Weather::default()
    };
    let begin = SystemClock.monotonic();
    let enough = Duration::from_hours(number(0).unwrap_or(24));
    let done = soak::soak(&weather, number(2).unwrap_or(1), enough, 8, &|_| ());
    let took = SystemClock.monotonic().saturating_since(begin);
    let hours = done.simulated.as_secs_f64() / 3600.0;
    println!(
        "{} runs, {hours:.0} cluster-hours, {} commands, {} starts, in {:.1} s: {:.1} cluster-hours/s",
        done.runs,
        done.commands,
        done.starts,
        took.as_secs_f64(),
        hours / took.as_secs_f64()
    );
    for failure in &done.failures {
        println!(
            "seed {}, {} hosts: {}",
            failure.seed,
            seeds::plan(failure.seed, &weather).shape.hosts,
            text::complaints(&failure.report)
        );
    }
    if let Some(failure) = done.failures.first().filter(|_| args.iter().any(|arg| arg == "shrink")) {
        let short = shrink::shortest(&seeds::plan(failure.seed, &weather));
        println!("{}", Scenario::write("shrunk", &short));
        let report = run::run(&short).expect("it ran before");
        println!("{}\n{}", text::log(&report), text::complaints(&report));
    }
}
