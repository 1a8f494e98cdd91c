//! Runs every scenario file and compares what comes of it with what the file says.
//!
//! A rule that changes on purpose changes logs: `SCENARIOS=rewrite` writes them anew, for review; with `ONLY=text` only
//! those whose path contains the text. Expectations and promises count all the same.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ha_simulator::command::Command;
use ha_simulator::scenario::Scenario;
use ha_simulator::text;

/// So many there must be at least.
const LEAST: usize = 150;
/// Lines of both logs that a difference shows.
const SHOWN: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The files below the folder, as paths from it, in order.
fn files() -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder of scenarios can be read") {
            let path = entry.expect("its entries can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(&root).expect("it is below the folder").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What came of one file.
struct Verdict {
    /// What is wrong, beside the log.
    complaints: Vec<String>,
    /// How the log differs from the file's.
    difference: Option<String>,
    /// The file with the log of this run; `None` when there was no run.
    rewritten: Option<String>,
}

fn judge(source: &str) -> Verdict {
    let unusable = |reason: String| Verdict { complaints: vec![reason], difference: None, rewritten: None };
    let scenario = match Scenario::parse(source) {
        Ok(scenario) => scenario,
        Err(error) => return unusable(format!("cannot be used: {error}")),
    };
    let report = match catch_unwind(AssertUnwindSafe(|| scenario.run())) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return unusable(format!("cannot be run: {error}")),
        Err(_) => return unusable("the simulator panicked; its message is above".to_owned()),
    };
    let mut complaints: Vec<String> = text::complaints(&report).lines().map(str::to_owned).collect();
    if scenario.title.is_empty() {
        complaints.push("no comment on its first lines says what it shows".to_owned());
    }
    if !scenario.plan.script.iter().any(|step| matches!(step.command, Command::Expect(_))) {
        complaints.push("nothing is expected, so that any log would do".to_owned());
    }
    let found = text::log(&report);
    let difference = match &scenario.log {
        Some(expected) if *expected == found => None,
        Some(expected) => Some(difference(expected, &found)),
        None => Some("the file has no log".to_owned()),
    };
    Verdict { complaints, difference, rewritten: Some(scenario.with_log(&report)) }
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let same = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let mut text = format!("the log differs from its line {} on\n", same + 1);
    for (mark, log) in [("file", expected), ("run ", found)] {
        let mut lines = log.lines().skip(same).take(SHOWN).peekable();
        if lines.peek().is_none() {
            let _ = writeln!(text, "    {mark} | (ends)");
        }
        for line in lines {
            let _ = writeln!(text, "    {mark} | {line}");
        }
    }
    text
}

/// Judges all on all processors, each run on a thread of its own.
fn judge_all(names: &[PathBuf]) -> Vec<(PathBuf, Verdict)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let source = std::fs::read_to_string(root().join(name)).expect("a file can be read");
                    let verdict = judge(&source);
                    done.lock().expect("no other thread panicked").push((name.clone(), verdict));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by(|(a, _), (b, _)| a.cmp(b));
    done
}

#[test]
fn every_scenario_comes_out_as_its_file_says() {
    let rewrite = std::env::var("SCENARIOS").is_ok_and(|mode| mode == "rewrite");
    let only = std::env::var("ONLY").unwrap_or_default();
    let names: Vec<PathBuf> =
        files().into_iter().filter(|name| name.to_string_lossy().contains(&only)).collect();
    assert!(!names.is_empty(), "no scenario's path contains {only:?}");
    let mut wrong = String::new();
    for (name, verdict) in judge_all(&names) {
        let mut complaints = verdict.complaints;
        if let Some(difference) = verdict.difference {
            match verdict.rewritten {
                Some(text) if rewrite => std::fs::write(root().join(&name), text).expect("it can be written"),
                _ => complaints.push(format!(
                    "{difference}    if that is right, SCENARIOS=rewrite ONLY={} cargo test -p ha-simulator --test \
                     scenarios writes it",
                    name.display()
                )),
            }
        }
        for complaint in complaints {
            let _ = writeln!(wrong, "{}: {complaint}", name.display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn there_are_enough_scenarios_and_nothing_else_in_the_folder() {
    let files = files();
    let strange: Vec<_> = files
        .iter()
        .filter(|file| file.extension().is_none_or(|extension| extension != "scenario"))
        .collect();
    assert!(strange.is_empty(), "no scenarios: {strange:?}");
    assert!(files.len() >= LEAST, "{} scenarios, at least {LEAST} are wanted", files.len());
}

/// A small scenario for the tests of the checks themselves.
const SMALL: &str = "# One host boots.\nhosts = 1\nend = 3m\n\n0s boot all\n150s expect vm-on host1\n";

fn with_its_log(source: &str) -> String {
    judge(source).rewritten.expect("it can be run")
}

#[test]
fn a_right_file_passes_and_runs_are_repeatable() {
    let verdict = judge(&with_its_log(SMALL));
    assert_eq!(verdict.complaints, Vec::<String>::new());
    assert_eq!(verdict.difference, None);
}

#[test]
fn a_missing_or_wrong_log_is_reported_with_the_lines_that_differ() {
    assert_eq!(judge(SMALL).difference.as_deref(), Some("the file has no log"));
    let right = with_its_log(SMALL);
    let wrong = right.replace("the VM runs", "the VM walks");
    assert_ne!(right, wrong);
    let difference = judge(&wrong).difference.expect("it is reported");
    assert!(difference.contains("file |") && difference.contains("the VM walks"), "{difference}");
    assert!(difference.contains("run  |") && difference.contains("the VM runs"), "{difference}");
    let longer = format!("{right}   999.000 * host1  something that never happens\n");
    let difference = judge(&longer).difference.expect("it is reported");
    assert!(difference.contains("run  | (ends)"), "{difference}");
}

#[test]
fn an_unmet_expectation_is_reported_also_when_the_log_says_so() {
    let source = SMALL.replace("expect vm-on host1", "expect no-vm");
    let verdict = judge(&with_its_log(&source));
    assert_eq!(verdict.complaints, ["NOT MET: at 150s: expect no-vm"]);
    assert_eq!(verdict.difference, None);
}

#[test]
fn a_promise_that_should_break_and_holds_is_reported() {
    let verdict = judge(&with_its_log(&SMALL.replace("hosts = 1", "hosts = 1\nbreaks = one-writer")));
    assert_eq!(verdict.complaints, ["NOT BROKEN, as the scenario says it must be: one-writer"]);
}

#[test]
fn an_unknown_command_or_setting_is_reported_with_its_line() {
    let verdict = judge(&SMALL.replace("boot all", "reboot all"));
    assert!(verdict.complaints[0].contains("line 5: there is no such command"), "{:?}", verdict.complaints);
    let verdict = judge(&SMALL.replace("hosts = 1", "hostz = 1"));
    assert!(
        verdict.complaints[0].contains("line 2: there is no setting \"hostz\""),
        "{:?}",
        verdict.complaints
    );
    assert!(verdict.rewritten.is_none());
}

#[test]
fn a_file_that_expects_or_says_nothing_is_reported() {
    let verdict = judge("hosts = 1\nend = 1m\n0s boot all\n");
    assert_eq!(
        verdict.complaints,
        ["no comment on its first lines says what it shows", "nothing is expected, so that any log would do"]
    );
}
