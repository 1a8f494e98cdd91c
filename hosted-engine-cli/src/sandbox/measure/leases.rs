//! Watches the engine VM's lease as each host's lock manager sees it, from outside and without touching it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use ha_config::HostedEngineConf;
use sanlock_client::{
    Client, Disk, DiskPath, HostState, HostStatus, LockspaceName, Owner, Resource, ResourceName,
};

use crate::sandbox::cluster::Cluster;
use crate::sandbox::layout::HostNumber;
use crate::sandbox::shell::pause;

/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a lock manager may take: a few small reads.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a lock manager says of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Nobody owns it.
    Free,
    /// A host owns it.
    Owned {
        /// Its id, and its generation when it took the lease.
        owner: Owner,
        /// How that host is.
        host: HostStatus,
    },
}

impl Lease {
    /// Whether another host could take it at once: its owner is dead, gave its id up, or has joined anew since.
    pub fn can_be_had(self) -> bool {
        match self {
            Self::Free => true,
            Self::Owned { owner, host } => host.state.gives_way() || host.generation > owner.generation,
        }
    }

    /// Whether its owner is silent.
    pub fn is_forsaken(self) -> bool {
        matches!(self, Self::Owned { host, .. } if matches!(host.state, HostState::Fail | HostState::Dead))
    }

    /// The owner's last renewal, in its own seconds.
    pub fn renewal(self) -> Option<(u64, u64)> {
        match self {
            Self::Free => None,
            Self::Owned { owner, host } => Some((owner.host_id, host.timestamp)),
        }
    }
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Free => f.write_str("the lease is free"),
            Self::Owned { owner, .. } if self.can_be_had() => {
                write!(f, "the lease of host {} can be taken", owner.host_id)
            }
            Self::Owned { owner, host } => {
                write!(f, "host {} has the lease, and is {}", owner.host_id, host.state)
            }
        }
    }
}

/// A lease as it was from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Since when.
    pub at: Monotonic,
    /// By which host's lock manager.
    pub host: HostNumber,
    /// How it was; `None` when the lock manager could not tell.
    pub lease: Option<Lease>,
}

#[derive(Debug, Default)]
struct Shared {
    looked: Mutex<Vec<Looked>>,
    stop: AtomicBool,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct LeaseWatch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LeaseWatch {
    /// Begins to watch, with a thread for each host, so that a silent one holds up nobody.
    pub fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for host in cluster.hosts() {
            let paths = cluster.layout().host(host.number);
            let client = Client::new(paths.sanlock_socket()).with_deadline(DEADLINE);
            let lease = resource(&HostedEngineConf::load(&paths)?)?;
            let shared = Arc::clone(&shared);
            let watch = move || watch(host.number, &client, &lease, &shared);
            threads.push(std::thread::Builder::new().name("lease".into()).spawn(watch)?);
        }
        Ok(Self { shared, threads })
    }

    /// All changes so far, in the order of time.
    pub fn looked(&self) -> Vec<Looked> {
        let mut all = self.shared.looked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|looked| looked.at);
        all
    }
}

impl Drop for LeaseWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn resource(conf: &HostedEngineConf) -> anyhow::Result<Resource> {
    let (path, offset) = conf.vm_lease_place()?;
    Ok(Resource {
        lockspace: LockspaceName::new(conf.sd_uuid()?)?,
        name: ResourceName::new(conf.vm_lease_name()?)?,
        disks: vec![Disk { path: DiskPath::new(path)?, offset }],
    })
}

fn watch(host: HostNumber, client: &Client, resource: &Resource, shared: &Shared) {
    let mut last = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let at = SystemClock.monotonic();
        let lease = look(client, resource);
        if last != Some(lease) {
            last = Some(lease);
            let looked = Looked { at, host, lease };
            shared.looked.lock().unwrap_or_else(PoisonError::into_inner).push(looked);
        }
        pause(ASK_EVERY);
    }
}

fn look(client: &Client, resource: &Resource) -> Option<Lease> {
    let owners = client.read_resource_owners(resource).ok()?.owners;
    let Some(owner) = owners.first().copied() else { return Some(Lease::Free) };
    let hosts = client.get_hosts(&resource.lockspace, Some(owner.host_id)).ok()?;
    let host = hosts.into_iter().find(|host| host.host_id == owner.host_id)?;
    Some(Lease::Owned { owner, host })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Owned by `id`, whose host is so.
    pub(in super::super) fn owned(id: u64, state: HostState, timestamp: u64) -> Lease {
        Lease::Owned {
            owner: Owner { host_id: id, generation: 1, timestamp: 1 },
            host: HostStatus { host_id: id, generation: 1, timestamp, io_timeout: 3, state },
        }
    }

    #[test]
    fn a_lease_can_be_had_when_its_owner_cannot_come_back_to_it() {
        for (state, free) in [(HostState::Live, false), (HostState::Fail, false), (HostState::Dead, true)] {
            assert_eq!(owned(2, state, 9).can_be_had(), free);
        }
        let Lease::Owned { owner, host } = owned(2, HostState::Live, 9) else { panic!() };
        let anew = HostStatus { generation: 2, ..host };
        assert!(Lease::Owned { owner, host: anew }.can_be_had());
        assert!(Lease::Free.can_be_had() && !Lease::Free.is_forsaken());
        assert_eq!(owned(2, HostState::Fail, 9).to_string(), "host 2 has the lease, and is FAIL");
    }
}
