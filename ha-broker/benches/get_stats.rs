//! A whole `get_stats`, from connecting to the decoded blocks, over a real Unix socket: what an agent does in each loop.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

#[path = "../tests/socket/fake.rs"]
#[allow(dead_code, reason = "shared with the tests of the socket, which use all of it")]
mod fake;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fake::Served;

fn get_stats(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = c.benchmark_group("get_stats");
    for hosts in [3u16, 2000] {
        let served = runtime.block_on(async { Served::start() });
        *served.broker.blocks.lock().unwrap() = (0..=hosts).map(|id| (id, vec![b'x'; 4096])).collect();
        let client = served.client();
        group.throughput(Throughput::Bytes((u64::from(hosts) + 1) * 4096));
        group.sample_size(if hosts > 100 { 20 } else { 100 });
        group.bench_function(format!("{hosts} hosts"), |b| {
            b.iter(|| {
                let blocks = runtime.block_on(client.get_stats()).unwrap();
                assert_eq!(blocks.len(), usize::from(hosts) + 1);
            });
        });
        runtime.block_on(served.stop());
    }
    group.finish();
}

criterion_group!(benches, get_stats);
criterion_main!(benches);
