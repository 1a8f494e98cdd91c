//! Does the engine come up, and stay up, once faults have ended?
//!
//! Stateright's own `eventually` overlooks cycles, and a livelock is a cycle. So this is decided here, for each
//! state that the checker meets, in the graph of regular steps alone (looks and ticks): from here on no fault
//! happens, and none ends. In this graph every agent that can look looks once in each tick, in any order, so
//! every endless path is a fair one and there is nothing else to assume.
//!
//! A state is *settled* when the engine serves in it and in every state that can follow. A state *recovers* when
//! every path from it reaches a settled state. The graph is finite; a path that never gets there ends in a cycle
//! of unsettled states, and a depth-first search that stops at settled states meets that cycle as an edge back
//! into its own path. No edge back, no livelock: the answer is exact, for all orders of looks.
//!
//! Nothing is asked of clusters that cannot serve ([`World::can_serve`]).

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::checked::Cluster;
use crate::steps::Step;
use crate::story::Story;
use crate::world::{Power, Vm, World};

/// More states than follow from one without faults in any cluster that is checked. Above it something that a core
/// remembers grows without end, and so would the search.
const MOST_STATES: usize = 1_000_000;

/// What is known of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It recovers within so many ticks; 0 when it is settled.
    Recovers(u16),
    /// Some path from it never gets to a settled state.
    Fails,
}

/// The answers so far, by the hash of the state without what regular steps never change or look at.
#[derive(Default)]
pub struct Recovery {
    known: Mutex<HashMap<u64, Known>>,
}

impl Recovery {
    /// The most ticks that a recovery takes, of all known.
    pub fn longest(&self) -> u16 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks = |known: &Known| match known {
            Known::Recovers(ticks) => *ticks,
            Known::Fails => 0,
        };
        known.values().map(ticks).max().unwrap_or(0)
    }
}

/// A state on the search's path.
struct Frame<const N: usize> {
    world: World<N>,
    hash: u64,
    /// Steps not yet taken from it.
    steps: Vec<Step>,
    /// Whether the last one taken was a tick.
    ticked: bool,
    /// The most ticks of those taken.
    ticks: u16,
}

impl<const N: usize> World<N> {
    /// Whether the engine could serve if everybody did the right thing, without another fault and without the end
    /// of one: nobody wants maintenance of the cluster, some host has everything that it takes, and the lease is
    /// not held by a VM that is of no use and whose agent is not there.
    pub fn can_serve(&self) -> bool {
        let fit = self.hosts.iter().any(|host| {
            host.power == Power::On && host.agent.is_some() && host.reaches_storage() && !host.maintenance
        });
        let blocked = self.hosts.iter().any(|host| {
            host.power == Power::On
                && host.agent.is_none()
                && host.reaches_storage()
                && matches!(host.vm, Vm::Sick | Vm::Paused { .. })
        });
        !self.global_maintenance && fit && !blocked
    }

    /// Equal for worlds that differ only in what regular steps neither change nor look at.
    fn recovery_hash(&self) -> u64 {
        let Self { hosts, lease, global_maintenance, faults_left: _, alarms: _ } = self;
        let mut hasher = DefaultHasher::new();
        (hosts, lease, global_maintenance).hash(&mut hasher);
        hasher.finish()
    }
}

impl<const N: usize> Cluster<N> {
    /// Whether the engine comes up for good from here, whatever the order of looks, if nothing else happens.
    pub fn recovers(&self, world: &World<N>) -> bool {
        if !world.can_serve() {
            return true;
        }
        let mut known = self.recovery.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.search(world.clone(), &mut known) != Known::Fails
    }

    /// From a state that does not recover: the steps of a path that comes back to a state on it, and how many of
    /// them lead up to that state.
    pub fn livelock(&self, world: &World<N>) -> (Vec<Step>, usize) {
        let mut known = self.recovery.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = Vec::new();
        let mut met = vec![world.recovery_hash()];
        let mut at = world.clone();
        loop {
            let next = at.regular_steps().into_iter().find_map(|step| {
                let next = self.regular(&at, step);
                (self.search(next.clone(), &mut known) == Known::Fails).then_some((step, next))
            });
            let Some((step, next)) = next else { return (steps, met.len() - 1) };
            steps.push(step);
            let hash = next.recovery_hash();
            if let Some(first) = met.iter().position(|before| *before == hash) {
                return (steps, first);
            }
            met.push(hash);
            at = next;
        }
    }

    fn regular(&self, world: &World<N>, step: Step) -> World<N> {
        self.after(world, step, &mut Story::untold())
    }

    fn search(&self, world: World<N>, known: &mut HashMap<u64, Known>) -> Known {
        let mut path: Vec<Frame<N>> = Vec::new();
        let mut on_path = HashSet::new();
        let mut answer = self.enter(world, known, &mut path, &mut on_path);
        // Each round hands `answer`, that of a state that was left or known already, to the top of the path.
        while let Some(top) = path.last_mut() {
            match answer.take() {
                Some(Known::Fails) => {
                    for frame in &path {
                        known.insert(frame.hash, Known::Fails);
                    }
                    return Known::Fails;
                }
                Some(Known::Recovers(ticks)) => {
                    top.ticks = top.ticks.max(ticks.saturating_add(u16::from(top.ticked)));
                }
                None => {}
            }
            if let Some(step) = top.steps.pop() {
                top.ticked = step == Step::Tick;
                let next = self.regular(&top.world, step);
                answer = self.enter(next, known, &mut path, &mut on_path);
            } else {
                // At least 1, so that 0 says settled.
                let result = Known::Recovers(top.ticks.max(1));
                known.insert(top.hash, result);
                on_path.remove(&top.hash);
                path.pop();
                answer = Some(result);
            }
        }
        answer.unwrap_or(Known::Fails)
    }

    /// Gives the answer for a state, or puts it on the path.
    fn enter(
        &self,
        world: World<N>,
        known: &mut HashMap<u64, Known>,
        path: &mut Vec<Frame<N>>,
        on_path: &mut HashSet<u64>,
    ) -> Option<Known> {
        let hash = world.recovery_hash();
        if let Some(known) = known.get(&hash) {
            return Some(*known);
        }
        if on_path.contains(&hash) {
            return Some(Known::Fails);
        }
        if world.engine_serves() && self.settle(&world, known) {
            return Some(Known::Recovers(0));
        }
        on_path.insert(hash);
        assert!(
            on_path.len() < MOST_STATES,
            "the space of states does not close: something grows without end"
        );
        let steps = world.regular_steps();
        path.push(Frame { world, hash, steps, ticked: false, ticks: 0 });
        None
    }

    /// Whether the engine serves in all states that can follow, and if so remembers them all as settled.
    fn settle(&self, world: &World<N>, known: &mut HashMap<u64, Known>) -> bool {
        let mut met = HashSet::from([world.recovery_hash()]);
        let mut open = vec![world.clone()];
        while let Some(world) = open.pop() {
            for step in world.regular_steps() {
                let next = self.regular(&world, step);
                let hash = next.recovery_hash();
                match known.get(&hash) {
                    Some(Known::Recovers(0)) => continue,
                    Some(Known::Recovers(_) | Known::Fails) => return false,
                    None => {}
                }
                if !next.engine_serves() {
                    return false;
                }
                if met.insert(hash) {
                    open.push(next);
                }
                assert!(
                    met.len() < MOST_STATES,
                    "the space of states does not close: something grows without end"
                );
            }
        }
        known.extend(met.into_iter().map(|hash| (hash, Known::Recovers(0))));
        true
    }
}
