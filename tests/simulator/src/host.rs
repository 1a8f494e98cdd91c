//! What happens to a simulated host: power, processes, pauses. And what it is made of: the shipped broker and the
//! shipped agent on simulated ports.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use engine_vm::VmExit;
use ha_agent::agent::Agent;
use ha_agent::ports::Ports;
use ha_agent::settings::AgentConfig;
use ha_broker::broker::{Broker, Parts};
use ha_broker::lockspace::Keeper;
use ha_broker::lockspace::keeper::Pace;
use ha_broker::monitors::MonitorSet;
use ha_broker::spawner::Spawner;
use ha_broker::wake::WakeCounter;
use ha_broker::whiteboard::{Service, Timing};
use ha_config::{HostedEngineConf, Paths};
use jiff::tz::TimeZone;
use metadata_format::HostId;
use rand::Rng;
use tokio::sync::watch;

use crate::fencer::SimFencer;
use crate::group::Group;
use crate::lockspace::SimLockspace;
use crate::ports::{NoNotes, NoService, SimAddresses, SimBroker, SimFiles};
use crate::probes::SimProbes;
use crate::sanlock::{Daemon, Space};
use crate::storage::SimWhiteboard;
use crate::vm::SimVm;
use crate::world::{HostRef, Kind, World};

/// How a host lost its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// Somebody cut it.
    Cut,
    /// Another host switched it off.
    Fenced,
    /// The watchdog reset the host; it boots again by itself.
    Watchdog,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemons {
    /// ovirt-ha-broker.
    Broker,
    /// ovirt-ha-agent.
    Agent,
}

/// Time that systemd waits before it starts a service again (`RestartSec` of the shipped units).
const RESTART: Duration = Duration::from_secs(5);
/// How often the simulated lock manager is asked whether the id is held. Slower than the shipped half second, for
/// speed; the loss of a lease is seen that much later.
const LEASE_POLL: Duration = Duration::from_secs(2);

/// The configuration of host `id`, by the shipped parsers.
fn config(world: &World, id: HostId) -> Result<AgentConfig, String> {
    let paths = Paths::default();
    let text = format!(
        "fqdn=engine.example\nhost_id={id}\nvmid=8ffd5f71-0c15-4d5c-9b3a-0b9d3b1a1f00\nvm_disk_id=D\nvm_disk_vol_id=V\n\
         storage=server:/path\ndomainType=nfs\nsdUUID=domain\nspUUID=00000000-0000-0000-0000-000000000000\n\
         gateway=192.0.2.1\nbridge=ovirtmgmt\nconf_volume_UUID=C\nconf_image_UUID=I\nconfigured=True\n"
    );
    let conf = HostedEngineConf::parse(&paths, &text);
    AgentConfig::new(&conf, &world.shape.agent, &world.shape.toml, format!("host{id}"))
        .map_err(|error| error.to_string())
}

impl World {
    /// Checks that hosts of this shape can be configured.
    ///
    /// # Errors
    /// Which setting is wrong, and why.
    pub fn check(&self) -> Result<(), String> {
        self.shape.toml.validate()?;
        config(self, HostId::new(1).map_err(|error| error.to_string())?).map(drop)
    }

    /// Gives a host power.
    pub fn boot(self: &Arc<Self>, id: HostId) {
        let Some(host) = self.host(id.get()) else { return };
        let pause = {
            let now = self.now();
            let mut state = self.state();
            let pause = Duration::from_millis(state.rng.random_range(0..3_000));
            let here = &mut state.hosts[host.index()];
            if here.powered {
                return;
            }
            here.powered = true;
            here.frozen = false;
            here.boots += 1;
            here.clock.boot();
            here.sanlock = Daemon::default();
            here.vm_exit = None;
            here.migration = None;
            here.fit_since = now;
            here.daemon_group = Some(Group::new("sanlock", self));
            here.guest_group = Some(Group::new("guest", self));
            pause
        };
        self.log(Some(id), Kind::World, "boots");
        if !self.state().host(id).services_off {
            self.start_later(&host, Daemons::Broker, pause);
            self.start_later(&host, Daemons::Agent, pause + Duration::from_millis(500));
        }
    }

    /// Takes a host's power away: everything on it is gone, and what it had asked of storage never arrives.
    pub fn lose_power(self: &Arc<Self>, id: HostId, how: PowerLoss) {
        let had_vm = {
            let mut state = self.state();
            let here = &mut state.hosts[usize::from(id.get()) - 1];
            if !here.powered {
                return;
            }
            here.powered = false;
            here.frozen = false;
            here.broker = None;
            here.stop_agent = None;
            here.said = None;
            let groups = [
                here.agent_group.take(),
                here.broker_group.take(),
                here.daemon_group.take(),
                here.guest_group.take(),
            ];
            for group in groups.into_iter().flatten() {
                group.kill();
            }
            here.vm.take().is_some_and(|vm| vm.arrival.is_none())
        };
        let text = match how {
            PowerLoss::Cut => "loses power",
            PowerLoss::Fenced => "is powered off by its switch",
            PowerLoss::Watchdog => "is reset by its watchdog",
        };
        self.log(Some(id), Kind::World, text);
        self.unfit(id);
        if had_vm {
            self.vm_ended(id, &VmExit::Crashed { detail: "its host lost power".to_owned() });
        }
        if how == PowerLoss::Watchdog {
            let world = Arc::clone(self);
            let boots = self.state().host(id).boots;
            let pause = Duration::from_secs(self.state().rng.random_range(45..180));
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if world.state().host(id).boots == boots {
                    world.boot(id);
                }
            });
        }
    }

    /// All of a host stands still.
    pub fn freeze(self: &Arc<Self>, id: HostId) {
        let (freezes, armed) = {
            let mut state = self.state();
            let here = &mut state.hosts[usize::from(id.get()) - 1];
            if !here.powered || here.frozen {
                return;
            }
            here.frozen = true;
            here.freezes += 1;
            for group in here.groups() {
                group.pause();
            }
            (here.freezes, here.sanlock.arms_watchdog())
        };
        self.unfit(id);
        self.vm_changed();
        if !(self.shape.has_watchdog && armed) {
            return;
        }
        // The hardware counts on, from the last time that it was fed: at most 10 s ago.
        let fed = self.state().rng.random_range(0..=10);
        let fires = Duration::from_secs(self.shape.watchdog().saturating_sub(fed));
        let world = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(fires).await;
            let frozen = {
                let state = world.state();
                let here = state.host(id);
                here.frozen && here.freezes == freezes
            };
            if frozen {
                world.lose_power(id, PowerLoss::Watchdog);
            }
        });
    }

    /// It goes on.
    pub fn thaw(self: &Arc<Self>, id: HostId) {
        {
            let mut state = self.state();
            let here = &mut state.hosts[usize::from(id.get()) - 1];
            if !here.frozen {
                return;
            }
            here.frozen = false;
            for group in here.groups() {
                group.resume();
            }
        }
        self.unfit(id);
        self.vm_changed();
    }

    fn start_later(self: &Arc<Self>, host: &HostRef, daemon: Daemons, pause: Duration) {
        let (host, boots) = (host.clone(), self.state().host(host.id).boots);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let wanted = {
                let state = host.world.state();
                let here = state.host(host.id);
                here.powered && here.boots == boots && !here.services_off
            };
            if wanted {
                host.start(daemon);
            }
        });
    }

    /// A service dies; systemd starts it again.
    pub fn kill(self: &Arc<Self>, id: HostId, daemon: Daemons) {
        let Some(host) = self.host(id.get()) else { return };
        host.end(daemon);
        self.start_later(&host, daemon, RESTART);
    }

    /// A service is stopped and started again, as by an update.
    pub fn restart(self: &Arc<Self>, id: HostId, daemon: Daemons) {
        let Some(host) = self.host(id.get()) else { return };
        match daemon {
            Daemons::Broker => host.end(daemon),
            Daemons::Agent => host.tell_agent_to_stop(),
        }
        self.start_later(&host, daemon, RESTART);
    }

    /// Both services are stopped in order and stay so.
    pub fn stop_services(self: &Arc<Self>, id: HostId) {
        let Some(host) = self.host(id.get()) else { return };
        self.state().hosts[host.index()].services_off = true;
        host.tell_agent_to_stop();
        self.unfit(id);
    }

    /// And started.
    pub fn start_services(self: &Arc<Self>, id: HostId) {
        let Some(host) = self.host(id.get()) else { return };
        self.state().hosts[host.index()].services_off = false;
        self.start_later(&host, Daemons::Broker, Duration::ZERO);
        self.start_later(&host, Daemons::Agent, Duration::from_millis(500));
    }
}

impl crate::world::Host {
    fn groups(&self) -> impl Iterator<Item = &Group> {
        [&self.agent_group, &self.broker_group, &self.daemon_group, &self.guest_group].into_iter().flatten()
    }
}

impl HostRef {
    fn end(&self, daemon: Daemons) {
        let mut state = self.world.state();
        let here = &mut state.hosts[self.index()];
        let group = match daemon {
            Daemons::Broker => {
                here.broker = None;
                here.broker_group.take()
            }
            Daemons::Agent => {
                here.stop_agent = None;
                here.said = None;
                here.agent_group.take()
            }
        };
        drop(state);
        if let Some(group) = group {
            group.kill();
        }
    }

    fn tell_agent_to_stop(&self) {
        let stop = self.world.state().hosts[self.index()].stop_agent.take();
        if let Some(stop) = stop {
            stop.send_replace(true);
            // The channel must outlive the agent's clean end.
            let group = self.world.state().hosts[self.index()].agent_group.clone();
            if let Some(group) = group {
                group.spawn(async move { stop.closed().await });
            }
        }
    }

    fn start(&self, daemon: Daemons) {
        match daemon {
            Daemons::Broker => self.start_broker(),
            Daemons::Agent => self.start_agent(),
        }
    }

    fn start_broker(&self) {
        if self.world.state().hosts[self.index()].broker.is_some() {
            return;
        }
        let group = Group::new("ovirt-ha-broker", &self.world);
        let broker = Arc::new(Broker::new(self.parts(&group)));
        {
            let mut state = self.world.state();
            let here = &mut state.hosts[self.index()];
            here.broker = Some(Arc::clone(&broker));
            here.broker_group = Some(group.clone());
            if here.frozen {
                group.pause();
            }
        }
        group.spawn(async move { broker.run().await });
    }

    fn parts(&self, group: &Group) -> Parts {
        let clock: Arc<dyn Clock> =
            Arc::<crate::clock::HostClock>::clone(&self.world.state().hosts[self.index()].clock);
        let spawner: Arc<dyn Spawner> = Arc::new(group.clone());
        let wake = WakeCounter::default();
        let keeper = |space| {
            let port = Arc::new(SimLockspace { host: self.clone(), space });
            let pace = Pace { poll: LEASE_POLL, ..Pace::default() };
            Keeper::start(port, Arc::clone(&clock), Arc::clone(&spawner), wake.clone(), pace)
                .expect("a group starts its threads as tasks, which never fails")
        };
        let lease = keeper(Space::Blocks);
        let timers = &self.world.shape.toml.timers;
        let usual = Timing::default();
        let timing = Timing {
            cycle: timers.poll(),
            deadline: timers.storage_deadline,
            settle: usual.settle,
            try_anew: timers.storage_deadline * 2,
        };
        let monitors = MonitorSet::with_probes(
            Box::new(SimProbes(self.clone())),
            Arc::clone(&clock),
            Arc::clone(&spawner),
        );
        monitors.wake_agents(wake.clone());
        Parts {
            host_id: Some(self.id),
            whiteboard: Service::new(
                Arc::new(SimWhiteboard(self.clone())),
                Arc::new(lease.clone()),
                Arc::clone(&clock),
                &spawner,
                timing,
                wake.clone(),
            ),
            lease,
            domain: keeper(Space::Domain),
            monitors: Arc::new(monitors),
            notifications: Arc::new(NoNotes),
            wake,
            clock,
            alive_list: timers.alive_list,
        }
    }

    fn start_agent(&self) {
        {
            let state = self.world.state();
            if state.hosts[self.index()].stop_agent.is_some() {
                return;
            }
        }
        let config = config(&self.world, self.id)
            .expect("World::check has read it for host 1, and hosts differ in the id alone");
        let clock = Arc::clone(&self.world.state().hosts[self.index()].clock);
        let ports = Ports {
            broker: Arc::new(SimBroker(self.clone())),
            vm: Arc::new(SimVm(self.clone())),
            clock,
            files: Arc::new(SimFiles(self.clone())),
            service: Arc::new(NoService),
            fencer: Arc::new(SimFencer(self.clone())),
            addresses: Arc::new(SimAddresses(self.clone())),
        };
        let (stop, stopped) = watch::channel(false);
        let agent = Agent::new(ports, config, TimeZone::UTC, stopped);
        let group = Group::new("ovirt-ha-agent", &self.world);
        {
            let mut state = self.world.state();
            let here = &mut state.hosts[self.index()];
            here.stop_agent = Some(stop);
            here.agent_group = Some(group.clone());
            if here.frozen {
                group.pause();
            }
        }
        group.spawn(agent.run());
    }
}
