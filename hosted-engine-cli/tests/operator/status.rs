//! `--vm-status` against output recorded from the existing command, and what it says when things are wrong.

use std::collections::BTreeMap;

use broker_api::BrokerClient;
use broker_api::status::{AgentReport, GoodRow, HostRow, LeaseState, StatusDocument, StorageState};
use hosted_engine_cli::status::{Format, View, explain, show, to_json, to_text, to_value};
use hosted_engine_cli::terminal::{Exit, Terminal};
use jiff::tz::TimeZone;
use metadata_format::{EngineStatus, HostId, Score};

use crate::fake_broker::{FakeBroker, State};
use crate::{DOWN, UP, block, cluster_block};

/// The recorded text's values, by its labels: the data that the existing command had.
fn view_of(golden: &str) -> View {
    let value = |label: &str| {
        let line = golden.lines().find(|line| line.split(':').next().unwrap().trim_end() == label).unwrap();
        line.split_once(": ").unwrap().1
    };
    let extra: String =
        golden.lines().filter_map(|line| line.strip_prefix('\t')).flat_map(|line| [line, "\n"]).collect();
    let row = GoodRow {
        host_ts: value("Host timestamp").parse().unwrap(),
        score: Score(value("Score").parse().unwrap()),
        engine_status: EngineStatus::parse(value("Engine status")),
        hostname: value("Hostname").to_owned(),
        maintenance: value("Local maintenance") == "True",
        stopped: value("stopped") == "True",
        crc32: Some(value("crc32").to_owned()),
        conf_on_shared_storage: Some(value("conf_on_shared_storage") == "True"),
        local_conf_timestamp: Some(value("local_conf_timestamp").parse().unwrap()),
        extra,
        live: value("Status up-to-date") == "True",
        unchanged_secs: Some(1),
    };
    View {
        global_maintenance: Some(golden.contains("GLOBAL MAINTENANCE")),
        rows: BTreeMap::from([(HostId::new(1).unwrap(), HostRow::Good(Box::new(row)))]),
        ..View::default()
    }
}

#[test]
fn recorded_texts_come_out_byte_for_byte() {
    for golden in [
        include_str!("../golden/vm-status.txt"),
        include_str!("../golden/vm-status-global.txt"),
        include_str!("../golden/vm-status-local.txt"),
        include_str!("../golden/vm-status-stopped.txt"),
        include_str!("../golden/vm-status-unexp.txt"),
    ] {
        assert_eq!(to_text(&view_of(golden), &TimeZone::UTC), golden);
    }
}

#[test]
fn recorded_json_comes_out_byte_for_byte() {
    for (text, json) in [
        (include_str!("../golden/vm-status.txt"), include_str!("../golden/vm-status.json")),
        (include_str!("../golden/vm-status-global.txt"), include_str!("../golden/vm-status-global.json")),
    ] {
        assert_eq!(to_json(&view_of(text)).unwrap(), json.trim_end());
    }
}

fn blocks() -> BTreeMap<u16, Vec<u8>> {
    let mut unreadable = block(3, DOWN, 10);
    unreadable[40] ^= 1;
    BTreeMap::from([
        (0, cluster_block(true)),
        (1, block(1, UP, 3400)),
        (2, block(2, DOWN, 900)),
        (3, unreadable),
    ])
}

#[test]
fn a_stale_row_says_so_and_keeps_its_score() {
    let text = to_text(&View::from_blocks(&blocks(), &[1]), &TimeZone::UTC);
    let stale = text.split("--== Host h2 (id: 2) status ==--").nth(1).unwrap();
    assert!(stale.contains("Engine status                      : unknown stale-data\n"), "{stale}");
    assert!(stale.contains("Score                              : 900\n"), "{stale}");
    assert!(stale.contains("Status up-to-date                  : False\n"), "{stale}");
    assert_eq!(text.matches("!! Cluster is in GLOBAL MAINTENANCE mode !!").count(), 2);
}

#[test]
fn an_unreadable_block_is_a_row_with_its_reason() {
    let view = View::from_blocks(&blocks(), &[1, 2, 3]);
    let text = to_text(&view, &TimeZone::UTC);
    assert!(text.contains("Unreadable because                 : the block of host 3 is damaged"), "{text}");
    assert!(text.contains("--== Host h2 (id: 2)"), "the others are not affected");
    let json = to_value(&view).unwrap();
    assert_eq!(json["3"]["engine-status"]["vm"], "unknown");
    assert_eq!(json["3"]["live-data"], false);
    assert_eq!(json["1"]["engine-status"]["health"], "good");
}

#[test]
fn a_block_that_is_too_new_is_a_row_that_says_so() {
    let mut blocks = blocks();
    blocks.insert(4, b"2|7|in a form of its own".iter().copied().chain([0; 4096]).take(4096).collect());
    let view = View::from_blocks(&blocks, &[1, 2, 4]);
    let text = to_text(&view, &TimeZone::UTC);
    let row = text.split("--== Host unknown (id: 4) status ==--").nth(1).unwrap();
    assert!(row.contains("format version 2, too new for this release"), "{row}");
    assert!(text.contains("--== Host h2 (id: 2)"), "the others are not affected");
    assert_eq!(to_value(&view).unwrap()["4"]["live-data"], false);
    let warned =
        view.warnings.iter().any(|warning| warning.sentence(&TimeZone::UTC).contains("from-the-future=7"));
    assert!(warned, "{:?}", view.warnings);
}

#[test]
fn what_must_be_known_stands_before_the_rows() {
    let rows = View::from_blocks(&blocks(), &[1]).rows;
    let mut document = StatusDocument {
        host_id: HostId::new(1).ok(),
        broker_version: "test".into(),
        global_maintenance: Some(false),
        unknown_global_keys: vec!["from-the-future=7".into()],
        hosts: rows,
        storage: StorageState::Stuck { since: 0, operation: "reading blocks".into() },
        lease: LeaseState::Lost { since: 60, error: "sanlock: -2\u{1b}[31m".into() },
        lock_manager_live: None,
        monitors: BTreeMap::new(),
        agent: Some(AgentReport {
            state: "EngineDown".into(),
            score: Score(900),
            score_terms: Vec::new(),
            reasons: vec!["a better host runs it".into()],
            timeout_at: Some(60),
            warnings: vec!["host 2 uses another score profile".into()],
            migration: None,
        }),
        migration_request: None,
    };
    let view = View::from_document(document.clone());
    let text = to_text(&view, &TimeZone::UTC);
    let before = text.split("--== Host").next().unwrap();
    assert!(before.contains("!! Storage stuck since Thu Jan  1 00:00:00 1970 (reading blocks)"), "{before}");
    assert!(
        before
            .contains("!! This host lost its host id lease at Thu Jan  1 00:01:00 1970: sanlock: -2\\u{1b}")
    );
    assert!(before.contains("from-the-future=7") && before.contains("another score profile"), "{before}");
    let why = explain(&view, &TimeZone::UTC);
    assert!(why.contains("Because                            : a better host runs it\n"), "{why}");

    document.storage = StorageState::Failed { since: 0, error: "EIO".into() };
    assert!(
        to_text(&View::from_document(document.clone()), &TimeZone::UTC).contains("!! Storage fails since")
    );
    document.storage = StorageState::Connecting {
        since: 0,
        step: "VDSM to answer".into(),
        error: Some("VDSM cannot be reached: refused".into()),
        next_try: Some(60),
    };
    let text = to_text(&View::from_document(document.clone()), &TimeZone::UTC);
    let banner = "!! Storage is being connected through VDSM since Thu Jan  1 00:00:00 1970: waiting for VDSM to answer; \
                  the last try failed: VDSM cannot be reached: refused; next try at Thu Jan  1 00:01:00 1970";
    assert!(text.contains(banner), "{text}");
    document.storage = StorageState::Starting;
    assert!(to_text(&View::from_document(document), &TimeZone::UTC).contains("!! The broker has not read"));
}

#[test]
fn a_hostname_with_escape_sequences_does_not_reach_the_terminal() {
    let mut view = view_of(include_str!("../golden/vm-status.txt"));
    for row in view.rows.values_mut() {
        if let HostRow::Good(row) = row {
            row.hostname = "\u{1b}[2J".into();
            row.extra = "a\u{7}b\n".into();
        }
    }
    let text = to_text(&view, &TimeZone::UTC);
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    assert!(text.contains("\\u{1b}[2J"));
}

#[tokio::test]
async fn both_kinds_of_broker_give_the_same_rows() {
    let mut outputs = Vec::new();
    for ours in [true, false] {
        let broker =
            FakeBroker::start(State { blocks: blocks(), alive: vec![1, 2], ours, ..State::default() });
        let mut terminal = Terminal::recording();
        assert_eq!(show(&broker.client, Format::Json, false, &mut terminal).await.unwrap(), Exit::OK);
        outputs.push(terminal.recorded().out);
    }
    assert_eq!(outputs[0], outputs[1]);
    assert!(outputs[0].starts_with("{\"1\": {\"host-id\": 1, "));
}

#[tokio::test]
async fn the_whole_document_can_be_had_from_our_broker_only() {
    for (ours, exit) in [(true, Exit::OK), (false, Exit::FAILED)] {
        let broker = FakeBroker::start(State { blocks: blocks(), ours, ..State::default() });
        let mut terminal = Terminal::recording();
        assert_eq!(show(&broker.client, Format::FullJson, false, &mut terminal).await.unwrap(), exit);
        assert_eq!(terminal.recorded().out.contains("\"broker_version\""), ours);
    }
}

#[tokio::test]
async fn without_a_broker_the_command_says_so_and_fails() {
    let broker = BrokerClient::new("/nonexistent/broker.socket");
    let mut terminal = Terminal::recording();
    assert_eq!(show(&broker, Format::Text, false, &mut terminal).await.unwrap(), Exit::FAILED);
    let said = terminal.recorded();
    assert!(said.err.contains("Cannot connect to the HA daemon, please check the logs."), "{said:?}");
    assert!(said.err.contains("/nonexistent/broker.socket"), "{said:?}");

    let mut terminal = Terminal::recording();
    assert_eq!(show(&broker, Format::Json, false, &mut terminal).await.unwrap(), Exit::FAILED);
    let json: serde_json::Value = serde_json::from_str(&terminal.recorded().out).unwrap();
    assert!(json["exception"].is_string());
}

#[tokio::test]
async fn a_cluster_without_rows_is_a_failure_with_advice() {
    let broker = FakeBroker::start(State { ours: true, ..State::default() });
    let mut terminal = Terminal::recording();
    assert_eq!(show(&broker.client, Format::Text, false, &mut terminal).await.unwrap(), Exit::FAILED);
    assert!(terminal.recorded().err.contains("ovirt-ha-agent"));
}
