//! The adapter against a VDSM that says what a test tells it to, over the wire.

mod events;
mod operate;
mod start;
mod status;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ha_config::{HostedEngineConf, Paths};
use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::{Value, json};
use tempfile::TempDir;
use vdsm_client::code;

use super::VdsmVm;
use super::look::{LockManager, Times};
use crate::lease::{LeaseError, LeaseOwner, LeaseSpec};
use crate::qemu::QmpRole;

const ID: &str = "82a24281-8a25-4772-b9c9-45971e811cb3";
const IMAGE: &str = "f270b541-a113-4815-b72e-b0ec3e1ed6b6";
const VOLUME: &str = "19cc3c17-5c81-4750-b807-09db88a67ad5";
const DOMAIN: &str = "2164faa8-b18b-4036-b686-5a6eec95081b";

/// What the host is like; the fake VDSM and the fake lock manager read it, and tests change it.
#[derive(Debug)]
struct Scene {
    /// What VM.getStats answers; `None`: no such VM.
    vm: Option<Value>,
    /// What becomes of verbs that are not answered from `vm`.
    answers: Vec<(&'static str, Answer)>,
    /// What the VM is after it was created.
    created: Value,
    /// Whose the lease is; `Err` when sanlock cannot be asked.
    owner: Result<LeaseOwner, LeaseError>,
    /// Where the lease was looked for.
    looked_at: Vec<LeaseSpec>,
}

/// A host with the fakes.
struct World {
    scene: Arc<Mutex<Scene>>,
    vdsm: FakeVdsm,
    conf: HostedEngineConf,
    root: TempDir,
}

fn stats(status: &str) -> Value {
    json!({"vmId": ID, "status": status, "statusTime": "1"})
}

fn ended(reason: i64, code: i64, message: &str) -> Value {
    json!({"vmId": ID, "status": "Down", "statusTime": "1", "exitReason": reason, "exitCode": code,
           "exitMessage": message})
}

fn other() -> LeaseOwner {
    LeaseOwner::Other { detail: "the owner is host id 2".to_owned() }
}

fn conf_text(domain_type: &str) -> String {
    format!(
        "vmid={ID}\nsdUUID={DOMAIN}\nstorage=/data\ndomainType={domain_type}\nbridge=ovirtmgmt\nhost_id=1\n\
         vm_disk_id={IMAGE}\nvm_disk_vol_id={VOLUME}\n"
    )
}

fn vm_conf() -> String {
    format!(
        "vmId={ID}\nmemSize=1024\ndisplay=vnc\n\
         devices={{index:0,iface:virtio,format:raw,poolID:00000000-0000-0000-0000-000000000000,volumeID:{VOLUME},\
         imageID:{IMAGE},domainID:{DOMAIN},device:disk,shared:exclusive,type:disk,bootOrder:1}}\n"
    )
}

impl World {
    async fn new(vm: Option<Value>) -> Self {
        Self::on("posixfs", vm).await
    }

    async fn on(domain_type: &str, vm: Option<Value>) -> Self {
        let scene = Arc::new(Mutex::new(Scene {
            vm,
            answers: Vec::new(),
            created: stats("WaitForLaunch"),
            owner: Ok(LeaseOwner::ThisHost),
            looked_at: Vec::new(),
        }));
        let played = Arc::clone(&scene);
        let vdsm = FakeVdsm::start(move |method, _| played.lock().unwrap().answer(method)).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.run_dir()).unwrap();
        std::fs::write(paths.vm_conf(), vm_conf()).unwrap();
        let conf = HostedEngineConf::parse(&paths, &conf_text(domain_type));
        Self { scene, vdsm, conf, root }
    }

    fn set(&self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.scene.lock().unwrap());
    }

    fn adapter(&self, role: QmpRole) -> VdsmVm {
        let scene = Arc::clone(&self.scene);
        let locks = LockManager::new(move |spec| {
            let mut scene = scene.lock().unwrap();
            scene.looked_at.push(spec.clone());
            scene.owner.clone()
        });
        let times = Times {
            connect: Duration::from_millis(300),
            answer: Duration::from_millis(200),
            doubt: Duration::from_millis(10),
            create: Duration::from_millis(500),
            appear: Duration::from_millis(500),
            launch: Duration::from_secs(5),
            vanish: Duration::from_secs(5),
            look: Duration::from_millis(20),
            watchdog: Duration::from_mins(1),
        };
        VdsmVm::with(self.vdsm.client(), &self.conf, role, locks, times).unwrap()
    }

    fn vm(&self) -> VdsmVm {
        self.adapter(QmpRole::Cli)
    }

    /// The parameters of the only call of a verb.
    fn only_call(&self, method: &str) -> Value {
        let calls = self.vdsm.calls();
        let mut found = calls.into_iter().filter(|(called, _)| called == method);
        let (_, params) = found.next().unwrap();
        assert!(found.next().is_none(), "{method} was called more than once");
        params
    }
}

impl Scene {
    fn answer(&mut self, method: &str) -> Answer {
        if let Some((_, answer)) = self.answers.iter().find(|(name, _)| *name == method) {
            return answer.clone();
        }
        let no_vm = || Answer::refusal(code::NO_SUCH_VM);
        match (method, &self.vm) {
            ("VM.getStats", Some(vm)) => Answer::Result(json!([vm])),
            ("VM.create", None) => {
                self.vm = Some(self.created.clone());
                Answer::Result(stats("WaitForLaunch"))
            }
            ("VM.create", Some(_)) => Answer::refusal(code::VM_EXISTS),
            ("VM.destroy", Some(_)) => {
                self.vm = None;
                Answer::Result(json!(true))
            }
            (method, None) if method.starts_with("VM.") => no_vm(),
            _ => Answer::Result(json!(true)),
        }
    }
}
