//! The whole broker with its shipped times, in one thread and on paused time, as a simulator runs it.

use broker_api::status::StorageState;
use clock::SystemClock;
use engine_vm::VmActivity;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::lockspace::Pace;
use crate::lockspace::memory::MemoryLockspace;
use crate::monitors::testing::{FakeVm, TokioClock, status_of};
use crate::monitors::{
    EngineHealth, Kind, Liveliness, MonitorError, MonitorSet, Probe, ProbeFactory, Reading,
};
use crate::spawner::Spawner;
use crate::spawner::testing::TaskSpawner;
use crate::whiteboard::Timing;
use crate::whiteboard::memory::{Fault, MemoryWhiteboard};

/// Far more than anything here takes, in virtual time.
const PATIENCE: Duration = Duration::from_hours(1);

struct NoMail;

impl Notifications for NoMail {
    fn notify(&self, _: &str, _: &str, _: BTreeMap<String, String>) -> bool {
        false
    }
}

struct GoodPage;

#[async_trait]
impl Liveliness for GoodPage {
    async fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

struct Always(&'static str);

#[async_trait]
impl Probe for Always {
    async fn measure(&mut self) -> Result<Reading, String> {
        Ok(Reading::plain(self.0))
    }
}

/// The shipped judgement of the engine's health on a simulated VM; everything else is well.
struct SimulatedProbes(Arc<FakeVm>);

impl ProbeFactory for SimulatedProbes {
    fn probe(&self, kind: Kind, _: &MonitorOptions) -> Result<Box<dyn Probe>, MonitorError> {
        Ok(match kind {
            Kind::EngineHealth => {
                let vm = Arc::<FakeVm>::clone(&self.0);
                Box::new(EngineHealth::new(vm, Arc::new(GoodPage)))
            }
            Kind::CpuLoad | Kind::CpuLoadNoEngine | Kind::MemLoad => Box::new(Always("0.1")),
            Kind::MemFree => Box::new(Always("4096")),
            Kind::Network => Box::new(Always("1.0")),
            Kind::MgmtBridge | Kind::Ping | Kind::StorageDomain => Box::new(Always("True")),
        })
    }
}

async fn until(what: &str, broker: &Broker, wanted: impl Fn(&StatusDocument) -> bool) {
    let search = async {
        while !wanted(&broker.status().await) {
            sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(timeout(PATIENCE, search).await.is_ok(), "never {what}");
}

#[tokio::test(start_paused = true)]
async fn minutes_of_stuck_storage_pass_in_no_time() {
    let (began, real) = (Instant::now(), SystemClock.monotonic());
    let clock: Arc<dyn Clock> = TokioClock::new();
    let spawner: Arc<dyn Spawner> = Arc::new(TaskSpawner);
    let wake = WakeCounter::default();
    let board = Arc::new(MemoryWhiteboard::new(2001));
    let locks = Arc::new(MemoryLockspace::default());
    let keeper = |port| {
        let (clock, spawner) = (Arc::clone(&clock), Arc::clone(&spawner));
        Keeper::start(port, clock, spawner, wake.clone(), Pace::default()).unwrap()
    };
    let lease = keeper(Arc::<MemoryLockspace>::clone(&locks));
    let vm = FakeVm::new(status_of(VmActivity::Up));
    let probes = Box::new(SimulatedProbes(vm));
    let monitors = MonitorSet::with_probes(probes, Arc::clone(&clock), Arc::clone(&spawner));
    monitors.wake_agents(wake.clone());
    let broker = Arc::new(Broker::new(Parts {
        host_id: HostId::new(1).ok(),
        whiteboard: Service::new(
            Arc::<MemoryWhiteboard>::clone(&board),
            Arc::new(lease.clone()),
            Arc::clone(&clock),
            &spawner,
            Timing::default(),
            wake.clone(),
        ),
        lease,
        domain: keeper(Arc::new(MemoryLockspace::default())),
        monitors: Arc::new(monitors),
        notifications: Arc::new(NoMail),
        wake,
        clock: Arc::clone(&clock),
        alive_list: Duration::from_mins(1),
    }));
    let runs = Arc::clone(&broker);
    let running = spawner.task(Box::pin(async move { runs.run().await }));

    broker.start_monitor("engine-health", MonitorOptions::new()).await.unwrap();
    broker.lock_host_id(1).await.unwrap();
    broker.put_stats(0, b"maintenance=1".to_vec()).await.unwrap();
    until("good", &broker, |status| matches!(status.storage, StorageState::Good { .. })).await;
    let health = broker.status_monitor("engine-health").await.unwrap().unwrap();
    assert_eq!(health, r#"{"vm": "up", "health": "good", "detail": "Up"}"#);

    let stalled = Instant::now();
    board.set_reads(Fault::Hang);
    board.set_writes(Fault::Hang);
    let error = broker.put_stats(0, b"maintenance=0".to_vec()).await.unwrap_err();
    assert!(matches!(&error, VerbError::Storage(text) if text.contains("stuck since")), "{error}");
    assert_eq!(stalled.elapsed(), Timing::default().deadline, "to the tick");
    sleep(Duration::from_mins(5)).await;
    let status = broker.status().await;
    assert!(matches!(status.storage, StorageState::Stuck { .. }), "{:?}", status.storage);
    assert_eq!(status.global_maintenance, Some(true), "as last seen");
    assert!(matches!(status.lease, LeaseState::Held { .. }), "the lock manager does not hang");
    assert_eq!(board.hanging(), 4, "one write, and reads tried anew a few times");

    board.set_reads(Fault::None);
    board.set_writes(Fault::None);
    until("good again", &broker, |status| matches!(status.storage, StorageState::Good { .. })).await;
    assert!(board.peek(0).starts_with(b"maintenance=1\0"), "its caller was told that it failed");
    broker.put_stats(0, b"maintenance=0".to_vec()).await.unwrap();

    // Giving up an id, and a reset, wait for the keeper's word; the id is taken again by itself.
    broker.reset_lockspace().await.unwrap();
    until("held again", &broker, |status| matches!(status.lease, LeaseState::Held { .. })).await;
    assert_eq!(locks.joins(), 2);
    broker.give_up_ids(true).await;
    assert_eq!(broker.status().await.lease, LeaseState::NotRequested);
    running.abort();

    assert!(began.elapsed() > Duration::from_mins(5), "{:?}", began.elapsed());
    let real = SystemClock.monotonic().saturating_since(real);
    assert!(real < Duration::from_secs(10), "it took {real:?} of real time");
}
