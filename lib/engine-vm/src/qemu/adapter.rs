//! [`EngineVm`] for QEMU.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_config::{HaToml, HostedEngineConf, Paths};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, broadcast};

use super::launch::LaunchMode;
use super::look::{Inner, Shared, blocking, failed};
use super::run_dir::{QmpRole, RunDir, SERIAL_SOCKET};
use super::settings::QemuSettings;
use super::watch;
use crate::follower::Follower;
use crate::lease::{LeaseError, LeaseSpec};
use crate::outlook::{self, OwnerWatch};
use crate::port::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, Receiver, StartMode, VmActivity, VmError, VmEvent, VmStatus,
};

/// Events kept for a slow listener.
const EVENT_BACKLOG: usize = 64;

/// The engine VM as a QEMU of this host. A new value over the same run directory finds the VM that an earlier one,
/// or another process, started.
#[derive(Debug)]
pub struct QemuVm {
    inner: Shared,
    /// Follows the VM and tells its events. The operator's command asks and goes: it has none.
    _watcher: Option<Follower>,
}

impl QemuVm {
    /// An adapter. Must be called inside a Tokio runtime: agent and broker follow the VM in a task of their own.
    pub fn new(settings: QemuSettings) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let role = settings.role;
        let inner = Arc::new(Inner {
            dir: RunDir::new(settings.run_dir.clone()),
            settings,
            qmp: Mutex::new(None),
            events,
            started: Notify::new(),
            owner: OwnerWatch::default(),
        });
        let watcher = match role {
            QmpRole::Agent | QmpRole::Broker => Some(Follower::start(watch::follow(inner.clone()))),
            QmpRole::Cli => None,
        };
        Self { inner, _watcher: watcher }
    }

    /// An adapter for this host's configuration.
    pub fn from_config(
        paths: &Paths,
        conf: &HostedEngineConf,
        toml: &HaToml,
        role: QmpRole,
    ) -> Result<Self, VmError> {
        Ok(Self::new(QemuSettings::from_config(paths, conf, toml, role)?))
    }
}

#[async_trait]
impl EngineVm for QemuVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        self.inner.look().await
    }

    async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        let (mode, activity) = match mode {
            StartMode::Run => (LaunchMode::Run, VmActivity::Up),
            StartMode::Paused => (LaunchMode::Paused, VmActivity::Paused),
        };
        self.inner.launch(mode, None).await?;
        self.inner.tell(VmEvent::Changed(activity));
        Ok(())
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        let inner = self.inner.clone();
        let outlook =
            blocking(move || inner.settings.lease.outlook(&inner.owner, inner.settings.watchdog)).await?;
        outlook.map_err(|error| VmError::Unreachable { detail: error.to_string() })
    }

    async fn lease_gives_way(&self) {
        outlook::wait_for_owner(&self.inner.owner, &self.inner.settings.lease).await;
    }

    /// QEMU presses the guest's power button, at once; it knows no delay and no message.
    async fn shutdown(&self, _delay: Duration, _message: &str) -> Result<(), VmError> {
        self.inner.require()?;
        let state = self.inner.command("look at the guest", "query-status", Value::Null).await?;
        if state["running"] != true {
            let detail =
                "its processors are stopped, so it would not notice; resume it first, or power it off";
            return Err(failed("shut the guest down", detail));
        }
        self.inner.command("shut the guest down", "system_powerdown", Value::Null).await.map(drop)
    }

    async fn destroy(&self) -> Result<(), VmError> {
        let found = self.inner.find()?.ok_or(VmError::NotRunning)?;
        self.inner.end(&found).await
    }

    async fn pause(&self) -> Result<(), VmError> {
        self.inner.require()?;
        self.inner.command("pause the guest", "stop", Value::Null).await.map(drop)
    }

    async fn resume(&self) -> Result<(), VmError> {
        let found = self.inner.require()?;
        match self.inner.look().await?.activity {
            VmActivity::MigrationDestination | VmActivity::MigrationSource => {
                return Err(failed("resume the guest", "it is being migrated; that ends by itself"));
            }
            _ => {}
        }
        match self.inner.holding(found.process.pid).await? {
            LeaseHolding::Held => {}
            // QEMU itself takes no lease.
            LeaseHolding::Lost { detail }
            | LeaseHolding::Unknown { detail }
            | LeaseHolding::Pending { detail } => {
                return Err(VmError::NoLease { detail });
            }
            LeaseHolding::NoVm => return Err(VmError::NotRunning),
        }
        self.inner.command("resume the guest", "cont", Value::Null).await.map(drop)
    }

    fn receiver(&self) -> Receiver {
        match self.inner.settings.lease {
            LeaseSpec::Sanlock { .. } | LeaseSpec::Indexed(_) => Receiver::Prepared,
            LeaseSpec::File { .. } => Receiver::Never { why: LeaseError::Unsupported.to_string() },
        }
    }

    async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        Inner::receive(&self.inner, listen).await
    }

    async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError> {
        Inner::send(&self.inner, target).await
    }

    async fn migrate_cancel(&self) -> Result<(), VmError> {
        // QEMU takes it for nothing when none is under way, or when all is sent.
        self.inner.command("stop the migration", "migrate_cancel", Value::Null).await.map(drop)
    }

    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        self.inner.progress().await
    }

    async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        self.inner.require()?;
        // Expiry first: were the second command lost, there would be a password that never ends.
        let action = "set the console password";
        let time = format!("+{}", valid.as_secs().max(1));
        let protocol = "vnc";
        self.inner.command(action, "expire_password", json!({"protocol": protocol, "time": time})).await?;
        let arguments = json!({"protocol": protocol, "password": password, "connected": "keep"});
        let set = self.inner.command(action, "set_password", arguments).await;
        set.map(drop).map_err(|error| error.without(password))
    }

    async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        self.inner.require()?;
        if kind == ConsoleKind::Serial {
            let socket = self.inner.dir.file(SERIAL_SOCKET);
            return Ok(ConsoleAddress { kind: "serial".to_owned(), address: socket.display().to_string() });
        }
        let vnc = self.inner.command("tell its console", "query-vnc", Value::Null).await?;
        let (Some(host), Some(port)) = (vnc["host"].as_str(), vnc["service"].as_str()) else {
            return Err(failed("tell its console", "it has no graphical one"));
        };
        let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        let address = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(ConsoleAddress { kind: "vnc".to_owned(), address })
    }

    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        let Some(found) = self.inner.find()? else { return Ok(None) };
        match found.process.cpu_time() {
            Ok(used) => Ok(used.map(CpuUse::Since)),
            Err(e) => Err(super::look::unreachable("read the VM's processor time", &e)),
        }
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.inner.events.subscribe()
    }
}
