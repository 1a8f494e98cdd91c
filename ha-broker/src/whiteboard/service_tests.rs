//! The service on the simulated adapter, with real threads and short deadlines.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use clock::SystemClock;
use rustix::io::Errno;

use super::super::cluster::Change;
use super::super::memory::{Fault, MemoryWhiteboard};
use super::super::zero_block;
use super::*;
use crate::spawner::HostSpawner;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Lease(AtomicBool);

#[async_trait]
impl BlockLease for Lease {
    async fn may_write(&self, block: u16) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err(format!("host id {block} is not held here")) }
    }
}

struct Bench {
    port: Arc<MemoryWhiteboard>,
    lease: Arc<Lease>,
    service: Service,
    wake: WakeCounter,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new() -> Self {
        Self::with_settle(Duration::from_millis(5))
    }

    /// With so long from a change of the cluster block to the second look at it.
    fn with_settle(settle: Duration) -> Self {
        let port = Arc::new(MemoryWhiteboard::new(64));
        let lease = Arc::new(Lease(AtomicBool::new(true)));
        let timing = Timing {
            cycle: Duration::from_millis(5),
            deadline: Duration::from_millis(60),
            settle,
            try_anew: Duration::from_millis(40),
        };
        let wake = WakeCounter::default();
        let service = Service::new(
            Arc::<MemoryWhiteboard>::clone(&port),
            Arc::<Lease>::clone(&lease),
            Arc::new(SystemClock),
            &(Arc::new(HostSpawner) as _),
            timing,
            wake.clone(),
        );
        let runs = service.clone();
        let task = tokio::spawn(async move { runs.run().await });
        Self { port, lease, service, wake, task }
    }

    /// Waits for a state of storage.
    async fn until(&self, what: &str, wanted: impl Fn(&StorageState) -> bool) {
        let search = async {
            while !wanted(&self.service.state()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        assert!(found.is_ok(), "storage did not become {what}: {:?}", self.service.state());
    }

    async fn until_good(&self) {
        self.until("good", |state| matches!(state, StorageState::Good { .. })).await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
        self.port.set_reads(Fault::None);
        self.port.set_writes(Fault::None);
    }
}

fn host(stamp: u8) -> Payload {
    let mut bytes = zero_block();
    bytes[0] = stamp;
    Payload::Host(Box::new(bytes))
}

fn change(text: &str) -> Payload {
    Payload::Cluster(Change::parse(text.as_bytes()).unwrap())
}

#[tokio::test]
async fn a_write_that_was_acknowledged_is_on_storage_and_in_the_snapshot() {
    let bench = Bench::new();
    bench.service.put(3, host(7)).await.unwrap();
    assert_eq!(bench.port.peek(3)[0], 7);
    assert_eq!(bench.service.snapshot().blocks[&3].bytes[0], 7);
    bench.until_good().await;
    assert_eq!(bench.service.counters().writes, 1);
}

#[tokio::test]
async fn without_the_lease_nothing_is_written_but_the_cluster_block_may_be() {
    let bench = Bench::new();
    bench.lease.0.store(false, Ordering::SeqCst);
    let error = bench.service.put(3, host(7)).await.unwrap_err();
    assert_eq!(error, PutError::NotHeld("host id 3 is not held here".to_owned()));
    bench.service.put(0, change("maintenance=1")).await.unwrap();
    assert_eq!(bench.port.written().len(), 1);
}

#[tokio::test]
async fn a_lease_lost_while_the_write_hangs_prevents_it() {
    let bench = Bench::new();
    bench.port.set_writes(Fault::Hang);
    let service = bench.service.clone();
    let write = tokio::spawn(async move { service.put(3, host(7)).await });
    while bench.port.hanging() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.lease.0.store(false, Ordering::SeqCst);
    bench.port.set_writes(Fault::None);
    assert!(matches!(write.await.unwrap(), Err(PutError::NotHeld(_))));
    assert!(bench.port.written().is_empty());
}

#[tokio::test]
async fn a_hanging_write_fails_in_time_is_never_done_later_and_does_not_stop_reading() {
    let bench = Bench::new();
    bench.until_good().await;
    bench.port.set_writes(Fault::Hang);
    let error = bench.service.put(3, host(7)).await.unwrap_err().to_string();
    assert!(error.contains("storage stuck since") && error.contains("write block 3"), "{error}");
    bench.until("stuck", |state| matches!(state, StorageState::Stuck { .. })).await;
    let at_once =
        tokio::time::timeout(Duration::from_millis(30), bench.service.put(0, change("maintenance=1")));
    assert!(at_once.await.expect("fails fast").is_err());
    bench.port.poke(9, b"new");
    while !bench.service.snapshot().blocks.contains_key(&9) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(bench.service.hanging_threads(), 1);
    bench.port.set_writes(Fault::None);
    bench.until("not stuck", |state| !matches!(state, StorageState::Stuck { .. })).await;
    assert!(bench.port.written().is_empty(), "its caller was told that it failed");
    bench.service.put(3, host(8)).await.unwrap();
    bench.until_good().await;
}

#[tokio::test]
async fn hanging_reads_are_shown_tried_anew_on_few_threads_and_resume_by_themselves() {
    let bench = Bench::new();
    bench.until_good().await;
    bench.port.set_reads(Fault::Hang);
    bench.until("stuck", |state| matches!(state, StorageState::Stuck { .. })).await;
    let since = bench.wake.get();
    while bench.port.hanging() < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.port.hanging(), 3, "no more threads than that");
    assert!(bench.service.stuck_for() > Duration::from_millis(100));
    bench.port.poke(4, b"x");
    bench.port.set_reads(Fault::None);
    bench.until_good().await;
    assert!(bench.service.snapshot().blocks.contains_key(&4));
    assert!(bench.wake.get() > since, "the agent is told");
}

#[tokio::test]
async fn a_replaced_file_frees_a_hanging_writer() {
    let bench = Bench::new();
    bench.until_good().await;
    bench.port.set_writes(Fault::Hang);
    bench.service.put(3, host(7)).await.unwrap_err();
    bench.port.replace();
    while bench.service.0.writer.blocked().is_some() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let service = bench.service.clone();
    let write = tokio::spawn(async move { service.put(3, host(9)).await });
    while bench.port.hanging() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.port.set_writes(Fault::None);
    write.await.unwrap().unwrap();
    assert_eq!(bench.port.peek(3)[0], 9);
    bench.until_good().await;
}

#[tokio::test]
async fn a_failing_read_keeps_the_last_rows_and_names_the_cause() {
    let bench = Bench::new();
    bench.port.poke(1, b"row");
    bench.service.put(2, host(7)).await.unwrap();
    while bench.service.snapshot().blocks.len() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bench.port.set_reads(Fault::Fail(Errno::STALE));
    bench
        .until("failed", |s| matches!(s, StorageState::Failed { error, .. } if error.contains("ESTALE")))
        .await;
    assert_eq!(bench.service.snapshot().blocks.len(), 2);
    bench.port.set_reads(Fault::None);
    bench.until_good().await;
}

#[tokio::test]
async fn a_truncated_file_is_said_and_heals() {
    let bench = Bench::new();
    bench.port.poke(40, b"row");
    bench.until_good().await;
    bench.port.resize(10);
    bench
        .until("failed", |s| matches!(s, StorageState::Failed { error, .. } if error.contains("truncated")))
        .await;
    assert!(bench.service.snapshot().blocks.contains_key(&40));
    bench.port.resize(64);
    bench.until_good().await;
}

#[tokio::test]
async fn a_change_of_maintenance_by_another_host_wakes_the_agent() {
    let bench = Bench::new();
    bench.until_good().await;
    let before = bench.wake.get();
    bench.port.poke(1, b"a host's own business");
    while bench.service.snapshot().blocks.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(bench.wake.get(), before);
    bench.port.poke(0, b"maintenance=1");
    assert_ne!(bench.wake.wait(before, PATIENCE).await, before);
}

#[tokio::test]
async fn a_change_that_another_host_undoes_at_the_same_moment_is_not_acknowledged() {
    // Longer than a busy machine keeps this test from undoing it.
    let bench = Bench::with_settle(Duration::from_secs(2));
    let port = Arc::clone(&bench.port);
    let service = bench.service.clone();
    let write = tokio::spawn(async move { service.put(0, change("maintenance=1")).await });
    while !port.peek(0).starts_with(b"maintenance=1") {
        tokio::task::yield_now().await;
    }
    port.poke(0, b"maintenance=0");
    let error = write.await.unwrap().unwrap_err();
    assert!(matches!(error, PutError::Storage(StorageError::Conflict { .. })), "{error}");
}

#[tokio::test]
async fn many_writers_of_many_blocks_are_all_acknowledged_and_the_maintenance_line_survives() {
    let bench = Bench::new();
    let mut writes = tokio::task::JoinSet::new();
    for round in 0..20_u8 {
        for block in 1..4_u16 {
            let service = bench.service.clone();
            writes.spawn(async move { service.put(block, host(round + 1)).await });
        }
        if round % 5 == 0 {
            let service = bench.service.clone();
            writes.spawn(async move { service.put(0, change(&format!("k{round}=1"))).await });
        }
    }
    bench.service.put(0, change("maintenance=1")).await.unwrap();
    while let Some(result) = writes.join_next().await {
        result.unwrap().unwrap();
    }
    let text = String::from_utf8(bench.port.peek(0).to_vec()).unwrap();
    for line in ["maintenance=1", "k0=1", "k5=1", "k10=1", "k15=1"] {
        assert!(text.contains(line), "{line} not in {}", text.trim_end_matches('\0'));
    }
}
