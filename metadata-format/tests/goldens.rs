//! Blocks recorded from the existing agent (release 2.5), byte for byte.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use metadata_format::{
    BLOCK_SIZE, CRITICAL_SIZE, GlobalBlock, HostBlock, HostId, HostRecord, ctime, parse_blocks,
};

/// Recorded blocks as (name, bytes), in the order of the recording.
fn goldens(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().contains(kind))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no recorded blocks of kind {kind}");
    found
}

fn line<'a>(extra: &'a str, key: &str) -> Option<&'a str> {
    extra.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// The wall clock of `timestamp=2351 (Sat Nov 21 02:13:27 2026)`, read without this crate's help.
fn wall_of(value: &str) -> i64 {
    let text = value.split_once('(').unwrap().1.trim_end_matches(')');
    let time = jiff::civil::DateTime::strptime("%a %b %d %H:%M:%S %Y", text).unwrap();
    time.to_zoned(TimeZone::UTC).unwrap().timestamp().as_second()
}

/// What a writer that said this block had in hand.
fn record_of(block: &HostBlock) -> HostRecord {
    let time = |key| ctime(wall_of(line(&block.extra, key).unwrap()), &TimeZone::UTC);
    HostRecord {
        host_ts: block.host_ts,
        host_time: time("timestamp"),
        host_id: block.host_id,
        score: block.score,
        engine_status: block.engine_status.clone(),
        hostname: block.hostname.clone(),
        maintenance: block.maintenance,
        stopped: block.stopped,
        conf_on_shared_storage: block.conf_on_shared_storage.unwrap(),
        vm_conf_refresh_ts: block.local_conf_timestamp.unwrap(),
        vm_conf_refresh_time: time("vm_conf_refresh_time"),
        state: line(&block.extra, "state").unwrap().to_owned(),
        timeout: line(&block.extra, "timeout").map(str::to_owned),
        notes: BTreeMap::new(),
    }
}

#[test]
fn recorded_host_blocks_are_read_and_written_byte_for_byte() {
    let host = HostId::new(1).unwrap();
    for (name, bytes) in goldens("-h1-") {
        let block = HostBlock::parse(host, &bytes).unwrap().unwrap_or_else(|| panic!("{name}: absent"));
        assert!(block.crc32.is_some(), "{name}");
        let mut written = record_of(&block).encode().unwrap();
        assert!(written.len().is_multiple_of(CRITICAL_SIZE), "{name}");
        written.resize(BLOCK_SIZE, 0);
        assert!(written == bytes, "{name}: {}", String::from_utf8_lossy(&written));
    }
}

#[test]
fn recorded_cluster_blocks_are_read_and_written_byte_for_byte() {
    for ((name, bytes), maintenance) in goldens("-h0-").into_iter().zip([false, true, false]) {
        let mut block = GlobalBlock::parse(&bytes).unwrap();
        assert_eq!(block.maintenance(), maintenance, "{name}");
        assert!(block.unknown_lines().is_empty(), "{name}");
        assert_eq!(block.encode().unwrap(), bytes, "{name}");
        block.set_maintenance(true);
        assert!(block.encode().unwrap().starts_with(b"maintenance=1\0"), "{name}");
    }
}

#[test]
fn a_bad_block_costs_only_its_own_row() {
    let good = &goldens("002-h1")[0].1;
    let mut file = vec![0; BLOCK_SIZE];
    file.extend_from_slice(good);
    file.extend((0..BLOCK_SIZE).map(|i| u8::try_from(i % 251).unwrap() ^ 0x37));
    file.extend_from_slice(good);
    file.extend([0; BLOCK_SIZE]);
    file.extend_from_slice(&good[..100]);
    let rows = parse_blocks(&file);
    let texts: Vec<_> = rows
        .iter()
        .map(|(id, row)| (id.get(), row.as_ref().map(|b| b.hostname.clone()).map_err(ToString::to_string)))
        .collect();
    assert_eq!(texts.len(), 4, "the NUL block has no row");
    assert_eq!(texts[0], (1, Ok("vm".to_owned())));
    assert!(matches!(&texts[1], (2, Err(text)) if text.contains("host 2 is not a host record")), "{texts:?}");
    assert!(matches!(&texts[2], (3, Err(text)) if text.contains("belongs to host 1")), "{texts:?}");
    assert!(matches!(&texts[3], (5, Err(text)) if text.contains("only 100 bytes")), "{texts:?}");
}
