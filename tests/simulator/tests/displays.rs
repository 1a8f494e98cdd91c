//! What people see of a run, and that no text of theirs does harm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption must fail the test")]

use std::time::Duration;

use ha_simulator::command::GRAMMAR;
use ha_simulator::invariant::Promise;
use ha_simulator::run::{Report, run};
use ha_simulator::scenario::Scenario;
use ha_simulator::seeds::{self, Weather};
use ha_simulator::story::{Outcome, Story};
use ha_simulator::{html, summary, text};
use proptest::prelude::*;

fn played(text: &str) -> (Scenario, Report) {
    let scenario = Scenario::parse(text).unwrap();
    let report = scenario.run().unwrap();
    (scenario, report)
}

#[test]
fn lanes_have_a_column_for_each_host() {
    let (scenario, report) = played(
        "hosts = 2\nend = 22s\n0s boot host1\n5s boot host2\n20s power-off host2\n21s expect healthy\n",
    );
    let lanes = text::lanes(&report, scenario.plan.shape.hosts, 100);
    let lanes: Vec<&str> = lanes.lines().map(str::trim_end).collect();
    let lanes = lanes.join("\n") + "\n";
    assert_eq!(lanes, include_str!("displays/lanes.txt"), "\n{lanes}");
}

const POWER_LOSS: &str = "# A host goes.\nhosts = 2\n0s boot all\n0s expect healthy within 5m\n\
                          280s power-off vm-host for 10m\n280s expect other-vm within 5m\n280s expect healthy within 5m\n";

#[test]
fn the_story_of_a_power_loss() {
    let (scenario, report) = played(POWER_LOSS);
    let story = Story::of(&scenario.plan, &report);
    assert_eq!((story.outages.len(), story.starts), (1, 2));
    let outage = &story.outages[0];
    assert_eq!(outage.from, Duration::from_secs(280));
    assert!(outage.began.contains("its host lost power"), "{}", outage.began);
    let ended = outage.ended.as_deref().unwrap();
    assert!(ended.contains("started the VM at") && ended.contains("runs nowhere"), "{ended}");
    // The script sees the engine at its next look, half a second later at most.
    let back = outage.to.unwrap();
    let Outcome::Met(met) = story.expected[2].outcome else { panic!("{:?}", story.expected) };
    assert!(back <= met && met <= back + Duration::from_millis(500), "{back:?} {met:?}");
}

#[test]
fn an_engine_beside_a_frozen_host_counts_and_broken_promises_are_shown() {
    let text = "hosts = 2\nwatchdog = no\n0s boot all\n0s expect healthy within 5m\n\
                280s freeze vm-host for 5m\n280s expect other-vm within 5m\nend = 700s\n";
    let (scenario, report) = played(text);
    assert_eq!(report.violations[0].promise, Promise::OneWriter);
    let story = Story::of(&scenario.plan, &report);
    assert!(story.outages[0].to.unwrap() < Duration::from_secs(580), "{:?}", story.outages);
    let summary = summary::summary(&scenario.plan, &report);
    assert!(summary.contains("BROKEN PROMISE at 580.0 s: At no moment"), "{summary}");
    let page = html::page("", &scenario.plan, &report);
    assert!(page.contains("class=\"crack\"") && page.contains("<p class=\"broken\">"), "no red in the page");

    let (scenario, report) = played(&format!("breaks = one-writer\nbreaks = no-panic\n{text}"));
    assert!(report.violations.is_empty() && report.held == [Promise::NoPanic]);
    let summary = summary::summary(&scenario.plan, &report);
    assert!(summary.contains("NOT BROKEN, as the scenario says it must be: no-panic"), "{summary}");
    assert!(summary.contains("Promises kept: all 12 others."), "{summary}");
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let (scenario, report) = played(POWER_LOSS);
    let page = html::page(&scenario.title, &scenario.plan, &report);
    assert_eq!(page, html::page(&scenario.title, &scenario.plan, &report));
    for words in
        ["<title>A host goes</title>", ">no power</text>", "EngineStarting", "prefers-color-scheme:dark"]
    {
        assert!(page.contains(words), "{words}");
    }
    for word in ["<script", "http://", "https://", "<img", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    for tag in ["svg", "g", "table", "ul", "li", "p", "text", "title"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_hostile_text_stays_a_text() {
    let hostile = "\"'></title></svg></td><script>alert(1)</script>&amp;<img/src>";
    let text = format!("# {hostile}\nhosts = 1\nend = 15s\n0s boot all\n1s expect state host1 {hostile}\n");
    let (scenario, report) = played(&text);
    assert!(report.unmet[0].contains("<script>"), "the text must have come through");
    let page = html::page(&scenario.title, &scenario.plan, &report);
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"), "{page}");
}

#[test]
fn a_written_world_is_the_same_world() {
    let weather = Weather {
        between_faults: Some(Duration::from_mins(1)),
        faulty: Duration::from_mins(6),
        ..Weather::default()
    };
    for seed in 1..=4 {
        let plan = seeds::plan(
            seed,
            &Weather { hosts: Some(2 + u16::try_from(seed).unwrap() % 2), ..weather.clone() },
        );
        let again = Scenario::parse(&Scenario::write("again", &plan)).unwrap();
        assert_eq!(text::log(&run(&plan).unwrap()), text::log(&again.run().unwrap()), "seed {seed}");
    }
}

fn doc() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/simulator.md")).unwrap()
}

#[test]
fn the_guide_has_the_vocabulary() {
    let block = format!("```text\n{GRAMMAR}```\n");
    assert!(doc().contains(&block), "docs/simulator.md must have this:\n{block}");
}

#[test]
fn the_guide_has_the_promises() {
    let row = |promise: Promise| format!("| `{promise}` | {} |\n", promise.sentence());
    let table: String = Promise::ALL.into_iter().map(row).collect();
    assert!(
        doc().contains(&format!("| promise | what it says |\n| --- | --- |\n{table}\n")),
        "it must have:\n{table}"
    );
}

fn word() -> impl Strategy<Value = String> {
    let known: Vec<String> = GRAMMAR.split([' ', '|', '\n']).map(str::to_owned).collect();
    prop_oneof![
        6 => proptest::sample::select(known),
        2 => proptest::sample::select(vec!["1e7s", "1e300h", "-1s", "nan", "inf", "host1", "host0", "=", "set", "#"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(
        lines in proptest::collection::vec(proptest::collection::vec(word(), 0..7), 0..6),
        at in "[0-9]{1,9}(\\.[0-9]{1,4})?(ms|s|m|h|d|)",
    ) {
        let lines: Vec<String> = lines.into_iter().map(|words| words.join(" ")).collect();
        let text = format!("{}\n{at} {}", lines.join("\n"), lines.last().cloned().unwrap_or_default());
        if let Ok(scenario) = Scenario::parse(&text) {
            // What was understood can be written and is understood again.
            let written = Scenario::write(&scenario.title, &scenario.plan);
            prop_assert_eq!(Scenario::parse(&written).unwrap().plan.script, scenario.plan.script);
        }
    }
}
