//! Holding host ids through real sanlock daemons, at tenfold speed. Needs root, sanlock and faketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_api::status::LeaseState;
use clock::SystemClock;
use ha_broker::lockspace::keeper::{Kept, Pace};
use ha_broker::lockspace::sanlock::SanlockLockspace;
use ha_broker::lockspace::{Keeper, LockError, Lockspace, Phase};
use ha_broker::spawner::HostSpawner;
use ha_broker::wake::WakeCounter;
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed};
use metadata_format::HostId;
use sanlock_client::Registration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// Sanlock's, in its own seconds: 0.3 s of ours.
const IO_TIMEOUT: u32 = 3;

struct Lab {
    daemons: Vec<SanlockDaemon>,
    path: PathBuf,
    _directory: TempDir,
}

impl Lab {
    fn new(hosts: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemons: Vec<_> = hosts
            .iter()
            .map(|name| SanlockDaemon::start(&directory.path().join(name), name, Speed::Tenfold).unwrap())
            .collect();
        let path = directory.path().join("hosted-engine.lockspace");
        LeaseFile::create(&daemons[0].client(), &path, "hosted-engine", 1, IO_TIMEOUT).unwrap();
        Self { daemons, path, _directory: directory }
    }

    fn lockspace(&self, host: usize) -> Arc<SanlockLockspace> {
        let socket = self.daemons[host].socket();
        // W is in sanlock's own seconds too.
        Arc::new(SanlockLockspace::new(&socket, "hosted-engine", &self.path, IO_TIMEOUT, 60).unwrap())
    }

    fn keeper(&self, host: usize) -> (Keeper, WakeCounter) {
        let wake = WakeCounter::default();
        let pace = Pace {
            poll: Duration::from_millis(50),
            retry: Duration::from_millis(200),
            hosts: Duration::from_millis(200),
            settle: Duration::ZERO,
        };
        let (clock, spawner) = (Arc::new(SystemClock), Arc::new(HostSpawner));
        (Keeper::start(self.lockspace(host), clock, spawner, wake.clone(), pace).unwrap(), wake)
    }
}

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

async fn until(what: &str, keeper: &Keeper, wanted: impl FnMut(&Kept) -> bool) {
    let mut watch = keeper.watch();
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(wanted)).await.is_ok();
    assert!(found, "never {what}: {:?}", keeper.kept());
}

const fn is_held(kept: &Kept) -> bool {
    matches!(kept.state, LeaseState::Held { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_held_seen_by_others_and_given_up() {
    let lab = Lab::new(&["hosta", "hostb"]);
    let (a, _) = lab.keeper(0);
    let (b, _) = lab.keeper(1);
    let (joined_a, joined_b) = tokio::join!(a.hold(id(1)), b.hold(id(2)));
    joined_a.unwrap();
    joined_b.unwrap();
    a.held_now(id(1)).await.unwrap();
    assert!(a.held_now(id(2)).await.is_err());
    until("both live", &a, |kept| kept.live == [id(1), id(2)]).await;

    // Another keeper of the same host, as after a restart of the broker: the id is there at once.
    let (again, _) = lab.keeper(0);
    again.hold(id(1)).await.unwrap();
    drop(again);

    a.release(PATIENCE).await.unwrap();
    assert_eq!(lab.lockspace(0).phase(id(1)).await, Ok(Phase::NotHeld));
    assert!(a.held_now(id(1)).await.is_err());
    a.hold(id(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_use_is_refused_with_its_owner_and_a_live_lockspace_is_not_written_anew() {
    let lab = Lab::new(&["hosta", "hostb"]);
    let (a, _) = lab.keeper(0);
    a.hold(id(1)).await.unwrap();
    let elsewhere = lab.lockspace(1);
    let refused = elsewhere.join(id(1)).await.unwrap_err();
    assert!(
        matches!(&refused, LockError::InUse(text) if text.contains("\"hosta\"") && text.contains("-262")),
        "{refused}"
    );

    let elsewhere = lab.lockspace(1);
    let refused = elsewhere.reset().await.unwrap_err();
    assert!(
        matches!(&refused, LockError::Live(text) if text.contains("1 (hosta)")),
        "the host itself is not in it, and sees it on storage: {refused}"
    );
    let own = lab.lockspace(0);
    let refused = own.reset().await.unwrap_err();
    assert!(matches!(&refused, LockError::Live(text) if text.contains("release it first")), "{refused}");

    a.release(PATIENCE).await.unwrap();
    let elsewhere = lab.lockspace(1);
    elsewhere.reset().await.unwrap();
    a.hold(id(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_another_id_gives_the_first_one_up() {
    let lab = Lab::new(&["hosta"]);
    let (a, _) = lab.keeper(0);
    a.hold(id(1)).await.unwrap();
    a.hold(id(7)).await.unwrap();
    a.held_now(id(7)).await.unwrap();
    assert!(a.held_now(id(1)).await.is_err());
    let lockspace = lab.lockspace(0);
    let refused = lockspace.join(id(9)).await.unwrap_err();
    assert!(matches!(&refused, LockError::OtherId(text) if text.contains("host id 7")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_manager_that_is_gone_counts_as_lost_at_once_and_is_joined_again() {
    let mut lab = Lab::new(&["hosta"]);
    let (a, wake) = lab.keeper(0);
    a.hold(id(1)).await.unwrap();
    let before = wake.get();
    let run_dir = lab.daemons[0].run_dir().to_owned();
    lab.daemons.clear();
    assert!(a.held_now(id(1)).await.is_err(), "asked now, not remembered");
    until("lost", &a, |kept| matches!(kept.state, LeaseState::Lost { .. })).await;
    assert!(wake.get() > before, "the agent is told");
    let _ = std::fs::remove_file(run_dir.join("sanlock.sock"));
    lab.daemons.push(SanlockDaemon::start(&run_dir, "hosta", Speed::Tenfold).unwrap());
    until("held again", &a, is_held).await;
    a.held_now(id(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_costs_the_id_and_gives_it_back_when_it_works() {
    let lab = Lab::new(&["hosta"]);
    let (a, _) = lab.keeper(0);
    a.hold(id(1)).await.unwrap();
    // What sanlock finds now is not its record: the renewal fails, as on storage that was restored from a backup.
    let saved = std::fs::read(&lab.path).unwrap();
    std::fs::write(&lab.path, vec![0; saved.len()]).unwrap();
    until("lost", &a, |kept| matches!(kept.state, LeaseState::Lost { .. })).await;
    assert!(a.held_now(id(1)).await.is_err());
    std::fs::write(&lab.path, &saved).unwrap();
    until("held again", &a, is_held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_whose_lockspace_carries_a_lease_in_use_is_not_given_up() {
    let lab = Lab::new(&["hosta"]);
    let (a, _) = lab.keeper(0);
    a.hold(id(1)).await.unwrap();
    let client = lab.daemons[0].client();
    let path = sanlock_client::DiskPath::new(&lab.path).unwrap();
    let resource = sanlock_client::Resource {
        lockspace: sanlock_client::LockspaceName::new("hosted-engine").unwrap(),
        name: sanlock_client::ResourceName::new("vm").unwrap(),
        disks: vec![sanlock_client::Disk { path, offset: 1 << 20 }],
    };
    client.write_resource(&resource, 0, 0, None).unwrap();
    let mut holder = Registration::register_self(&client).unwrap();
    holder.acquire(&[resource], &sanlock_client::AcquireOptions::default()).unwrap();
    let refused = a.release(Duration::from_secs(5)).await.unwrap_err();
    assert!(refused.contains("in use"), "{refused}");
    a.abandon().await;
    a.held_now(id(1)).await.unwrap();
    assert_eq!(client.inquire_pid(std::process::id()).unwrap().len(), 1, "the lease was not touched");
    drop(holder);
    // Sanlock lets the lease go in its own time.
    let given_up = async {
        while a.release(Duration::from_secs(5)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("the id to be given up");
}
