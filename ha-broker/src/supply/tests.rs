use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::pending;
use tokio::time::Instant;

use super::*;
use crate::monitors::testing::TokioClock;
use crate::spawner::testing::TaskSpawner;

/// A way in memory. It can be made while `vdsm_is_up`; then its files are there.
#[derive(Default)]
struct FakeWay {
    files: AtomicBool,
    vdsm_is_up: AtomicBool,
    hangs: AtomicBool,
    maintenance: AtomicBool,
    tries: AtomicUsize,
}

#[async_trait]
impl Way for FakeWay {
    async fn make(&self, on_step: &(dyn Fn(String) + Send + Sync)) -> Result<Vec<String>, String> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        on_step("VDSM to answer".to_owned());
        if self.hangs.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        if !self.vdsm_is_up.load(Ordering::Relaxed) {
            return Err("VDSM cannot be reached".to_owned());
        }
        on_step("VDSM to connect a:/b".to_owned());
        self.files.store(true, Ordering::Relaxed);
        Ok(vec!["one path of two failed".to_owned()])
    }

    async fn look(&self) -> Result<(), String> {
        let there = self.files.load(Ordering::Relaxed);
        if there { Ok(()) } else { Err("hosted-engine.metadata: No such file".to_owned()) }
    }

    async fn is_in_maintenance(&self) -> bool {
        self.maintenance.load(Ordering::Relaxed)
    }
}

impl FakeWay {
    fn tries(&self) -> usize {
        self.tries.load(Ordering::Relaxed)
    }
}

fn start(way: &Arc<FakeWay>) -> Gate {
    start_with(way, crate::returned::never())
}

fn start_with(way: &Arc<FakeWay>, returned: Returned) -> Gate {
    let spawner: Arc<dyn Spawner> = Arc::new(TaskSpawner);
    keep_open(Arc::<FakeWay>::clone(way), TokioClock::new(), &spawner, returned).unwrap()
}

/// With storage away for half an hour it is tried every five minutes, and the status says when next.
#[tokio::test(start_paused = true)]
async fn after_ten_minutes_it_is_tried_every_five_and_at_once_when_something_comes_back() {
    let way = Arc::new(FakeWay::default());
    let (sign, returned) = watch::channel(0);
    let mut gate = start_with(&way, returned);
    tokio::time::sleep(EAGER_FOR + PATIENT_PAUSE).await;
    let (tries, begun) = (way.tries(), Instant::now());
    until(&mut gate, "two more tries", |_| way.tries() >= tries + 2).await;
    assert!(begun.elapsed() <= PATIENT_PAUSE * 2, "{:?}", begun.elapsed());
    assert!(begun.elapsed() > PATIENT_PAUSE, "{:?}", begun.elapsed());
    let how_far = |gate: &Gate| gate.borrow().clone().unwrap();
    until(&mut gate, "the next try to be known", |shut| {
        shut.as_ref().is_some_and(|how_far| how_far.next_try.is_some())
    })
    .await;
    // The clock of people stands still here.
    let next = how_far(&gate).next_try.unwrap();
    assert_eq!(next - how_far(&gate).since, PATIENT_PAUSE.as_secs().cast_signed(), "{:?}", how_far(&gate));

    way.vdsm_is_up.store(true, Ordering::Relaxed);
    tokio::time::sleep(SOONEST * 2).await;
    assert!(gate.borrow().is_some(), "nobody said that it is back");
    let begun = Instant::now();
    sign.send_modify(|count| *count += 1);
    until(&mut gate, "made", Option::is_none).await;
    assert!(begun.elapsed() < SOONEST, "{:?}", begun.elapsed());
}

async fn until(gate: &mut Gate, what: &str, wanted: impl FnMut(&Option<Connecting>) -> bool) {
    let in_time = tokio::time::timeout(Duration::from_mins(10), gate.wait_for(wanted)).await.is_ok();
    assert!(in_time, "{what}: {:?}", gate.borrow().clone());
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_for_ever_and_every_caller_can_see_how_far_it_is() {
    let way = Arc::new(FakeWay::default());
    let mut gate = start(&way);
    assert!(gate.borrow().is_some(), "nothing is let through before the first look");
    let failed = |shut: &Option<Connecting>| shut.as_ref().is_some_and(|how_far| how_far.error.is_some());
    until(&mut gate, "the first try", failed).await;
    let how_far = gate.borrow().clone().unwrap();
    assert_eq!(how_far.step, "VDSM to answer");
    assert_eq!(how_far.error.as_deref(), Some("VDSM cannot be reached"));
    assert!(how_far.next_try.is_some());
    let begun = Instant::now();
    until(&mut gate, "ten tries", |_| way.tries() >= 10).await;
    let took = begun.elapsed();
    // 1 + 2 + 4 + 8 + 16 s, and 30 s each after that.
    assert!((Duration::from_secs(150)..Duration::from_secs(155)).contains(&took), "{took:?}");
    assert_eq!(gate.borrow().as_ref().unwrap().since, how_far.since, "the trouble has one beginning");
    way.vdsm_is_up.store(true, Ordering::Relaxed);
    until(&mut gate, "made", Option::is_none).await;
    assert_eq!(way.tries(), 11);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_there_are_used_whatever_vdsm_does() {
    for hangs in [false, true] {
        let way = Arc::new(FakeWay::default());
        way.files.store(true, Ordering::Relaxed);
        way.hangs.store(hangs, Ordering::Relaxed);
        let mut gate = start(&way);
        until(&mut gate, "open", Option::is_none).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(gate.borrow().is_none());
        assert_eq!(way.tries() > 1, !hangs, "it is still made sure of");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_made_again() {
    let way = Arc::new(FakeWay::default());
    way.vdsm_is_up.store(true, Ordering::Relaxed);
    let mut gate = start(&way);
    until(&mut gate, "made", Option::is_none).await;
    way.files.store(false, Ordering::Relaxed);
    way.vdsm_is_up.store(false, Ordering::Relaxed);
    until(&mut gate, "shut", Option::is_some).await;
    let error = gate.borrow().clone().unwrap().error;
    assert!(error.is_some_and(|error| error.contains("No such file") || error.contains("VDSM")));
    way.vdsm_is_up.store(true, Ordering::Relaxed);
    until(&mut gate, "made again", Option::is_none).await;
}

#[tokio::test(start_paused = true)]
async fn in_local_maintenance_the_engine_is_not_worked_against() {
    let way = Arc::new(FakeWay::default());
    way.vdsm_is_up.store(true, Ordering::Relaxed);
    let mut gate = start(&way);
    until(&mut gate, "made", Option::is_none).await;
    way.maintenance.store(true, Ordering::Relaxed);
    way.files.store(false, Ordering::Relaxed);
    let waits =
        |shut: &Option<Connecting>| shut.as_ref().is_some_and(|how_far| how_far.step.contains("maintenance"));
    until(&mut gate, "waits for the end of maintenance", waits).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(way.tries(), 1);
    way.maintenance.store(false, Ordering::Relaxed);
    until(&mut gate, "made again", Option::is_none).await;
    assert_eq!(way.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn storage_that_somebody_else_connects_in_maintenance_is_used() {
    let way = Arc::new(FakeWay::default());
    way.vdsm_is_up.store(true, Ordering::Relaxed);
    let mut gate = start(&way);
    until(&mut gate, "made", Option::is_none).await;
    way.maintenance.store(true, Ordering::Relaxed);
    way.files.store(false, Ordering::Relaxed);
    until(&mut gate, "shut", Option::is_some).await;
    way.files.store(true, Ordering::Relaxed);
    until(&mut gate, "made again", Option::is_none).await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_gate() {
    let way = Arc::new(FakeWay::default());
    drop(start(&way));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(way.tries() <= 1);
    assert_eq!(Arc::strong_count(&way), 1);
}
