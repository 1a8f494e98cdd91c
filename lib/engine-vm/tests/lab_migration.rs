//! Live migration between two QEMUs with the lease handed over. Needs root, QEMU, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod lab;

use engine_vm::qemu::QmpRole;
use engine_vm::{
    EngineVm, LeaseHolding, MigrationProgress, MigrationTarget, StartMode, VmActivity, VmError, VmExit,
};

use lab::moving::{Poller, limit_speed, progress_when, target};
use lab::{Lab, SOON, is_up, status_when};

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_moves_with_its_lease_and_never_runs_twice() {
    let lab = Lab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    source.start(StartMode::Run).await.unwrap();
    assert_eq!(source.migration_progress().await.unwrap(), MigrationProgress::None);
    let version = lab.lease(0).version().unwrap();

    let listening = destination.prepare_incoming(&target(&lab)).await.unwrap();
    let waiting = destination.status().await.unwrap();
    assert_eq!(waiting.activity, VmActivity::MigrationDestination);
    assert!(matches!(waiting.lease, LeaseHolding::Pending { .. }), "{waiting:?}");
    assert!(matches!(destination.resume().await, Err(VmError::Failed { .. })));

    let poller = Poller::start(&lab, [0, 1]);
    source.migrate(&listening).await.unwrap();
    assert_eq!(
        progress_when(&source, |p| *p == MigrationProgress::Completed).await,
        MigrationProgress::Completed
    );
    let arrived = status_when(&destination, "the guest to run at the destination", is_up).await;
    let left = status_when(&source, "the source to end", |status| status.exit.is_some()).await;
    poller.end().await;
    assert_eq!((left.activity, left.exit), (VmActivity::Down, Some(VmExit::MigratedAway)));
    assert_eq!(lab.lease(1).held_version(arrived.pid.unwrap()), Ok(Some(version + 1)));
    assert_eq!(lab.lease(1).version(), Ok(version + 1));
    assert_eq!(destination.migration_progress().await.unwrap(), MigrationProgress::Completed);

    // And back again, over TCP, to a port that the receiver chose.
    let back = source.prepare_incoming(&MigrationTarget { uri: "tcp:127.0.0.1:0".to_owned() }).await.unwrap();
    assert!(!back.uri.ends_with(":0"), "{back:?}");
    let poller = Poller::start(&lab, [1, 0]);
    destination.migrate(&back).await.unwrap();
    status_when(&source, "the guest to be back", is_up).await;
    let left = status_when(&destination, "the other to end", |status| status.exit.is_some()).await;
    poller.end().await;
    assert_eq!(left.exit, Some(VmExit::MigratedAway));
    lab.kill(0);
    let gone = status_when(&source, "the VM to be gone", |status| status.exit.is_some()).await;
    assert!(matches!(gone.exit, Some(VmExit::Crashed { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_goes_on_at_the_source_when_the_destination_is_not_there() {
    let lab = Lab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    source.start(StartMode::Run).await.unwrap();
    // Nobody listens: refused at once, or failed soon.
    if source.migrate(&target(&lab)).await.is_ok() {
        progress_when(&source, |p| matches!(p, MigrationProgress::Failed { .. })).await;
    }
    assert!(is_up(&source.status().await.unwrap()));
    assert!(matches!(
        source.migrate(&MigrationTarget { uri: "exec:true".to_owned() }).await,
        Err(VmError::Failed { .. })
    ));

    // It dies while it loads.
    let listening = destination.prepare_incoming(&target(&lab)).await.unwrap();
    limit_speed(&lab, 0, 10_000).await;
    let poller = Poller::start(&lab, [0, 1]);
    source.migrate(&listening).await.unwrap();
    let is_moving = |p: &MigrationProgress| matches!(p, MigrationProgress::Active { transferred: 1.., .. });
    progress_when(&source, is_moving).await;
    assert_eq!(source.status().await.unwrap().activity, VmActivity::MigrationSource);
    lab.kill(1);
    progress_when(&source, |p| matches!(p, MigrationProgress::Failed { .. })).await;
    let status = status_when(&source, "the guest to go on", is_up).await;
    poller.end().await;
    assert_eq!(status.pid, lab.pid(0));
    // The source hears of it when the socket closes, which is before the process is quite gone.
    let status =
        status_when(&destination, "the destination to be gone", |status| status.exit.is_some()).await;
    assert!(matches!(status.exit, Some(VmExit::StartFailed { .. })), "{status:?}");
    source.pause().await.unwrap();
    source.resume().await.unwrap();
    status_when(&source, "the guest to run", is_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_takes_the_lease_back_when_nobody_takes_it() {
    let mut lab = Lab::new();
    let source = lab.vm(0, QmpRole::Agent);
    source.start(StartMode::Run).await.unwrap();
    let pid = source.status().await.unwrap().pid;
    let version = lab.lease(0).version().unwrap();
    let destination = lab.vm(1, QmpRole::Agent);
    let listening = destination.prepare_incoming(&target(&lab)).await.unwrap();
    // The destination loads everything, and cannot have the lease.
    lab.daemons[1] = None;
    let poller = Poller::start(&lab, [0, 1]);
    source.migrate(&listening).await.unwrap();
    let failed = progress_when(&source, |p| matches!(p, MigrationProgress::Failed { .. })).await;
    assert!(
        matches!(&failed, MigrationProgress::Failed { detail } if detail.contains("goes on here")),
        "{failed:?}"
    );
    let status = status_when(&source, "the guest to go on", is_up).await;
    assert_eq!(status.pid, pid);
    assert_eq!(lab.lease(0).held_version(pid.unwrap()), Ok(Some(version + 1)));
    poller.end().await;
    assert_ne!(destination.status().await.unwrap().activity, VmActivity::Up);
}

/// The agents of both hosts die right after the migration began: their tasks with them.
#[test]
fn another_life_of_the_agents_carries_a_migration_through() {
    let lab = Lab::new();
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = life();
    first.block_on(async {
        let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
        source.start(StartMode::Run).await.unwrap();
        let listening = destination.prepare_incoming(&target(&lab)).await.unwrap();
        limit_speed(&lab, 0, 10_000).await;
        source.migrate(&listening).await.unwrap();
    });
    first.shutdown_timeout(SOON);
    life().block_on(async {
        let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
        assert!(matches!(source.migration_progress().await.unwrap(), MigrationProgress::Active { .. }));
        limit_speed(&lab, 0, 1 << 30).await;
        status_when(&destination, "the guest to run at the destination", is_up).await;
        let left = status_when(&source, "the source to end", |status| status.exit.is_some()).await;
        assert_eq!(left.exit, Some(VmExit::MigratedAway));
    });
}
