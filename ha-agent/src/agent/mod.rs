//! The loop of the agent: prepare, look, decide, act, publish, wait.
//!
//! It owns the decision core and every call to the ports, one at a time; nothing runs beside it but the power switch of a
//! dead host, in the same task, and time is read through the clock port only, so that the simulator can run it as it is. It never ends because of an
//! error: whatever does not answer is asked again, and what is wrong is said in the status.
//!
//! ```text
//!        ┌────────────────────────────────────────────────────────────────────┐
//!        ▼                                                                    │
//!   guard the VM ─▶ prepare ─▶ look ─▶ decide ──act──▶ VM ──result─▶ decide ─▶ publish ─▶ wait
//!   (lease lost:    (monitors,  │ failed: no step; say why, wait ─────────────────────▶ 10 s, or woken,
//!    end it)        host id)                                                           or at once
//! ```

mod act;
mod fence;
mod look;
mod moving;
mod prepare;
mod publish;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use clock::Monotonic;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::core::{Core, Decision, Input, Reason, Secs, State, Then, Wait, decide};
use crate::fencer::{Worker, desk};
use crate::ports::{BrokerError, Ports};
use crate::settings::{AgentConfig, Field};

/// Longest time that one ordinary request to the broker may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How often the service manager hears from a long but bounded action.
const ATTEND_EVERY: Duration = Duration::from_secs(5);
/// Shortest pause between two loops, when a loop takes longer than the interval.
const SHORTEST_REST: Duration = Duration::from_millis(100);
/// An event within the second of the last look is looked at so long after that look, once in that second. A further one
/// waits for the next second, which is then less than a second away: events follow at once, and a storm of them costs two
/// looks a second.
const EARLY_LOOK: Duration = Duration::from_millis(200);
/// Longest time that the agent lets a started action go on after it was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// The agent of one host.
pub struct Agent {
    ports: Ports,
    config: AgentConfig,
    zone: TimeZone,
    core: Core,
    /// Ids of the monitors that the broker runs for us.
    monitors: BTreeMap<Field, String>,
    /// The storage domain's lockspace is joined.
    domain_joined: bool,
    /// Since when nobody can say whether the running VM's lease is held.
    lease_unknown_since: Option<Monotonic>,
    /// The host id lease, as far as it is known.
    host_lease: Option<bool>,
    /// The broker's wake counter; `None` when it has none or has not said it yet.
    wake: Option<u64>,
    /// When the last look was complete.
    looked: Monotonic,
    /// The second in which a look came early, because of an event.
    early: Option<Secs>,
    /// The next step looks afresh, although the last look is of this very second.
    look_afresh: bool,
    /// When the own block was last written and read back; when the agent started, before.
    last_acknowledged: Secs,
    /// When vm.conf was last compared with shared storage.
    vm_conf_refreshed: Option<Secs>,
    vm_memory: u64,
    global_maintenance: bool,
    /// What to show to operators beside the decision's reasons, from the running loop.
    warnings: Vec<String>,
    /// The warnings of the loop before, so that each is logged once.
    warned: Vec<String>,
    /// Reasons of the last step, and whether they were logged.
    reasons: Vec<Reason>,
    logged: Option<(State, String)>,
    /// Automatic fencing.
    fence: fence::Fence,
    /// Carries its orders out, beside the loop.
    worker: Option<Worker>,
    stop: watch::Receiver<bool>,
}

/// How a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loop {
    /// A step was taken; the next one follows as said, but after `again_in` seconds at the latest.
    Step { wait: Wait, again_in: Option<u64> },
    /// The world could not be looked at.
    Blind,
    /// The agent was told to stop.
    Stop,
}

impl Agent {
    /// An agent that has done nothing yet. It runs until `stop` becomes true (or its sender is gone).
    pub fn new(ports: Ports, config: AgentConfig, zone: TimeZone, stop: watch::Receiver<bool>) -> Self {
        let now = ports.clock.monotonic();
        let (desk, worker) = desk();
        Self {
            ports,
            config,
            zone,
            core: Core::default(),
            monitors: BTreeMap::new(),
            domain_joined: false,
            lease_unknown_since: None,
            host_lease: None,
            wake: None,
            looked: now,
            early: None,
            look_afresh: false,
            last_acknowledged: Secs::from(now),
            vm_conf_refreshed: None,
            vm_memory: 0,
            global_maintenance: false,
            warnings: Vec::new(),
            warned: Vec::new(),
            reasons: vec![Reason::AgentStarted],
            logged: None,
            fence: fence::Fence::new(desk),
            worker: Some(worker),
            stop,
        }
    }

    /// Runs until told to stop, then ends cleanly. Never ends for another reason.
    pub async fn run(mut self) {
        info!("agent of host {} ({}) started", self.config.settings.host_id, self.config.hostname);
        self.ports.service.ready();
        if let Some(worker) = self.worker.take() {
            let fencer = self.ports.fencer.clone();
            tokio::select! {
                biased;
                () = self.loops() => {}
                () = worker.work(fencer) => {}
            }
        }
        self.end().await;
    }

    /// Loop after loop, until told to stop.
    async fn loops(&mut self) {
        let mut blind: u32 = 0;
        loop {
            let began = self.ports.clock.monotonic();
            let ended = self.one_loop().await;
            self.ports.service.alive();
            match ended {
                Loop::Stop => break,
                Loop::Step { wait: Wait::No, .. } => blind = 0,
                Loop::Step { wait: Wait::Delay, again_in } => {
                    blind = 0;
                    let spent = self.ports.clock.monotonic().saturating_since(began);
                    let usual = self.config.interval.saturating_sub(spent);
                    // Counted from now, not from the look, so that the core's whole seconds have surely passed.
                    let wanted = again_in.into_iter().chain(self.fencing_again_in()).min();
                    let wanted = wanted.map_or(usual, Duration::from_secs);
                    let left = usual.min(wanted).max(SHORTEST_REST);
                    if !self.rest_unless_fenced(left).await {
                        break;
                    }
                }
                Loop::Blind => {
                    // Soon again at first, so that the boot's order does not matter; then as seldom as ever.
                    let pause = Duration::from_secs(1 << blind.min(10)).min(self.config.interval);
                    blind = blind.saturating_add(1);
                    self.sleep(pause).await;
                }
            }
        }
    }

    async fn one_loop(&mut self) -> Loop {
        self.warnings.clear();
        let vm = self.guard_vm().await;
        if self.must_stop() {
            return Loop::Stop;
        }
        let prepared = self.prepare(vm.now()).await;
        if self.must_stop() {
            return Loop::Stop;
        }
        self.ports.service.alive();
        let now = Secs::from(self.ports.clock.monotonic());
        let looks = std::mem::take(&mut self.look_afresh) || self.core.needs_look(now);
        let input = match prepared {
            Ok(status) if looks => self.look(status, &vm).await.map(|look| Input::Look(Box::new(look))),
            Ok(_) => Ok(Input::SameLook),
            Err(error) => Err(error),
        };
        self.ports.service.alive();
        if looks {
            self.looked = self.ports.clock.monotonic();
        }
        let ended = match input {
            Ok(input) => match self.step(input).await {
                Some(decision) => {
                    self.fence_the_dead().await;
                    self.publish(&decision).await;
                    match decision.then {
                        Then::Next(wait) => Loop::Step { wait, again_in: decision.again_in },
                        // Not reached: a step runs until it is over.
                        Then::Act(_) => Loop::Step { wait: Wait::Delay, again_in: None },
                    }
                }
                None => Loop::Stop,
            },
            Err(_) if self.must_stop() => Loop::Stop,
            Err(error) => {
                let text = format!("no decision now, the engine VM is left as it is: {error}");
                self.ports.service.status(&text);
                self.warnings.push(text);
                self.report().await;
                Loop::Blind
            }
        };
        self.log_warnings();
        ended
    }

    /// Takes one step, with what it asks to be done. `None` when the agent was told to stop instead of acting.
    async fn step(&mut self, input: Input) -> Option<Decision> {
        let from = self.core.state;
        let mut reasons = Vec::new();
        let mut input = input;
        loop {
            let (core, mut decision) = decide(std::mem::take(&mut self.core), input, &self.config.settings);
            self.core = core;
            reasons.append(&mut decision.reasons);
            let Then::Act(action) = decision.then else {
                decision.from = from;
                decision.reasons.clone_from(&reasons);
                self.reasons = reasons;
                return Some(decision);
            };
            if self.must_stop() {
                return None;
            }
            input = Input::Done(self.act(action, &reasons).await);
        }
    }

    /// As [`Self::rest_unless_lease_gives_way`], but ends also when a host was powered off, or could not be.
    async fn rest_unless_fenced(&mut self, left: Duration) -> bool {
        let desk = self.fence.desk.clone();
        let rested = tokio::select! {
            biased;
            rested = self.rest_unless_lease_gives_way(left) => Ok(rested),
            result = desk.result() => Err(result),
        };
        match rested {
            Ok(rested) => rested,
            Err((host, ended)) => {
                self.fencing_ended(&host, &ended).await;
                self.until_next_look().await;
                !self.must_stop()
            }
        }
    }

    /// As [`Self::rest`], but ends also when the lease that the last step waits for may be had.
    async fn rest_unless_lease_gives_way(&mut self, left: Duration) -> bool {
        if !self.waits_for_lease() {
            return self.rest(left).await;
        }
        let vm = self.ports.vm.clone();
        let rested = tokio::select! {
            biased;
            rested = self.rest(left) => Some(rested),
            () = vm.lease_gives_way() => None,
        };
        if let Some(rested) = rested {
            return rested;
        }
        self.until_next_look().await;
        !self.must_stop()
    }

    /// Waits until the next loop is due: `left` has passed, or the broker woke us. False when told to stop.
    async fn rest(&mut self, left: Duration) -> bool {
        let until = tokio::time::Instant::now() + left;
        while !self.must_stop() {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return true;
            }
            let Some(known) = self.wake else {
                self.sleep(left).await;
                continue;
            };
            let broker = self.ports.broker.clone();
            let woken = self.unless_stopped(tokio::time::timeout(left, broker.wake(known, left))).await;
            match woken {
                Some(Ok(Ok(Some(wake)))) if wake.counter == known => {
                    // The broker waits for a shorter time than asked; never ask in a hot loop.
                    self.sleep(Duration::from_millis(50).min(left)).await;
                }
                Some(Ok(Ok(Some(wake)))) => {
                    self.wake = Some(wake.counter);
                    self.until_next_look().await;
                    return !self.must_stop();
                }
                Some(Err(_)) | None => {}
                // It does not know the call, or it is gone: the timer alone, and the next loop asks again.
                Some(Ok(Ok(None) | Err(_))) => self.wake = None,
            }
        }
        false
    }

    /// Waits until the world may be looked at again after an event: less than a second. Without events the core looks
    /// afresh once a second at most.
    async fn until_next_look(&mut self) {
        let now = self.ports.clock.monotonic();
        let second = Secs::from(now);
        if self.core.needs_look(second) {
            return;
        }
        if self.early == Some(second) {
            let next = Duration::from_secs(now.as_secs() + 1);
            self.sleep(next.saturating_sub(now.since_start())).await;
            return;
        }
        self.sleep(self.looked.plus(EARLY_LOOK).saturating_since(now)).await;
        let second = Secs::from(self.ports.clock.monotonic());
        if !self.core.needs_look(second) {
            self.early = Some(second);
            self.look_afresh = true;
        }
    }

    async fn sleep(&mut self, time: Duration) {
        self.unless_stopped(tokio::time::sleep(time)).await;
    }

    fn must_stop(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// `future`, unless the agent is told to stop first.
    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            result = future => Some(result),
            _ = stop.wait_for(|stop| *stop) => None,
        }
    }

    /// A request to the broker with a deadline; ends early when the agent is told to stop.
    async fn ask<T>(
        &self,
        request: &str,
        deadline: Duration,
        future: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        match self.unless_stopped(tokio::time::timeout(deadline, future)).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(BrokerError::timeout(request, deadline)),
            None => Err(BrokerError { refused: false, detail: "the agent is stopping".to_owned() }),
        }
    }

    /// Logs each warning when it appears, and when it is gone. One whose figures alone change is no new one.
    fn log_warnings(&mut self) {
        let known = |list: &[String], warning: &str| list.iter().any(|other| gist(other).eq(gist(warning)));
        for warning in self.warnings.iter().filter(|warning| !known(&self.warned, warning)) {
            warn!("{warning}");
        }
        for gone in self.warned.iter().filter(|warning| !known(&self.warnings, warning)) {
            info!("no longer: {gone}");
        }
        self.warned.clone_from(&self.warnings);
    }
}

/// A text without its figures.
fn gist(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_ascii_digit())
}

#[cfg(test)]
#[path = "../agent_tests/mod.rs"]
mod tests;
