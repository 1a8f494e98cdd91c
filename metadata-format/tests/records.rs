//! Records of every shape: the short forms of older releases, the errors, and what a writer may be given.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use metadata_format::{
    BLOCK_SIZE, BlockError, CRITICAL_SIZE, EncodeError, EngineStatus, GlobalBlock, Health, HostBlock, HostId,
    HostRecord, Score, VmState, ctime, parse_blocks,
};
use proptest::prelude::*;

const STATUS: &str = r#"{"vm": "up", "health": "good", "detail": "Up"}"#;

fn host(id: u16) -> HostId {
    HostId::new(id).unwrap()
}

fn parse(record: &str) -> Result<HostBlock, BlockError> {
    let mut bytes = record.as_bytes().to_vec();
    bytes.resize(CRITICAL_SIZE, 0);
    HostBlock::parse(host(2), &bytes).map(|block| block.expect("not absent"))
}

/// The record with its tenth field made right.
fn with_crc(record: &str) -> String {
    let crc = crc32fast::hash(record.as_bytes());
    record.replacen("|00000000", &format!("|{crc:08x}"), 1)
}

fn record() -> HostRecord {
    HostRecord {
        host_ts: 2351,
        host_time: ctime(1_795_227_207, &TimeZone::UTC),
        host_id: host(2),
        score: Score(3400),
        engine_status: EngineStatus::parse(STATUS),
        hostname: "host-2.example".into(),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 2351,
        vm_conf_refresh_time: ctime(1_795_227_207, &TimeZone::UTC),
        state: "EngineUp".into(),
        timeout: None,
        notes: BTreeMap::new(),
    }
}

#[test]
fn every_count_of_fields_that_was_ever_written_is_read() {
    let all = format!("1|1|10|2|2400|{STATUS}|h2|1|1|00000000|1|9|newer|newest");
    for count in 7..=14 {
        let short: Vec<_> = all.split('|').take(count).collect();
        let text = if count >= 10 { with_crc(&short.join("|")) } else { short.join("|") };
        let block = parse(&text).unwrap();
        assert_eq!((block.host_ts, block.score, block.hostname.as_str()), (10, Score(2400), "h2"), "{count}");
        assert_eq!((block.maintenance, block.stopped), (count >= 8, count >= 9), "{count}");
        assert_eq!(block.crc32.is_some(), count >= 10, "{count}");
        assert_eq!(block.conf_on_shared_storage, (count >= 12).then_some(true), "{count}");
        assert_eq!(block.local_conf_timestamp, (count >= 12).then_some(9), "{count}");
    }
}

#[test]
fn the_form_of_2013_is_read() {
    let block = parse("1|1|1377000000|2|2400|vm-up good-health-status|h2").unwrap();
    assert_eq!(block.engine_status.rank(), 4);
    assert_eq!(parse("1|1|5|2|0|None|h2").unwrap().engine_status.vm, VmState::Unknown);
}

#[test]
fn a_status_that_is_null_costs_only_the_status() {
    let block = parse("1|1|5|2|0|null|h2").unwrap();
    assert_eq!((block.engine_status.vm, block.engine_status.health), (VmState::Unknown, Health::Unknown));
    assert_eq!(block.hostname, "h2");
}

#[test]
fn each_error_is_its_own() {
    let check = |text: &str, expected: BlockError| assert_eq!(parse(text).unwrap_err(), expected, "{text}");
    let host = host(2);
    check("2|2|whatever comes then", BlockError::TooNew { host, version: 2 });
    check("99999999999999999999;x", BlockError::TooNew { host, version: u64::MAX });
    check("7\u{1}\u{2}", BlockError::NotARecord { host, start: "7\\u{1}\\u{2}".into() });
    check("garbage", BlockError::NotARecord { host, start: "garbage".into() });
    check("1|0|5|2|0|None|h2", BlockError::TooOld { host, version: 0 });
    check("1|1|5|2|0|None", BlockError::MissingFields { host, fields: 6 });
    check("1|1|5|3|0|None|h3", BlockError::WrongPlace { host, found: 3 });
    check(
        "1|1|5|2|-1|None|h2",
        BlockError::Field { host, field: "score", value: "-1".into(), expected: "a whole number, 0 or more" },
    );
    check(
        "1|1|x\u{1b}[2J|2|1|None|h2",
        BlockError::Field {
            host,
            field: "host timestamp",
            value: "x\\u{1b}[2J".into(),
            expected: "whole seconds",
        },
    );
    let sum = crc32fast::hash(b"1|1|5|2|0|None|h2|0|0|00000000");
    check(
        "1|1|5|2|0|None|h2|0|0|deadbeef",
        BlockError::Checksum { host, stored: "deadbeef".into(), computed: sum },
    );
}

#[test]
fn a_newer_feature_version_is_fine() {
    assert_eq!(parse("1|3|5|2|0|None|h2").unwrap().feature_version, 3);
}

#[test]
fn a_hostname_with_escape_sequences_is_shown_not_obeyed() {
    let block = parse("1|1|5|2|0|None|evil\u{1b}]0;x\u{7}").unwrap();
    assert_eq!(block.hostname, "evil\\u{1b}]0;x\\u{7}");
}

#[test]
fn a_hostname_that_would_break_the_record_is_made_harmless() {
    let mut record = record();
    record.hostname = "a|b\0c\nd\u{1b}é".into();
    let block = HostBlock::parse(host(2), &record.encode().unwrap()).unwrap().unwrap();
    assert_eq!(block.hostname, "a_b_c_d__");
    record.hostname = String::new();
    assert_eq!(record.published_hostname(), "unnamed");
}

#[test]
fn a_reason_that_is_too_long_is_shortened_and_published() {
    let mut record = record();
    for reason in ["x".repeat(10_000), "|".repeat(600), "\u{1f600}".repeat(300), "\n\"\\".repeat(400)] {
        record.engine_status.reason = Some(reason);
        for name in ["h", &"n".repeat(300)] {
            name.clone_into(&mut record.hostname);
            let block = HostBlock::parse(host(2), &record.encode().unwrap()).unwrap().unwrap();
            assert!(block.engine_status.reason.is_some_and(|text| text.ends_with("...")));
            assert_eq!((block.engine_status.vm, block.local_conf_timestamp), (VmState::Up, Some(2351)));
        }
    }
}

#[test]
fn a_detail_that_is_too_long_gives_way_after_the_reason() {
    let mut record = record();
    record.engine_status.detail = "d".repeat(5000);
    record.engine_status.reason = Some("why".into());
    let block = HostBlock::parse(host(2), &record.encode().unwrap()).unwrap().unwrap();
    assert_eq!((block.engine_status.vm, block.engine_status.reason), (VmState::Up, None));
    assert!(block.engine_status.detail.ends_with("..."));
}

#[test]
fn notes_stay_in_their_part_of_the_block() {
    let mut record = record();
    record.timeout = Some("Thu Jan  1 00:59:13 1970".into());
    record.notes.insert("reason".into(), "two\nlines".into());
    let block = HostBlock::parse(host(2), &record.encode().unwrap()).unwrap().unwrap();
    let tail = "maintenance=False\nreason=two\\nlines\nstate=EngineUp\nstopped=False\ntimeout=Thu Jan  1 00:59:13 1970\n";
    assert!(block.extra.ends_with(tail), "{}", block.extra);

    record.notes.insert("z".into(), "long ".repeat(2000));
    let bytes = record.encode().unwrap();
    assert!(bytes.len() <= BLOCK_SIZE);
    assert!(HostBlock::parse(host(2), &bytes).unwrap().unwrap().extra.ends_with(tail));

    for key in ["", "state", "timeout", "a=b", "a\nb"] {
        let mut bad = record.clone();
        bad.notes.insert(key.into(), "x".into());
        assert_eq!(bad.encode().unwrap_err(), EncodeError::NoteKey { key: key.into() });
    }
}

#[test]
fn ctime_is_spelled_as_c_spells_it() {
    assert_eq!(ctime(0, &TimeZone::UTC), "Thu Jan  1 00:00:00 1970");
    assert_eq!(ctime(1_795_227_207, &TimeZone::UTC), "Sat Nov 21 02:13:27 2026");
    let east = TimeZone::fixed(jiff::tz::offset(2));
    assert_eq!(ctime(1_795_227_207, &east), "Sat Nov 21 04:13:27 2026");
    assert!(ctime(i64::MAX, &TimeZone::UTC).ends_with("9999"));
    assert!(!ctime(i64::MIN, &east).is_empty());
}

fn any_status() -> impl Strategy<Value = EngineStatus> {
    let vm = prop::sample::select(vec![
        VmState::Up,
        VmState::Down,
        VmState::DownUnexpected,
        VmState::DownMissing,
        VmState::Unknown,
    ]);
    let health = prop::sample::select(vec![Health::Good, Health::Bad, Health::Unknown]);
    (vm, health, "\\PC{0,12}", prop::option::of("[ -~]{0,60}"))
        .prop_map(|(vm, health, detail, reason)| EngineStatus { vm, health, detail, reason })
}

prop_compose! {
    fn any_record()(
        (host_ts, vm_conf_refresh_ts) in any::<(i64, i64)>(),
        (id, score) in (1u16..=2000, any::<u32>()),
        engine_status in any_status(),
        hostname in "[!-{}~]{1,60}",
        (maintenance, stopped, conf_on_shared_storage) in any::<(bool, bool, bool)>(),
        state in "[A-Za-z]{1,30}",
        notes in prop::collection::btree_map("n[a-z]{1,8}", "[ -~]{0,80}", 0..5),
    ) -> HostRecord {
        HostRecord {
            host_ts, host_id: host(id), score: Score(score), engine_status, hostname, maintenance, stopped,
            conf_on_shared_storage, vm_conf_refresh_ts, state, notes,
            host_time: "then".into(), vm_conf_refresh_time: "now".into(), timeout: None,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(record in any_record()) {
        let bytes = record.encode().unwrap();
        let block = HostBlock::parse(record.host_id, &bytes).unwrap().unwrap();
        prop_assert_eq!(block.host_ts, record.host_ts);
        prop_assert_eq!(block.host_id, record.host_id);
        prop_assert_eq!(block.score, record.score);
        prop_assert_eq!(&block.engine_status, &record.engine_status);
        prop_assert_eq!(&block.hostname, &record.hostname);
        prop_assert_eq!(block.maintenance, record.maintenance);
        prop_assert_eq!(block.stopped, record.stopped);
        prop_assert_eq!(block.conf_on_shared_storage, Some(record.conf_on_shared_storage));
        prop_assert_eq!(block.local_conf_timestamp, Some(record.vm_conf_refresh_ts));
        let state_line = format!("state={}\n", record.state);
        prop_assert!(block.extra.contains(&state_line));
        for (key, value) in &record.notes {
            let line = format!("{key}={value}\n");
            prop_assert!(block.extra.contains(&line));
        }
    }

    #[test]
    fn anything_can_be_published(
        hostname in any::<String>(), detail in any::<String>(), reason in any::<String>(), state in any::<String>(),
    ) {
        let engine_status = EngineStatus { vm: VmState::Up, health: Health::Bad, detail, reason: Some(reason) };
        let bytes = HostRecord { hostname, engine_status, state, ..record() }.encode().unwrap();
        prop_assert!(bytes.is_ascii() || bytes[..CRITICAL_SIZE].is_ascii());
        prop_assert!(HostBlock::parse(host(2), &bytes).unwrap().is_some());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..BLOCK_SIZE + 10)) {
        let _ = HostBlock::parse(host(2), &bytes);
        let _ = GlobalBlock::parse(&bytes);
        let _ = parse_blocks(&bytes);
    }

    #[test]
    fn no_damage_to_a_good_block_makes_a_reader_panic_or_believe_it(
        record in any_record(), at in 0usize..300, byte in any::<u8>(), cut in 0usize..BLOCK_SIZE,
    ) {
        let mut bytes = record.encode().unwrap();
        let _ = HostBlock::parse(record.host_id, &bytes[..cut.min(bytes.len())]);
        let whole = HostBlock::parse(record.host_id, &bytes);
        bytes[at] = byte;
        if let Ok(Some(block)) = HostBlock::parse(record.host_id, &bytes) {
            prop_assert_eq!(Ok(Some(block)), whole);
        }
    }

    #[test]
    fn cluster_lines_survive_a_change(lines in prop::collection::vec("[a-z]{1,9}=[ -~]{0,20}", 0..20), on: bool) {
        let text = lines.join("\n");
        prop_assume!(!text.contains("maintenance="));
        let mut block = GlobalBlock::parse(text.as_bytes()).unwrap();
        block.set_maintenance(on);
        let again = GlobalBlock::parse(&block.encode().unwrap()).unwrap();
        prop_assert_eq!(again.maintenance(), on);
        prop_assert_eq!(again.unknown_lines(), lines);
    }
}
