//! Connecting and disconnecting storage by hand: what VDSM is asked, and what keeps the storage connected.

use engine_vm::{EngineVm, LeaseHolding, VmActivity};
use ha_config::{HostedEngineConf, Paths};
use ha_tests::vdsm::{Answer, FakeVdsm};
use hosted_engine_cli::storage::{self, Host};
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use serde_json::{Value, json};

use crate::fake_broker::{FakeBroker, State};
use crate::fake_vm::FakeVm;

const TEXT: &str =
    "vmid=v\nhost_id=1\nsdUUID=sd-1\ndomainType=nfs\nstorage=a.example:/he\nconnectionUUID=c-1\n";

fn methods(vdsm: &FakeVdsm) -> Vec<String> {
    vdsm.calls().into_iter().map(|(method, _)| method).collect()
}

/// The answer of a verb that has no result.
fn done() -> Answer {
    Answer::Result(Value::Bool(true))
}

fn conf(root: &std::path::Path) -> HostedEngineConf {
    HostedEngineConf::parse(&Paths::new(root), TEXT)
}

/// Gives `status` for each connection; monitors the domain when `monitors`.
async fn vdsm(status: i64, monitors: bool) -> FakeVdsm {
    FakeVdsm::start(move |method, _: &Value| match method {
        "StoragePool.connectStorageServer" | "StoragePool.disconnectStorageServer" => {
            Answer::Result(json!([{"id": "c-1", "status": status}]))
        }
        "Host.getStorageRepoStats" if monitors => {
            Answer::Result(json!({"sd-1": {"valid": true, "acquired": true}}))
        }
        "Host.getStorageRepoStats" => Answer::Result(json!({})),
        "StorageDomain.getInfo" | "StorageDomain.getStats" => Answer::Error(358, "no such domain".to_owned()),
        _ => done(),
    })
    .await
    .unwrap()
}

async fn connect(vdsm: Option<&FakeVdsm>, root: &std::path::Path) -> (Exit, Record) {
    let mut terminal = Terminal::recording();
    let client = vdsm.map(FakeVdsm::client);
    let exit = storage::connect(&conf(root), client.as_ref(), &mut terminal).await.unwrap();
    (exit, terminal.recorded())
}

#[tokio::test]
async fn connecting_says_what_it_waits_for_and_how_it_ended() {
    let root = tempfile::tempdir().unwrap();
    let (exit, said) = connect(Some(&vdsm(0, false).await), root.path()).await;
    assert_eq!((exit, said.out.as_str()), (Exit::OK, "The storage domain is connected\n"));
    let waited = said.err.lines().next().unwrap();
    assert!(waited.starts_with("Wait") && waited.ends_with("for VDSM to answer"), "{said:?}");
    assert!(said.err.contains("VDSM to connect a.example:/he"), "{said:?}");

    let (exit, said) = connect(Some(&vdsm(477, false).await), root.path()).await;
    assert_eq!((exit, said.out.as_str()), (Exit::FAILED, ""));
    assert!(said.err.contains("a.example:/he (status 477): it could not be mounted"), "{said:?}");
}

#[tokio::test]
async fn without_vdsm_it_is_the_operator_who_mounts() {
    let root = tempfile::tempdir().unwrap();
    let (exit, said) = connect(None, root.path()).await;
    let mount = root.path().join("rhev/data-center/mnt/a.example:_he");
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains(&format!("mount the storage at {}", mount.display())), "{said:?}");

    std::fs::create_dir_all(mount.join("sd-1/ha_agent")).unwrap();
    std::fs::write(mount.join("sd-1/ha_agent/hosted-engine.metadata"), vec![0; 8192]).unwrap();
    let (exit, said) = connect(None, root.path()).await;
    assert_eq!(exit, Exit::OK, "{said:?}");
}

async fn disconnect(vdsm: &FakeVdsm, state: State, vm: &FakeVm, force: bool) -> (Exit, Record) {
    let root = tempfile::tempdir().unwrap();
    let (conf, client, broker) = (conf(root.path()), vdsm.client(), FakeBroker::start(state));
    let mut terminal = Terminal::recording();
    let vm: &dyn EngineVm = vm;
    let host = Host { conf: &conf, vdsm: Some(&client), broker: &broker.client, vm: Ok(vm) };
    let exit = storage::disconnect(host, force, &mut terminal).await.unwrap();
    (exit, terminal.recorded())
}

fn idle() -> State {
    State { ours: true, idle: true, ..State::default() }
}

const VERB: &str = "StoragePool.disconnectStorageServer";

#[tokio::test]
async fn storage_that_nobody_needs_is_disconnected() {
    let vdsm = vdsm(0, false).await;
    let (exit, said) = disconnect(&vdsm, idle(), &FakeVm::down(), false).await;
    assert_eq!((exit, said.out.as_str()), (Exit::OK, "The storage domain is disconnected\n"), "{said:?}");
    assert!(methods(&vdsm).contains(&VERB.to_owned()));
}

#[tokio::test]
async fn storage_in_use_stays_unless_forced() {
    let running = FakeVm::new(VmActivity::Up, LeaseHolding::Held);
    let serving = State { ours: true, ..State::default() };
    for (vm, state, monitors, reason) in [
        (&running, idle(), false, "engine VM is on this host (Up)"),
        (&FakeVm::down(), serving, false, "systemctl stop ovirt-ha-agent"),
        (&FakeVm::down(), idle(), true, "VDSM holds this host's id"),
    ] {
        let vdsm = vdsm(0, monitors).await;
        let (exit, said) = disconnect(&vdsm, state, vm, false).await;
        assert_eq!(exit, Exit::FAILED);
        assert!(said.err.contains(reason) && said.err.contains("--force"), "{said:?}");
        assert!(!methods(&vdsm).contains(&VERB.to_owned()));
    }
    let vdsm = vdsm(0, true).await;
    let (exit, said) = disconnect(&vdsm, idle(), &running, true).await;
    assert_eq!(exit, Exit::OK, "{said:?}");
    assert!(said.err.contains("engine VM is on this host"), "{said:?}");
    assert!(methods(&vdsm).contains(&VERB.to_owned()));
}

#[tokio::test]
async fn what_vdsm_cannot_disconnect_is_said() {
    let (exit, said) = disconnect(&vdsm(477, false).await, idle(), &FakeVm::down(), false).await;
    assert_eq!((exit, said.out.as_str()), (Exit::FAILED, ""));
    assert!(said.err.contains("cannot disconnect the storage server: a.example:/he"), "{said:?}");
}
