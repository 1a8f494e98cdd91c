//! One run: a script on a world, from a seed, to a report.

use std::sync::Arc;
use std::time::Duration;

use engine_vm::VmActivity;
use metadata_format::{Health, HostBlock, HostId, VmState};

use crate::command::{Command, Expectation, Said, Step, Who};
use crate::invariant::{Promise, Violation};
use crate::storage::Disk;
use crate::track::Track;
use crate::world::{Event, Kind, Shape, World};

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The cluster.
    pub shape: Shape,
    /// What happens, in the order of time.
    pub script: Vec<Step>,
    /// When the run ends.
    pub end: Duration,
    /// At the end nothing is broken any more, so that the promises about recovery count.
    pub ends_well: bool,
    /// Promises that this run is meant to break.
    pub breaks: Vec<Promise>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Everything that happened.
    pub log: Vec<Event>,
    /// Broken promises, without those that the plan means to break.
    pub violations: Vec<Violation>,
    /// Expectations that were not met, in words.
    pub unmet: Vec<String>,
    /// Promises that the plan means to break and that held.
    pub held: Vec<Promise>,
    /// Simulated time.
    pub lasted: Duration,
    /// When each expectation was met, in the order of the script; `None` for one that was not.
    pub met: Vec<Option<Duration>>,
    /// How the hosts were, over time.
    pub track: Track,
    /// Starts of the VM.
    pub starts: u64,
    /// Commands that were carried out.
    pub commands: u64,
}

impl Report {
    /// Whether everything was as it must be.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.unmet.is_empty() && self.held.is_empty()
    }
}

/// A plan that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The hosts cannot be configured so.
    #[error("the cluster cannot be set up: {0}")]
    Shape(String),
    /// The system gives no runtime.
    #[error("no runtime: {0}")]
    Runtime(String),
}

/// Pause between two looks for a condition that no event tells of.
const LOOK: Duration = Duration::from_millis(500);
/// The same, for what is on storage: it is to be there within a second.
const BLOCK_LOOK: Duration = Duration::from_millis(20);
/// How long after the last fault everybody must see everybody, beside the alive time-out.
const SETTLE: Duration = Duration::from_mins(5);

/// Runs a plan to its end, or to the first broken promise.
///
/// # Errors
/// When the plan cannot be run at all.
pub fn run(plan: &Plan) -> Result<Report, PlanError> {
    run_until(plan, async |_| std::future::pending().await)
}

/// Runs a plan until `watcher` has seen enough, at most as far as [`run`] does. Of two that are due at one moment the
/// script acts first, so that the watcher sees what it did.
///
/// # Errors
/// When the plan cannot be run at all.
pub fn run_until(plan: &Plan, watcher: impl AsyncFnOnce(&World)) -> Result<Report, PlanError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| PlanError::Runtime(error.to_string()))?;
    runtime.block_on(async {
        let world = World::new(plan.shape.clone());
        world.check().map_err(PlanError::Shape)?;
        let mut broken = world.broken.subscribe();
        let mut player =
            Player { world: Arc::clone(&world), plan, marked: 0, unmet: Vec::new(), met: Vec::new() };
        tokio::select! {
            biased;
            () = async {
                loop {
                    let tolerated = |violation: &Violation| plan.breaks.contains(&violation.promise);
                    if !world.state().violations.iter().all(tolerated) || broken.changed().await.is_err() {
                        return;
                    }
                }
            } => {}
            () = player.play() => {}
            () = watcher(&world) => {}
        }
        let (unmet, met) = (player.unmet, player.met);
        let lasted = world.now();
        let mut state = world.state();
        state.look(lasted);
        let (log, track) = (std::mem::take(&mut state.log), std::mem::take(&mut state.track));
        let (meant, violations): (Vec<_>, Vec<_>) = std::mem::take(&mut state.violations)
            .into_iter()
            .partition(|violation| plan.breaks.contains(&violation.promise));
        let held = plan.breaks.iter().filter(|p| !meant.iter().any(|v| v.promise == **p)).copied().collect();
        let (starts, commands) = (state.instances, state.book.all_commands);
        drop(state);
        world.dismantle();
        Ok(Report { log, violations, unmet, held, lasted, met, track, starts, commands })
    })
}

struct Player<'a> {
    world: Arc<World>,
    plan: &'a Plan,
    /// The VM that ran when the last expectation was met.
    marked: u64,
    unmet: Vec<String>,
    met: Vec<Option<Duration>>,
}

impl Player<'_> {
    async fn play(&mut self) {
        // What ends by itself becomes a step of its own.
        let mut steps: Vec<(Duration, Command, Option<Duration>)> = Vec::new();
        for step in &self.plan.script {
            let is_expectation = matches!(step.command, Command::Expect(_));
            if let Some(lasts) = step.lasts.filter(|_| !is_expectation)
                && let Some(undone) = step.command.undone()
            {
                steps.push((step.at + lasts, undone, None));
            }
            steps.push((step.at, step.command.clone(), step.lasts.filter(|_| is_expectation)));
        }
        steps.sort_by_key(|(at, ..)| *at);
        // A fault on "the VM's host" ends on the host that it began on.
        let mut bound: Vec<(Command, Vec<u16>)> = Vec::new();
        for (at, command, patience) in steps {
            tokio::time::sleep_until(self.world.instant(at)).await;
            match &command {
                Command::Expect(expectation) => self.expect(expectation, patience).await,
                _ => self.execute(command, &mut bound),
            }
        }
        tokio::time::sleep_until(self.world.instant(self.plan.end)).await;
        if self.plan.ends_well {
            self.must_recover().await;
        }
    }

    fn execute(&self, command: Command, bound: &mut Vec<(Command, Vec<u16>)>) {
        let mut command = command;
        let moving = matches!(command.clone().who_mut(), Some(Who::VmHost | Who::Others));
        if !moving {
            self.world.execute(&command);
            return;
        }
        let ids = if let Some(at) = bound.iter().position(|(undo, _)| *undo == command) {
            bound.remove(at).1
        } else {
            let ids = match command.who_mut() {
                Some(who) => self.world.which(*who).iter().map(|host| host.id.get()).collect::<Vec<_>>(),
                None => Vec::new(),
            };
            if let Some(undo) = command.undone() {
                bound.push((undo, ids.clone()));
            }
            ids
        };
        for id in ids {
            if let Some(who) = command.who_mut() {
                *who = Who::Id(id);
            }
            self.world.execute(&command);
        }
    }

    async fn expect(&mut self, expectation: &Expectation, patience: Option<Duration>) {
        let until = self.world.now() + patience.unwrap_or_default();
        let text = match patience {
            Some(time) => format!("expect {expectation} within {}", crate::command::Time(time)),
            None => format!("expect {expectation}"),
        };
        loop {
            if self.holds(expectation).await {
                self.marked = self.world.state().instances;
                self.world.log(None, Kind::Command, format!("{text}: yes"));
                self.met.push(Some(self.world.now()));
                return;
            }
            if self.world.now() >= until {
                self.world.log(None, Kind::Command, format!("{text}: NO"));
                self.unmet.push(format!("at {}: {text}", crate::command::Time(self.world.now())));
                self.met.push(None);
                return;
            }
            let is_of_block = matches!(expectation, Expectation::Block(..));
            let look = if is_of_block { BLOCK_LOOK } else { LOOK };
            let look = look.min(until.saturating_sub(self.world.now()));
            let _ = tokio::time::timeout(look, self.world.vm_moved.notified()).await;
        }
    }

    async fn holds(&self, expectation: &Expectation) -> bool {
        let world = &self.world;
        let now = world.now();
        match expectation {
            Expectation::Healthy => world.state().engine_is_healthy(now),
            Expectation::NoVm => world.state().vm_host().is_none(),
            Expectation::VmOn(who) => {
                let hosts = world.which(*who);
                let state = world.state();
                !hosts.is_empty() && hosts.iter().all(|host| state.host(host.id).vm.is_some())
            }
            Expectation::SameVm => {
                world.state().vm_host().is_some() && world.state().instances == self.marked
            }
            Expectation::OtherVm => {
                world.state().vm_host().is_some() && world.state().instances != self.marked
            }
            Expectation::State(who, name) => {
                let hosts = world.which(*who);
                let state = world.state();
                let is_there = |said: &broker_api::status::AgentReport| said.state == *name;
                !hosts.is_empty()
                    && hosts.iter().all(|host| state.host(host.id).said.as_ref().is_some_and(is_there))
            }
            Expectation::Score(who, points) => {
                let hosts = world.which(*who);
                let state = world.state();
                let is_it = |said: &broker_api::status::AgentReport| said.score.0 == *points;
                !hosts.is_empty()
                    && hosts.iter().all(|host| state.host(host.id).said.as_ref().is_some_and(is_it))
            }
            Expectation::Block(who, said) => {
                let hosts = world.which(*who);
                let state = world.state();
                !hosts.is_empty() && hosts.iter().all(|host| said.is_on(&state.disk, host.id))
            }
            Expectation::Off(who) => {
                let hosts = world.which(*who);
                let state = world.state();
                !hosts.is_empty() && hosts.iter().all(|host| !state.host(host.id).powered)
            }
            Expectation::AllSeen => world.unseen().await.is_empty(),
            Expectation::Unseen(who) => {
                let hosts: Vec<u16> = world.which(*who).iter().map(|host| host.id.get()).collect();
                !hosts.is_empty() && world.nobody_sees(&hosts).await
            }
        }
    }

    /// After the last fault: the engine is back in time, and stays; and everybody sees everybody.
    async fn must_recover(&mut self) {
        let bound = self.plan.shape.recovery_bound();
        let from = self.world.now();
        while !self.world.state().engine_is_healthy(self.world.now()) {
            if self.world.now() >= from + bound {
                let detail = format!("no healthy engine {} s after the last fault", bound.as_secs());
                self.world.broke(Promise::BackInTime, detail);
                return;
            }
            let _ = tokio::time::timeout(LOOK, self.world.vm_moved.notified()).await;
        }
        let back = self.world.now();
        tokio::time::sleep(SETTLE).await;
        let unseen = self.world.unseen().await;
        if !unseen.is_empty() {
            let detail = format!("{} s after the engine came back: {}", SETTLE.as_secs(), unseen.join("; "));
            self.world.broke(Promise::ViewRecovers, detail);
        }
        if !self.world.state().engine_is_healthy(self.world.now()) {
            let secs = self.world.now().saturating_sub(back).as_secs();
            let detail = format!("the engine came back and is not healthy {secs} s later");
            self.world.broke(Promise::BackInTime, detail);
        }
    }
}

impl Said {
    fn is_on(self, disk: &Disk, id: HostId) -> bool {
        let block = disk.block(id.get()).map(|bytes| HostBlock::parse(id, bytes));
        let Some(Ok(Some(HostBlock { engine_status, .. }))) = block else { return false };
        let is_up = engine_status.vm == VmState::Up;
        match self {
            Self::Good => is_up && engine_status.health == Health::Good,
            Self::Bad => is_up && engine_status.health == Health::Bad,
            Self::Paused => is_up && engine_status.detail == VmActivity::Paused.word(),
            Self::Down => engine_status.vm.is_down(),
        }
    }
}

impl Shape {
    /// So long after the last fault the engine is healthy again at the latest, by the configured timers: the longest
    /// wait of each kind, one after the other.
    pub fn recovery_bound(&self) -> Duration {
        let timers = &self.toml.timers;
        let lease = Duration::from_secs(self.io_timeout() * 8 + self.watchdog());
        // A host may be about to be reset by its watchdog, boot, and join its lockspaces as after a crash.
        let reboot = lease + Duration::from_mins(3) + Duration::from_secs(self.io_timeout() * 4);
        // Plain: a host whose VM died rests, and one whose starts failed is forgiven only after a while.
        let rest = timers.unexpectedly_down.max(timers.retry_clear);
        // A guest that does not power down holds on for so long, and one that was started badly for this long.
        let stop = timers.engine_stop + timers.engine_starting.max(timers.bad_health);
        let look = timers.loop_interval * 6 + timers.host_alive + timers.maybe_away;
        let boot = Duration::from_secs(90);
        reboot + rest + stop + look + boot
    }
}
