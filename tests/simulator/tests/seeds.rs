//! Random worlds: a seed gives one run, the promises hold, and what breaks one is made short.

use std::time::Duration;

use ha_simulator::command::{Command, Step};
use ha_simulator::invariant::Promise;
use ha_simulator::run::{Plan, run};
use ha_simulator::scenario::Scenario;
use ha_simulator::seeds::{Weather, plan};
use ha_simulator::soak::soak;
use ha_simulator::{shrink, text};

fn three_hosts() -> Weather {
    Weather { hosts: Some(3), faulty: Duration::from_mins(20), ..Weather::default() }
}

#[test]
fn a_seed_always_gives_the_same_run_and_another_one_another() {
    let log = |seed| text::log(&run(&plan(seed, &three_hosts())).expect("a plan that runs"));
    assert_eq!(log(5), log(5));
    assert_ne!(log(5), log(6));
}

#[test]
fn the_promises_hold_in_random_worlds() {
    let done = soak(&three_hosts(), 1, Duration::from_hours(24), 1, &|_| ());
    assert!(done.refused.is_none(), "{:?}", done.refused);
    assert!(done.simulated >= Duration::from_hours(24) && done.starts > 20, "{done:?}");
    let broken = done.failures.iter().map(|failure| {
        format!(
            "hosted-engine simulate --seed {} --hosts 3 --duration 20m\n{}",
            failure.seed,
            text::complaints(&failure.report)
        )
    });
    assert_eq!(broken.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_promises_hold_in_random_worlds_with_fencing() {
    let mut weather = three_hosts();
    weather.toml.fencing.enabled = true;
    let done = soak(&weather, 101, Duration::from_hours(12), 1, &|_| ());
    let broken = done.failures.iter().map(|failure| {
        format!(
            "hosted-engine simulate --seed {} --hosts 3 --duration 20m --set fencing.enabled=true\n{}",
            failure.seed,
            text::complaints(&failure.report)
        )
    });
    assert_eq!(broken.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn worlds_of_all_sizes_hold_their_promises() {
    for hosts in [1, 2, 5, 16] {
        let weather = Weather { hosts: Some(hosts), ..three_hosts() };
        for seed in 1..=3 {
            let report = run(&plan(seed, &weather)).expect("a plan that runs");
            assert!(report.is_good(), "{hosts} hosts, seed {seed}: {}", text::complaints(&report));
        }
    }
}

/// A frozen host without a watchdog breaks the first promise; the rest of the script has nothing to do with it.
fn broken() -> Plan {
    let noise =
        (0..20).map(|at| format!("{}s load host2 0.5\n{}s network host3 0.9\n", 205 + at * 7, 206 + at * 7));
    let script = format!(
        "# A frozen host.\nwatchdog = no\n0s boot all\n{}300s freeze vm-host for 300s\n610s vm crashes\n700s load host1 0.1\n",
        noise.collect::<String>()
    );
    Scenario::parse(&script).expect("a scenario").plan
}

#[test]
fn what_breaks_a_promise_is_made_short() {
    let long = broken();
    let short = shrink::shortest(&long);
    let is_boot = |step: &&Step| matches!(step.command, Command::Boot(_));
    let rest: Vec<String> =
        short.script.iter().filter(|step| !is_boot(step)).map(|step| step.command.to_string()).collect();
    assert_eq!(rest, ["freeze vm-host"], "of {} steps", long.script.len());
    let report = run(&short).expect("it runs");
    assert_eq!(report.violations.first().map(|broken| broken.promise), Some(Promise::OneWriter));
    let again = Scenario::parse(&Scenario::write("Shortened.", &short)).expect("what is written can be read");
    assert_eq!(run(&again.plan).expect("it runs").violations, report.violations);
}

#[test]
fn a_plan_that_breaks_nothing_stays_as_it_is() {
    let good = plan(5, &three_hosts());
    assert_eq!(shrink::shortest(&good).script, good.script);
}
