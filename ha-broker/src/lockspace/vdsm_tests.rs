use std::sync::atomic::{AtomicUsize, Ordering};

use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::json;

use super::super::testing::FakeSanlock;
use super::*;
use crate::monitors::testing::TokioClock;

const SD: &str = "6c3bca27-8d46-4f95-8f2c-3d7e0a1ff05c";

fn id(id: u16) -> HostId {
    HostId::new(id).unwrap()
}

fn lockspace(vdsm: Client) -> VdsmLockspace {
    VdsmLockspace::new(vdsm, SD, None, TokioClock::new()).unwrap()
}

/// Monitors the domain once it was told to, and has joined its lockspace at the third look after that.
async fn vdsm() -> FakeVdsm {
    let looks = AtomicUsize::new(0);
    FakeVdsm::start(move |method, params| match method {
        "Host.startMonitoringDomain" => {
            assert_eq!(params, &json!({"sdUUID": SD, "hostID": 2}));
            looks.store(1, Ordering::Relaxed);
            Answer::done()
        }
        "Host.stopMonitoringDomain" => {
            looks.store(0, Ordering::Relaxed);
            Answer::done()
        }
        "Host.getStorageRepoStats" => {
            assert_eq!(params, &json!({"domains": [SD]}));
            let looked = looks.load(Ordering::Relaxed);
            if looked == 0 {
                return Answer::Result(json!({}));
            }
            looks.store(looked + 1, Ordering::Relaxed);
            Answer::Result(json!({SD: {"valid": true, "delay": "0.001", "acquired": looked >= 3}}))
        }
        _ => Answer::Error(-32601, "no such verb".to_owned()),
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn vdsm_joins_and_leaves() {
    let vdsm = vdsm().await;
    let lockspace = lockspace(vdsm.client());
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld));
    lockspace.join(id(2)).await.unwrap();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
    lockspace.leave(id(2)).await.unwrap();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld));
    lockspace.leave(id(2)).await.unwrap();
    let stops = vdsm.methods().iter().filter(|method| *method == "Host.stopMonitoringDomain").count();
    assert_eq!(stops, 1, "what is not monitored is not stopped");
}

#[tokio::test]
async fn vdsm_is_not_asked_all_the_time() {
    let vdsm = vdsm().await;
    let lockspace = lockspace(vdsm.client());
    lockspace.join(id(2)).await.unwrap();
    let before = vdsm.calls().len();
    for _ in 0..20 {
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
    }
    assert_eq!(vdsm.calls().len(), before + 1);
}

#[tokio::test]
async fn a_domain_in_a_pool_is_left_to_the_pool() {
    let vdsm = FakeVdsm::start(|method, _| match method {
        "Host.stopMonitoringDomain" => Answer::Error(900, "Storage domain is member of pool".to_owned()),
        "Host.getStorageRepoStats" => Answer::Result(json!({SD: {"valid": true, "acquired": true}})),
        _ => Answer::done(),
    })
    .await
    .unwrap();
    let lockspace = lockspace(vdsm.client());
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held), "somebody else had it joined");
    lockspace.leave(id(2)).await.unwrap();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld), "for us it is given up");
    lockspace.join(id(2)).await.unwrap();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
}

#[tokio::test(start_paused = true)]
async fn without_vdsms_word_nothing_is_held() {
    let lockspace = lockspace(FakeVdsm::absent().await.unwrap());
    let error = lockspace.phase(id(2)).await.unwrap_err().to_string();
    assert!(error.contains(SD) && error.contains("cannot be reached"), "{error}");
    assert!(matches!(lockspace.join(id(2)).await, Err(LockError::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_join_that_takes_too_long_says_where_to_look() {
    let vdsm = FakeVdsm::start(|method, _| match method {
        "Host.getStorageRepoStats" => Answer::Result(json!({SD: {"valid": true, "acquired": false}})),
        _ => Answer::done(),
    })
    .await
    .unwrap();
    let error = lockspace(vdsm.client()).join(id(2)).await.unwrap_err().to_string();
    assert!(error.contains("within 240 s") && error.contains("sanlock client host_status"), "{error}");
}

#[tokio::test]
async fn it_is_never_written_anew() {
    let lockspace = lockspace(FakeVdsm::absent().await.unwrap());
    assert!(lockspace.reset().await.unwrap_err().to_string().contains("VDSM's"));
}

/// The domain's lockspace as VDSM joins it.
fn own(host_id: u64) -> sanlock_client::Lockspace {
    let path = sanlock_client::DiskPath::new("/dev/sd/ids").unwrap();
    let disk = sanlock_client::Disk { path, offset: 0 };
    sanlock_client::Lockspace { name: LockspaceName::new(SD).unwrap(), host_id, disk }
}

/// A VDSM that says that it monitors the domain and holds the id, and a sanlock that knows better.
#[tokio::test]
async fn sanlock_knows_better_than_vdsm() {
    let vdsm = FakeVdsm::start(|method, _| match method {
        "Host.getStorageRepoStats" => Answer::Result(json!({SD: {"valid": true, "acquired": true}})),
        _ => Answer::done(),
    })
    .await
    .unwrap();
    let sanlock = FakeSanlock::start();
    let lockspace = VdsmLockspace::new(vdsm.client(), SD, Some(sanlock.socket()), TokioClock::new()).unwrap();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Changing), "VDSM will join again");

    sanlock.hold(Some(own(2)));
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
    lockspace.join(id(2)).await.unwrap();

    sanlock.hold(Some(own(3)));
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::NotHeld));
    let error = lockspace.join(id(2)).await.unwrap_err();
    assert!(matches!(&error, LockError::OtherId(text) if text.contains("VDSM holds host id 3")), "{error}");

    sanlock.hold(Some(own(2)));
    vdsm.stop();
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held), "a VDSM that restarts takes nothing away");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_vdsm_is_told_to_monitor_the_domain_again() {
    let vdsm = FakeVdsm::start(|method, _| match method {
        "Host.getStorageRepoStats" => Answer::Result(json!({})),
        _ => Answer::done(),
    })
    .await
    .unwrap();
    let sanlock = FakeSanlock::start();
    sanlock.hold(Some(own(2)));
    let lockspace = VdsmLockspace::new(vdsm.client(), SD, Some(sanlock.socket()), TokioClock::new()).unwrap();
    let told = || vdsm.methods().iter().filter(|method| *method == "Host.startMonitoringDomain").count();
    for _ in 0..5 {
        assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
    }
    assert_eq!(told(), 1, "not each time");
    tokio::time::sleep(REMIND).await;
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held));
    assert_eq!(told(), 2);
    lockspace.leave(id(2)).await.unwrap();
    tokio::time::sleep(REMIND).await;
    assert_eq!(lockspace.phase(id(2)).await, Ok(Phase::Held), "VDSM has not left yet");
    assert_eq!(told(), 2, "what is to be left is not asked for");
}
