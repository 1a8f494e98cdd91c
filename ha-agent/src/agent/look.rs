//! One look at the world: blocks, monitors, files, the hypervisor. Reads only.

use broker_api::status::{StatusDocument, StorageState};
use engine_vm::{VmActivity, VmStatus};

use super::act::Guarded;
use super::{Agent, CALL_DEADLINE};
use crate::blocks;
use crate::core::{Footing, Local, MigrationRequest, Observation, Secs, State};
use crate::monitors::{self, Readings};
use crate::ports::{BrokerError, ConfTrouble};
use crate::settings::Field;

/// Seconds between two looks for a newer vm.conf on shared storage.
const REFRESH_EVERY: u64 = 60;
/// Seconds after which a vm.conf that could not be compared with shared storage counts as out of date. Long
/// enough for a stall of storage: the penalty would move the VM.
const REFRESH_TOO_OLD: u64 = 300;

impl Agent {
    /// Collects an observation. `status` is the broker's, `guarded` what the hypervisor said in this loop.
    pub(super) async fn look(
        &mut self,
        status: Option<StatusDocument>,
        guarded: &Guarded,
    ) -> Result<Observation, BrokerError> {
        let started = Secs::from(self.ports.clock.monotonic());
        let raw = match self.ask("get_stats", CALL_DEADLINE, self.ports.broker.get_stats()).await {
            Ok(raw) => raw,
            Err(error) => {
                self.broker_lost();
                return Err(error);
            }
        };
        if self.config.fencing.is_some() {
            self.fence.take(&raw, status.as_ref(), self.config.settings.host_id);
        }
        let settings = &self.config.settings;
        let blocks = blocks::read(&raw, settings.host_id, &settings.weights, &self.config.lease);
        self.warnings.extend(blocks.warnings);
        // A cluster block that cannot be read ends no maintenance.
        self.global_maintenance = blocks.global_maintenance.unwrap_or(self.global_maintenance);

        let readings = match &status {
            Some(document) => self.readings_of(document),
            None => self.ask_monitors().await?,
        };
        let vm = guarded.now();
        let mut local = Local {
            maintenance: self.local_maintenance(),
            conf_up_to_date: self.refresh_vm_conf(started).await,
            min_memory: self.memory(),
            force_maintenance: self.maintenance_is_forced(),
            migrates: self.migrates(),
            migration_request: status
                .as_ref()
                .and_then(|document| document.migration_request)
                .map(|request| MigrationRequest { to: request.to, asked_at: request.asked_at }),
            arriving: vm.is_some_and(|vm| vm.activity == VmActivity::MigrationDestination),
            announced: blocks.announced,
            migration: if self.may_migrate(vm) { self.migration().await } else { None },
            io_error_pause: guarded.io_error_pause(),
            ..Local::default()
        };
        self.warnings.extend(monitors::read(&readings, &mut local));
        if let Some(vm) = vm {
            monitors::correct_stale_health(&mut local, vm);
        }

        let now = self.ports.clock.monotonic();
        let offset = |secs: u64| self.ports.clock.wall().0.saturating_sub_unsigned(secs);
        Ok(Observation {
            started,
            finished: Secs::from(now),
            wall_offset: offset(now.as_secs()),
            global_maintenance: self.global_maintenance,
            hosts: blocks.hosts,
            local,
            lock_manager_live: status.as_ref().and_then(|document| document.lock_manager_live.clone()),
            footing: Footing {
                last_acknowledged: Some(self.last_acknowledged),
                host_lease: self.leases_held(),
                storage_stuck: self.storage_stuck(status.as_ref()),
                lease_owner: if self.waits_for_lease() { self.lease_owner().await } else { None },
            },
        })
    }

    fn readings_of(&mut self, document: &StatusDocument) -> Readings {
        let mut readings = Readings::new();
        for (field, id) in &self.monitors {
            let Some(row) = document.monitors.get(id) else { continue };
            // What engine-health adds tells how the last VM ended; it is no trouble with the monitor.
            if let Some(error) = row.error.as_ref().filter(|_| *field != Field::EngineHealth) {
                self.warnings.push(format!("the monitor {id} has no new result: {error}"));
            }
            if let Some(value) = &row.value {
                readings.insert(*field, value.clone());
            }
        }
        readings
    }

    /// From a broker that has no status document.
    async fn ask_monitors(&mut self) -> Result<Readings, BrokerError> {
        let mut readings = Readings::new();
        for (field, id) in self.monitors.clone() {
            match self.ask("status_monitor", CALL_DEADLINE, self.ports.broker.status_monitor(&id)).await {
                Ok(Some(value)) => {
                    readings.insert(field, value);
                }
                Ok(None) => {}
                // A restarted broker does not know the id: have it started again.
                Err(error) if error.refused => {
                    self.warnings.push(error.to_string());
                    self.monitors.remove(&field);
                }
                Err(error) => {
                    self.broker_lost();
                    return Err(error);
                }
            }
        }
        Ok(readings)
    }

    fn local_maintenance(&mut self) -> bool {
        match self.ports.files.local_maintenance() {
            Ok(on) => on,
            Err(error) => {
                // Keep what was known: a file that cannot be read ends no maintenance and begins none.
                self.warnings.push(error);
                self.core.view.as_ref().is_some_and(|view| view.look.local.maintenance)
            }
        }
    }

    fn maintenance_is_forced(&mut self) -> bool {
        // Without the file's word nothing is forced.
        self.ports.files.maintenance_is_forced().unwrap_or(false)
    }

    /// Looks for a newer vm.conf on shared storage, at the start and each minute. True when there is one copy of
    /// it that is not too old. Patience with storage keeps what was known while the host id lease is held.
    async fn refresh_vm_conf(&mut self, now: Secs) -> bool {
        let age = |refreshed: Option<Secs>| refreshed.map(|at| now.since(at));
        let mut storage_delays = false;
        if age(self.vm_conf_refreshed).is_none_or(|secs| secs >= REFRESH_EVERY) {
            match self.ports.files.refresh_vm_conf().await {
                Ok(()) => self.vm_conf_refreshed = Some(now),
                Err(error) => {
                    storage_delays = matches!(error, ConfTrouble::Storage(_));
                    self.warnings.push(error.to_string());
                }
            }
        }
        let is_recent = age(self.vm_conf_refreshed).is_some_and(|secs| secs < REFRESH_TOO_OLD);
        let patient = self.config.settings.policy.storage_patience && self.host_lease == Some(true);
        let was_up_to_date = self.core.view.as_ref().is_some_and(|view| view.look.local.conf_up_to_date);
        let kept = storage_delays && patient && was_up_to_date;
        self.config.conf_on_shared_storage && (is_recent || kept)
    }

    fn memory(&mut self) -> u64 {
        match self.ports.files.vm_memory() {
            Ok(memory) => self.vm_memory = memory,
            Err(error) => self.warnings.push(error),
        }
        self.vm_memory
    }

    fn may_migrate(&self, vm: Option<&VmStatus>) -> bool {
        let leaving = vm.is_some_and(|vm| vm.activity == VmActivity::MigrationSource);
        self.core.state == State::EngineMigratingAway || leaving
    }

    fn storage_stuck(&mut self, status: Option<&StatusDocument>) -> Option<u64> {
        let (since, what) = match &status?.storage {
            StorageState::Good { .. } | StorageState::Starting => return None,
            StorageState::Stuck { since, operation, .. } => (*since, format!("stuck in {operation}")),
            StorageState::Failed { since, error, .. } => (*since, error.clone()),
            StorageState::Connecting { since, step, error, .. } => {
                let why = error.clone().unwrap_or_else(|| format!("waiting for {step}"));
                (*since, format!("it is being connected through VDSM: {why}"))
            }
        };
        let secs = u64::try_from(self.ports.clock.wall().0.saturating_sub(since)).unwrap_or(0);
        let when = metadata_format::ctime(since, &self.zone);
        self.warnings.push(format!("shared storage does not work since {when}: {what}"));
        Some(secs)
    }
}
