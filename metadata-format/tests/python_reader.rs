//! Our blocks through a reader that follows the rules of the existing release's (`reader.py`), in Python.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use metadata_format::{BLOCK_SIZE, EngineStatus, GlobalBlock, Health, HostId, HostRecord, Score, VmState};
use serde_json::Value;

const STATES: [&str; 15] = [
    "Start",
    "ReinitializeFSM",
    "EngineDown",
    "EngineStart",
    "EngineStarting",
    "EngineUp",
    "EngineUpBadHealth",
    "EngineStop",
    "EngineForceStop",
    "EngineMaybeAway",
    "EngineUnexpectedlyDown",
    "EngineMigratingAway",
    "UnknownLocalVmState",
    "LocalMaintenance",
    "GlobalMaintenance",
];

/// What the reader makes of blocks, by their number. They come to it as a broker gives them: whole.
fn read(blocks: &BTreeMap<u16, Vec<u8>>) -> BTreeMap<u16, Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let whole = |bytes: &[u8]| {
        let mut block = bytes.to_vec();
        block.resize(BLOCK_SIZE, 0);
        STANDARD.encode(block)
    };
    let input: BTreeMap<u16, String> = blocks.iter().map(|(id, bytes)| (*id, whole(bytes))).collect();
    let mut python =
        Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(&serde_json::to_vec(&input).unwrap()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn record(id: u16) -> HostRecord {
    HostRecord {
        host_ts: 2351,
        host_time: "Sat Nov 21 02:13:27 2026".into(),
        host_id: HostId::new(id).unwrap(),
        score: Score(3400),
        engine_status: EngineStatus::parse(r#"{"vm": "up", "health": "good", "detail": "Up"}"#),
        hostname: format!("host-{id}.example.com"),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 2340,
        vm_conf_refresh_time: "Sat Nov 21 02:13:16 2026".into(),
        state: "EngineUp".into(),
        timeout: None,
        notes: BTreeMap::new(),
    }
}

/// Every state, with and without a timer, in every combination of the flags.
fn states() -> Vec<HostRecord> {
    let mut records = Vec::new();
    for (state, id) in STATES.into_iter().chain(["AgentStopped"]).zip(1..) {
        records.push(HostRecord {
            state: state.into(),
            timeout: (id % 2 == 0).then(|| "Sat Nov 21 02:23:27 2026".into()),
            maintenance: id % 4 > 1,
            stopped: state == "AgentStopped",
            conf_on_shared_storage: id % 3 > 0,
            score: Score(if id % 5 == 0 { 0 } else { 3400 }),
            ..record(id)
        });
    }
    records
}

/// What strains the record: names and reasons that are long, not ASCII, or full of separators.
fn odd() -> Vec<HostRecord> {
    let status = |vm, detail: &str, reason: Option<String>| EngineStatus {
        vm,
        health: Health::Bad,
        detail: detail.to_owned(),
        reason,
    };
    let names = ["wirt-ü.example", "ホスト", "a|b", "x\ny", "", "h\u{0}h"];
    let mut records: Vec<HostRecord> = names
        .into_iter()
        .zip(100..)
        .map(|(name, id)| HostRecord { hostname: name.into(), ..record(id) })
        .collect();
    records.push(HostRecord { hostname: "long-name.".repeat(40), ..record(200) });
    for (text, id) in [("grün | \"quoted\" \\ ", 201), ("長い理由|", 202), ("\u{1f600}\u{0}", 203)] {
        records.push(HostRecord {
            engine_status: status(VmState::Down, text, Some(text.repeat(60))),
            hostname: "long-name.".repeat(20),
            ..record(id)
        });
    }
    records.push(HostRecord {
        notes: (0..200).map(|n| (format!("note{n}"), "ü".repeat(30))).collect(),
        ..record(204)
    });
    records.push(HostRecord {
        host_ts: i64::MAX,
        vm_conf_refresh_ts: 0,
        score: Score(u32::MAX),
        ..record(2000)
    });
    records
}

#[test]
fn every_block_of_ours_is_read_with_every_field() {
    let records: Vec<HostRecord> = states().into_iter().chain(odd()).collect();
    let blocks: BTreeMap<u16, Vec<u8>> =
        records.iter().map(|record| (record.host_id.get(), record.encode().unwrap())).collect();
    assert_eq!(blocks.len(), records.len());
    let found = read(&blocks);
    for record in &records {
        let (row, id) = (&found[&record.host_id.get()], record.host_id);
        assert!(row.get("error").is_none(), "{id}: {row}");
        assert_eq!(row["timestamp"], record.host_ts, "{id}");
        assert_eq!(row["score"], record.score.0, "{id}");
        assert_eq!(row["hostname"], record.published_hostname(), "{id}");
        assert_eq!(row["maintenance"], record.maintenance, "{id}");
        assert_eq!(row["stopped"], record.stopped, "{id}");
        assert_eq!(row["shared"], record.conf_on_shared_storage, "{id}");
        assert_eq!(row["refreshed"], record.vm_conf_refresh_ts, "{id}");
        let status = EngineStatus::parse(&row["engine-status"].to_string());
        assert_eq!(
            (status.vm, status.health),
            (record.engine_status.vm, record.engine_status.health),
            "{id}"
        );
        let extra = row["extra"].as_str().unwrap();
        let state = format!("\nstate={}\n", record.state);
        assert!(record.notes.len() > 100 || extra.contains(&state), "{id}: {extra}");
        let timer = record.timeout.as_ref().map(|time| format!("\ntimeout={time}\n"));
        assert_eq!(extra.contains("\ntimeout="), timer.is_some(), "{id}: {extra}");
        assert!(timer.is_none_or(|timer| extra.contains(&timer)), "{id}: {extra}");
    }
}

#[test]
fn the_cluster_block_of_ours_is_read() {
    for on in [true, false] {
        let mut block = GlobalBlock::default();
        block.set_maintenance(on);
        let found = read(&BTreeMap::from([(0, block.encode().unwrap())]));
        assert_eq!(found[&0], serde_json::json!({"maintenance": on, "unknown": []}));
    }
    let mut newer = GlobalBlock::parse(b"maintenance=0\nfrom-the-future=7").unwrap();
    newer.set_maintenance(true);
    let found = read(&BTreeMap::from([(0, newer.encode().unwrap())]));
    assert_eq!(found[&0], serde_json::json!({"maintenance": true, "unknown": ["from-the-future=7"]}));
}

/// The reader itself is right about blocks that the existing release wrote, and about bad ones.
#[test]
fn the_reader_reads_what_the_existing_release_wrote() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut blocks = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for (file, number) in std::fs::read_dir(folder).unwrap().zip(1..) {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("-h1-") {
            blocks.insert(number, std::fs::read(&path).unwrap());
            wanted.insert(number, format!("state={}\n", name.split(['-', '.']).nth(2).unwrap()));
        }
    }
    assert!(blocks.len() > 10);
    let mut damaged = record(900).encode().unwrap();
    damaged[30] ^= 1;
    blocks.insert(900, damaged);
    blocks.insert(901, b"2|2|whatever comes then".to_vec());
    blocks.insert(902, b"1|1|5|902|7".to_vec());
    let found = read(&blocks);
    for (number, state) in wanted {
        assert!(found[&number]["extra"].as_str().unwrap().contains(&state), "{}", found[&number]);
    }
    let error = |number: u16| found[&number]["error"].as_str().unwrap().to_owned();
    assert!(error(900).contains("checksum"), "{}", error(900));
    assert_eq!((error(901).as_str(), error(902).as_str()), ("too new", "too few fields"));
}
