//! [`EngineVm`] for libvirt.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_config::{HaToml, HostedEngineConf};
use tokio::sync::{broadcast, mpsc};
use virt::domain::Domain;

use super::follow;
use super::link::QUESTION;
use super::look::{Inner, Shared};
use super::protection::in_background;
use super::settings::LibvirtSettings;
use super::sys::{Listener, Told};
use crate::follower::Follower;
use crate::outlook;
use crate::port::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseOutlook, MigrationProgress, MigrationTarget,
    Receiver, StartMode, VmError, VmEvent, VmStatus,
};
use crate::qemu::QmpRole;

/// Events kept for a slow listener.
const EVENT_BACKLOG: usize = 64;

/// The engine VM as this host's libvirt daemon runs it.
#[derive(Debug)]
pub struct LibvirtVm {
    inner: Shared,
    /// Follows libvirt's events and tells ours. The operator's command asks and goes: it has none.
    _follower: Option<Follower>,
}

impl LibvirtVm {
    /// An adapter. Connects when it is first asked something; agent and broker follow the VM in a task of their own, so
    /// that this must be called inside a Tokio runtime.
    pub fn new(settings: LibvirtSettings) -> Self {
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        match settings.role {
            QmpRole::Cli => Self { inner: Arc::new(Inner::new(settings, None, events)), _follower: None },
            QmpRole::Agent | QmpRole::Broker => {
                let (sender, told) = mpsc::unbounded_channel();
                let listener: Listener = Arc::new(move |event: Told| {
                    // Nobody listens any more: the adapter is gone.
                    let _ = sender.send(event);
                });
                let inner = Arc::new(Inner::new(settings, Some(listener), events));
                let follower = Some(Follower::start(follow::follow(inner.clone(), told)));
                Self { inner, _follower: follower }
            }
        }
    }

    /// An adapter for this host's configuration.
    ///
    /// # Errors
    /// [`VmError::Config`] with the file, the key and its value.
    pub fn from_config(conf: &HostedEngineConf, toml: &HaToml, role: QmpRole) -> Result<Self, VmError> {
        Ok(Self::new(LibvirtSettings::from_config(conf, toml, role)?))
    }
}

#[async_trait]
impl EngineVm for LibvirtVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        self.inner.look().await
    }

    async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        self.inner.start(mode).await
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        let settings = &self.inner.settings;
        let (spec, owner, watchdog) = (settings.lease.clone(), self.inner.owner.clone(), settings.watchdog);
        let outlook = in_background(move || spec.outlook(&owner, watchdog)).await;
        outlook.map_err(|error| VmError::Unreachable { detail: error.to_string() })
    }

    async fn lease_gives_way(&self) {
        outlook::wait_for_owner(&self.inner.owner, &self.inner.settings.lease).await;
    }

    async fn shutdown(&self, _delay: Duration, _message: &str) -> Result<(), VmError> {
        self.inner.shutdown().await
    }

    async fn destroy(&self) -> Result<(), VmError> {
        self.inner.destroy().await
    }

    async fn pause(&self) -> Result<(), VmError> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<(), VmError> {
        self.inner.resume().await
    }

    fn receiver(&self) -> Receiver {
        Receiver::Arranged { uri: self.inner.settings.migrate_uri.clone() }
    }

    async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        self.inner.prepare_incoming(listen).await
    }

    async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError> {
        Inner::migrate(&self.inner, target).await
    }

    async fn migrate_cancel(&self) -> Result<(), VmError> {
        self.inner.migrate_cancel().await
    }

    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        self.inner.migration_progress().await
    }

    async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        self.inner.set_console_password(password, valid).await
    }

    async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        self.inner.console(kind).await
    }

    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        let used = |domain: &Domain| {
            Ok(match domain.get_id() {
                Some(_) => Some(Duration::from_nanos(domain.get_info()?.cpu_time)),
                None => None,
            })
        };
        let used = self.inner.ask(QUESTION, used).await;
        let used = used.map_err(|trouble| trouble.to_error("tell the VM's processor time"))?;
        Ok(used.flatten().map(CpuUse::Since))
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.inner.events.subscribe()
    }
}
