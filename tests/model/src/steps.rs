//! What can happen next: looks, ticks, faults, and the ends of faults.
//!
//! In each tick every agent that can take a look takes one, in any order; then the tick passes. Faults and their
//! ends come between any two of these. A fault uses up one of those that are left; its end is free, and need not
//! come. That the tick waits for all agents is the fairness on which the proof of recovery rests.

use crate::world::{HostNo, Power, Storage, Vm, World};

/// One step of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// An agent looks, decides, acts and publishes.
    Look(HostNo),
    /// The tick passes.
    Tick,
    /// Something goes wrong, or an operator wants something.
    Fault(Fault),
    /// It is over.
    Heal(Heal),
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The host loses power.
    Crash(HostNo),
    /// The host freezes as a whole.
    Freeze(HostNo),
    /// The agent dies; the broker and the VM go on.
    AgentDies(HostNo),
    /// The host cannot read or write shared storage.
    StorageCut(HostNo),
    /// The host's gateway does not answer.
    NetworkCut(HostNo),
    /// The VM's process dies.
    VmCrash(HostNo),
    /// The engine in the VM does not answer any more.
    EngineSick(HostNo),
    /// The next start on the host will fail.
    NextStartFails(HostNo),
    /// An operator sets local maintenance.
    LocalMaintenance(HostNo),
    /// An operator sets global maintenance.
    GlobalMaintenance,
    /// An agent looks, and is shown another host's block as it was before its last write.
    StaleLook {
        /// Who looks.
        reader: HostNo,
        /// Whose block is old.
        writer: HostNo,
    },
}

/// The end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Heal {
    /// The host comes up, and its agent with it.
    Boot(HostNo),
    /// The frozen host goes on.
    Thaw(HostNo),
    /// The agent starts.
    AgentStarts(HostNo),
    /// Shared storage works again on the host.
    StorageBack(HostNo),
    /// The gateway answers again.
    NetworkBack(HostNo),
    /// The engine answers again by itself.
    EngineHealthy(HostNo),
    /// Local maintenance is ended.
    LocalMaintenanceEnds(HostNo),
    /// Global maintenance is ended.
    GlobalMaintenanceEnds,
}

impl<const N: usize> World<N> {
    /// What happens without faults: the looks that are due in this tick, or else the tick. Never empty.
    pub fn regular_steps(&self) -> Vec<Step> {
        let looks = self.numbered().filter(|(_, host)| host.will_look()).map(|(no, _)| Step::Look(no));
        let mut steps: Vec<_> = looks.collect();
        if steps.is_empty() {
            steps.push(Step::Tick);
        }
        steps
    }

    /// The faults that can happen now, if any may.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.faults_left == 0 {
            return faults;
        }
        for (no, host) in self.numbered() {
            if host.power != Power::Off {
                faults.push(Fault::Crash(no));
            }
            if host.power != Power::On {
                continue;
            }
            faults.push(Fault::Freeze(no));
            if host.agent.is_some() {
                faults.push(Fault::AgentDies(no));
            }
            if host.reaches_storage() {
                faults.push(Fault::StorageCut(no));
            }
            if host.network {
                faults.push(Fault::NetworkCut(no));
            }
            if host.vm != Vm::Absent {
                faults.push(Fault::VmCrash(no));
            }
            if host.vm == Vm::Healthy {
                faults.push(Fault::EngineSick(no));
            }
            if host.vm == Vm::Absent && !host.next_start_fails {
                faults.push(Fault::NextStartFails(no));
            }
            if !host.maintenance {
                faults.push(Fault::LocalMaintenance(no));
            }
            if host.will_look() && host.reaches_storage() {
                let stale =
                    self.numbered().filter(|(writer, other)| *writer != no && other.block_before.is_some());
                faults.extend(stale.map(|(writer, _)| Fault::StaleLook { reader: no, writer }));
            }
        }
        if !self.global_maintenance {
            faults.push(Fault::GlobalMaintenance);
        }
        faults
    }

    /// The faults that can end now. A host without storage does not boot: its agent would read nothing and take
    /// no step.
    pub fn heals(&self) -> Vec<Heal> {
        let mut heals = Vec::new();
        for (no, host) in self.numbered() {
            let cut = matches!(host.storage, Storage::Cut { .. });
            match host.power {
                Power::Off if !cut => heals.push(Heal::Boot(no)),
                Power::Off => {}
                Power::Frozen => heals.push(Heal::Thaw(no)),
                Power::On => {
                    if host.agent.is_none() {
                        heals.push(Heal::AgentStarts(no));
                    }
                    if host.vm == Vm::Sick {
                        heals.push(Heal::EngineHealthy(no));
                    }
                }
            }
            if cut {
                heals.push(Heal::StorageBack(no));
            }
            if !host.network {
                heals.push(Heal::NetworkBack(no));
            }
            if host.maintenance {
                heals.push(Heal::LocalMaintenanceEnds(no));
            }
        }
        if self.global_maintenance {
            heals.push(Heal::GlobalMaintenanceEnds);
        }
        heals
    }

    /// All that can happen next.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.regular_steps();
        steps.extend(self.faults().into_iter().map(Step::Fault));
        steps.extend(self.heals().into_iter().map(Step::Heal));
        steps
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crash(no) => write!(f, "{no} crashes"),
            Self::Freeze(no) => write!(f, "{no} freezes as a whole"),
            Self::AgentDies(no) => write!(f, "the agent of {no} dies"),
            Self::StorageCut(no) => write!(f, "{no} loses shared storage"),
            Self::NetworkCut(no) => write!(f, "the gateway of {no} does not answer any more"),
            Self::VmCrash(no) => write!(f, "the VM on {no} crashes"),
            Self::EngineSick(no) => write!(f, "the engine on {no} does not answer any more"),
            Self::NextStartFails(no) => write!(f, "the next start on {no} will fail"),
            Self::LocalMaintenance(no) => write!(f, "local maintenance is set on {no}"),
            Self::GlobalMaintenance => f.write_str("global maintenance is set"),
            Self::StaleLook { reader, writer } => write!(f, "{reader} reads an old block of {writer}"),
        }
    }
}

impl std::fmt::Display for Heal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boot(no) => write!(f, "{no} boots"),
            Self::Thaw(no) => write!(f, "{no} thaws"),
            Self::AgentStarts(no) => write!(f, "the agent of {no} starts"),
            Self::StorageBack(no) => write!(f, "{no} has shared storage again"),
            Self::NetworkBack(no) => write!(f, "the gateway of {no} answers again"),
            Self::EngineHealthy(no) => write!(f, "the engine on {no} answers again by itself"),
            Self::LocalMaintenanceEnds(no) => write!(f, "local maintenance of {no} ends"),
            Self::GlobalMaintenanceEnds => f.write_str("global maintenance ends"),
        }
    }
}
