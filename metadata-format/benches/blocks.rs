//! Reading and writing a full metadata file: one block for each of 2000 hosts.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use metadata_format::{BLOCK_SIZE, EngineStatus, HostId, HostRecord, MAX_HOST_ID, Score, parse_blocks};

fn record(id: u16) -> HostRecord {
    HostRecord {
        host_ts: 2351,
        host_time: "Sat Nov 21 02:13:27 2026".into(),
        host_id: HostId::new(id).expect("the caller counts from 1 to the highest id"),
        score: Score(3400),
        engine_status: EngineStatus::parse(
            r#"{"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"}"#,
        ),
        hostname: format!("host-{id}.example.org"),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 2351,
        vm_conf_refresh_time: "Sat Nov 21 02:13:27 2026".into(),
        state: "EngineDown".into(),
        timeout: None,
        notes: BTreeMap::new(),
    }
}

fn blocks(c: &mut Criterion) {
    let records: Vec<_> = (1..=MAX_HOST_ID).map(record).collect();
    let mut file = vec![0; BLOCK_SIZE];
    for record in &records {
        let start = file.len();
        file.extend(record.encode().expect("the record is well formed"));
        file.resize(start + BLOCK_SIZE, 0);
    }
    let mut group = c.benchmark_group("2000 blocks");
    group.throughput(Throughput::Elements(u64::from(MAX_HOST_ID)));
    group.bench_function("parse", |b| b.iter(|| parse_blocks(black_box(&file)).len()));
    group.bench_function("encode", |b| {
        b.iter(|| {
            records
                .iter()
                .filter_map(|record| black_box(record).encode().ok())
                .map(|bytes| bytes.len())
                .sum::<usize>()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    blocks(&mut criterion);
    criterion.final_summary();
}
