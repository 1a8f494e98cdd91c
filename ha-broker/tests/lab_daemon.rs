//! The broker's program itself, with a real sanlock daemon at tenfold speed. Needs root, sanlock, faketime and
//! python3.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use broker_api::BrokerClient;
use broker_api::status::{LeaseState, StorageState};
use clock::{Clock, SystemClock};
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed};
use metadata_format::HostId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);
const SD: &str = "6c2d6f2e-0000-4000-8000-000000000001";

/// A host under a root of its own: files, storage, sanlock.
struct Host {
    root: TempDir,
    sanlock: SanlockDaemon,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for dir in ["etc/ovirt-hosted-engine", "etc/ovirt-hosted-engine-ha"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        let storage = "/shared";
        std::fs::write(
            at("etc/ovirt-hosted-engine/hosted-engine.conf"),
            format!(
                "fqdn=engine.example.org\nhost_id=1\nsdUUID={SD}\ndomainType=posixfs\nstorage={storage}\n\
                 bridge=ovirtmgmt\nvm_disk_id=a\nvm_disk_vol_id=b\nvmid=c\n"
            ),
        )
        .unwrap();
        std::fs::write(
            at("etc/ovirt-hosted-engine-ha/ha.toml"),
            "[lease]\nio_timeout = 3\n\n[timers]\nstorage_deadline = 2\n",
        )
        .unwrap();
        let sd = at("rhev/data-center/mnt/_shared").join(SD);
        std::fs::create_dir_all(sd.join("dom_md")).unwrap();
        std::fs::create_dir_all(sd.join("ha_agent")).unwrap();
        File::create(sd.join("ha_agent/hosted-engine.metadata")).unwrap().set_len(2001 * 4096).unwrap();
        let sanlock = SanlockDaemon::start(&at("run/sanlock"), "host1", Speed::Tenfold).unwrap();
        let client = sanlock.client();
        let lockspace = sd.join("ha_agent/hosted-engine.lockspace");
        LeaseFile::create(&client, &lockspace, "hosted-engine", 0, 3).unwrap();
        LeaseFile::create(&client, &sd.join("dom_md/ids"), SD, 0, 3).unwrap();
        Self { root, sanlock }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn metadata(&self) -> PathBuf {
        self.path("rhev/data-center/mnt/_shared").join(SD).join("ha_agent/hosted-engine.metadata")
    }

    fn client(&self) -> BrokerClient {
        BrokerClient::new(self.path("run/ovirt-hosted-engine-ha/broker.socket"))
    }
}

struct Broker(Child);

impl Broker {
    fn start(root: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_ovirt-ha-broker"))
            .arg("--root")
            .arg(root)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Ends it with SIGTERM; gives how long that took, and what it logged.
    fn stop(mut self) -> (Duration, String) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
        let begun = SystemClock.monotonic();
        kill_process(pid, Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        let took = SystemClock.monotonic().saturating_since(begun);
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(status.success(), "{status}: {log}");
        (took, log)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_ovirt-ha-broker");
    Command::new(program).arg("--root").arg(root).args(arguments).output().unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            // Another process's state has to be asked for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("never {what}"))
}

async fn storage_becomes(client: &BrokerClient, what: &str, wanted: impl Fn(&StorageState) -> bool) {
    let wanted = &wanted;
    until(what, || async move {
        client.status().await.ok().flatten().filter(|status| wanted(&status.storage)).map(drop)
    })
    .await;
}

#[test]
fn a_host_that_is_not_set_up_is_told_so_with_an_exit_code_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let output = run(root.path(), &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("hosted-engine.conf does not exist") && text.contains("--deploy"), "{text}");

    let dir = root.path().join("etc/ovirt-hosted-engine");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hosted-engine.conf"), "fqdn=x\n").unwrap();
    let output = run(root.path(), &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("not configured"));

    std::fs::write(dir.join("hosted-engine.conf"), "host_id=1\n").unwrap();
    std::fs::create_dir_all(root.path().join("etc/ovirt-hosted-engine-ha")).unwrap();
    std::fs::write(root.path().join("etc/ovirt-hosted-engine-ha/ha.toml"), "[lease]\nio_timout = 3\n")
        .unwrap();
    let output = run(root.path(), &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("io_timout") && text.contains("io_timeout"), "{text}");
    assert!(run(root.path(), &["--version"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_the_ids_writes_blocks_survives_storage_faults_and_stops_quickly() {
    let host = Host::new();
    let broker = Broker::start(host.root.path());
    let client = host.client();
    storage_becomes(&client, "good", |state| matches!(state, StorageState::Good { .. })).await;

    let error = client.put_stats(1, &[0; 1024]).await.unwrap_err().to_string();
    assert!(error.contains("not held"), "{error}");
    let (block, domain) = tokio::join!(client.lock_host_id(1), client.start_domain_monitor(1));
    block.unwrap();
    domain.unwrap();
    client.put_stats(0, b"maintenance=1").await.unwrap();
    let status = client.status().await.unwrap().unwrap();
    assert_eq!(status.global_maintenance, Some(true));
    assert_eq!(status.host_id, HostId::new(1).ok());
    assert!(matches!(status.lease, LeaseState::Held { .. }));
    let mut raw = [0; 14];
    File::open(host.metadata()).unwrap().read_exact_at(&mut raw, 0).unwrap();
    assert_eq!(&raw, b"maintenance=1\0");
    assert!(
        client
            .metrics()
            .await
            .unwrap()
            .unwrap()
            .contains("ovirt_ha_lease_held{lockspace=\"storage-domain\"} 1")
    );

    // Once everything was seen, a cycle reads little: the blocks in use, and a piece of the rest.
    until("a small cycle", || async {
        let page = client.metrics().await.ok()??;
        let bytes = page.lines().find_map(|line| line.strip_prefix("ovirt_ha_storage_cycle_bytes "))?;
        (bytes.parse::<u32>().unwrap() <= 128 * 1024).then_some(())
    })
    .await;

    // The file goes away and comes back: said, survived, healed.
    let elsewhere = host.path("elsewhere");
    std::fs::rename(host.metadata(), &elsewhere).unwrap();
    let missing = |state: &StorageState| matches!(state, StorageState::Failed { error, .. } if error.contains("does not exist"));
    storage_becomes(&client, "missing", missing).await;
    assert!(client.put_stats(0, b"maintenance=0").await.is_err());
    std::fs::rename(&elsewhere, host.metadata()).unwrap();
    client.put_stats(0, b"maintenance=0").await.unwrap();
    storage_becomes(&client, "good again", |state| matches!(state, StorageState::Good { .. })).await;

    // Sanlock stands still: nothing is written, and the end does not wait for it.
    host.sanlock.freeze().unwrap();
    until("lost", || async {
        let status = client.status().await.ok()??;
        matches!(status.lease, LeaseState::Lost { .. }).then_some(())
    })
    .await;
    let (took, log) = broker.stop();
    assert!(took < Duration::from_secs(3), "it took {took:?}: {log}");
    assert!(!host.path("run/ovirt-hosted-engine-ha/broker.socket").exists());
    host.sanlock.thaw().unwrap();
    let written = std::fs::read_to_string(host.path("var/log/ovirt-hosted-engine-ha/broker.log")).unwrap();
    assert!(written.contains("is LOST"), "{written}");
}

/// The storage domain is a mount that goes away for good and is made anew, as an operator or the system does it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_went_away_and_was_made_anew_is_used_again_by_itself() {
    let host = Host::new();
    let domain = host.path("rhev/data-center/mnt/_shared").join(SD);
    let files = domain.join("ha_agent");
    let (backing, other) = (host.path("backing"), host.path("other"));
    std::fs::rename(&files, &backing).unwrap();
    std::fs::create_dir(&files).unwrap();
    std::fs::create_dir(&other).unwrap();
    for name in ["hosted-engine.metadata", "hosted-engine.lockspace"] {
        std::fs::copy(backing.join(name), other.join(name)).unwrap();
    }
    let mount = |from: &Path| rustix::mount::mount_bind(from, &files).unwrap();
    let unmount = || rustix::mount::unmount(&files, rustix::mount::UnmountFlags::DETACH).unwrap();
    mount(&backing);
    let broker = Broker::start(host.root.path());
    let client = host.client();
    storage_becomes(&client, "good", |state| matches!(state, StorageState::Good { .. })).await;
    client.lock_host_id(1).await.unwrap();

    unmount();
    // It says since when, and when it tries next.
    let gone = |state: &StorageState| matches!(state, StorageState::Failed { since, next_try: Some(next), .. } if next >= since);
    storage_becomes(&client, "gone", gone).await;
    mount(&backing);
    storage_becomes(&client, "good again", |state| matches!(state, StorageState::Good { .. })).await;
    client.put_stats(0, b"maintenance=1").await.unwrap();

    // Another file under the same name: as after a restore, or a failover of the storage server.
    unmount();
    storage_becomes(&client, "gone", gone).await;
    mount(&other);
    storage_becomes(&client, "good again", |state| matches!(state, StorageState::Good { .. })).await;
    client.put_stats(0, b"maintenance=0").await.unwrap();
    let mut raw = [0; 14];
    File::open(other.join("hosted-engine.metadata")).unwrap().read_exact_at(&mut raw, 0).unwrap();
    assert_eq!(&raw, b"maintenance=0\0");
    broker.stop();
    unmount();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_gives_the_ids_up_and_a_crash_keeps_them() {
    let host = Host::new();
    let client = host.client();
    let lockspaces = || host.sanlock.client().get_lockspaces().unwrap().len();

    let mut broker = Broker::start(host.root.path());
    until("the socket", || async { client.status().await.ok() }).await;
    client.lock_host_id(1).await.unwrap();
    client.start_domain_monitor(1).await.unwrap();
    broker.0.kill().unwrap();
    broker.0.wait().unwrap();
    assert_eq!(lockspaces(), 2);

    let broker = Broker::start(host.root.path());
    until("the socket", || async { client.status().await.ok() }).await;
    let begun = SystemClock.monotonic();
    client.lock_host_id(1).await.unwrap();
    client.start_domain_monitor(1).await.unwrap();
    let took = SystemClock.monotonic().saturating_since(begun);
    assert!(took < Duration::from_secs(2), "they were held all the time: {took:?}");
    let (took, log) = broker.stop();
    assert!(took < Duration::from_secs(2), "it took {took:?}: {log}");
    until("left", || async { (lockspaces() == 0).then_some(()) }).await;
}
