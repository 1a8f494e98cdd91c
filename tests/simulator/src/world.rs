//! The simulated world: hosts, storage, leases, the guest, time, chance, and the log of what happened.
//!
//! One thread, tokio's paused time: nothing happens between two timers. All chance comes from one seeded stream, so
//! that a seed always gives the same run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use broker_api::status::AgentReport;
use engine_vm::{MigrationProgress, VmEvent, VmExit};
use ha_broker::verbs::Verbs;
use ha_config::{AgentConf, HaToml};
use metadata_format::HostId;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;

use crate::clock::HostClock;
use crate::command::SwitchFault;
use crate::group::Group;
use crate::invariant::{Book, Violation};
use crate::page::PAGE_TIMEOUT;
use crate::sanlock::{Areas, Daemon};
use crate::storage::{Disk, Path};
use crate::track::Track;
use crate::vm::{Guest, Process};

/// What does not change during a run.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Number of hosts; their ids are 1 to this.
    pub hosts: u16,
    /// Their ha.toml: timers, leases, rules, policy switches, score profile.
    pub toml: HaToml,
    /// Their agent.conf: score values over the profile's.
    pub agent: AgentConf,
    /// Hosts have a watchdog that sanlock uses.
    pub has_watchdog: bool,
    /// A VM that was killed while a request of it hangs in storage does not die before that comes back.
    pub stalled_vm_cannot_die: bool,
    /// Seed of all chance.
    pub seed: u64,
}

impl Shape {
    /// N in seconds.
    pub fn io_timeout(&self) -> u64 {
        self.toml.lease.io_timeout.into()
    }

    /// W in seconds.
    pub fn watchdog(&self) -> u64 {
        self.toml.lease.watchdog_timeout.into()
    }
}

/// What an event is about: its column in displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A command of the script.
    Command,
    /// What an agent decided, and why.
    Decision,
    /// The VM.
    Vm,
    /// Hosts, leases, storage.
    World,
    /// A broken promise.
    Violation,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Time since the run began.
    pub at: Duration,
    /// On which host; `None` for the cluster.
    pub host: Option<u16>,
    /// About what.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

/// One host.
#[allow(clippy::struct_excessive_bools, reason = "each is a condition of its own")]
pub struct Host {
    /// It has power.
    pub powered: bool,
    /// All its processes stand still.
    pub frozen: bool,
    /// How often they were made to: a watchdog counts for one stand-still only.
    pub freezes: u32,
    /// Grows with each boot.
    pub boots: u32,
    /// Its clocks.
    pub clock: Arc<HostClock>,
    /// Its path to storage.
    pub path: Path,
    /// Tells of each change of it.
    pub path_changed: Arc<Notify>,
    /// The lock manager, and its process.
    pub sanlock: Daemon,
    /// Its process; `None` without power.
    pub daemon_group: Option<Group>,
    /// The guest's.
    pub guest_group: Option<Group>,
    /// The broker's.
    pub broker_group: Option<Group>,
    /// The agent's.
    pub agent_group: Option<Group>,
    /// The running broker.
    pub broker: Option<Arc<ha_broker::broker::Broker>>,
    /// Tells the running agent to stop.
    pub stop_agent: Option<watch::Sender<bool>>,
    /// The services are not started again when they end.
    pub services_off: bool,
    /// The hypervisor process.
    pub vm: Option<Process>,
    /// How the last one ended.
    pub vm_exit: Option<VmExit>,
    /// Its events.
    pub vm_events: broadcast::Sender<VmEvent>,
    /// A migration away from here.
    pub migration: Option<MigrationProgress>,
    /// Its hypervisor can move the VM while it runs.
    pub migrates: bool,
    /// So many of the next migrations away from here break.
    pub failing_migrations: u32,
    /// So many of the next starts fail.
    pub failing_starts: u32,
    /// Its power switch.
    pub switch: SwitchFault,
    /// Share of network tries that succeed.
    pub network: f64,
    /// The management bridge is up.
    pub bridge: bool,
    /// Free memory in MB, without what the VM takes.
    pub mem_free: f64,
    /// Busy share of the processors, without the VM.
    pub cpu_load: f64,
    /// Local maintenance, as its ha.conf says.
    pub local_maintenance: bool,
    /// It does not wait for a host that can take the VM.
    pub forced_maintenance: bool,
    /// What its agent last said of itself.
    pub said: Option<AgentReport>,
    /// Since when network, bridge, storage and leases of this host are undisturbed.
    pub fit_since: Duration,
}

/// What changes.
pub struct State {
    /// All chance.
    pub rng: ChaCha8Rng,
    /// The hosts, by id from 1.
    pub hosts: Vec<Host>,
    /// The metadata file.
    pub disk: Disk,
    /// The leases on storage.
    pub areas: Areas,
    /// The guest.
    pub guest: Guest,
    /// VMs started so far.
    pub instances: u64,
    /// What happened.
    pub log: Vec<Event>,
    /// How the hosts were, over time.
    pub track: Track,
    /// What the invariants remember.
    pub book: Book,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Starts of the VM within the last hour.
    pub starts: VecDeque<Duration>,
}

impl State {
    /// The host `id`.
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[usize::from(id.get()) - 1]
    }

    /// Where guest code of the VM runs, or where its process waits to die while it may still write.
    pub fn writers(&self) -> impl Iterator<Item = u16> + '_ {
        (1..)
            .zip(&self.hosts)
            .filter(|(_, host)| host.powered && !host.frozen)
            .filter_map(|(id, host)| host.vm.as_ref().filter(|vm| vm.may_write()).map(|_| id))
    }

    /// Where a process with the VM exists.
    pub fn vm_host(&self) -> Option<u16> {
        let with = |wanted: fn(&Process) -> bool| {
            (1..).zip(&self.hosts).find(|(_, host)| host.vm.as_ref().is_some_and(wanted)).map(|(id, _)| id)
        };
        with(|vm| vm.arrival.is_none()).or_else(|| with(|_| true))
    }

    /// Whether the engine on `host` answers its page well; `None` when nothing answers at all.
    pub fn engine_answers(&self, host: HostId, now: Duration) -> Option<bool> {
        let here = self.host(host);
        let Some(vm) = here.vm.as_ref().filter(|_| !here.frozen) else { return Some(false) };
        let too_slow = self.guest.page_delay >= PAGE_TIMEOUT;
        if !here.bridge || self.guest.hangs || too_slow || here.path.stalled || !vm.executes() {
            return None;
        }
        Some(now >= vm.healthy_at && !self.guest.sick && here.path.is_good())
    }

    /// Whether some host runs an engine that answers well.
    pub fn engine_is_healthy(&self, now: Duration) -> bool {
        let ids = (1..).zip(&self.hosts).filter(|(_, host)| host.vm.is_some()).map(|(id, _)| id);
        ids.filter_map(|id| HostId::new(id).ok()).any(|id| self.engine_answers(id, now) == Some(true))
    }
}

/// The world. Everything in it refers to it.
pub struct World {
    /// What does not change.
    pub shape: Shape,
    began: Instant,
    state: Mutex<State>,
    /// Tells of each change of the VM.
    pub vm_moved: Notify,
    /// Set at the first violation.
    pub broken: watch::Sender<bool>,
}

/// One host of the world.
#[derive(Clone)]
pub struct HostRef {
    /// The world.
    pub world: Arc<World>,
    /// Its id.
    pub id: HostId,
}

impl HostRef {
    /// Its place in [`State::hosts`].
    pub fn index(&self) -> usize {
        usize::from(self.id.get()) - 1
    }

    /// So much time of the world passes while `time` passes on this host's clock.
    pub fn ticks(&self, time: Duration) -> Duration {
        let clock = Arc::clone(&self.world.state().hosts[self.index()].clock);
        clock.real(time)
    }
}

impl World {
    /// A world in which every host is off. Must be called on a runtime with paused time.
    pub fn new(shape: Shape) -> Arc<Self> {
        let began = Instant::now();
        let host = |_| Host {
            powered: false,
            frozen: false,
            freezes: 0,
            boots: 0,
            clock: Arc::new(HostClock::new(began)),
            path: Path::default(),
            path_changed: Arc::default(),
            sanlock: Daemon::default(),
            daemon_group: None,
            guest_group: None,
            broker_group: None,
            agent_group: None,
            broker: None,
            stop_agent: None,
            services_off: false,
            vm: None,
            vm_exit: None,
            vm_events: broadcast::channel(16).0,
            migration: None,
            migrates: true,
            failing_migrations: 0,
            failing_starts: 0,
            switch: SwitchFault::Works,
            network: 1.0,
            bridge: true,
            mem_free: 16_000.0,
            cpu_load: 0.1,
            local_maintenance: false,
            forced_maintenance: false,
            said: None,
            fit_since: Duration::ZERO,
        };
        let state = State {
            rng: ChaCha8Rng::seed_from_u64(shape.seed),
            hosts: (0..shape.hosts).map(host).collect(),
            disk: Disk::default(),
            areas: Areas::default(),
            guest: Guest::default(),
            instances: 0,
            log: Vec::new(),
            track: Track::default(),
            book: Book::default(),
            violations: Vec::new(),
            starts: VecDeque::new(),
        };
        Arc::new(Self {
            shape,
            began,
            state: Mutex::new(state),
            vm_moved: Notify::new(),
            broken: watch::Sender::new(false),
        })
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The moment `at` for tokio's timers.
    pub fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// Everything that changes. Never held across an await.
    ///
    /// # Panics
    /// When it is held already: all runs on one thread, which would wait for itself.
    pub fn state(&self) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("the world is looked at while somebody changes it"),
        }
    }

    /// The host `id`; `None` when there is none.
    pub fn host(self: &Arc<Self>, id: u16) -> Option<HostRef> {
        let id = HostId::new(id).ok().filter(|id| id.get() <= self.shape.hosts)?;
        Some(HostRef { world: Arc::clone(self), id })
    }

    /// All hosts.
    pub fn hosts(self: &Arc<Self>) -> impl Iterator<Item = HostRef> + '_ {
        (1..=self.shape.hosts).filter_map(|id| self.host(id))
    }

    /// Writes down what happened.
    pub fn log(&self, host: Option<HostId>, kind: Kind, text: impl Into<String>) {
        let event = Event { at: self.now(), host: host.map(HostId::get), kind, text: text.into() };
        let mut state = self.state();
        state.log.push(event);
        match host {
            Some(id) => state.look_at(usize::from(id.get()) - 1, self.now()),
            None => state.look(self.now()),
        }
    }

    /// Takes an agent's explanation of its last step. It is written down when it says something new.
    pub fn agent_said(&self, id: HostId, report: &AgentReport) {
        self.check_report(id, report);
        let text = {
            let mut state = self.state();
            let host = &mut state.hosts[usize::from(id.get()) - 1];
            let same = host.said.as_ref().is_some_and(|before| {
                before.state == report.state
                    && before
                        .reasons
                        .iter()
                        .map(|text| gist(text))
                        .eq(report.reasons.iter().map(|text| gist(text)))
            });
            let before = host.said.replace(report.clone());
            if same {
                return;
            }
            let from = before.filter(|before| before.state != report.state);
            let from = from.map(|before| format!("{} -> ", before.state)).unwrap_or_default();
            format!("{from}{} (score {}): {}", report.state, report.score, report.reasons.join("; "))
        };
        self.log(Some(id), Kind::Decision, text);
    }
}

/// A text without its figures, for comparing.
fn gist(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl World {
    /// Which running hosts do not see which others, in words.
    pub async fn unseen(self: &Arc<Self>) -> Vec<String> {
        let running: Vec<HostRef> = {
            let state = self.state();
            self.hosts().filter(|host| state.host(host.id).stop_agent.is_some()).collect()
        };
        let mut unseen = Vec::new();
        for host in &running {
            let broker = self.state().host(host.id).broker.clone();
            let Some(broker) = broker else {
                unseen.push(format!("host {} runs no broker", host.id));
                continue;
            };
            let live = broker.is_host_alive().await.unwrap_or_default();
            for other in &running {
                if !live.contains(&other.id.get()) {
                    let said = self.state().host(other.id).said.clone();
                    let warnings = said.map(|said| said.warnings.join("; ")).unwrap_or_default();
                    unseen.push(format!(
                        "host {} does not see host {}, which warns: {warnings:?}",
                        host.id, other.id
                    ));
                }
            }
        }
        unseen
    }

    /// Whether no running agent has any of these hosts, unless it is itself, in its list of live hosts.
    pub async fn nobody_sees(self: &Arc<Self>, hosts: &[u16]) -> bool {
        let watching: Vec<(u16, Arc<ha_broker::broker::Broker>)> = {
            let state = self.state();
            let broker = |host: HostRef| {
                let here = state.host(host.id);
                here.stop_agent.as_ref().and(here.broker.clone()).map(|broker| (host.id.get(), broker))
            };
            self.hosts().filter_map(broker).collect()
        };
        for (id, broker) in watching {
            let live = broker.is_host_alive().await.unwrap_or_default();
            if hosts.iter().any(|host| *host != id && live.contains(host)) {
                return false;
            }
        }
        true
    }

    /// Lets go of everything that refers back to this world.
    pub fn dismantle(&self) {
        let mut gone = Vec::new();
        for host in &mut self.state().hosts {
            gone.push((
                host.broker.take(),
                host.stop_agent.take(),
                [
                    host.agent_group.take(),
                    host.broker_group.take(),
                    host.daemon_group.take(),
                    host.guest_group.take(),
                ],
            ));
        }
    }
}
