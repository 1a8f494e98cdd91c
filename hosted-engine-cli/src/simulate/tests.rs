use std::fs;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::terminal::Record;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: SimulateArgs,
}

fn parsed(line: &[&str]) -> Result<SimulateArgs, clap::Error> {
    Line::try_parse_from(std::iter::once("simulate").chain(line.iter().copied())).map(|line| line.args)
}

/// Runs a command line on the host whose files lie in `root`.
fn at(root: &Path, line: &[&str]) -> (Exit, Record) {
    let mut terminal = Terminal::recording();
    let exit = run(&parsed(line).unwrap(), &Paths::new(root), &mut terminal);
    (exit, terminal.recorded())
}

fn simulate(line: &[&str]) -> (Exit, Record) {
    at(Path::new("/nonexistent"), line)
}

const SMALL: &str = "# One host boots.\nhosts = 1\nend = 15s\n0s boot all\n10s expect no-vm\n";

#[test]
fn every_shipped_scenario_comes_out_as_it_says() {
    for (name, _) in examples::ALL {
        let (exit, said) = simulate(&[name, "--quiet"]);
        assert_eq!(exit, Exit::OK, "{name}: {}", said.out);
        assert!(said.out.contains("Expectations met: ") && !said.out.contains("NOT"), "{name}: {}", said.out);
    }
}

#[test]
fn every_shipped_file_is_known_by_its_name() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/simulate");
    let mut files: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut known: Vec<String> = examples::ALL.iter().map(|(name, _)| format!("{name}.scenario")).collect();
    files.sort();
    known.sort();
    assert_eq!(files, known);
    let list = simulate(&["--examples"]).1.out;
    assert!(examples::ALL.iter().all(|(name, _)| list.contains(name)), "{list}");
}

#[test]
fn a_seed_always_gives_the_same_words() {
    let line = ["--seed", "5", "--hosts", "2", "--duration", "10m", "--between-faults", "2m"];
    let (first, second) = (simulate(&line), simulate(&line));
    assert_eq!(first.1.out, second.1.out);
    assert!(first.1.out.starts_with("# Random world 5.\nhosts = 2\n"), "{}", first.1.out);
    let json: Vec<&str> = line.into_iter().chain(["--json"]).collect();
    assert_eq!(simulate(&json).1.out, simulate(&json).1.out);
}

#[test]
fn a_kept_world_is_the_same_world() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::new(directory.path());
    fs::create_dir_all(paths.ha_toml().parent().unwrap()).unwrap();
    fs::write(paths.ha_toml(), "[timers]\nloop = 7\n[rules]\nsick_engine = [\"force\"]\n").unwrap();
    fs::write(paths.agent_conf(), "[score]\nnetwork-score-penalty=900\n").unwrap();
    let kept = directory.path().join("kept.scenario");
    let kept = kept.to_str().unwrap();
    let seed = ["--seed", "9", "--hosts", "2", "--duration", "10m", "--between-faults", "1m"];
    let keep: Vec<&str> = seed.into_iter().chain(["--like-here", "--keep", kept, "--json"]).collect();
    let (exit, first) = at(directory.path(), &keep);
    let (again, second) = simulate(&[kept, "--json"]);
    assert_eq!((exit, first.out), (again, second.out));
    let text = fs::read_to_string(kept).unwrap();
    for line in
        ["set timers.loop = 7", "set rules.sick_engine = [\"force\"]", "agent network-score-penalty = 900"]
    {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn settings_of_this_host_lie_below_those_of_the_scenario() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::new(directory.path());
    fs::create_dir_all(paths.ha_toml().parent().unwrap()).unwrap();
    fs::write(paths.ha_toml(), "[lease]\nio_timeout = 3\nwatchdog_timeout = 30\n").unwrap();
    let file = directory.path().join("a.scenario");
    fs::write(&file, format!("set lease.io_timeout = 5\n{SMALL}")).unwrap();
    let file = file.to_str().unwrap();
    let headline = |line: &[&str]| at(directory.path(), line).1.out;
    assert!(headline(&[file]).contains("time-outs 5 s and 60 s"));
    assert!(headline(&[file, "--like-here"]).contains("time-outs 5 s and 30 s"));
    fs::write(paths.ha_toml(), "[lease]\nio_timout = 3\n").unwrap();
    let (exit, said) = at(directory.path(), &[file, "--like-here"]);
    assert_eq!(exit, Exit::NOT_CONFIGURED);
    assert!(said.err.contains("ha.toml:2") && said.err.contains("did you mean io_timeout?"), "{}", said.err);
}

#[test]
fn what_cannot_be_run_is_2_and_says_why() {
    let (exit, said) = simulate(&["/nonexistent/x.scenario"]);
    assert_eq!(exit, Exit::NOT_CONFIGURED);
    assert!(said.err.contains("/nonexistent/x.scenario") && said.err.contains("--examples"), "{}", said.err);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.scenario");
    for (text, words) in [
        ("hosts = 3\n0s boot al\n", vec!["line 2", "\"0s boot al\"", "--grammar"]),
        ("hosts = 900\n", vec!["line 1", "hosts = 900", "1 to 64"]),
        ("\nset lease.io_timout = 3\n", vec!["line 2", "did you mean io_timeout?"]),
        ("\n\nagent base-scor = 3\n", vec!["line 3", "did you mean base-score?"]),
        ("agent base-score = high\n", vec!["line 1", "base-score", "a number"]),
        ("end = 5000h\n", vec!["line 1", "a time"]),
        ("end = 2000h\n", vec!["14 days"]),
        ("0s boot all \u{1b}[2J\n", vec!["line 1"]),
        ("colour\u{1b}[31m = red\n", vec!["line 1", "known are hosts"]),
    ] {
        fs::write(&file, text).unwrap();
        let (exit, said) = simulate(&[file.to_str().unwrap()]);
        assert_eq!(exit, Exit::NOT_CONFIGURED, "{text}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{text}: {}", said.err);
        assert!(!said.err.contains('\u{1b}'), "{text}");
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert_eq!(simulate(&[file.to_str().unwrap()]).0, Exit::NOT_CONFIGURED);
    assert_eq!(simulate(&[directory.path().to_str().unwrap()]).0, Exit::NOT_CONFIGURED);
}

#[test]
fn what_is_not_met_is_1() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.scenario");
    fs::write(&file, format!("{SMALL}11s expect healthy\n")).unwrap();
    let (exit, said) = simulate(&[file.to_str().unwrap()]);
    assert_eq!(exit, Exit::FAILED);
    assert!(said.out.contains("  11s healthy: NOT MET\n"), "{}", said.out);
    assert!(said.out.contains("The engine never answered."), "{}", said.out);
}

#[test]
fn a_stored_log_must_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.scenario");
    fs::write(&file, SMALL).unwrap();
    let name = file.to_str().unwrap();
    assert_eq!(simulate(&[name, "--rewrite"]).0, Exit::OK);
    let stored = fs::read_to_string(&file).unwrap();
    assert!(
        stored.starts_with(SMALL) && stored.contains("--- log\n     0.000 >        boot all\n"),
        "{stored}"
    );
    assert_eq!(simulate(&[name]).0, Exit::OK);
    fs::write(&file, stored.replace("boots", "boats")).unwrap();
    let (exit, said) = simulate(&[name]);
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("line 2") && said.err.contains("boats"), "{}", said.err);
}

#[test]
fn the_page_and_the_json_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let (file, page) = (directory.path().join("a.scenario"), directory.path().join("a.html"));
    fs::write(&file, SMALL).unwrap();
    let (exit, said) = simulate(&[file.to_str().unwrap(), "--json", "--html", page.to_str().unwrap()]);
    assert_eq!((exit, said.err.as_str()), (Exit::OK, ""));
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["good"], true);
    assert_eq!(report["expectations"][0]["what"], "no-vm");
    assert_eq!(report["events"][1]["text"], "boots");
    assert!(fs::read_to_string(page).unwrap().starts_with("<!DOCTYPE html>"));
}

#[test]
fn lanes_are_for_terminals_that_are_wide_enough() {
    let asked = |line: &[&str], hosts, width| lanes(&parsed(line).unwrap(), hosts, width);
    assert_eq!(asked(&["x"], 3, None), None);
    assert_eq!(asked(&["x"], 3, Some(120)), Some(120));
    assert_eq!(asked(&["x"], 4, Some(120)), None);
    assert_eq!(asked(&["x", "--lines"], 1, Some(200)), None);
    assert_eq!(asked(&["x", "--lanes"], 8, None), Some(USUAL_WIDTH));
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for line in [
        &["x", "--seed", "1"][..],
        &["x", "--hosts", "3"],
        &["--seed", "1", "--hosts", "65"],
        &["--seed", "1", "--duration", "0s"],
        &["--seed", "1", "--rewrite"],
        &["x", "--keep", "y"],
        &["x", "--json", "--quiet"],
        &["x", "--grammar"],
        &[],
    ] {
        assert!(parsed(line).is_err(), "{line:?}");
    }
    assert!(simulate(&["--grammar"]).1.out.contains("power-off WHO"));
}

#[test]
fn a_soak_says_how_much_it_simulated_and_how_fast() {
    let (exit, said) = simulate(&["--soak", "2h", "--hosts", "2", "--duration", "10m"]);
    assert_eq!(exit, Exit::OK, "{}{}", said.out, said.err);
    assert!(
        said.out.contains("0 broken promises") && said.out.contains("cluster-hours per second"),
        "{}",
        said.out
    );
    assert_eq!(parsed(&["--soak", "8766h"]).unwrap().soak, Some(Duration::from_hours(8766)), "a year");
    assert!(parsed(&["--soak", "0h"]).is_err());
    assert!(parsed(&["--soak", "2h", "a.scenario"]).is_err());
    assert!(parsed(&["--hosts", "2"]).is_err(), "of which world?");
}
