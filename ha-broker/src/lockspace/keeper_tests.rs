//! The keeper on the simulated lock manager.

use clock::{ManualClock, Monotonic, SystemClock, Wall};

use super::super::memory::MemoryLockspace;
use super::*;
use crate::spawner::HostSpawner;

const PATIENCE: Duration = Duration::from_secs(20);

fn keeper() -> (Arc<MemoryLockspace>, Keeper, WakeCounter) {
    let port = Arc::new(MemoryLockspace::default());
    let wake = WakeCounter::default();
    let quick = Duration::from_millis(5);
    let pace = Pace { poll: quick, retry: quick, hosts: quick, settle: Duration::ZERO };
    let keeper = Keeper::start(
        Arc::<MemoryLockspace>::clone(&port),
        Arc::new(SystemClock),
        Arc::new(HostSpawner),
        wake.clone(),
        pace,
    );
    (port, keeper.unwrap(), wake)
}

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

async fn until(keeper: &Keeper, wanted: impl FnMut(&Kept) -> bool) {
    let mut watch = keeper.watch();
    tokio::time::timeout(PATIENCE, watch.wait_for(wanted)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_id_is_taken_kept_lost_at_once_and_taken_again() {
    let (port, keeper, wake) = keeper();
    assert!(keeper.held_now(id(1)).await.unwrap_err().contains("nobody asked"));
    keeper.hold(id(1)).await.unwrap();
    assert_eq!(keeper.held_now(id(1)).await, Ok(()));
    assert!(keeper.held_now(id(2)).await.unwrap_err().contains("the id held here is 1"));
    let before = wake.get();
    port.set_broken(Some("sanlock is gone"));
    assert!(keeper.held_now(id(1)).await.unwrap_err().contains("gone"), "not only after the next poll");
    until(&keeper, |kept| matches!(&kept.state, LeaseState::Lost { error, .. } if error.contains("gone")))
        .await;
    assert!(wake.get() > before);
    port.lose();
    port.set_broken(None);
    until(&keeper, |kept| matches!(kept.state, LeaseState::Held { .. })).await;
    assert_eq!(port.joins(), 2);
}

#[tokio::test]
async fn an_id_in_use_elsewhere_is_said_and_taken_when_free() {
    let (port, keeper, _) = keeper();
    port.take_elsewhere(id(3));
    assert!(keeper.hold(id(3)).await.unwrap_err().contains("in use by another host"));
    port.free_elsewhere(id(3));
    until(&keeper, |kept| matches!(kept.state, LeaseState::Held { .. })).await;
    until(&keeper, |kept| kept.live == [id(3)]).await;
}

#[tokio::test]
async fn who_is_live_is_told_only_while_the_lock_manager_knows_it_of_every_host() {
    let (port, keeper, _) = keeper();
    assert_eq!(keeper.kept().all_live, None, "nobody asked for an id");
    port.take_elsewhere(id(3));
    port.set_unsure(true);
    keeper.hold(id(1)).await.unwrap();
    until(&keeper, |kept| kept.live == [id(3), id(1)]).await;
    assert_eq!(keeper.kept().all_live, None, "another host may be there");
    port.set_unsure(false);
    until(&keeper, |kept| kept.all_live.as_deref() == Some(&[id(3), id(1)])).await;
    port.set_broken(Some("sanlock is gone"));
    until(&keeper, |kept| matches!(kept.state, LeaseState::Lost { .. })).await;
    assert_eq!((keeper.kept().all_live, keeper.kept().live), (None, vec![id(3), id(1)]));
}

#[tokio::test]
async fn a_host_that_has_just_joined_takes_nobody_for_absent() {
    let port = Arc::new(MemoryLockspace::default());
    let clock = Arc::new(ManualClock::new(Monotonic::from_secs(1000), Wall(0)));
    let quick = Duration::from_millis(5);
    let pace = Pace { poll: quick, retry: quick, hosts: Duration::ZERO, settle: Duration::from_mins(1) };
    let (lockspace, time) = (Arc::<MemoryLockspace>::clone(&port), Arc::<ManualClock>::clone(&clock));
    let keeper = Keeper::start(lockspace, time, Arc::new(HostSpawner), WakeCounter::default(), pace).unwrap();
    keeper.hold(id(1)).await.unwrap();
    until(&keeper, |kept| kept.live == [id(1)]).await;
    clock.advance(Duration::from_secs(59));
    // Two looks later this is certain: the first may have begun before the clock moved.
    port.take_elsewhere(id(2));
    until(&keeper, |kept| kept.live == [id(2), id(1)]).await;
    port.take_elsewhere(id(3));
    until(&keeper, |kept| kept.live == [id(2), id(3), id(1)]).await;
    assert_eq!(keeper.kept().all_live, None);
    clock.advance(Duration::from_secs(1));
    until(&keeper, |kept| kept.all_live.as_ref().is_some_and(|live| live.len() == 3)).await;
}

#[tokio::test]
async fn a_release_during_a_slow_join_leaves_nothing_behind() {
    let (port, keeper, _) = keeper();
    port.set_joins_hang(true);
    let asked = keeper.clone();
    let joining = tokio::spawn(async move { asked.hold(id(1)).await });
    while port.joins() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    keeper.release(PATIENCE).await.unwrap();
    joining.abort();
    port.set_joins_hang(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(port.phase(id(1)).await, Ok(Phase::NotHeld));
    keeper.hold(id(2)).await.unwrap();
    keeper.hold(id(4)).await.unwrap();
    assert_eq!(port.phase(id(4)).await, Ok(Phase::Held), "the other id was given up first");
}

#[tokio::test]
async fn a_lock_manager_that_cannot_say_whether_the_id_is_gone_fails_the_release() {
    let (port, keeper, _) = keeper();
    keeper.hold(id(1)).await.unwrap();
    port.set_broken(Some("sanlock is gone"));
    until(&keeper, |kept| matches!(kept.state, LeaseState::Lost { .. })).await;
    assert!(keeper.release(PATIENCE).await.unwrap_err().contains("gone"));
    let kept = keeper.kept();
    assert_eq!(
        (kept.wanted, kept.state),
        (None, LeaseState::NotRequested),
        "and yet it is not wanted any more"
    );
    port.set_broken(None);
    until(&keeper, |kept| kept.leaving.is_none()).await;
    keeper.hold(id(2)).await.unwrap();
}
