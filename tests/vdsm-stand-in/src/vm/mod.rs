//! The virtual machines of one host: real QEMU guests under real sanlock leases, with VDSM's words for what they do.
//!
//! ```text
//!  create ─► WaitForLaunch ─► Powering up ─► Up ◄──► Paused
//!               │ no lease, bad description    │  │ shutdown
//!               ▼                              │  └─► Powering down ─┐
//!             Down ◄───────────────────────────┴─────────────────────┘
//!  migrate: Up ─► Migration Source ─► Down, at the other host Migration Destination ─► Up
//! ```
//!
//! A VM that is down stays, with the reason, until somebody destroys it. Whoever runs this may be killed and started
//! again: the guests go on, and are found in their run directories.

mod description;
mod domain_xml;
mod exit;
mod legacy;
mod life;
mod migrate;
mod record;
mod stats;
mod xml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ha_config::Paths;
use ha_config::ha_toml::Accel;
use serde_json::{Map, Value, json};

use crate::stomp::Hub;
use crate::storage::Storage;
use crate::{Failure, lock};
use description::Description;
use life::Vm;

/// What the VM side is given.
#[derive(Debug, Clone)]
pub struct VmSettings {
    /// The host's paths.
    pub paths: Paths,
    /// QEMU.
    pub qemu: PathBuf,
    /// What carries out guest code.
    pub accel: Accel,
    /// The files with which this host goes to other ones; `None` without TLS.
    pub tls: Option<vdsm_client::TlsFiles>,
    /// The port at which the other hosts' stand-ins listen.
    pub port: u16,
}

/// All of them.
pub(crate) struct Vms {
    context: Arc<Context>,
    all: Mutex<BTreeMap<String, Arc<Vm>>>,
    /// Held while a VM is taken in: two of the same id must not share a directory.
    taking_in: tokio::sync::Mutex<()>,
    is_recovering: AtomicBool,
}

/// What each VM needs of the host.
pub(crate) struct Context {
    settings: VmSettings,
    storage: Arc<Storage>,
    hub: Arc<Hub>,
}

impl Context {
    fn directory(&self) -> PathBuf {
        self.settings.paths.root().join("run/vdsm/stand-in")
    }

    /// Tells that a VM's status changed.
    fn notify(&self, id: &str, stats: &Value) {
        self.hub.notify(&format!("|virt|VM_status|{id}"), json!({ id: stats }));
    }
}

impl Vms {
    /// None yet; [`Vms::recover`] finds those of an earlier life.
    pub fn new(settings: VmSettings, storage: Arc<Storage>, hub: Arc<Hub>) -> Self {
        let context = Arc::new(Context { settings, storage, hub });
        let has_any = std::fs::read_dir(context.directory()).is_ok_and(|mut all| all.next().is_some());
        Self {
            context,
            all: Mutex::default(),
            taking_in: tokio::sync::Mutex::default(),
            is_recovering: AtomicBool::new(has_any),
        }
    }

    /// True until the VMs of an earlier life were found.
    pub fn is_recovering(&self) -> bool {
        self.is_recovering.load(Ordering::Acquire)
    }

    /// Finds the VMs of an earlier life.
    pub async fn recover(&self) {
        let directory = self.context.directory();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            match Vm::recover(&self.context, &id).await {
                Ok(vm) => {
                    tracing::info!("VM {id} is found again: {}", vm.status());
                    lock(&self.all).insert(id, vm);
                }
                Err(error) => tracing::warn!("VM {id} is not found again: {error:#}"),
            }
        }
        self.is_recovering.store(false, Ordering::Release);
    }

    pub fn find(&self, id: &str) -> Result<Arc<Vm>, Failure> {
        lock(&self.all).get(id).cloned().ok_or_else(|| Failure::no_such_vm(id))
    }

    pub fn count(&self) -> usize {
        lock(&self.all).len()
    }

    pub fn ids(&self) -> Vec<String> {
        lock(&self.all).keys().cloned().collect()
    }

    /// Id and status of each.
    pub fn statuses(&self) -> Value {
        lock(&self.all).iter().map(|(id, vm)| json!({"vmId": id, "status": vm.status()})).collect()
    }

    pub fn all_stats(&self) -> Value {
        lock(&self.all).values().map(|vm| vm.stats()).collect()
    }

    /// `VM.create`: answers at once and starts in the background.
    pub async fn create(&self, id: Option<String>, params: Map<String, Value>) -> Result<Value, Failure> {
        let description = Description::of_params(&params).map_err(|error| Failure::cannot_create(&error))?;
        let id = self.add(id, description, Vm::start).await?.id().to_owned();
        let mut answer = json!({
            "vmId": id,
            "status": "WaitForLaunch",
            "statusTime": crate::stomp::event_time().to_string(),
        });
        if let Some(xml) = params.get("xml") {
            answer["xml"] = xml.clone();
        }
        Ok(answer)
    }

    /// Takes a new VM in and begins with it what `begin` says.
    async fn add(
        &self,
        id: Option<String>,
        description: Description,
        begin: impl FnOnce(&Arc<Vm>),
    ) -> Result<Arc<Vm>, Failure> {
        let described = description.id().map_err(|error| Failure::cannot_create(&error))?;
        // VDSM takes the id from the description, whatever the request says besides.
        if id.as_deref().is_some_and(|id| id != described) {
            tracing::warn!("VM.create for {id:?} describes {described}");
        }
        let _taking_in = self.taking_in.lock().await;
        if lock(&self.all).contains_key(&described) {
            return Err(Failure::vm_exists());
        }
        let vm = Vm::new(&self.context, &described, description).await.map_err(|error| {
            tracing::warn!("cannot make VM {described}: {error:#}");
            Failure::cannot_create(&format!("{error:#}"))
        })?;
        lock(&self.all).insert(described, vm.clone());
        begin(&vm);
        Ok(vm)
    }

    /// `VM.destroy`: ends it if it runs, and forgets it.
    pub async fn destroy(&self, id: &str) -> Result<Value, Failure> {
        let vm = self.find(id)?;
        vm.destroy().await?;
        let mut all = lock(&self.all);
        if all.get(id).is_some_and(|known| Arc::ptr_eq(known, &vm)) {
            all.remove(id);
        }
        Ok(Value::Null)
    }
}
