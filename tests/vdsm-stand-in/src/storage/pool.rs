//! The storage pool of this host, as far as one domain that is its own master needs it.
//!
//! As in VDSM a pool is created around its master domain, a host is connected to it under its host id, and only while
//! that host manages it can volumes be made. Unlike VDSM, creating it does not join the lockspace for a
//! moment, connecting to it does not begin to follow the domain before the host manages the pool, and
//! managing it does not acquire the pool's own lease: no other host is in a pool of this stand-in.

use std::sync::Arc;

use sanlock_client::{AddOptions, LockspacePhase, SanlockError};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::domain::Domain;
use super::monitor::lockspace;
use super::{BLANK, Storage};
use crate::{Failure, lock};

/// The pool that this host is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    id: String,
    host_id: u16,
    master: String,
    role: Role,
}

/// Who manages a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Free,
    Contend,
    Spm,
}

impl Storage {
    /// `StoragePool.create`.
    pub(crate) fn create_pool(&self, pool: &str, master: &str, domains: &[String]) -> Result<(), Failure> {
        if uuid::Uuid::parse_str(pool).is_err() {
            return Err(Failure::invalid_parameter("spUUID", pool));
        }
        if !domains.iter().any(|domain| domain == master) {
            return Err(Failure::invalid_parameter("masterDom", master));
        }
        let domain = self.domain(master)?;
        match domain.pool()? {
            Some(other) => Err(Failure::domain_attached(&other, master)),
            None => domain.set_pool(Some(pool)),
        }
    }

    /// `StoragePool.connect`.
    pub(crate) fn connect_pool(&self, pool: &str, host_id: u16, master: &str) -> Result<(), Failure> {
        let mut connected = lock(&self.pool);
        if let Some(other) = connected.as_ref().filter(|other| other.id != pool) {
            return Err(Failure::several_pools(&other.id));
        }
        if self.domain(master)?.pool()?.as_deref() != Some(pool) {
            return Err(Failure::wrong_master(pool, master));
        }
        if connected.is_none() {
            let role = Role::Free;
            *connected = Some(Pool { id: pool.to_owned(), host_id, master: master.to_owned(), role });
        }
        Ok(())
    }

    /// `StoragePool.spmStart`. Gives the task's id: it ends when the host id is this host's.
    pub(crate) fn start_spm(self: &Arc<Self>, pool: &str, runtime: Handle) -> Result<String, Failure> {
        let (master, host_id) = {
            let mut connected = lock(&self.pool);
            let connected = of(&mut connected, pool)?;
            if connected.role != Role::Free {
                return Err(Failure::is_spm(pool));
            }
            connected.role = Role::Contend;
            (connected.master.clone(), connected.host_id)
        };
        let (this, pool) = (self.clone(), pool.to_owned());
        Ok(self.tasks.begin(move || {
            let joined = this.domain(&master).and_then(|domain| this.join_and_wait(&domain, host_id));
            if joined.is_ok() {
                let _entered = runtime.enter();
                this.start_monitoring(&master, host_id);
            }
            let mut connected = lock(&this.pool);
            let connected = of(&mut connected, &pool)?;
            connected.role = if joined.is_ok() { Role::Spm } else { Role::Free };
            joined
        }))
    }

    /// Takes the host id in a domain's lockspace, and returns when it is this host's.
    fn join_and_wait(&self, domain: &Domain, host_id: u16) -> Result<(), Failure> {
        let Some(sanlock) = &self.sanlock else { return Ok(()) };
        let join = || {
            let lockspace = lockspace(domain, host_id)?;
            match sanlock.inquire_lockspace(&lockspace)? {
                LockspacePhase::Joined => Ok(()),
                LockspacePhase::NotJoined | LockspacePhase::Joining | LockspacePhase::Leaving => {
                    let options = AddOptions { io_timeout: self.settings.io_timeout, is_async: false };
                    sanlock.add_lockspace(&lockspace, options)
                }
            }
        };
        join().map_err(|error: SanlockError| Failure::host_id(&format!("{}: {error}", domain.id)))
    }

    /// `StoragePool.getSpmStatus`.
    pub(crate) fn spm_status(&self, pool: &str) -> Result<Value, Failure> {
        let mut connected = lock(&self.pool);
        let connected = of(&mut connected, pool)?;
        Ok(match connected.role {
            Role::Free => json!({"spmStatus": "Free", "spmLver": -1, "spmId": -1}),
            Role::Contend => json!({"spmStatus": "Contend", "spmLver": -1, "spmId": -1}),
            Role::Spm => json!({"spmStatus": "SPM", "spmLver": 1, "spmId": connected.host_id}),
        })
    }

    /// `StoragePool.disconnect`.
    pub(crate) fn disconnect_pool(&self, pool: &str) -> Result<(), Failure> {
        let mut connected = lock(&self.pool);
        let Ok(found) = of(&mut connected, pool) else { return Ok(()) };
        if found.role != Role::Free {
            return Err(Failure::is_spm(pool));
        }
        let master = found.master.clone();
        *connected = None;
        drop(connected);
        self.stop_monitoring(&master)
    }

    /// `StoragePool.destroy`.
    pub(crate) fn destroy_pool(&self, pool: &str, host_id: i64) -> Result<(), Failure> {
        let mut connected = lock(&self.pool);
        let found = of(&mut connected, pool)?;
        if i64::from(found.host_id) != host_id {
            return Err(Failure::host_id_mismatch(pool));
        }
        if found.role != Role::Spm {
            return Err(Failure::insecure());
        }
        self.domain(&found.master)?.set_pool(None)?;
        let master = found.master.clone();
        *connected = None;
        drop(connected);
        self.stop_monitoring(&master)
    }

    /// `Host.getConnectedStoragePools`.
    pub(crate) fn connected_pools(&self) -> Vec<String> {
        lock(&self.pool).iter().map(|pool| pool.id.clone()).collect()
    }

    /// `StorageDomain.setDescription`.
    pub(crate) fn set_description(&self, domain: &str, description: &str) -> Result<(), Failure> {
        if description.len() > 50 {
            return Err(Failure::long_description());
        }
        let domain = self.domain(domain)?;
        let Some(pool) = domain.pool()? else { return Err(Failure::general("list index out of range")) };
        self.must_be_spm(&pool, Failure::insecure())?;
        domain.set("DESCRIPTION", description)
    }

    /// `StorageDomain.format`.
    pub(crate) fn format(&self, domain: &str, detaches: bool) -> Result<(), Failure> {
        let found = self.domain(domain)?;
        if lock(&self.pool).as_ref().is_some_and(|pool| pool.master == domain) {
            return Err(Failure::format_connected(domain));
        }
        if !detaches && found.pool()?.is_some() {
            return Err(Failure::format_attached(domain));
        }
        found.remove(self.paths())
    }

    /// Fails unless this host is in the pool and manages it; otherwise with `not_spm`.
    pub(super) fn must_be_spm(&self, pool: &str, not_spm: Failure) -> Result<(), Failure> {
        match of(&mut lock(&self.pool), pool)?.role {
            Role::Spm => Ok(()),
            Role::Free | Role::Contend => Err(not_spm),
        }
    }
}

/// The pool, when this host is in it.
fn of<'p>(connected: &'p mut Option<Pool>, pool: &str) -> Result<&'p mut Pool, Failure> {
    let found = connected.as_mut().filter(|connected| connected.id == pool && pool != BLANK);
    found.ok_or_else(|| Failure::pool_unknown(pool))
}
