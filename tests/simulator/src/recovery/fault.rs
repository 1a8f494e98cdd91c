//! The faults whose cost is measured: each is one that the cluster must get over without a person.

use std::time::Duration;

use ha_config::ha_toml::ScoreProfile;
use rand::Rng;

use crate::command::{Command, Daemons, Step, StorageFault, VmFault, Who};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`title` says it")]
pub enum Fault {
    VmCrash,
    VmCrashAlone,
    VmCrashThrice,
    StartsFail,
    EngineHangs,
    PowerLoss,
    HostFrozen,
    PowerCycle,
    StorageStalled200,
    AllStorageStalled15,
    AllStorageStalled90,
    AllStorageStalled200,
    IoErrors60,
    GatewayBlip12,
    GatewayLost,
    GatewayLostByAll,
    BridgeDown,
    LocalMaintenance,
    CpuLoad,
    AgentKilled,
    BrokerKilled,
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn lasting(command: Command, lasts: u64) -> Step {
    Step { at: Duration::ZERO, command, lasts: Some(secs(lasts)) }
}

fn moment(at: u64, command: Command) -> Step {
    Step { at: secs(at), command, lasts: None }
}

impl Fault {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 21] = [
        Self::VmCrash,
        Self::VmCrashAlone,
        Self::VmCrashThrice,
        Self::StartsFail,
        Self::EngineHangs,
        Self::PowerLoss,
        Self::HostFrozen,
        Self::PowerCycle,
        Self::StorageStalled200,
        Self::AllStorageStalled15,
        Self::AllStorageStalled90,
        Self::AllStorageStalled200,
        Self::IoErrors60,
        Self::GatewayBlip12,
        Self::GatewayLost,
        Self::GatewayLostByAll,
        Self::BridgeDown,
        Self::LocalMaintenance,
        Self::CpuLoad,
        Self::AgentKilled,
        Self::BrokerKilled,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VmCrash => "vm-crash",
            Self::VmCrashAlone => "vm-crash-alone",
            Self::VmCrashThrice => "vm-crash-thrice",
            Self::StartsFail => "starts-fail",
            Self::EngineHangs => "engine-hangs",
            Self::PowerLoss => "power-loss",
            Self::HostFrozen => "host-frozen",
            Self::PowerCycle => "power-cycle",
            Self::StorageStalled200 => "storage-stalled-200",
            Self::AllStorageStalled15 => "all-storage-stalled-15",
            Self::AllStorageStalled90 => "all-storage-stalled-90",
            Self::AllStorageStalled200 => "all-storage-stalled-200",
            Self::IoErrors60 => "io-errors-60",
            Self::GatewayBlip12 => "gateway-blip-12",
            Self::GatewayLost => "gateway-lost",
            Self::GatewayLostByAll => "gateway-lost-by-all",
            Self::BridgeDown => "bridge-down",
            Self::LocalMaintenance => "local-maintenance",
            Self::CpuLoad => "cpu-load",
            Self::AgentKilled => "agent-killed",
            Self::BrokerKilled => "broker-killed",
        }
    }

    /// What happens. "Its host" is the one that runs the VM at that moment.
    pub const fn title(self) -> &'static str {
        match self {
            Self::VmCrash => "VM crashes",
            Self::VmCrashAlone => "VM crashes, single host",
            Self::VmCrashThrice => "VM crashes three times, 3 min apart",
            Self::StartsFail => "VM crashes; next start on each host fails",
            Self::EngineHangs => "engine hangs",
            Self::PowerLoss => "its host loses power for good",
            Self::HostFrozen => "its host freezes; watchdog resets it",
            Self::PowerCycle => "all hosts lose power for 1 to 3 min",
            Self::StorageStalled200 => "storage of its host stalls for 200 s",
            Self::AllStorageStalled15 => "storage of all stalls for 15 s",
            Self::AllStorageStalled90 => "storage of all stalls for 90 s",
            Self::AllStorageStalled200 => "storage of all stalls for 200 s",
            Self::IoErrors60 => "I/O errors on its host for 60 s",
            Self::GatewayBlip12 => "gateway away from its host for 12 s",
            Self::GatewayLost => "gateway lost on its host for good",
            Self::GatewayLostByAll => "gateway lost on all hosts for good",
            Self::BridgeDown => "bridge down on its host for good",
            Self::LocalMaintenance => "local maintenance of its host",
            Self::CpuLoad => "processors of its host 95 % busy",
            Self::AgentKilled => "agent killed on its host",
            Self::BrokerKilled => "broker killed on its host",
        }
    }

    /// What one must know to read its figures.
    pub const fn note(self) -> Option<&'static str> {
        match self {
            Self::LocalMaintenance => Some(
                "the plain rules leave the VM there, and somebody has to move it; the better ones shut it down and start \
                 it elsewhere",
            ),
            Self::CpuLoad => {
                Some("with the scores of oVirt 4.5, as load alone never moves the VM in the founding profile")
            }
            Self::VmCrash
            | Self::VmCrashAlone
            | Self::VmCrashThrice
            | Self::StartsFail
            | Self::EngineHangs
            | Self::PowerLoss
            | Self::HostFrozen
            | Self::PowerCycle
            | Self::StorageStalled200
            | Self::AllStorageStalled15
            | Self::AllStorageStalled90
            | Self::AllStorageStalled200
            | Self::IoErrors60
            | Self::GatewayBlip12
            | Self::GatewayLost
            | Self::GatewayLostByAll
            | Self::BridgeDown
            | Self::AgentKilled
            | Self::BrokerKilled => None,
        }
    }

    /// The fault of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Hosts of the cluster.
    pub(super) const fn hosts(self) -> u16 {
        if matches!(self, Self::VmCrashAlone) { 1 } else { 3 }
    }

    /// How hosts are scored. Load alone never moves the VM in the founding profile, so that there would be nothing to
    /// compare.
    pub(super) const fn profile(self) -> ScoreProfile {
        if matches!(self, Self::CpuLoad) { ScoreProfile::Ovirt45 } else { ScoreProfile::Founding }
    }

    /// How long after its begin it may still move a VM that it did not disturb at once.
    pub(super) const fn shows_within(self) -> Duration {
        match self {
            Self::VmCrash
            | Self::VmCrashAlone
            | Self::VmCrashThrice
            | Self::StartsFail
            | Self::EngineHangs
            | Self::PowerLoss
            | Self::HostFrozen
            | Self::PowerCycle
            | Self::StorageStalled200
            | Self::AllStorageStalled15
            | Self::AllStorageStalled90
            | Self::AllStorageStalled200
            | Self::IoErrors60
            | Self::BridgeDown => Duration::ZERO,
            Self::AgentKilled | Self::BrokerKilled => secs(60),
            Self::GatewayBlip12 | Self::LocalMaintenance => secs(120),
            Self::GatewayLost | Self::GatewayLostByAll => secs(240),
            // The load counts as its average over a quarter of an hour, and is high enough after 12.5 minutes.
            Self::CpuLoad => secs(800),
        }
    }

    /// What happens, in time from the fault's begin.
    pub(super) fn steps(self, rng: &mut impl Rng) -> Vec<Step> {
        let stalls = |who, time| vec![lasting(Command::Storage(who, StorageFault::Stalled), time)];
        let crash = |at| moment(at, Command::Vm(VmFault::Crashes));
        match self {
            Self::VmCrash | Self::VmCrashAlone => vec![crash(0)],
            Self::VmCrashThrice => vec![crash(0), crash(180), crash(360)],
            Self::StartsFail => vec![moment(0, Command::FailStarts(Who::All, 1)), crash(0)],
            Self::EngineHangs => vec![moment(0, Command::Vm(VmFault::Hangs))],
            Self::PowerLoss => vec![moment(0, Command::PowerOff(Who::VmHost))],
            Self::HostFrozen => vec![moment(0, Command::Freeze(Who::VmHost))],
            Self::PowerCycle => (1..=self.hosts())
                .map(|id| lasting(Command::PowerOff(Who::Id(id)), rng.random_range(60..=180)))
                .collect(),
            Self::StorageStalled200 => stalls(Who::VmHost, 200),
            Self::AllStorageStalled15 => stalls(Who::All, 15),
            Self::AllStorageStalled90 => stalls(Who::All, 90),
            Self::AllStorageStalled200 => stalls(Who::All, 200),
            Self::IoErrors60 => vec![lasting(Command::Storage(Who::VmHost, StorageFault::Failing), 60)],
            Self::GatewayBlip12 => vec![lasting(Command::Network(Who::VmHost, 0.0), 12)],
            Self::GatewayLost => vec![moment(0, Command::Network(Who::VmHost, 0.0))],
            Self::GatewayLostByAll => vec![moment(0, Command::Network(Who::All, 0.0))],
            Self::BridgeDown => vec![moment(0, Command::Bridge(Who::VmHost, false))],
            Self::LocalMaintenance => vec![moment(0, Command::LocalMaintenance(true, Who::VmHost))],
            Self::CpuLoad => vec![moment(0, Command::Load(Who::VmHost, 0.95))],
            Self::AgentKilled => vec![moment(0, Command::Kill(Daemons::Agent, Who::VmHost))],
            Self::BrokerKilled => vec![moment(0, Command::Kill(Daemons::Broker, Who::VmHost))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in Fault::ALL {
            assert_eq!(Fault::find(fault.name()), Some(fault));
        }
        assert_eq!(Fault::find("war"), None);
    }
}
