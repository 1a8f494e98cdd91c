//! Before a look: the broker runs our monitors, and this host is in its lockspaces.
//!
//! Asked for again in each loop until it is so, and again when the broker was restarted. Joining a lockspace may
//! take minutes: the request is sent, not waited for; the loop goes on meanwhile without starting the VM.

use std::time::Duration;

use broker_api::status::{LeaseState, StatusDocument, StorageState};
use engine_vm::VmStatus;
use tracing::{debug, info};

use super::{Agent, CALL_DEADLINE};
use crate::core::State;
use crate::ports::BrokerError;
use crate::settings::MonitorSpec;

/// How long a request to join a lockspace is waited for before the loop goes on.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);

impl Agent {
    /// Gets everything running that a look needs. Gives the broker's status, from brokers that have one.
    pub(super) async fn prepare(
        &mut self,
        vm: Option<&VmStatus>,
    ) -> Result<Option<StatusDocument>, BrokerError> {
        let status = match self.ask("status", CALL_DEADLINE, self.ports.broker.status()).await {
            Ok(status) => status,
            Err(error) => {
                self.broker_lost();
                return Err(error);
            }
        };
        if let Some(document) = &status {
            // A restarted broker runs no monitors, whatever we remember.
            let running = |id: &String| document.monitors.contains_key(id);
            self.monitors.retain(|_, id| running(id));
        }
        self.start_monitors().await?;
        if self.is_domain_to_be_left(vm) {
            self.leave_domain().await;
        } else {
            self.join_domain().await;
        }
        self.hold_host_id(status.as_ref()).await;
        if self.wake.is_none() && status.is_some() {
            let wake = self.ask("wake", CALL_DEADLINE, self.ports.broker.wake(0, Duration::ZERO)).await;
            self.wake = wake.ok().flatten().map(|wake| wake.counter);
        }
        if let Some(StorageState::Starting) = status.as_ref().map(|document| &document.storage) {
            let detail = "the broker has not read shared storage yet".to_owned();
            return Err(BrokerError { refused: false, detail });
        }
        Ok(status)
    }

    /// Forgets what the broker was doing for us: it may be a new one when it answers again.
    pub(super) fn broker_lost(&mut self) {
        self.monitors.clear();
        self.domain_joined = false;
        self.host_lease = None;
        self.wake = None;
    }

    async fn start_monitors(&mut self) -> Result<(), BrokerError> {
        let missing = |spec: &&MonitorSpec| !self.monitors.contains_key(&spec.field);
        let specs: Vec<_> = self.config.monitors.iter().filter(missing).cloned().collect();
        for spec in specs {
            let request = format!("start_monitor {}", spec.kind);
            let started = self.ports.broker.start_monitor(spec.kind, &spec.options);
            match self.ask(&request, CALL_DEADLINE, started).await {
                Ok(id) => {
                    debug!("monitor {} runs as {id}", spec.kind);
                    self.monitors.insert(spec.field, id);
                    self.ports.service.alive();
                }
                Err(error) if error.refused => {
                    self.warnings.push(format!("the monitor {} does not run: {error}", spec.kind));
                }
                Err(error) => {
                    self.broker_lost();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Only for a VM that is known to be away: leaving would end it.
    fn is_domain_to_be_left(&self, vm: Option<&VmStatus>) -> bool {
        self.config.leaves_domain_in_maintenance
            && vm.is_some_and(|vm| !vm.exists())
            && self.ports.files.local_maintenance().unwrap_or(false)
    }

    async fn leave_domain(&mut self) {
        let left = self.ports.broker.stop_domain_monitor();
        match self.ask("stop_domain_monitor", JOIN_PATIENCE, left).await {
            Ok(()) => {
                if std::mem::replace(&mut self.domain_joined, false) {
                    info!("the storage domain's lockspace is left for the time of local maintenance");
                }
            }
            Err(error) => {
                self.warnings.push(format!("the storage domain's lockspace is not left: {error}"));
            }
        }
    }

    async fn join_domain(&mut self) {
        // In each loop: a lockspace that was lost is joined again, and the answer is immediate while it is held.
        let host = self.config.settings.host_id;
        let joined = self.ports.broker.start_domain_monitor(host);
        match self.ask("start_domain_monitor", JOIN_PATIENCE, joined).await {
            Ok(()) => {
                if !std::mem::replace(&mut self.domain_joined, true) {
                    info!("the storage domain's lockspace is joined");
                }
            }
            Err(error) => {
                self.domain_joined = false;
                self.warnings.push(format!("the storage domain's lockspace is not joined: {error}"));
            }
        }
    }

    async fn hold_host_id(&mut self, status: Option<&StatusDocument>) {
        let mut told = false;
        match status.map(|document| &document.lease) {
            Some(LeaseState::Held { .. }) => {
                self.host_lease = Some(true);
                return;
            }
            Some(LeaseState::Joining { .. }) => {
                self.host_lease = Some(false);
                self.warnings.push("this host is joining its lockspace (hosted-engine)".to_owned());
                return;
            }
            Some(LeaseState::Lost { error, .. }) => {
                self.warnings.push(format!("this host does not hold its host id: {error}"));
                told = true;
            }
            Some(LeaseState::NotRequested) | None => {}
        }
        let host = self.config.settings.host_id;
        let held = self.ask("lock_host_id", JOIN_PATIENCE, self.ports.broker.lock_host_id(host)).await;
        self.host_lease = Some(held.is_ok());
        if let (Err(error), false) = (held, told) {
            self.warnings.push(format!("this host does not hold its host id {host}: {error}"));
        }
    }

    /// Whether a VM on this host could be protected by its lease.
    pub(super) fn leases_held(&self) -> Option<bool> {
        self.host_lease.map(|held| held && self.domain_joined)
    }

    /// Leaves the lockspaces at the end, as far as a running VM allows it.
    pub(super) async fn leave_lockspaces(&mut self, vm_is_away: bool, deadline: Duration) {
        debug_assert_eq!(self.core.state, State::AgentStopped);
        let broker = self.ports.broker.clone();
        let left = tokio::time::timeout(deadline, async {
            if let Err(error) = broker.release_host_id().await {
                info!("the host id is not released: {error}");
            }
            // Leaving the storage domain's lockspace would kill a VM that runs under it.
            if !vm_is_away {
                info!("the engine VM runs here, or nobody knows: staying in the storage domain's lockspace");
            } else if let Err(error) = broker.stop_domain_monitor().await {
                info!("the storage domain's lockspace is not left: {error}");
            }
        });
        if left.await.is_err() {
            info!("leaving the lockspaces takes too long; the broker goes on with it");
        }
    }
}
