//! Carries commands out: what each does to the world.

use std::sync::Arc;
use std::time::Duration;

use engine_vm::{MigrationProgress, VmActivity, VmEvent, VmExit};
use ha_broker::verbs::Verbs;
use ha_broker::whiteboard::zero_block;
use metadata_format::GlobalBlock;
use rustix::io::Errno;

use crate::command::{BlockFault, ByHand, Command, MigrationEnd, StorageFault, VmFault, Who};
use crate::host::PowerLoss;
use crate::storage::{Latency, Path, rubbish};
use crate::vm::By;
use crate::world::{Host, HostRef, Kind, World};

impl World {
    /// The hosts that are meant now.
    pub fn which(self: &Arc<Self>, who: Who) -> Vec<HostRef> {
        let vm_host = self.state().vm_host();
        match who {
            Who::Id(id) => self.host(id).into_iter().collect(),
            Who::All => self.hosts().collect(),
            Who::VmHost => vm_host.and_then(|id| self.host(id)).into_iter().collect(),
            Who::Others => self.hosts().filter(|host| Some(host.id.get()) != vm_host).collect(),
        }
    }

    /// Writes the command down, with the hosts that it meets, and carries it out.
    pub fn execute(self: &Arc<Self>, command: &Command) {
        self.log(None, Kind::Command, command.to_string());
        self.commanded();
        let each = |who: Who, act: &dyn Fn(HostRef)| {
            for host in self.which(who) {
                self.unfit(host.id);
                act(host);
            }
        };
        let change = |who: Who, change: &dyn Fn(&mut Host)| {
            each(who, &|host| change(&mut self.state().hosts[host.index()]));
        };
        match command {
            Command::Boot(who) => each(*who, &|host| self.boot(host.id)),
            Command::PowerOff(who) => each(*who, &|host| self.lose_power(host.id, PowerLoss::Cut)),
            Command::Freeze(who) => each(*who, &|host| self.freeze(host.id)),
            Command::Thaw(who) => each(*who, &|host| self.thaw(host.id)),
            Command::Kill(daemon, who) => each(*who, &|host| self.kill(host.id, *daemon)),
            Command::Restart(daemon, who) => each(*who, &|host| self.restart(host.id, *daemon)),
            Command::StopServices(who) => each(*who, &|host| self.stop_services(host.id)),
            Command::StartServices(who) => each(*who, &|host| self.start_services(host.id)),
            Command::Storage(who, fault) => each(*who, &|host| host.set_storage(*fault)),
            Command::Block(number, fault) => self.damage(*number, *fault),
            Command::Network(who, share) => change(*who, &|host| host.network = *share),
            Command::Bridge(who, up) => change(*who, &|host| host.bridge = *up),
            Command::Memory(who, mb) => change(*who, &|host| host.mem_free = *mb),
            Command::Load(who, share) => change(*who, &|host| host.cpu_load = *share),
            Command::Switch(who, fault) => change(*who, &|host| host.switch = *fault),
            Command::FailStarts(who, count) => change(*who, &|host| host.failing_starts = *count),
            Command::FailMigrations(who, count) => change(*who, &|host| host.failing_migrations = *count),
            Command::CanMigrate(who, can) => change(*who, &|host| host.migrates = *can),
            Command::AskMigration { at, to } => {
                self.migration_asked();
                for host in self.which(*at) {
                    host.ask_migration(*to);
                }
            }
            Command::GuestMovesIn(least, most) => self.state().guest.moves = (*least, *most),
            Command::ClockStep(who, secs) => each(*who, &|host| self.clock_of(&host).step(*secs)),
            Command::ClockRate(who, rate) => each(*who, &|host| self.clock_of(&host).set_rate(*rate)),
            Command::Vm(fault) => self.vm_suffers(*fault),
            Command::GuestBootsIn(least, most) => self.state().guest.boot = (*least, *most),
            Command::GuestIgnoresShutdown(yes) => {
                self.disturbed();
                self.state().guest.ignores_shutdown = *yes;
            }
            Command::PageTakes(time) => {
                self.disturbed();
                self.state().guest.page_delay = *time;
            }
            Command::Migrate { to, takes, end } => self.migrate(*to, *takes, *end),
            Command::GlobalMaintenance(on, who) => {
                // Through one host's broker, as the command line does.
                if let Some(host) = self.which(*who).into_iter().next() {
                    host.set_global_maintenance(*on);
                }
            }
            Command::LocalMaintenance(on, who) => {
                self.disturbed();
                change(*who, &|host| {
                    host.local_maintenance = *on;
                    host.forced_maintenance &= *on;
                });
                each(*who, &|host| host.ha_conf_changed());
            }
            Command::ForcedMaintenance(who) => {
                self.disturbed();
                change(*who, &|host| {
                    host.local_maintenance = true;
                    host.forced_maintenance = true;
                });
                each(*who, &|host| host.ha_conf_changed());
            }
            Command::ByHand(hand, who) => each(*who, &|host| host.by_hand(*hand)),
            Command::HealAll => self.heal_all(),
            Command::Expect(_) => {}
        }
        self.state().look(self.now());
    }

    fn clock_of(&self, host: &HostRef) -> Arc<crate::clock::HostClock> {
        Arc::clone(&self.state().hosts[host.index()].clock)
    }

    fn damage(&self, number: u16, fault: BlockFault) {
        let now = self.now();
        let mut state = self.state();
        let state = &mut *state;
        match fault {
            BlockFault::Corrupt => {
                let bytes = rubbish(&mut state.rng);
                state.disk.put(now, number, bytes);
            }
            BlockFault::Rots => {
                let bytes = rubbish(&mut state.rng);
                state.disk.put(now, number, bytes);
                state.disk.rotten.insert(number);
            }
            BlockFault::TooNew => {
                let mut bytes = Box::new(zero_block());
                let text = format!("9|9|1|{number}|3400|{{}}|future|0|0|00000000|1|1");
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                state.disk.put(now, number, bytes);
            }
            BlockFault::Empty => state.disk.put(now, number, Box::new(zero_block())),
            BlockFault::Unreadable => {
                state.disk.unreadable.insert(number);
            }
            BlockFault::Heals => {
                state.disk.unreadable.remove(&number);
                state.disk.rotten.remove(&number);
            }
        }
        if number == 0 {
            state.book.maintenance = None;
        }
        for host in &mut state.hosts {
            host.fit_since = now;
        }
    }

    fn vm_suffers(self: &Arc<Self>, fault: VmFault) {
        self.disturbed();
        let host = self.which(Who::VmHost).into_iter().next();
        match (fault, host) {
            (VmFault::Sick, _) => self.state().guest.sick = true,
            (VmFault::Well, _) => self.state().guest.sick = false,
            (VmFault::Hangs, Some(_)) => self.state().guest.hangs = true,
            (VmFault::Crashes, Some(host)) => {
                host.kill_vm("the hypervisor process died");
            }
            (VmFault::PowersOff, Some(host)) => host.guest_powers_off(),
            (VmFault::Vanishes, Some(host)) => host.vm_vanishes(),
            (VmFault::Pauses, Some(host)) => {
                if let Some(vm) = &mut self.state().hosts[host.index()].vm {
                    vm.activity = VmActivity::Paused;
                }
                host.tell_vm(VmEvent::Changed(VmActivity::Paused));
                self.vm_changed();
            }
            (VmFault::Resumes, Some(host)) => {
                if let Err(error) = host.resume_vm() {
                    host.world.vm_note(host.id, &format!("the operator's request failed: {error}"));
                }
            }
            (
                VmFault::Hangs
                | VmFault::Crashes
                | VmFault::PowersOff
                | VmFault::Pauses
                | VmFault::Resumes
                | VmFault::Vanishes,
                None,
            ) => {}
        }
    }

    /// A migration by hand. The lease changes hands in the moment in which the guest does.
    fn migrate(self: &Arc<Self>, to: u16, takes: Duration, end: MigrationEnd) {
        self.disturbed();
        let source = self.which(Who::VmHost).into_iter().next();
        let (Some(source), Some(target)) = (source, self.host(to)) else { return };
        if source.id == target.id {
            return;
        }
        {
            let mut state = self.state();
            let here = &mut state.hosts[source.index()];
            match &mut here.vm {
                Some(vm) if vm.executes() && vm.activity != VmActivity::MigrationSource => {
                    vm.activity = VmActivity::MigrationSource;
                }
                _ => return,
            }
            here.migration = Some(MigrationProgress::Active { transferred: 0, remaining: 1 << 32 });
        }
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            match end {
                MigrationEnd::LosesSource => world.lose_power(source.id, PowerLoss::Cut),
                MigrationEnd::LosesDestination => {
                    world.lose_power(target.id, PowerLoss::Cut);
                    source.stay();
                }
                MigrationEnd::Fails => source.stay(),
                MigrationEnd::Arrives => source.hand_over_to(&target),
            }
        });
    }

    fn heal_all(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.guest = crate::vm::Guest { boot: state.guest.boot, ..crate::vm::Guest::default() };
            state.disk.unreadable.clear();
            state.disk.rotten.clear();
            for host in &mut state.hosts {
                host.network = 1.0;
                host.bridge = true;
                host.mem_free = 16_000.0;
                host.cpu_load = 0.1;
                host.failing_starts = 0;
                host.switch = crate::command::SwitchFault::Works;
                host.failing_migrations = 0;
                host.migrates = true;
                host.local_maintenance = false;
                host.forced_maintenance = false;
            }
        }
        self.disturbed();
        for host in self.hosts().collect::<Vec<_>>() {
            self.unfit(host.id);
            host.set_storage(StorageFault::Good);
            self.thaw(host.id);
            self.state().hosts[host.index()].services_off = false;
            if self.state().host(host.id).powered {
                self.start_services(host.id);
            } else {
                self.boot(host.id);
            }
        }
        self.which(Who::All)
            .into_iter()
            .next()
            .into_iter()
            .for_each(|host| host.set_global_maintenance(false));
    }
}

impl HostRef {
    /// Changes this host's path to storage.
    fn set_storage(&self, fault: StorageFault) {
        let back = {
            let mut state = self.world.state();
            let path = &mut state.hosts[self.index()].path;
            let was_stalled = path.stalled;
            match fault {
                StorageFault::Good => *path = Path { mended: path.mended + 1, ..Path::default() },
                StorageFault::Stalled => path.stalled = true,
                StorageFault::Failing => path.errno = Some(Errno::IO),
                StorageFault::ReadOnly => path.write_errno = Some(Errno::ROFS),
                StorageFault::Full => path.write_errno = Some(Errno::NOSPC),
                StorageFault::Delay { by, once } => {
                    path.delay = by;
                    path.delay_once = once;
                }
                StorageFault::Slow { worst } => {
                    let most = u64::try_from(worst.as_micros()).unwrap_or(u64::MAX);
                    path.latency = Latency { least: most / 10, usual: most / 2, worst: most };
                }
                StorageFault::Stale { by } => path.stale = Some(by),
                StorageFault::TearsNextWrite => path.tear_next = true,
                StorageFault::MisdirectsNextWrite { to } => path.misdirect_next = Some(to),
            }
            let back = was_stalled && !path.stalled;
            let changed = Arc::clone(&state.hosts[self.index()].path_changed);
            drop(state);
            changed.notify_waiters();
            back
        };
        if back {
            self.storage_is_back();
        }
        self.io_errors_pause_it();
    }

    fn set_global_maintenance(&self, on: bool) {
        let broker = self.world.state().hosts[self.index()].broker.clone();
        let Some(broker) = broker else {
            self.world.log(Some(self.id), Kind::World, "no broker runs to change the maintenance");
            return;
        };
        self.world.maintenance_asked();
        let (world, id) = (Arc::clone(&self.world), self.id);
        let mut block = GlobalBlock::default();
        block.set_maintenance(on);
        tokio::spawn(async move {
            let bytes = block.encode().expect("one short line fits into a block");
            let answer = broker.put_stats(0, bytes).await;
            let state = if on { "on" } else { "off" };
            let text = match &answer {
                Ok(()) => format!("global maintenance is {state}: acknowledged"),
                Err(error) => format!("global maintenance is not {state}: {error}"),
            };
            world.log(Some(id), Kind::World, text);
            world.maintenance_answered(answer.ok().map(|()| on));
        });
    }

    /// The broker watches the file.
    fn ha_conf_changed(&self) {
        let broker = self.world.state().hosts[self.index()].broker.clone();
        if let Some(broker) = broker {
            broker.wake_agent();
        }
    }

    /// Asks this host's broker for a live migration, as the command line does.
    fn ask_migration(&self, to: Option<u16>) {
        let broker = self.world.state().hosts[self.index()].broker.clone();
        let Some(broker) = broker else {
            self.world.log(Some(self.id), Kind::World, "no broker runs to take the request");
            return;
        };
        let to = to.and_then(|id| metadata_format::HostId::new(id).ok());
        tokio::spawn(async move { broker.ask_migration(to).await });
    }

    fn by_hand(&self, hand: ByHand) {
        let host = self.clone();
        self.world.disturbed();
        let work = async move {
            let result = match hand {
                ByHand::Starts => host.start_vm(By::Operator).await,
                ByHand::Stops => host.shut_vm_down(By::Operator),
                ByHand::Kills => host.destroy_vm(By::Operator).await,
            };
            if let Err(error) = result {
                host.world.vm_note(host.id, &format!("the operator's request failed: {error}"));
            }
            host.world.disturbed();
        };
        // On that host, so that it ends with its power.
        let group = self.world.state().hosts[self.index()].guest_group.clone();
        if let Some(group) = group {
            group.spawn(work);
        }
    }

    fn stay(&self) {
        let mut state = self.world.state();
        let here = &mut state.hosts[self.index()];
        here.migration = Some(MigrationProgress::Failed { detail: "the migration was given up".to_owned() });
        if let Some(vm) =
            here.vm.as_mut().filter(|vm| !vm.between && vm.activity == VmActivity::MigrationSource)
        {
            vm.activity = VmActivity::Up;
        }
    }

    fn hand_over_to(&self, target: &Self) {
        let moved = {
            let mut state = self.world.state();
            let generation =
                state.hosts[target.index()].sanlock.space(crate::sanlock::Space::Domain).generation;
            let ready =
                state.hosts[target.index()].can_receive() && state.hosts[self.index()].has_it_to_give();
            if ready {
                let here = &mut state.hosts[self.index()];
                let vm = here.vm.take();
                here.sanlock.holds_vm_lease = false;
                here.migration = Some(MigrationProgress::Completed);
                here.vm_exit = Some(VmExit::MigratedAway);
                let there = &mut state.hosts[target.index()];
                there.vm = vm.map(|vm| crate::vm::Process { activity: VmActivity::Up, ..vm });
                there.vm_exit = None;
                there.sanlock.holds_vm_lease = true;
                state.areas.vm.owner = Some((target.id.get(), generation));
                state.areas.vm.version += 1;
            }
            ready
        };
        if moved {
            self.world.vm_note(self.id, "the VM has left for another host");
            self.world.vm_note(target.id, "the VM has arrived");
            self.world.vm_changed();
            self.told_of_move();
            target.told_of_move();
        } else {
            self.stay();
        }
    }
}

impl Host {
    /// Whether the VM can arrive here.
    fn can_receive(&self) -> bool {
        self.powered
            && !self.frozen
            && self.vm.is_none()
            && self.sanlock.space(crate::sanlock::Space::Domain).standing == crate::sanlock::Standing::Held
    }

    /// Whether the VM that leaves is still there.
    fn has_it_to_give(&self) -> bool {
        self.powered && !self.frozen && self.vm.as_ref().is_some_and(crate::vm::Process::executes)
    }
}
