//! What happens around the cores: time, leases, the VM, faults and their ends.
//!
//! The lock manager. A host renews its leases in each tick in which it runs and reaches storage. Silence is
//! counted in ticks; the three limits keep the order of the real ones, 8N < the watchdog's reset < 8N + W:
//!
//! ```text
//! silent for    0    1    2                      3                         4
//!               renewed   the lease is lost:     a host that is still      another host may take
//!                         its VM is killed       frozen is reset by its    the VM's lease
//!                                                watchdog
//! ```
//! A frozen host kills nothing: its VM is killed in the tick after it thaws. Until then the VM runs for an instant
//! without a lease, and what keeps that instant harmless is the watchdog, which is part of the model.

use metadata_format::VmState;

use crate::cores::{CoreId, Outcome, engine_status};
use crate::steps::{Fault, Heal};
use crate::world::{
    Agent, Block, EngineFacts, Exit, Host, HostNo, Power, SINCE_LOOK_MAX, Sight, Storage, UNREAD_MAX,
    UNWRITTEN_MAX, Vm, World,
};
use ha_agent::core::Action;

/// Ticks of silence after which a host's leases are lost and the VM under them is killed.
pub const LOST: u8 = 2;
/// Ticks of silence after which a frozen host is reset.
pub const RESET: u8 = 3;
/// Ticks of silence after which another host may take the VM's lease.
pub const EXPIRED: u8 = 4;

const _: () = assert!(LOST < RESET && RESET < EXPIRED);

/// What stands between a lease that was lost and two VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// A frozen host is reset after [`RESET`] ticks.
    pub watchdog: bool,
    /// Ticks of the owner's silence after which another host may take the VM's lease.
    pub expired: u8,
}

impl<const N: usize> Host<N> {
    /// A host that comes up with its agent. It is not yet in its lockspaces.
    pub const fn booted(core: CoreId) -> Self {
        Self {
            power: Power::On,
            agent: Some(Agent::new(core)),
            vm: Vm::Absent,
            exit: Exit::NoTrace,
            monitored: VmState::Down,
            storage: Storage::Reachable,
            network: true,
            maintenance: false,
            next_start_fails: false,
            silent: LOST,
            joined: 0,
            block: None,
            block_before: None,
            unread: [1; N],
        }
    }

    /// Whether its host id lease is held, as its own lock manager says.
    pub const fn lease_held(&self) -> bool {
        self.silent < LOST
    }

    fn crash(&mut self) {
        self.power = Power::Off;
        self.agent = None;
        self.vm = Vm::Absent;
        self.exit = Exit::NoTrace;
        self.monitored = VmState::Down;
        self.network = true;
        self.next_start_fails = false;
        self.joined = 0;
        self.forget_reads();
    }

    /// No agent remembers what it read.
    fn forget_reads(&mut self) {
        self.unread = [1; N];
        if let Storage::Cut { kept } = &mut self.storage {
            for sight in kept {
                sight.unread = 1;
            }
        }
    }

    fn monitor(&mut self) {
        self.monitor_of(self.engine());
    }

    /// The monitor takes note of what it saw.
    pub fn monitor_of(&mut self, facts: EngineFacts) {
        let seen = engine_status(facts).vm;
        if seen != VmState::Unknown {
            self.monitored = seen;
        }
    }
}

impl Agent {
    /// An agent that has just started.
    pub const fn new(core: CoreId) -> Self {
        Self { core, since_look: 0, unwritten: 0, looked: false }
    }
}

impl<const N: usize> World<N> {
    /// What `reader` is shown of the blocks, and how often each was written since it read it.
    pub fn sights(&self, reader: HostNo) -> [Sight; N] {
        let host = self.host(reader);
        match &host.storage {
            Storage::Reachable => std::array::from_fn(|writer| Sight {
                block: self.hosts[writer].block,
                unread: i8::try_from(host.unread[writer]).unwrap_or(i8::MAX),
            }),
            Storage::Cut { kept } => *kept,
        }
    }

    /// The hosts whose leases are live, as the lock manager of `no` knows; `None` while it cannot say it of each host:
    /// one whose record does not change is known to be dead only after as long as it takes to lose a lease.
    pub fn live_by_lock_manager(&self, no: HostNo) -> Option<[bool; N]> {
        let reader = self.host(no);
        let knows = |other: &Host<N>| other.lease_held() || reader.joined >= LOST || other.block.is_none();
        let complete = reader.silent == 0 && reader.joined > 0 && self.hosts.iter().all(knows);
        complete.then(|| std::array::from_fn(|other| self.hosts[other].lease_held()))
    }

    /// Takes note that `reader` has read up to those writes.
    pub fn have_read(&mut self, reader: HostNo, read: [i8; N]) {
        let host = self.host_mut(reader);
        for (unread, read) in host.unread.iter_mut().zip(read) {
            *unread = unread.saturating_add_signed(-read).min(UNREAD_MAX);
        }
        if let Storage::Cut { kept } = &mut host.storage {
            for (sight, read) in kept.iter_mut().zip(read) {
                sight.unread -= read;
            }
        }
    }

    /// `writer` writes its block, if it reaches storage and holds the right to.
    pub fn publish(&mut self, writer: HostNo, block: Block) {
        let host = self.host_mut(writer);
        if !host.reaches_storage() || !host.lease_held() {
            return;
        }
        host.block_before = host.block.replace(block);
        if let Some(agent) = &mut host.agent {
            agent.unwritten = 0;
        }
        for (no, host) in HostNo::all::<N>().zip(&mut self.hosts) {
            if no != writer && host.agent.is_some() {
                // What was written before a cut will still be read, so writes after it count from there.
                let before_cut = match &host.storage {
                    Storage::Reachable => 0,
                    Storage::Cut { kept } => kept[writer.at()].unread.max(0).unsigned_abs(),
                };
                let unread = &mut host.unread[writer.at()];
                *unread = (*unread + 1).min(UNREAD_MAX + before_cut);
            }
        }
    }

    /// Does what the agent of `no` asks for.
    pub fn perform(&mut self, no: HostNo, action: Action, protection: Protection) -> Outcome {
        match action {
            Action::StartVm => self.start(no, protection),
            Action::StopVm => {
                let vm = &mut self.host_mut(no).vm;
                match *vm {
                    Vm::Booting | Vm::Healthy => *vm = Vm::PoweringDown,
                    Vm::Absent | Vm::Sick | Vm::PoweringDown | Vm::Paused { .. } => {}
                }
                Outcome::Done
            }
            Action::ForceStopVm => {
                if self.host(no).vm != Vm::Absent {
                    self.end_vm(no, Exit::Orderly);
                }
                Outcome::Done
            }
            Action::ResumeVm => self.resume(no),
            // Its hypervisors cannot, and the core knows: it asks for none of these.
            Action::SendVm { .. }
            | Action::ReceiveVm { .. }
            | Action::EndArrival
            | Action::CancelMigration => Outcome::Failed,
        }
    }

    /// A VM that goes on without storage is paused again at once.
    fn resume(&mut self, no: HostNo) -> Outcome {
        let owns_lease = self.lease == Some(no);
        let host = self.host_mut(no);
        if let Vm::Paused { sick } = host.vm {
            if !(owns_lease && host.lease_held()) {
                return Outcome::Refused;
            }
            if host.reaches_storage() {
                host.vm = if sick { Vm::Sick } else { Vm::Booting };
            }
        }
        Outcome::Done
    }

    fn start(&mut self, no: HostNo, protection: Protection) -> Outcome {
        let free =
            self.lease.is_none_or(|owner| owner == no || self.host(owner).silent >= protection.expired);
        let host = self.host_mut(no);
        if host.vm != Vm::Absent {
            return Outcome::Done;
        }
        if std::mem::take(&mut host.next_start_fails) || !host.reaches_storage() || !host.lease_held() {
            host.exit = Exit::StartFailed;
            return Outcome::Failed;
        }
        if !free {
            host.exit = Exit::LeaseRefused;
            return Outcome::Refused;
        }
        host.vm = Vm::Booting;
        host.exit = Exit::NoTrace;
        self.lease = Some(no);
        Outcome::Done
    }

    /// The VM's process on `no` ends. Its lease is free at once if the lock manager reaches storage.
    fn end_vm(&mut self, no: HostNo, exit: Exit) {
        let host = self.host_mut(no);
        host.vm = Vm::Absent;
        host.exit = exit;
        if host.reaches_storage() && self.lease == Some(no) {
            self.lease = None;
        }
    }

    /// One tick passes: leases are renewed or grow old, the VM boots or is gone.
    pub fn tick(&mut self, protection: Protection) {
        for no in HostNo::all::<N>() {
            self.age(no, protection);
            let host = self.host_mut(no);
            if let Some(agent) = &mut host.agent {
                agent.since_look = (agent.since_look + 1).min(SINCE_LOOK_MAX);
                agent.unwritten = (agent.unwritten + 1).min(UNWRITTEN_MAX);
                agent.looked = false;
            } else if host.power == Power::On {
                host.monitor();
            }
        }
    }

    fn age(&mut self, no: HostNo, protection: Protection) {
        let host = self.host_mut(no);
        match host.power {
            Power::On => {
                if !host.lease_held() && host.vm != Vm::Absent {
                    host.vm = Vm::Absent;
                    host.exit = Exit::Crashed;
                }
                if host.reaches_storage() {
                    host.joined = if host.lease_held() { (host.joined + 1).min(LOST) } else { 0 };
                    host.silent = 0;
                    if host.vm == Vm::Absent && self.lease == Some(no) {
                        self.lease = None;
                    }
                } else {
                    host.silent = (host.silent + 1).min(EXPIRED);
                }
                let host = self.host_mut(no);
                match host.vm {
                    _ if !host.lease_held() && host.vm != Vm::Absent => self.end_vm(no, Exit::Crashed),
                    Vm::Booting => host.vm = Vm::Healthy,
                    Vm::PoweringDown => self.end_vm(no, Exit::Orderly),
                    Vm::Absent | Vm::Healthy | Vm::Sick | Vm::Paused { .. } => {}
                }
            }
            Power::Frozen => {
                host.silent = (host.silent + 1).min(EXPIRED);
                if protection.watchdog && host.silent >= RESET {
                    host.crash();
                }
            }
            Power::Off => host.silent = (host.silent + 1).min(EXPIRED),
        }
    }

    /// A fault happens. A look that is fed stale data is no change by itself and is not done here.
    pub fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(no) => self.host_mut(no).crash(),
            Fault::Freeze(no) => self.host_mut(no).power = Power::Frozen,
            Fault::AgentDies(no) => {
                let host = self.host_mut(no);
                host.agent = None;
                host.forget_reads();
            }
            Fault::StorageCut(no) => {
                let kept = self.sights(no);
                let host = self.host_mut(no);
                host.storage = Storage::Cut { kept };
                match host.vm {
                    Vm::Booting | Vm::Healthy | Vm::PoweringDown => host.vm = Vm::Paused { sick: false },
                    Vm::Sick => host.vm = Vm::Paused { sick: true },
                    Vm::Absent | Vm::Paused { .. } => {}
                }
            }
            Fault::NetworkCut(no) => self.host_mut(no).network = false,
            Fault::VmCrash(no) => self.end_vm(no, Exit::Crashed),
            Fault::EngineSick(no) => self.host_mut(no).vm = Vm::Sick,
            Fault::NextStartFails(no) => self.host_mut(no).next_start_fails = true,
            Fault::LocalMaintenance(no) => self.host_mut(no).maintenance = true,
            Fault::GlobalMaintenance => self.global_maintenance = true,
            Fault::StaleLook { .. } => {}
        }
    }

    /// A fault ends. `fresh` is the core of an agent that has just started.
    pub fn heal(&mut self, heal: Heal, fresh: CoreId) {
        match heal {
            Heal::Boot(no) => {
                let host = self.host_mut(no);
                host.power = Power::On;
                // Its leases of before the crash are void until it has joined again.
                host.silent = host.silent.max(LOST);
                host.agent = Some(Agent::new(fresh));
            }
            Heal::Thaw(no) => self.host_mut(no).power = Power::On,
            Heal::AgentStarts(no) => self.host_mut(no).agent = Some(Agent::new(fresh)),
            Heal::StorageBack(no) => self.host_mut(no).storage = Storage::Reachable,
            Heal::NetworkBack(no) => self.host_mut(no).network = true,
            Heal::EngineHealthy(no) => self.host_mut(no).vm = Vm::Healthy,
            Heal::LocalMaintenanceEnds(no) => self.host_mut(no).maintenance = false,
            Heal::GlobalMaintenanceEnds => self.global_maintenance = false,
        }
    }
}
