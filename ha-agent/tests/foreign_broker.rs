//! The agent's program on a broker of the Python release's habits (`tests/python/foreign_broker.py`): one connection
//! at a time, nil for failures, none of our own documents. Needs python3, and neither root nor other daemons.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use broker_api::BrokerClient;
use ha_config::Paths;
use metadata_format::{BLOCK_SIZE, HostBlock, HostId, VmState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PATIENCE: Duration = Duration::from_mins(1);
const GOLDEN: &[u8] = include_bytes!("../../metadata-format/tests/golden/002-h1-EngineUp.raw");

struct Host {
    root: TempDir,
    paths: Paths,
}

impl Host {
    /// Host 2 of a cluster whose host 1 runs the Python release; global maintenance, so that nothing is started.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        for dir in [paths.hosted_engine_conf_dir(), paths.ha_conf_dir(), paths.run_dir()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(
            paths.hosted_engine_conf(),
            "fqdn=engine.example\nhost_id=2\nvmid=1b6b2b7e-0000-4000-8000-000000000001\nvm_disk_id=disk\n\
             vm_disk_vol_id=volume\nstorage=/storage\ndomainType=posixfs\nsdUUID=domain\ngateway=192.0.2.1\n\
             bridge=ovirtmgmt\n",
        )
        .unwrap();
        std::fs::write(paths.ha_toml(), "[timers]\nloop = 1\n").unwrap();
        let file = File::create(root.path().join("metadata")).unwrap();
        file.set_len(2001 * BLOCK_SIZE as u64).unwrap();
        file.write_all_at(b"maintenance=1", 0).unwrap();
        file.write_all_at(GOLDEN, BLOCK_SIZE as u64).unwrap();
        Self { root, paths }
    }

    /// This host's block as it is in the file.
    fn own(&self) -> Option<HostBlock> {
        let mut block = vec![0; BLOCK_SIZE];
        let file = File::open(self.root.path().join("metadata")).unwrap();
        file.read_exact_at(&mut block, 2 * BLOCK_SIZE as u64).unwrap();
        HostBlock::parse(HostId::new(2).unwrap(), &block).unwrap()
    }

    async fn broker(&self) -> Broker {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/foreign_broker.py");
        let mut child = Command::new("python3")
            .arg("-B")
            .arg(script)
            .args([self.paths.broker_socket(), self.root.path().join("metadata")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 must be installed for this test");
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(told.next_line().await.unwrap().as_deref(), Some("ready"));
        Broker { told, _child: child }
    }

    fn agent(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ovirt-ha-agent"))
            .arg("--root")
            .arg(self.root.path())
            .env_remove("OVIRT_HA_ROOT")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

struct Broker {
    told: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Broker {
    /// The calls up to and with the next one that begins as `wanted` does.
    async fn calls_until(&mut self, wanted: &Value) -> Vec<Value> {
        let wanted = wanted.as_array().unwrap();
        let mut calls = Vec::new();
        let search = async {
            loop {
                let line = self.told.next_line().await.unwrap().expect("the broker goes on");
                let call: Value = serde_json::from_str(&line).unwrap();
                let found = call.as_array().unwrap().starts_with(wanted);
                calls.push(call);
                if found {
                    break;
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await.is_ok();
        assert!(found, "never {wanted:?}: {calls:#?}");
        calls
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_agent_works_on_a_broker_of_the_python_release() {
    let host = Host::new();
    let mut broker = host.broker().await;
    let mut agent = host.agent();

    let calls = broker.calls_until(&json!(["push_hosts_state", [2]])).await;
    let started = calls.iter().filter(|call| call[0] == "start_monitor");
    let kinds: BTreeSet<_> = started
        .map(|call| {
            // A monitor that lacks an option has its failure behind the arguments.
            assert_eq!(call.as_array().unwrap().len(), 3, "{call}");
            call[1].as_str().unwrap()
        })
        .collect();
    let all = ["cpu-load-no-engine", "engine-health", "mem-free", "mgmt-bridge", "network", "storage-domain"];
    assert_eq!(kinds, BTreeSet::from(all), "{calls:#?}");
    let first =
        |verb: &str| calls.iter().position(|call| call[0] == verb).unwrap_or_else(|| panic!("no {verb}"));
    assert!(first("lock_host_id") < first("put_stats"), "{calls:#?}");
    assert!(first("start_domain_monitor") < first("put_stats"), "{calls:#?}");
    let block = host.own().expect("written before the list");
    assert_eq!(block.engine_status.vm, VmState::Down);
    let status_of = |kind: &str| calls.iter().any(|call| call[0] == "status_monitor" && call[1] == kind);
    assert!(all.iter().all(|kind| status_of(kind)), "{calls:#?}");

    // The cluster is in maintenance; the change of state is told with both names.
    let change = "ReinitializeFSM-GlobalMaintenance";
    let calls = broker.calls_until(&json!(["notify", "state_transition", change])).await;
    assert!(calls.last().unwrap()[3]["hostname"].is_string(), "{calls:#?}");
    broker.calls_until(&json!(["push_hosts_state", [2]])).await;
    let block = host.own().unwrap();
    assert!(block.extra.contains("state=GlobalMaintenance\n"), "{}", block.extra);

    BrokerClient::new(host.paths.broker_socket()).put_stats(0, b"maintenance=0").await.unwrap();
    let change = "GlobalMaintenance-ReinitializeFSM";
    broker.calls_until(&json!(["notify", "state_transition", change])).await;

    let pid = Pid::from_raw(i32::try_from(agent.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(agent.wait().await.unwrap().success());
    let block = host.own().unwrap();
    assert_eq!((block.score.0, block.stopped), (0, true));
    assert!(block.extra.contains("state=AgentStopped\n"), "{}", block.extra);
    broker.calls_until(&json!(["release_host_id"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_with_the_next_broker_when_the_first_one_ends() {
    let host = Host::new();
    let mut broker = host.broker().await;
    let _agent = host.agent();
    broker.calls_until(&json!(["push_hosts_state", [2]])).await;
    drop(broker);
    std::fs::remove_file(host.paths.broker_socket()).unwrap();
    let mut broker = host.broker().await;
    // The loop that is under way may have found the monitors unknown only in its middle.
    let mut calls = broker.calls_until(&json!(["start_monitor"])).await;
    calls.extend(broker.calls_until(&json!(["push_hosts_state", [2]])).await);
    let again = |verb: &str| calls.iter().filter(|call| call[0] == verb).count();
    assert_eq!(again("start_monitor"), 6, "{calls:#?}");
    assert!(again("lock_host_id") > 0 && again("put_stats") > 0, "{calls:#?}");
}
