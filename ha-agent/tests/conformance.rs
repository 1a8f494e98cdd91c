//! The recorded decisions of the existing release, replayed with all policy switches off.
//!
//! `conformance/traces.jsonl.gz` holds one run a line: `{"file", "scenario", "expected"}`.

use std::io::Read as _;
use std::path::Path;

use ha_agent::replay::replay;
use serde_json::Value;

/// What a step must agree in.
const STEP_KEYS: [&str; 8] = ["from", "state", "delay", "score", "actions", "tick", "clock", "refreshed"];
/// What its `data` must agree in, beside the set of hosts alive.
const DATA_KEYS: [&str; 9] = [
    "timeout_start_time",
    "engine_vm_retry_count",
    "engine_vm_retry_time",
    "best_engine_host_id",
    "best_engine_vm",
    "best_score_host_id",
    "collect_start",
    "collect_finish",
    "history_len",
];

fn recorded() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/traces.jsonl.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the recording unpacks");
    text
}

fn alive(step: &Value) -> Vec<i64> {
    let hosts = step["data"]["alive_hosts"].as_array().expect("alive_hosts is a list");
    let mut hosts: Vec<_> = hosts.iter().map(|id| id.as_i64().expect("a host id")).collect();
    hosts.sort_unstable();
    hosts
}

/// Compares one run; gives the first difference.
fn difference(run: &Value, steps: &[Value]) -> Option<String> {
    let expected = run["expected"].as_array().expect("a list of steps");
    for (number, theirs) in expected.iter().enumerate() {
        if theirs.get("exception").is_some() {
            // The recorded release ended here. Ours goes on.
            return (number >= steps.len()).then(|| format!("ended at step {number}"));
        }
        let Some(ours) = steps.get(number) else { return Some(format!("ended at step {number}")) };
        for key in STEP_KEYS {
            if ours[key] != theirs[key] {
                return Some(format!("step {number}, {key}: {} instead of {}", ours[key], theirs[key]));
            }
        }
        for key in DATA_KEYS {
            let (ours, theirs) = (&ours["data"][key], &theirs["data"][key]);
            if ours != theirs {
                return Some(format!("step {number}, {key}: {ours} instead of {theirs}"));
            }
        }
        if alive(ours) != alive(theirs) {
            return Some(format!("step {number}, alive: {:?} instead of {:?}", alive(ours), alive(theirs)));
        }
    }
    let extra = steps.len() != expected.len();
    extra.then(|| format!("{} steps instead of {}", steps.len(), expected.len()))
}

#[test]
fn every_recorded_run_is_decided_alike() {
    let mut runs = 0;
    let mut wrong = Vec::new();
    for line in recorded().lines() {
        let run: Value = serde_json::from_str(line).expect("a run is JSON");
        let replayed = replay(line, true).expect("a recorded run replays");
        let steps = replayed["steps"].as_array().expect("a list of steps");
        runs += 1;
        if let Some(difference) = difference(&run, steps) {
            wrong.push(format!("{}: {difference}", run["file"]));
        }
    }
    assert_eq!(runs, 155);
    assert!(wrong.is_empty(), "{} of {runs} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_bare_scenario_replays_like_a_whole_recording() {
    let text = recorded();
    let run: Value = serde_json::from_str(text.lines().next().expect("a run")).expect("JSON");
    let bare = replay(&run["scenario"].to_string(), true).expect("replays");
    assert_eq!(bare, replay(&run.to_string(), true).expect("replays"));
}

#[test]
fn without_plain_the_switches_make_a_difference_and_runs_still_end() {
    let mut differ = 0;
    for line in recorded().lines().step_by(10) {
        let ours = replay(line, false).expect("a recorded run replays");
        differ += usize::from(ours != replay(line, true).expect("replays"));
    }
    assert!(differ > 0);
}

#[test]
fn a_file_that_is_no_scenario_is_an_error_that_says_what_is_wrong() {
    let error = |text: &str| replay(text, true).expect_err("must be refused").to_string();
    assert!(error("nonsense").contains("line 1 column 2"), "{}", error("nonsense"));
    assert!(error("{}").contains("host_id"), "{}", error("{}"));
    let scenario = r#"{"host_id": 1, "min_memory": 1, "ticks": [{"time": "soon"}]}"#;
    assert!(error(scenario).starts_with("tick 0: "), "{}", error(scenario));
    let scenario = r#"{"host_id": 1, "min_memory": 1, "score_cfg": {"base-score": -5}, "ticks": []}"#;
    assert!(error(scenario).contains("base-score=-5"), "{}", error(scenario));
}
