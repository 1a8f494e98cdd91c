//! The shipped decision core, run on demand and remembered.
//!
//! A state of the model names cores by the hash of their contents; the contents are here, once. Each call of
//! [`decide`] and its result is remembered too, so that exploring costs a look-up and not a decision. A core
//! between two steps is brought to one origin of its clocks ([`Core::rebased`]) and is otherwise kept whole: two
//! agents are in the same state of the model only when everything that they remember is the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use engine_vm::{LeaseHolding, VmActivity, VmExit, VmStatus};
use ha_agent::core::rebase::{ClockShift, Horizon};
use ha_agent::core::{
    ActionResult, Core, Decision, Footing, Input, Limits, Local, Migrates, Observation, PausedLease, Policy,
    Profile, RemoteBlock, RemoteHost, Secs, Settings, SickEngine, Then, Weights, decide,
};
use ha_broker::monitors::engine_health::{Seen, Verdict, classify, running};
use metadata_format::{EngineStatus, HostId, Score};

use crate::world::{EngineFacts, Exit, HostNo, SINCE_LOOK_MAX, Sight, UNWRITTEN_MAX, Vm};

/// Seconds of one tick: the loop's interval.
pub const TICK: u64 = 10;
/// What every agent's clock shows at its last look. Far enough from 0 that no age reaches below.
const ORIGIN: u64 = 1_000_000;
/// Any real date: the wall clock is ahead of the monotonic one by this.
const WALL_OFFSET: i64 = 1_700_000_000;

/// Limits with the relations of the defaults and small figures: 2 to 5 ticks each, so that the space closes.
pub const LIMITS: Limits = Limits {
    alive: 2 * TICK,
    history: 5 * TICK,
    retry_window: 3 * TICK,
    retry_max: 3,
    starting: 3 * TICK,
    bad_health: 2 * TICK,
    stop: 2 * TICK,
    away: TICK,
    unexpected_down: 4 * TICK,
    hand_over_margin: 800,
    restart_budget: 1,
    restart_window: 4 * TICK,
    restart_pause: 2 * TICK,
    debounce_bad: 2,
    debounce_samples: 3,
    stagger: 5,
    engine_resets: 1,
    engine_reset_window: 5 * TICK,
    sick_engine: SickEngine::ShutdownThenForce,
    migration: 3 * TICK,
    migration_answer: TICK,
    migration_failures: 3 * TICK,
    arrival_grace: 2 * TICK,
};

/// Every span of time that a core compares with, in seconds.
const SPANS: [u64; 10] = [
    LIMITS.alive,
    LIMITS.history,
    LIMITS.retry_window,
    LIMITS.starting,
    LIMITS.bad_health,
    LIMITS.stop,
    LIMITS.unexpected_down,
    LIMITS.restart_window,
    LIMITS.restart_pause,
    LIMITS.engine_reset_window,
];

const _: () = {
    assert!(LIMITS.alive < UNWRITTEN_MAX as u64 * TICK);
    let mut at = 0;
    while at < SPANS.len() {
        assert!(SPANS[at] < SINCE_LOOK_MAX as u64 * TICK);
        at += 1;
    }
};

/// A core, by the hash of its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(u64);

/// All that one look shows, small enough to compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "what a look shows are independent facts")]
pub struct Glance<const N: usize> {
    /// Who looks.
    pub host: HostNo,
    /// Ticks since its last look.
    pub since_look: u8,
    /// Global maintenance.
    pub global_maintenance: bool,
    /// The blocks; its own is not looked at.
    pub blocks: [Sight; N],
    /// Its VM.
    pub engine: EngineFacts,
    /// Its gateway answers.
    pub network: bool,
    /// Local maintenance.
    pub maintenance: bool,
    /// Ticks since its block was written.
    pub unwritten: u8,
    /// The hosts whose leases are live, by the lock manager.
    pub live: Option<[bool; N]>,
    /// Its host id lease is held.
    pub lease_held: bool,
    /// Ticks for which storage has been stuck.
    pub stuck: Option<u8>,
}

/// How an action went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked.
    Done,
    /// The lease forbade it.
    Refused,
    /// It did not work.
    Failed,
}

/// What a core is fed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Feed<const N: usize> {
    /// A fresh look.
    Look(Box<Glance<N>>),
    /// The same look again.
    Same(HostNo),
    /// How its action went.
    Done(HostNo, Outcome),
}

/// What follows from one call of [`decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The core afterwards.
    pub core: CoreId,
    /// What it wants.
    pub then: Then,
}

/// A core at the end of a step, the ticks since its last look before, and the counts of unread writes that it read.
type Settling<const N: usize> = (CoreId, u8, [i8; N]);

/// The cores' contents and what they decided.
pub struct Cores<const N: usize> {
    settings: [Settings; N],
    known: RwLock<HashMap<CoreId, Arc<Core>>>,
    taken: RwLock<HashMap<(CoreId, Feed<N>), Taken>>,
    settled: RwLock<HashMap<Settling<N>, CoreId>>,
}

/// The host id of a host.
fn host_id(host: HostNo) -> HostId {
    HostId::new(u16::from(host.0) + 1).expect("1 to 256 are host ids: they go up to 2000")
}

impl<const N: usize> Cores<N> {
    /// No core is known yet.
    pub fn new(policy: Policy) -> Self {
        let settings = |no: usize| Settings {
            host_id: host_id(HostNo(u8::try_from(no).unwrap_or(u8::MAX))),
            weights: Weights::of(Profile::Ovirt45),
            policy,
            limits: LIMITS,
        };
        Self {
            settings: std::array::from_fn(settings),
            known: RwLock::default(),
            taken: RwLock::default(),
            settled: RwLock::default(),
        }
    }

    /// The core of an agent that has just started.
    pub fn fresh(&self) -> CoreId {
        self.keep(&Core::default())
    }

    /// The core's score.
    pub fn score(&self, id: CoreId) -> u16 {
        u16::try_from(self.get(id).score.total.0).unwrap_or(u16::MAX)
    }

    /// Takes a step, or the rest of one.
    pub fn take(&self, id: CoreId, feed: &Feed<N>) -> Taken {
        let key = (id, feed.clone());
        if let Some(taken) = self.taken.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *taken;
        }
        let (core, decision) = self.decide(id, feed);
        let taken = Taken { core: self.keep(&core), then: decision.then };
        self.taken.write().unwrap_or_else(PoisonError::into_inner).insert(key, taken);
        taken
    }

    /// As [`Cores::take`], and gives the whole decision.
    pub fn decide(&self, id: CoreId, feed: &Feed<N>) -> (Core, Decision) {
        let (host, input) = match feed {
            Feed::Look(glance) => (glance.host, Input::Look(Box::new(observation(glance)))),
            Feed::Same(host) => (*host, Input::SameLook),
            Feed::Done(host, outcome) => {
                let detail = || "in the model".to_owned();
                let result = match outcome {
                    Outcome::Done => ActionResult::Done,
                    Outcome::Refused => ActionResult::Refused { detail: detail() },
                    Outcome::Failed => ActionResult::Failed { detail: detail() },
                };
                (*host, Input::Done(result))
            }
        };
        decide((*self.get(id)).clone(), input, &self.settings[host.at()])
    }

    /// Brings a core, after the step that began with `glance`, to the origin of its clocks.
    pub fn settle(&self, id: CoreId, since_look: u8, read: [i8; N]) -> CoreId {
        let key = (id, since_look, read);
        if let Some(settled) = self.settled.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *settled;
        }
        let remote = HostNo::all::<N>().zip(read).map(|(no, read)| (host_id(no), i64::from(read))).collect();
        let horizon = Some(Horizon {
            instant: Secs(ORIGIN - u64::from(SINCE_LOOK_MAX) * TICK),
            // A stale look at a block that was just read shows -1; nothing older is ever shown again.
            stamp: -2,
            samples: LIMITS.debounce_bad,
        });
        let shift = ClockShift { own: u64::from(since_look) * TICK, remote, horizon };
        let settled = self.keep(&(*self.get(id)).clone().rebased(&shift));
        self.settled.write().unwrap_or_else(PoisonError::into_inner).insert(key, settled);
        settled
    }

    /// Number of different cores that were met, within steps and between them.
    pub fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True before the first.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, id: CoreId) -> Arc<Core> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.get(&id).expect("ids are only made by `keep`, which remembers the core"))
    }

    /// Remembers a core under the hash of its text, which shows every field of it.
    ///
    /// # Panics
    /// When two different cores have the same hash: the checker would take them for one.
    fn keep(&self, core: &Core) -> CoreId {
        let mut hasher = DefaultHasher::new();
        format!("{core:?}").hash(&mut hasher);
        let id = CoreId(hasher.finish());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let kept = known.entry(id).or_insert_with(|| Arc::new(core.clone()));
        assert!(**kept == *core, "two cores with one hash");
        id
    }
}

/// The look, in the form in which the agent collects it.
fn observation<const N: usize>(glance: &Glance<N>) -> Observation {
    let now = Secs(ORIGIN + u64::from(glance.since_look) * TICK);
    let others = HostNo::all::<N>().zip(&glance.blocks).filter(|(no, _)| *no != glance.host);
    let hosts = others.filter_map(|(no, sight)| {
        let block = sight.block?;
        let block = RemoteBlock {
            host_ts: i64::from(sight.unread),
            score: Score(u32::from(block.score)),
            engine: Some(engine_status(block.engine)),
            hostname: format!("h{}", no.0 + 1),
            migration_to: None,
            ready: None,
        };
        Some(RemoteHost { id: host_id(no), block: Some(block) })
    });
    Observation {
        started: now,
        finished: now,
        wall_offset: WALL_OFFSET,
        global_maintenance: glance.global_maintenance,
        hosts: hosts.collect(),
        local: Local {
            network: Some(if glance.network { 1.0 } else { 0.0 }),
            bridge: Some(true),
            mem_free: Some(8000.0),
            cpu_load: Some(0.0),
            mem_load: Some(0.0),
            engine: Some(engine_status(glance.engine)),
            maintenance: glance.maintenance,
            min_memory: 4000,
            conf_up_to_date: true,
            io_error_pause: matches!(glance.engine.vm, Vm::Paused { .. }).then_some(if glance.lease_held {
                PausedLease::Held
            } else {
                PausedLease::Lost
            }),
            // Its hypervisors cannot migrate: what a migration passes through is the simulator's to check, and a VM
            // in two places at different stages would not leave a space that closes.
            migrates: Migrates::default(),
            ..Local::default()
        },
        lock_manager_live: glance.live.map(|live| {
            HostNo::all::<N>().zip(live).filter(|(_, live)| *live).map(|(no, _)| host_id(no)).collect()
        }),
        footing: Footing {
            last_acknowledged: Some(Secs(now.0 - u64::from(glance.unwritten) * TICK)),
            host_lease: Some(glance.lease_held),
            storage_stuck: glance.stuck.map(|ticks| u64::from(ticks) * TICK),
            lease_owner: None,
        },
    }
}

/// What the shipped engine-health monitor makes of the VM.
pub fn engine_status(facts: EngineFacts) -> EngineStatus {
    let activity = match facts.vm {
        Vm::Absent => VmActivity::Down,
        Vm::Booting => VmActivity::PoweringUp,
        Vm::Healthy | Vm::Sick => VmActivity::Up,
        Vm::PoweringDown => VmActivity::PoweringDown,
        Vm::Paused { .. } => VmActivity::Paused,
    };
    let detail = String::new;
    let exit = match facts.exit {
        Exit::NoTrace => None,
        Exit::Orderly => Some(VmExit::Orderly { detail: detail() }),
        Exit::Crashed => Some(VmExit::Crashed { detail: detail() }),
        Exit::LeaseRefused => Some(VmExit::LeaseRefused { detail: detail() }),
        Exit::StartFailed => Some(VmExit::StartFailed { detail: detail() }),
    };
    let lease = if facts.vm == Vm::Absent { LeaseHolding::NoVm } else { LeaseHolding::Held };
    let status = VmStatus { activity, exit, lease, pid: None };
    match classify(facts.monitored, Seen::Status(&status)) {
        Verdict::Final(status) => status,
        Verdict::AskPage(activity) => running(activity, facts.vm == Vm::Healthy),
    }
}
