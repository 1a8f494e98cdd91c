//! Holds the table of faults in docs/faults.md against the scenario files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ha_simulator::invariant::Promise;
use ha_simulator::scenario::Scenario;

/// So many faults there must be at least.
const LEAST: usize = 40;

/// One row of the table.
struct Fault {
    name: String,
    patterns: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn table() -> Vec<Fault> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/faults.md");
    let text = std::fs::read_to_string(path).expect("the table can be read");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    rows.filter(|line| !line.starts_with("| ---"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, happens, leads_to, files] = cells[..] else { panic!("four cells wanted: {line}") };
            assert!(!happens.is_empty() && !leads_to.is_empty(), "{name} has empty cells");
            let patterns = files.split(", ").map(|file| file.trim_matches('`').to_owned()).collect();
            Fault { name: name.to_owned(), patterns }
        })
        .collect()
}

/// The scenarios as `folder/name` with their texts.
fn scenarios() -> Vec<(String, Scenario)> {
    let mut found = Vec::new();
    for theme in std::fs::read_dir(folder()).expect("the folder can be read") {
        let theme = theme.expect("its entries can be read").path();
        for file in std::fs::read_dir(&theme).expect("a theme's folder can be read") {
            let path = file.expect("its entries can be read").path();
            let name = path.strip_prefix(folder()).expect("it is below").with_extension("");
            let scenario = Scenario::load(&path).expect("it can be read");
            found.push((name.to_string_lossy().into_owned(), scenario));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |begin| name.starts_with(begin))
}

#[test]
fn every_file_of_the_table_exists_and_there_are_enough_faults() {
    let (table, scenarios) = (table(), scenarios());
    assert!(table.len() >= LEAST, "{} faults", table.len());
    let names: BTreeSet<&str> = table.iter().map(|fault| fault.name.as_str()).collect();
    assert_eq!(names.len(), table.len(), "a name stands twice");
    for fault in &table {
        for pattern in &fault.patterns {
            let exists = scenarios.iter().any(|(name, _)| matches(pattern, name));
            assert!(exists, "{}: there is no scenario {pattern}", fault.name);
        }
    }
}

#[test]
fn every_scenario_stands_in_the_table() {
    let table = table();
    let listed =
        |name: &str| table.iter().flat_map(|fault| &fault.patterns).any(|pattern| matches(pattern, name));
    let missing: Vec<String> =
        scenarios().into_iter().map(|(name, _)| name).filter(|name| !listed(name)).collect();
    assert!(missing.is_empty(), "docs/faults.md lacks {missing:?}");
}

/// Words of a fault's name that need not be found.
const SMALL_WORDS: [&str; 11] = ["of", "the", "a", "for", "at", "or", "by", "it", "again", "and", "+"];

#[test]
fn every_fault_is_named_by_one_of_its_files() {
    let scenarios = scenarios();
    for fault in table() {
        let name = fault.name.to_lowercase();
        let words: Vec<&str> = name.split(' ').filter(|word| !SMALL_WORDS.contains(word)).collect();
        let named = scenarios.iter().any(|(path, scenario)| {
            let text = format!("{path} {}", scenario.title).to_lowercase();
            fault.patterns.iter().any(|pattern| matches(pattern, path))
                && words.iter().all(|word| text.contains(word))
        });
        assert!(named, "no file of the fault {:?} has its words in its name or title", fault.name);
    }
}

#[test]
fn only_the_known_window_breaks_a_promise() {
    let breaking: Vec<(String, Vec<Promise>)> = scenarios()
        .into_iter()
        .filter(|(_, scenario)| !scenario.plan.breaks.is_empty())
        .map(|(name, scenario)| (name, scenario.plan.breaks))
        .collect();
    let window = ("freeze/no-watchdog-beyond-the-lease".to_owned(), vec![Promise::OneWriter]);
    assert_eq!(breaking, [window]);
}
