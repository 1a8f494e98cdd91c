//! The model that is checked: how a step changes the world, and what must hold.

use ha_agent::core::{Action, Policy, Then, Wait};
use stateright::{Model, Property};

use crate::cores::{Cores, Feed, Glance, LIMITS, Outcome, TICK};
use crate::environment::{EXPIRED, Protection};
use crate::recovery::Recovery;
use crate::steps::{Fault, Step};
use crate::story::Story;
use crate::world::{Alarms, Block, Exit, Host, HostNo, Power, Sight, Vm, World};

/// More calls of the core than any step may need: an endless step, and the real agent would spin.
const LONGEST_STEP: usize = 12;

/// What is checked, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// The switches of the decision core.
    pub policy: Policy,
    /// Faults that may happen in one run, of any kinds.
    pub faults: u8,
    /// A deliberate mistake, to see that it is found.
    pub mistake: Option<Mistake>,
    /// Check one property alone. The checker then stops at the first counterexample, which is a shortest one; with
    /// several properties it goes on, and keeps the last.
    pub only: Option<&'static str>,
}

/// A deliberate mistake in the cluster or around the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Hosts have no watchdog.
    NoWatchdog,
    /// A lease may be taken whoever holds it.
    LeaseRefusesNobody,
    /// The core is never told of global maintenance.
    BlindToGlobalMaintenance,
    /// The core is told that its footing is good, always.
    BlindToFooting,
    /// Every start is refused.
    LeaseRefusesEverybody,
}

/// Names of the properties.
pub mod property {
    /// No two VMs can write to the disk.
    pub const ONE_WRITER: &str = "at most one VM can write";
    /// The lease protects every VM.
    pub const VM_HAS_LEASE: &str = "a VM exists only on the host that the lease names";
    /// Hands off in global maintenance.
    pub const GLOBAL_MAINTENANCE: &str = "nothing is done to the VM by a host that sees global maintenance";
    /// Starts can be protected and are not tried behind the others' backs.
    pub const FOOTING: &str = "a start is only asked for by a host whose footing is good";
    /// Steps end.
    pub const STEPS_END: &str = "a step of the agent ends";
    /// The engine comes back.
    pub const RECOVERY: &str = "when faults have ended the engine comes up, and stays up";
    /// Something is proven at all. Must hold in some state, as those that follow.
    pub const SERVES: &str = "sometimes the engine serves";
    /// Hosts fail, and the engine goes on.
    pub const FAILS_OVER: &str = "sometimes the engine serves on the second host while the first is down";
    /// The lease has something to forbid.
    pub const REFUSED: &str = "sometimes a start is refused because of the lease";
}

/// The cluster of `N` hosts.
pub struct Cluster<const N: usize> {
    setup: Setup,
    protection: Protection,
    pub(crate) cores: Cores<N>,
    pub(crate) recovery: Recovery,
}

impl<const N: usize> Cluster<N> {
    /// Nothing is explored yet.
    pub fn new(setup: Setup) -> Self {
        let protection = Protection {
            watchdog: setup.mistake != Some(Mistake::NoWatchdog),
            expired: if setup.mistake == Some(Mistake::LeaseRefusesNobody) { 0 } else { EXPIRED },
        };
        let (cores, recovery) = (Cores::new(setup.policy), Recovery::default());
        Self { setup, protection, cores, recovery }
    }

    /// Number of different cores that were met.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// The most ticks from any state without further faults until the engine is up for good, as far as explored.
    pub fn longest_recovery(&self) -> u16 {
        self.recovery.longest()
    }

    /// The world after a step. Tells `story` what happened.
    pub fn after(&self, world: &World<N>, step: Step, story: &mut Story) -> World<N> {
        let mut world = world.clone();
        world.alarms = Alarms::default();
        match step {
            Step::Look(no) => self.look(&mut world, no, None, story),
            Step::Tick => {
                story.tell(|| "a tick passes".to_owned());
                world.tick(self.protection);
            }
            Step::Fault(fault) => {
                story.tell(|| format!("FAULT: {fault}"));
                world.faults_left -= 1;
                if let Fault::StaleLook { reader, writer } = fault {
                    self.look(&mut world, reader, Some(writer), story);
                } else {
                    world.strike(fault);
                }
            }
            Step::Heal(heal) => {
                story.tell(|| format!("healed: {heal}"));
                world.heal(heal, self.cores.fresh());
            }
        }
        world
    }

    /// One loop of an agent: look, decide, act, publish.
    fn look(&self, world: &mut World<N>, no: HostNo, stale: Option<HostNo>, story: &mut Story) {
        let Some(agent) = world.host(no).agent else { return };
        let glance = world.glance(no, stale);
        let read = glance.blocks.map(|sight| sight.unread);
        let engine = glance.engine;
        let footing_is_good =
            glance.lease_held && glance.stuck.is_none() && u64::from(glance.unwritten) * TICK <= LIMITS.alive;
        story.tell(|| format!("{no} looks"));

        let shown = self.as_shown(glance);
        let mut core = agent.core;
        let mut feed = Feed::Look(Box::new(shown));
        let mut acted = false;
        let mut ended = false;
        for _ in 0..LONGEST_STEP {
            story.decision(|| self.cores.decide(core, &feed).1);
            let taken = self.cores.take(core, &feed);
            core = taken.core;
            match taken.then {
                Then::Act(action) => {
                    world.alarms.acted_in_global_maintenance |= world.global_maintenance;
                    world.alarms.started_without_footing |= action == Action::StartVm && !footing_is_good;
                    let outcome = match (action, self.setup.mistake) {
                        (Action::StartVm, Some(Mistake::LeaseRefusesEverybody)) => Outcome::Refused,
                        _ => world.perform(no, action, self.protection),
                    };
                    story.tell(|| format!("    {action:?}: {outcome:?}"));
                    feed = Feed::Done(no, outcome);
                    acted = true;
                }
                // An action takes time, so that a fresh look would follow: it is that of the next tick.
                Then::Next(Wait::No) if !acted => feed = Feed::Same(no),
                Then::Next(Wait::No | Wait::Delay) => {
                    ended = true;
                    break;
                }
            }
        }
        world.alarms.endless_step |= !ended;

        let score = self.cores.score(core);
        let core = self.cores.settle(core, agent.since_look, read);
        world.have_read(no, read);
        let host = world.host_mut(no);
        host.monitor_of(engine);
        if let Some(agent) = &mut host.agent {
            agent.core = core;
            agent.since_look = 0;
            agent.looked = true;
        }
        world.publish(no, Block { score, engine });
    }

    /// What the core is shown of it.
    fn as_shown(&self, glance: Glance<N>) -> Glance<N> {
        match self.setup.mistake {
            Some(Mistake::BlindToGlobalMaintenance) => Glance { global_maintenance: false, ..glance },
            Some(Mistake::BlindToFooting) => Glance { unwritten: 0, lease_held: true, stuck: None, ..glance },
            Some(Mistake::NoWatchdog | Mistake::LeaseRefusesNobody | Mistake::LeaseRefusesEverybody)
            | None => glance,
        }
    }
}

impl<const N: usize> World<N> {
    /// What host `no` sees. With `stale` that host's block is the one before its last write.
    fn glance(&self, no: HostNo, stale: Option<HostNo>) -> Glance<N> {
        let host = self.host(no);
        let mut blocks = self.sights(no);
        blocks[no.at()] = Sight::default();
        if let Some(writer) = stale {
            let sight = &mut blocks[writer.at()];
            *sight = Sight { block: self.host(writer).block_before, unread: sight.unread - 1 };
        }
        let (since_look, unwritten) = host.agent.map_or((0, 0), |agent| (agent.since_look, agent.unwritten));
        Glance {
            host: no,
            since_look,
            global_maintenance: self.global_maintenance,
            blocks,
            engine: host.engine(),
            network: host.network,
            maintenance: host.maintenance,
            unwritten,
            live: self.live_by_lock_manager(no),
            lease_held: host.lease_held(),
            // A request to storage is not yet late in the tick of the cut.
            stuck: (!host.reaches_storage() && host.silent > 0).then_some(host.silent),
        }
    }

    /// At most one VM can write.
    fn one_writer(&self) -> bool {
        self.hosts.iter().filter(|host| host.vm_can_write()).count() <= 1
    }

    fn every_vm_has_the_lease(&self) -> bool {
        self.numbered().all(|(no, host)| host.vm == Vm::Absent || self.lease == Some(no))
    }

    /// The engine serves its users, on some host.
    pub fn engine_serves(&self) -> bool {
        self.hosts.iter().any(Host::engine_serves)
    }
}

impl<const N: usize> Model for Cluster<N> {
    type State = World<N>;
    type Action = Step;

    /// All hosts have just come up; there is no VM, and nobody has written anything yet.
    fn init_states(&self) -> Vec<World<N>> {
        let host = Host::booted(self.cores.fresh());
        vec![World {
            hosts: std::array::from_fn(|_| host.clone()),
            lease: None,
            global_maintenance: false,
            faults_left: self.setup.faults,
            alarms: Alarms::default(),
        }]
    }

    fn actions(&self, world: &World<N>, steps: &mut Vec<Step>) {
        steps.extend(world.steps());
    }

    fn next_state(&self, world: &World<N>, step: Step) -> Option<World<N>> {
        Some(self.after(world, step, &mut Story::untold()))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(property::ONE_WRITER, |_, world: &World<N>| world.one_writer()),
            Property::always(property::VM_HAS_LEASE, |_, world: &World<N>| world.every_vm_has_the_lease()),
            Property::always(property::GLOBAL_MAINTENANCE, |_, world: &World<N>| {
                !world.alarms.acted_in_global_maintenance
            }),
            Property::always(property::FOOTING, |_, world: &World<N>| !world.alarms.started_without_footing),
            Property::always(property::STEPS_END, |_, world: &World<N>| !world.alarms.endless_step),
            Property::always(property::RECOVERY, |cluster: &Self, world: &World<N>| cluster.recovers(world)),
            Property::sometimes(property::SERVES, |_, world: &World<N>| world.engine_serves()),
        ];
        if self.setup.faults > 0 {
            properties.extend([
                Property::sometimes(property::FAILS_OVER, |_, world: &World<N>| {
                    world.hosts[1].engine_serves() && world.hosts[0].power == Power::Off
                }),
                Property::sometimes(property::REFUSED, |_, world: &World<N>| {
                    world.hosts.iter().any(|host| host.exit == Exit::LeaseRefused)
                }),
            ]);
        }
        properties.retain(|property| self.setup.only.is_none_or(|only| only == property.name));
        properties
    }
}
