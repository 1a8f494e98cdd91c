//! What runs on a sandbox host, and which of it is to be started again when it ends: systemd's part, in small.
//! Pure book-keeping; [`super::init`] starts and collects the processes.

use clock::Monotonic;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::state::{Hypervisor, SharedStorage, State};

/// Time between the end of a service and its next start: the units' `RestartSec`.
pub const RESTART_AFTER: Duration = Duration::from_secs(5);

/// One of a host's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Service {
    /// The host's view of the shared folder.
    #[serde(rename = "storage")]
    Storage,
    /// The stand-in for sanlock's watchdog daemon, where the hosts have a watchdog.
    #[serde(rename = "wdmd")]
    Watchdog,
    /// The lock manager.
    #[serde(rename = "sanlock")]
    Sanlock,
    /// The stand-in for VDSM, where the VM runs by it.
    #[serde(rename = "vdsm")]
    Vdsm,
    /// libvirt's daemon, where the VM runs by it.
    #[serde(rename = "libvirtd")]
    Libvirtd,
    /// The HA broker.
    #[serde(rename = "ovirt-ha-broker")]
    Broker,
    /// The HA agent.
    #[serde(rename = "ovirt-ha-agent")]
    Agent,
}

impl Service {
    /// In the order in which they start.
    pub const ALL: [Self; 7] =
        [Self::Storage, Self::Watchdog, Self::Sanlock, Self::Vdsm, Self::Libvirtd, Self::Broker, Self::Agent];

    /// Its name in commands and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Watchdog => "wdmd",
            Self::Sanlock => "sanlock",
            Self::Vdsm => "vdsm",
            Self::Libvirtd => "libvirtd",
            Self::Broker => "ovirt-ha-broker",
            Self::Agent => "ovirt-ha-agent",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// The daemons of a deployed host, in the order in which they start.
    pub const fn of_deployed(hypervisor: Hypervisor) -> &'static [Self] {
        match hypervisor {
            // VDSM runs on a bare host, too.
            Hypervisor::Qemu | Hypervisor::Vdsm => &[Self::Broker, Self::Agent],
            Hypervisor::Libvirt => &[Self::Libvirtd, Self::Broker, Self::Agent],
        }
    }

    /// Whether hosts of this sandbox have it.
    pub const fn exists(self, state: &State) -> bool {
        match self {
            Self::Vdsm => matches!(state.hypervisor, Hypervisor::Vdsm),
            Self::Libvirtd => matches!(state.hypervisor, Hypervisor::Libvirt),
            Self::Watchdog => state.watchdog,
            Self::Storage => matches!(state.storage, SharedStorage::Folder),
            Self::Sanlock | Self::Broker | Self::Agent => true,
        }
    }

    /// Storage that goes away stays away until the host is started again; so do sanlock, as on a real host, where its
    /// death is the watchdog's business, and the watchdog's daemon.
    const fn restarts(self) -> bool {
        match self {
            Self::Storage | Self::Watchdog | Self::Sanlock => false,
            Self::Vdsm | Self::Libvirtd | Self::Broker | Self::Agent => true,
        }
    }
}

/// One service now, as `status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Which.
    pub service: Service,
    /// Its process in the host's own numbers, while it runs.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    pub last_end: Option<String>,
    /// Whether it is to run, and is started again when it ends.
    pub wanted: bool,
}

#[derive(Debug)]
struct Entry {
    status: ServiceStatus,
    due: Option<Monotonic>,
}

/// All of them.
#[derive(Debug)]
pub struct Table {
    entries: Vec<Entry>,
}

impl Default for Table {
    fn default() -> Self {
        let entry = |service| Entry {
            status: ServiceStatus { service, pid: None, restarts: 0, last_end: None, wanted: false },
            due: None,
        };
        Self { entries: Service::ALL.map(entry).into() }
    }
}

impl Table {
    fn entry(&mut self, service: Service) -> &mut Entry {
        let index = Service::ALL.iter().position(|other| *other == service);
        &mut self.entries[index.expect("ALL holds every service, and the table an entry for each")]
    }

    /// It should run from now on; true when it must be started.
    pub fn want(&mut self, service: Service) -> bool {
        let entry = self.entry(service);
        entry.status.wanted = true;
        entry.due = None;
        entry.status.pid.is_none()
    }

    /// It should not run any more; its process, when there is one to end.
    pub fn unwant(&mut self, service: Service) -> Option<i32> {
        let entry = self.entry(service);
        entry.status.wanted = false;
        entry.due = None;
        entry.status.pid
    }

    /// It was started.
    pub fn started(&mut self, service: Service, pid: i32) {
        self.entry(service).status.pid = Some(pid);
    }

    /// It could not be started: try again as after an end.
    pub fn failed_to_start(&mut self, service: Service, why: String, now: Monotonic) {
        self.ended(service, why, now);
    }

    /// A process was collected; its service, if it was one's.
    pub fn collected(&mut self, pid: i32, how: &str, now: Monotonic) -> Option<Service> {
        let service =
            self.entries.iter().find(|entry| entry.status.pid == Some(pid)).map(|e| e.status.service)?;
        self.ended(service, how.to_owned(), now);
        Some(service)
    }

    fn ended(&mut self, service: Service, how: String, now: Monotonic) {
        let entry = self.entry(service);
        entry.status.pid = None;
        entry.status.last_end = Some(how);
        entry.due = (entry.status.wanted && service.restarts()).then(|| now.plus(RESTART_AFTER));
    }

    /// When the next start is due.
    pub fn next_due(&self) -> Option<Monotonic> {
        self.entries.iter().filter_map(|entry| entry.due).min()
    }

    /// The services whose time has come; they count as started again.
    pub fn take_due(&mut self, now: Monotonic) -> Vec<Service> {
        let mut due = Vec::new();
        for entry in &mut self.entries {
            if entry.due.is_some_and(|at| at <= now) {
                entry.due = None;
                entry.status.restarts += 1;
                due.push(entry.status.service);
            }
        }
        due
    }

    /// For `status`.
    pub fn statuses(&self) -> Vec<ServiceStatus> {
        self.entries.iter().map(|entry| entry.status.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_daemon_is_started_again_after_the_units_pause() {
        let mut table = Table::default();
        assert!(table.want(Service::Agent));
        table.started(Service::Agent, 12);
        assert!(!table.want(Service::Agent));
        assert_eq!(table.collected(12, "killed by signal 9", Monotonic::from_secs(10)), Some(Service::Agent));
        assert_eq!(table.next_due(), Some(Monotonic::from_secs(15)));
        assert_eq!(table.take_due(Monotonic::from_secs(14)), []);
        assert_eq!(table.take_due(Monotonic::from_secs(15)), [Service::Agent]);
        assert_eq!(table.take_due(Monotonic::from_secs(15)), []);
    }

    #[test]
    fn a_stopped_daemon_and_lost_storage_stay_away() {
        let mut table = Table::default();
        table.want(Service::Broker);
        table.started(Service::Broker, 12);
        assert_eq!(table.unwant(Service::Broker), Some(12));
        table.collected(12, "exit status 0", Monotonic::from_secs(1));
        table.want(Service::Storage);
        table.started(Service::Storage, 13);
        table.collected(13, "killed by signal 9", Monotonic::from_secs(1));
        assert_eq!(table.next_due(), None);
    }

    #[test]
    fn foreign_processes_are_nobodys() {
        assert_eq!(Table::default().collected(99, "exit status 0", Monotonic::from_secs(1)), None);
    }
}
