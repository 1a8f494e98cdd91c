//! The broker on simulated storage and a simulated lock manager.

use broker_api::status::{HostRow, MigrationPhase, MigrationReport, StorageState};
use clock::{ManualClock, Monotonic, Wall};
use metadata_format::{EngineStatus, Health, HostRecord, Score, VmState};

use super::*;
use crate::lockspace::keeper::Pace;
use crate::lockspace::memory::MemoryLockspace;
use crate::spawner::{HostSpawner, Spawner};
use crate::whiteboard::Timing;
use crate::whiteboard::memory::{Fault, MemoryWhiteboard};

const PATIENCE: Duration = Duration::from_secs(20);

struct NoMonitors;

#[async_trait]
impl Monitors for NoMonitors {
    async fn start(&self, kind: &str, _: MonitorOptions) -> Result<String, VerbError> {
        Ok(kind.to_owned())
    }
    async fn stop(&self, _: &str) -> Result<(), VerbError> {
        Ok(())
    }
    async fn value(&self, id: &str) -> Result<Option<String>, VerbError> {
        Err(VerbError::BadArgument(format!("no monitor {id} is running")))
    }
    fn rows(&self) -> BTreeMap<String, MonitorRow> {
        BTreeMap::from([("ping".to_owned(), MonitorRow { value: None, age_secs: Some(3), error: None })])
    }
}

struct NoMail;

impl Notifications for NoMail {
    fn notify(&self, _: &str, _: &str, _: BTreeMap<String, String>) -> bool {
        false
    }
}

struct Bench {
    board: Arc<MemoryWhiteboard>,
    locks: Arc<MemoryLockspace>,
    clock: Arc<ManualClock>,
    broker: Arc<Broker>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
        self.board.set_reads(Fault::None);
        self.board.set_writes(Fault::None);
    }
}

fn bench() -> Bench {
    let clock = Arc::new(ManualClock::new(Monotonic::from_secs(1000), Wall(1_700_000_000)));
    let board = Arc::new(MemoryWhiteboard::new(64));
    let locks = Arc::new(MemoryLockspace::default());
    let wake = WakeCounter::default();
    let spawner: Arc<dyn Spawner> = Arc::new(HostSpawner);
    let quick = Duration::from_millis(5);
    let pace = Pace { poll: quick, retry: quick, hosts: Duration::ZERO, settle: Duration::ZERO };
    let keeper = |port: Arc<MemoryLockspace>| {
        let clock = Arc::<ManualClock>::clone(&clock);
        Keeper::start(port, clock, Arc::clone(&spawner), wake.clone(), pace).unwrap()
    };
    let lease = keeper(Arc::clone(&locks));
    let whiteboard = Service::new(
        Arc::<MemoryWhiteboard>::clone(&board),
        Arc::new(lease.clone()),
        Arc::<ManualClock>::clone(&clock),
        &spawner,
        Timing { cycle: quick, deadline: Duration::from_millis(60), settle: quick, try_anew: quick },
        wake.clone(),
    );
    let broker = Arc::new(Broker::new(Parts {
        host_id: HostId::new(1).ok(),
        whiteboard,
        lease,
        domain: keeper(Arc::default()),
        monitors: Arc::new(NoMonitors),
        notifications: Arc::new(NoMail),
        wake,
        clock: Arc::<ManualClock>::clone(&clock),
        alive_list: Duration::from_mins(1),
    }));
    let runs = Arc::clone(&broker);
    let task = tokio::spawn(async move { runs.run().await });
    Bench { board, locks, clock, broker, task }
}

fn record(id: u16) -> Vec<u8> {
    let record = HostRecord {
        host_ts: 77,
        host_time: "now".to_owned(),
        host_id: HostId::new(id).unwrap(),
        score: Score(2400),
        engine_status: EngineStatus {
            vm: VmState::Up,
            health: Health::Good,
            detail: "Up".to_owned(),
            reason: None,
        },
        hostname: "host\"1".to_owned(),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 70,
        vm_conf_refresh_time: "then".to_owned(),
        state: "EngineUp".to_owned(),
        timeout: None,
        notes: BTreeMap::new(),
    };
    record.encode().unwrap()
}

impl Bench {
    async fn until(&self, what: &str, wanted: impl Fn(&StatusDocument) -> bool) -> StatusDocument {
        let search = async {
            loop {
                let status = self.broker.status().await;
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never {what}"))
    }
}

#[tokio::test]
async fn a_host_block_needs_its_lease_and_the_cluster_block_none() {
    let bench = bench();
    let error = bench.broker.put_stats(1, record(1)).await.unwrap_err();
    assert!(matches!(&error, VerbError::NotHeld(text) if text.contains("host id 1")), "{error}");
    bench.broker.put_stats(0, b"maintenance=1".to_vec()).await.unwrap();
    bench.broker.lock_host_id(1).await.unwrap();
    bench.broker.put_stats(1, record(1)).await.unwrap();
    let error = bench.broker.put_stats(2, record(2)).await.unwrap_err();
    assert!(matches!(error, VerbError::NotHeld(_)), "{error}");
    let blocks = bench.broker.get_stats().await.unwrap();
    assert_eq!(blocks.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(blocks[&1].len(), 4096);
    bench.locks.lose();
    bench.locks.take_elsewhere(HostId::new(1).unwrap());
    let error = bench.broker.put_stats(1, record(1)).await.unwrap_err();
    assert!(matches!(error, VerbError::NotHeld(_)), "refused at once, not after the next poll: {error}");
    let status = bench.until("lost", |status| matches!(status.lease, LeaseState::Lost { .. })).await;
    assert_eq!(status.global_maintenance, Some(true));
}

#[tokio::test]
async fn what_no_reader_could_use_is_refused_with_the_reason() {
    let bench = bench();
    bench.broker.lock_host_id(1).await.unwrap();
    let mut damaged = record(1);
    damaged[6] = b'9';
    let mut hidden = vec![0; 1024];
    hidden[600] = b'x';
    for (block, bytes, word) in [
        (1, record(2), "belongs to host 2"),
        (1, damaged, "checksum"),
        (1, vec![b'x'; 5000], "5000 bytes"),
        (1, b"hello".to_vec(), "block 1 not written"),
        (1, hidden, "absent"),
        (2001, record(1), "from 1 to 2000"),
        (0, b"nonsense".to_vec(), "key=value"),
        (0, vec![0xff; 10], "UTF-8"),
    ] {
        let error = bench.broker.put_stats(block, bytes).await.unwrap_err();
        assert!(matches!(&error, VerbError::BadArgument(text) if text.contains(word)), "{error}");
    }
    let error = bench.broker.status_monitor("nosuch").await.unwrap_err();
    assert!(matches!(&error, VerbError::BadArgument(text) if text.contains("nosuch")), "{error}");
    assert!(bench.board.written().is_empty());
    bench.broker.put_stats(1, record(1)).await.unwrap();
    bench.broker.put_stats(1, Vec::new()).await.unwrap();
    assert!(bench.broker.get_stats().await.unwrap().is_empty(), "an empty block takes the host out");
}

#[tokio::test]
async fn one_bad_block_costs_one_row_and_unknown_lines_are_told() {
    let bench = bench();
    bench.board.poke(0, b"maintenance=0\nfuture=1\n");
    bench.board.poke(1, &record(1));
    bench.board.poke(2, &[0xfe; 4096]);
    bench.board.poke(3, b"2|2|whatever");
    let status = bench.until("three rows", |status| status.hosts.len() == 3).await;
    assert_eq!(status.global_maintenance, Some(false));
    assert_eq!(status.unknown_global_keys, ["future=1"]);
    let rows: Vec<bool> = status.hosts.values().map(|row| matches!(row, HostRow::Good(_))).collect();
    assert_eq!(rows, [true, false, false]);
    let HostRow::Bad { error } = &status.hosts[&HostId::new(3).unwrap()] else { panic!("a good row") };
    assert!(error.contains("version 2"), "{error}");
    bench.board.poke(0, b"maintenance=maybe");
    bench.until("unknown", |status| status.global_maintenance.is_none()).await;
}

#[tokio::test]
async fn the_alive_list_and_the_report_are_forgotten_after_their_time() {
    let bench = bench();
    bench.board.poke(1, &record(1));
    bench.broker.push_hosts_state(vec![1]).await.unwrap();
    assert!(bench.broker.push_hosts_state(vec![1, 3000]).await.is_err());
    bench.broker.put_agent_report(report()).await;
    let status = bench.until("live", |status| status.hosts.values().any(is_live)).await;
    assert_eq!(status.agent, Some(report()));
    bench.clock.advance(Duration::from_secs(61));
    assert!(bench.broker.is_host_alive().await.unwrap().is_empty());
    let status = bench.broker.status().await;
    assert!(!status.hosts.values().any(is_live));
    assert_eq!(status.agent, None);
}

fn is_live(row: &HostRow) -> bool {
    matches!(row, HostRow::Good(row) if row.live)
}

fn report() -> AgentReport {
    AgentReport {
        state: "EngineUp".to_owned(),
        score: Score(2400),
        score_terms: Vec::new(),
        reasons: Vec::new(),
        timeout_at: None,
        warnings: Vec::new(),
        migration: None,
    }
}

#[tokio::test]
async fn a_request_for_a_migration_waits_for_the_agents_answer() {
    let bench = bench();
    let two = HostId::new(2).unwrap();
    let counter = bench.broker.wake(u64::MAX, Duration::ZERO).await.counter;
    bench.broker.ask_migration(Some(two)).await;
    assert!(bench.broker.wake(u64::MAX, Duration::ZERO).await.counter > counter, "the agent is woken");
    let first = bench.broker.status().await.migration_request.unwrap();
    assert_eq!((first.to, first.asked_at), (Some(two), 1_700_000_000));
    bench.broker.ask_migration(None).await;
    let second = bench.broker.status().await.migration_request.unwrap();
    assert_eq!((second.to, second.asked_at), (None, 1_700_000_001), "the later one counts");

    let answer = |request, phase| AgentReport {
        migration: Some(MigrationReport { to: two, hostname: "host2".to_owned(), since: 0, phase, request }),
        ..report()
    };
    let failed = || MigrationPhase::Failed { detail: "no host can take it".to_owned() };
    for (request, phase) in
        [(Some(second.asked_at), MigrationPhase::Asked), (Some(first.asked_at), failed()), (None, failed())]
    {
        bench.broker.put_agent_report(answer(request, phase)).await;
        assert_eq!(bench.broker.status().await.migration_request, Some(second));
    }
    bench.broker.put_agent_report(answer(Some(second.asked_at), failed())).await;
    assert_eq!(bench.broker.status().await.migration_request, None, "it was answered");

    bench.broker.ask_migration(None).await;
    bench.clock.advance(Duration::from_mins(10));
    assert!(bench.broker.status().await.migration_request.is_some());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.broker.status().await.migration_request, None, "nobody answered it");
}

#[tokio::test]
async fn stuck_storage_answers_callers_and_keeps_what_was_seen() {
    let bench = bench();
    bench.broker.lock_host_id(1).await.unwrap();
    bench.broker.put_stats(1, record(1)).await.unwrap();
    bench.board.set_writes(Fault::Hang);
    bench.board.set_reads(Fault::Hang);
    let error = bench.broker.put_stats(1, record(1)).await.unwrap_err();
    assert!(matches!(&error, VerbError::Storage(text) if text.contains("stuck since 1700000000")), "{error}");
    let status = bench.until("stuck", |s| matches!(s.storage, StorageState::Stuck { .. })).await;
    assert_eq!(status.hosts.len(), 1);
    assert!(bench.broker.headline().contains("stuck"));
    bench.board.set_writes(Fault::None);
    bench.board.set_reads(Fault::None);
    bench.until("good", |s| matches!(s.storage, StorageState::Good { .. })).await;
    bench.broker.put_stats(1, record(1)).await.unwrap();
}

#[tokio::test]
async fn a_lockspace_with_live_hosts_is_not_written_anew() {
    let bench = bench();
    bench.locks.take_elsewhere(HostId::new(7).unwrap());
    bench.broker.lock_host_id(1).await.unwrap();
    let error = bench.broker.reset_lockspace().await.unwrap_err().to_string();
    assert!(error.contains('7') && error.contains("live"), "{error}");
    bench.locks.free_elsewhere(HostId::new(7).unwrap());
    let retry = async {
        while bench.broker.reset_lockspace().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, retry).await.unwrap();
    bench.until("held again", |status| matches!(status.lease, LeaseState::Held { .. })).await;
}

#[tokio::test]
async fn the_metrics_page_is_well_formed_text() {
    let bench = bench();
    bench.board.poke(1, &record(1));
    bench.until("a row", |status| !status.hosts.is_empty()).await;
    let page = bench.broker.metrics().await;
    let mut known = BTreeSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(known.insert(help.split(' ').next().unwrap().to_owned()), "twice: {line}");
        } else if !line.starts_with("# TYPE ") {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(known.contains(name), "no header for {line}");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        }
    }
    assert!(page.contains(r#"ovirt_ha_host_score{host_id="1",hostname="host\"1"} 2400"#), "{page}");
    assert!(page.contains(r#"ovirt_ha_lease_held{lockspace="hosted-engine"} 0"#));
    assert!(page.contains(r#"ovirt_ha_storage_state{state="good"} 1"#));
    assert!(page.contains(r#"ovirt_ha_monitor_age_seconds{monitor="ping"} 3"#));
    assert!(page.ends_with('\n'));
}
