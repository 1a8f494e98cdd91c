//! [`EngineVm`] for VDSM.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ha_config::HostedEngineConf;
use ha_config::ha_toml::LeaseTable;
use tokio::sync::broadcast;
use vdsm_client::{Client, code};

use super::look::{Inner, LockManager, Shared, Times};
use super::words::activity;
use super::{follow, is_unsure, trouble};
use crate::follower::Follower;
use crate::outlook;
use crate::port::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, Receiver, StartMode, VmActivity, VmError, VmEvent, VmStatus,
};
use crate::qemu::QmpRole;

/// Events kept for a slow listener.
const EVENT_BACKLOG: usize = 64;

/// The engine VM as this host's VDSM runs it.
#[derive(Debug)]
pub struct VdsmVm {
    inner: Shared,
    /// Follows VDSM's events and tells ours. The operator's command asks and goes: it has none.
    _follower: Option<Follower>,
}

impl VdsmVm {
    /// An adapter for this host's configuration, over a connection to its VDSM. Must be called inside a Tokio runtime:
    /// agent and broker follow the VM in a task of their own.
    ///
    /// # Errors
    /// [`VmError::Config`] when hosted-engine.conf does not name the VM.
    pub fn new(
        vdsm: Client,
        conf: &HostedEngineConf,
        lease: &LeaseTable,
        role: QmpRole,
    ) -> Result<Self, VmError> {
        let watchdog = Duration::from_secs(lease.watchdog_timeout.into());
        Self::with(vdsm, conf, role, LockManager::sanlock(), Times { watchdog, ..Times::default() })
    }

    pub(super) fn with(
        vdsm: Client,
        conf: &HostedEngineConf,
        role: QmpRole,
        locks: LockManager,
        times: Times,
    ) -> Result<Self, VmError> {
        let vm_id = conf.vmid().map_err(|error| VmError::Config { detail: error.to_string() })?.to_owned();
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let inner = Arc::new(Inner::new(vdsm, vm_id, conf.clone(), locks, times, events));
        let follower = match role {
            QmpRole::Agent | QmpRole::Broker => Some(Follower::start(follow::follow(inner.clone()))),
            QmpRole::Cli => None,
        };
        Ok(Self { inner, _follower: follower })
    }
}

#[async_trait]
impl EngineVm for VdsmVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        self.inner.look().await
    }

    async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        self.inner.start(mode).await
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        self.inner.lease_outlook().await.map_err(|error| VmError::Unreachable { detail: error.to_string() })
    }

    async fn lease_gives_way(&self) {
        let known = self.inner.memory().lease.clone();
        match known {
            Some((_, spec)) => outlook::wait_for_owner(&self.inner.owner, &spec).await,
            None => std::future::pending().await,
        }
    }

    async fn shutdown(&self, delay: Duration, message: &str) -> Result<(), VmError> {
        self.inner.shutdown(delay, message).await
    }

    async fn destroy(&self) -> Result<(), VmError> {
        self.inner.destroy().await
    }

    async fn pause(&self) -> Result<(), VmError> {
        const PAUSE: &str = "pause the guest";
        match self.inner.vdsm.vm_pause(&self.inner.vm_id).await {
            Ok(()) => Ok(()),
            Err(error) if is_unsure(&error) => match self.status().await?.activity {
                VmActivity::Paused | VmActivity::PausedByIoError => Ok(()),
                _ => Err(trouble(PAUSE, &error)),
            },
            Err(error) => Err(trouble(PAUSE, &error)),
        }
    }

    async fn resume(&self) -> Result<(), VmError> {
        const RESUME: &str = "resume the guest";
        let status = self.status().await?;
        match status.lease {
            LeaseHolding::Held | LeaseHolding::Pending { .. } => {}
            LeaseHolding::Lost { detail } | LeaseHolding::Unknown { detail } => {
                return Err(VmError::NoLease { detail });
            }
            LeaseHolding::NoVm => return Err(VmError::NotRunning),
        }
        match self.inner.vdsm.vm_cont(&self.inner.vm_id).await {
            Ok(()) => Ok(()),
            Err(error) if is_unsure(&error) => match self.status().await?.activity {
                VmActivity::Paused | VmActivity::PausedByIoError | VmActivity::Down => {
                    Err(trouble(RESUME, &error))
                }
                _ => Ok(()),
            },
            Err(error) => Err(trouble(RESUME, &error)),
        }
    }

    fn receiver(&self) -> Receiver {
        Receiver::Arranged { uri: "{host}".to_owned() }
    }

    async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        self.inner.prepare_incoming(listen).await
    }

    async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError> {
        self.inner.migrate(target).await
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

    /// VDSM samples every VM in turn; for some 90 s after a start it has no true figure.
    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        let stats = match self.inner.stats().await {
            Ok(stats) => stats,
            Err(error) if error.code() == Some(code::NO_SUCH_VM) => return Ok(None),
            Err(error) => return Err(VmError::Unreachable { detail: error.to_string() }),
        };
        if activity(&stats)? == VmActivity::Down {
            return Ok(None);
        }
        // In percent of one processor each.
        let percent = stats.cpu_user.unwrap_or(0.0) + stats.cpu_sys.unwrap_or(0.0);
        let is_measured = stats.cpu_actual.unwrap_or(percent > 0.0);
        Ok(Some(if is_measured { CpuUse::Lately((percent / 100.0).max(0.0)) } else { CpuUse::NotMeasured }))
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.inner.events.subscribe()
    }
}
