//! Connecting and disconnecting storage by hand: what VDSM is asked, and what keeps the storage connected.

use std::sync::Mutex;

use engine_vm::{EngineVm, LeaseHolding, VmActivity};
use ha_config::{HostedEngineConf, Paths};
use ha_tests::vdsm::{Answer, FakeVdsm};
use hosted_engine_cli::cli::{self, DeployedCommand, OpenVm, OperatorCommand};
use hosted_engine_cli::deploy::{Call, Said, ToolError, Tools};
use hosted_engine_cli::storage::{self, ConnectArgs, Host};
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

/// Programs that answer as they were recorded: by the first words of the command line.
struct Programs(Mutex<Vec<(&'static str, i32, &'static str)>>);

impl Programs {
    fn new(answers: &[(&'static str, i32, &'static str)]) -> Self {
        Self(Mutex::new(answers.to_vec()))
    }
}

impl Tools for Programs {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let (start, code, text) = self.0.lock().unwrap().remove(0);
        assert!(call.to_string().starts_with(start), "{call}");
        let (out, err) = if code == 0 { (text, "") } else { ("", text) };
        Ok(Said { code, out: out.to_owned(), err: err.to_owned() })
    }
}

const NOT_MOUNTED: (&str, i32, &str) = ("findmnt", 1, "");
const MOUNTED: (&str, i32, &str) = (
    "findmnt",
    0,
    r#"{"filesystems": [{"source": "a.example:/he", "fstype": "nfs4", "options": "rw,vers=4.2"}]}"#,
);

async fn connect(
    vdsm: Option<&FakeVdsm>,
    root: &std::path::Path,
    programs: &[(&'static str, i32, &'static str)],
) -> (Exit, Record) {
    let mut terminal = Terminal::recording();
    let (client, programs) = (vdsm.map(FakeVdsm::client), Programs::new(programs));
    let (args, conf) = (ConnectArgs::default(), conf(root));
    let exit = storage::connect(args, &conf, client.as_ref(), &programs, &mut terminal).await.unwrap();
    assert!(programs.0.lock().unwrap().is_empty());
    (exit, terminal.recorded())
}

#[tokio::test]
async fn connecting_says_what_it_waits_for_and_how_it_ended() {
    let root = tempfile::tempdir().unwrap();
    let (exit, said) = connect(Some(&vdsm(0, false).await), root.path(), &[]).await;
    assert_eq!((exit, said.out.as_str()), (Exit::OK, "The storage domain is connected\n"));
    let waited = said.err.lines().next().unwrap();
    assert!(waited.starts_with("Wait") && waited.ends_with("for VDSM to answer"), "{said:?}");
    assert!(said.err.contains("VDSM to connect a.example:/he"), "{said:?}");

    let (exit, said) = connect(Some(&vdsm(477, false).await), root.path(), &[]).await;
    assert_eq!((exit, said.out.as_str()), (Exit::FAILED, ""));
    assert!(said.err.contains("a.example:/he (status 477): it could not be mounted"), "{said:?}");
}

#[tokio::test]
async fn without_vdsm_it_is_mounted_as_the_configuration_says() {
    let root = tempfile::tempdir().unwrap();
    let mount = root.path().join("rhev/data-center/mnt/a.example:_he");
    let refused = ("mount -t nfs -o soft,", 32, "mount.nfs: Connection timed out");
    let (exit, said) = connect(None, root.path(), &[NOT_MOUNTED, refused]).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("a.example does not answer"), "{said:?}");

    let (exit, said) = connect(None, root.path(), &[NOT_MOUNTED, ("mount -t nfs", 0, "")]).await;
    assert_eq!(exit, Exit::FAILED);
    assert_eq!(said.out, format!("Connected {}\n", mount.display()));
    assert!(said.err.contains("is the right storage mounted at"), "{said:?}");

    std::fs::create_dir_all(mount.join("sd-1/ha_agent")).unwrap();
    std::fs::write(mount.join("sd-1/ha_agent/hosted-engine.metadata"), vec![0; 8192]).unwrap();
    let (exit, said) = connect(None, root.path(), &[MOUNTED]).await;
    assert_eq!(exit, Exit::OK, "{said:?}");
}

#[tokio::test]
async fn at_boot_vdsm_is_left_to_the_broker() {
    let root = tempfile::tempdir().unwrap();
    let (vdsm, mut terminal) = (vdsm(0, false).await, Terminal::recording());
    let (args, client) = (ConnectArgs { at_boot: true }, vdsm.client());
    let programs = Programs::new(&[]);
    let exit = storage::connect(args, &conf(root.path()), Some(&client), &programs, &mut terminal).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    assert!(vdsm.calls().is_empty());
}

#[tokio::test]
async fn without_vdsm_it_is_unmounted() {
    let root = tempfile::tempdir().unwrap();
    let (conf, broker, vm) = (conf(root.path()), FakeBroker::start(idle()), FakeVm::down());
    let vm: &dyn EngineVm = &vm;
    for (programs, exit, part) in [
        (vec![MOUNTED, ("umount /", 0, "")], Exit::OK, "Unmounted /"),
        (vec![NOT_MOUNTED], Exit::OK, "Nothing is mounted at"),
        (vec![MOUNTED, ("umount /", 32, "umount: target is busy.")], Exit::FAILED, "fuser -vm"),
    ] {
        let (programs, mut terminal) = (Programs::new(&programs), Terminal::recording());
        let host = Host { conf: &conf, vdsm: None, broker: &broker.client, vm: Ok(vm), tools: &programs };
        assert_eq!(storage::disconnect(host, false, &mut terminal).await.unwrap(), exit);
        let said = terminal.recorded();
        assert!(format!("{}{}", said.out, said.err).contains(part), "{said:?}");
    }
}

async fn disconnect(vdsm: &FakeVdsm, state: State, vm: &FakeVm, force: bool) -> (Exit, Record) {
    let root = tempfile::tempdir().unwrap();
    let (conf, client, broker) = (conf(root.path()), vdsm.client(), FakeBroker::start(state));
    let mut terminal = Terminal::recording();
    let vm: &dyn EngineVm = vm;
    let programs = Programs::new(&[]);
    let host =
        Host { conf: &conf, vdsm: Some(&client), broker: &broker.client, vm: Ok(vm), tools: &programs };
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

/// The unit tries again whenever the command fails: on a host whose deployment was interrupted it must not, for ever.
#[tokio::test]
async fn at_boot_a_host_that_is_not_deployed_has_nothing_to_connect() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
    std::fs::write(paths.hosted_engine_conf(), TEXT.replace("vmid=v\n", "")).unwrap();
    for (at_boot, exit, said) in
        [(true, Exit::OK, "no storage to connect"), (false, Exit::FAILED, "run deploy")]
    {
        let mut terminal = Terminal::recording();
        let command = OperatorCommand::Deployed(DeployedCommand::ConnectStorage(ConnectArgs { at_boot }));
        let open_vm: &OpenVm = &|_| unreachable!("no VM is looked at");
        assert_eq!(cli::run(command, &paths, open_vm, &mut terminal).await.unwrap(), exit);
        assert!(terminal.recorded().out.contains(said), "{:?}", terminal.recorded());
    }
}
