//! The broker's program under an agent of the Python release's habits (`tests/python/foreign_agent.py`), with file
//! locks as leases. Needs python3, and neither root nor other daemons.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use broker_api::BrokerClient;
use metadata_format::{BLOCK_SIZE, HostBlock, HostId, VmState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A first look at the processor takes 10 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const SD: &str = "6c2d6f2e-0000-4000-8000-000000000001";
const GOLDEN: &[u8] = include_bytes!("../../metadata-format/tests/golden/002-h1-EngineUp.raw");

/// A host's files below a root of its own.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = ha_config::Paths::new(root.path());
        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        std::fs::create_dir_all(paths.ha_conf_dir().join("notifications")).unwrap();
        std::fs::write(
            paths.hosted_engine_conf(),
            format!(
                "fqdn=engine.example.org\nhost_id=2\nsdUUID={SD}\ndomainType=posixfs\nstorage=/shared\n\
                 bridge=lo\nvm_disk_id=a\nvm_disk_vol_id=b\nvmid=5d2f7a60-0000-4000-8000-000000000005\n"
            ),
        )
        .unwrap();
        std::fs::write(paths.ha_toml(), "[lease]\nadapter = \"file\"\n").unwrap();
        std::fs::write(paths.broker_conf(), "[email]\n[notify]\nstate_transition=none\n").unwrap();
        let host = Self(root);
        let metadata = host.metadata();
        std::fs::create_dir_all(metadata.parent().unwrap()).unwrap();
        let ids = host.domain().join("dom_md/ids");
        std::fs::create_dir_all(ids.parent().unwrap()).unwrap();
        File::create(ids).unwrap().set_len(1 << 20).unwrap();
        let file = File::create(metadata).unwrap();
        file.set_len(2001 * 4096).unwrap();
        // Another host of the cluster, and one that left garbage.
        file.write_all_at(GOLDEN, 4096).unwrap();
        file.write_all_at(&[b'x'; 512], 4096 * 3).unwrap();
        host
    }

    fn domain(&self) -> PathBuf {
        self.0.path().join("rhev/data-center/mnt/_shared").join(SD)
    }

    fn metadata(&self) -> PathBuf {
        self.domain().join("ha_agent/hosted-engine.metadata")
    }

    fn socket(&self) -> PathBuf {
        ha_config::Paths::new(self.0.path()).broker_socket()
    }

    /// Block `number` as it is in the file.
    fn raw(&self, number: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK_SIZE];
        File::open(self.metadata()).unwrap().read_exact_at(&mut block, number * BLOCK_SIZE as u64).unwrap();
        block
    }

    /// This host's block; it must be one.
    fn own(&self) -> HostBlock {
        HostBlock::parse(HostId::new(2).unwrap(), &self.raw(2)).unwrap().unwrap()
    }

    async fn broker(&self) -> Child {
        let child = Command::new(env!("CARGO_BIN_EXE_ovirt-ha-broker"))
            .arg("--root")
            .arg(self.0.path())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let client = BrokerClient::new(self.socket());
        let answers = async {
            // Another process's state has to be asked for.
            while client.get_stats().await.map_or(true, |blocks| blocks.is_empty()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("the broker reads the blocks");
        child
    }

    fn agent(&self, part: &str) -> Agent {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/foreign_agent.py");
        let mut child = Command::new("python3")
            .arg("-B")
            .arg(script)
            .arg(self.socket())
            .args(["2", SD, part])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 must be installed for this test");
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Agent { orders: child.stdin.take(), told, child }
    }
}

/// Ends it as the service manager does.
async fn stop(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
}

struct Agent {
    orders: Option<ChildStdin>,
    told: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Agent {
    /// What it saw next.
    async fn told(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.told.next_line()).await.expect("it goes on").unwrap();
        serde_json::from_str(&line.expect("it has not failed")).unwrap()
    }

    /// One loop of it.
    async fn step(&mut self) -> Value {
        self.orders.as_mut().unwrap().write_all(b"\n").await.unwrap();
        self.told().await
    }

    /// Tells it to stop, and waits until it has.
    async fn end(mut self) -> Value {
        self.orders = None;
        let last = self.told().await;
        assert!(self.child.wait().await.unwrap().success());
        last
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_the_python_release_works_on_our_broker() {
    let host = Host::new();
    let broker = host.broker().await;
    let mut agent = host.agent("run");

    // Monitors of all types, with the options that the Python agent gives, also those that mean nothing here.
    let started = agent.told().await;
    assert_eq!(started["network"], "1.0", "a network is good until it was tried: {started}");
    let refused = started["refused"].as_str().unwrap();
    assert!(refused.contains("network: option tcp_t_address is missing"), "{refused}");
    let refused = agent.told().await;
    assert!(refused["before"].as_str().unwrap().contains("not held"), "{refused}");

    let saw = agent.step().await;
    let local = &saw["local"];
    assert_eq!((&local["network"], &local["bridge"]), (&json!(1.0), &json!(true)), "{saw}");
    assert_eq!(local["storage-domain"], true, "{saw}");
    assert!(local["mem-free"].as_f64().unwrap() > 1.0, "{saw}");
    assert!((0.0..=1.0).contains(&local["cpu-load"].as_f64().unwrap()), "{saw}");
    assert_eq!(
        local["engine-health"],
        json!({"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"})
    );
    assert_eq!((&saw["state"], &saw["notify"]), (&json!("EngineDown"), &json!("ignored")), "{saw}");
    assert_eq!(saw["alive"], json!([2, 1]), "its list comes back: {saw}");

    // Its block is on storage as it came, and everybody reads it.
    let block = host.own();
    assert_eq!((block.score.0, block.hostname.as_str()), (3400, "foreign.example.org"));
    assert_eq!((block.engine_status.vm, block.stopped), (VmState::Down, false));
    assert!(block.extra.contains("state=EngineDown\n"), "{}", block.extra);
    assert!(host.raw(2)[1024..].iter().all(|byte| *byte == 0), "1024 bytes, and nothing after them");
    let client = BrokerClient::new(host.socket());
    let status = client.status().await.unwrap().unwrap();
    assert_eq!(status.hosts.len(), 3, "host 3 left garbage, which costs its row only");

    // Somebody sets global maintenance; the agent sees it in the next loop.
    client.put_stats(0, b"maintenance=1").await.unwrap();
    let saw = agent.step().await;
    assert_eq!((&saw["state"], &saw["blocks"]), (&json!("GlobalMaintenance"), &json!([0, 1, 2, 3])), "{saw}");

    assert_eq!(agent.end().await, json!({"stopped": true}));
    let block = host.own();
    assert_eq!((block.score.0, block.stopped), (0, true));
    assert!(block.extra.contains("state=AgentStopped\n"), "{}", block.extra);
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_cleaning_takes_the_host_out_of_the_file_also_after_the_broker_was_restarted() {
    let host = Host::new();
    let file = File::options().write(true).open(host.metadata()).unwrap();
    let mut left = GOLDEN.to_vec();
    left[..4].copy_from_slice(b"1|1|");
    file.write_all_at(&left, 4096 * 2).unwrap();
    stop(host.broker().await).await;
    let broker = host.broker().await;
    let mut agent = host.agent("clean");
    assert_eq!(agent.told().await, json!({"cleaned": true}));
    assert_eq!(host.raw(2), vec![0; BLOCK_SIZE]);
    assert_eq!(host.raw(1), GOLDEN, "no other block was touched");
    assert!(agent.child.wait().await.unwrap().success());
    stop(broker).await;
}
