//! How long the engine is away after a fault: the same faults under the plain rules and under the better ones, over
//! many seeds.
//!
//! ```text
//! boot ── engine healthy ──┬─ fault ─────────── over ──┬── healthy for 120 s: the run ends
//!                          │◀────── outage: sum of all │   time without a healthy engine ──▶
//! ```
//!
//! A needless stop of a healthy engine counts like any other outage. A seed draws when the hosts boot, how fast their
//! clocks are, how slow storage is, the phase of the fault against all timers, and how long the guest boots; the two
//! sets of rules meet the same draw. [`fault`] has the faults, [`figures`] the table, [`plot`] the drawing.

pub mod fault;
pub mod figures;
pub mod plot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ha_config::AgentConf;
use ha_config::ha_toml::{RecoveryProfile, ScoreProfile};
use ha_config::{ConfigError, HaToml, Paths};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::command::{Command, Step, StorageFault, Who};
use crate::invariant::Promise;
use crate::run::{Plan, PlanError, Report, run_until};
use crate::scenario::plain_policy;
use crate::world::{Shape, World};
pub use fault::Fault;

/// When the fault comes at the earliest: by then the engine is healthy.
const READY: Duration = Duration::from_secs(140);
/// The fault comes at any moment within so long after that: a multiple of the loops, renewals and checks.
const PHASES: Duration = Duration::from_mins(1);
/// A host gets its power within so long.
const BOOTS: Duration = Duration::from_secs(20);
/// Fastest and slowest boot of the guest, from the VM's start to an engine that answers.
const GUEST_BOOT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(90));
/// The same for its first boot, which nobody measures.
const FIRST_BOOT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));
/// A run ends once the fault is over and the engine has been healthy for so long.
const SETTLED: Duration = Duration::from_mins(2);
/// Or when the fault has been over for so long.
pub const PATIENCE: Duration = Duration::from_mins(15);
/// Pause between two looks at the engine. The VM's events and its boot are seen at once, and so is all that the
/// script does a multiple of this after the fault.
const LOOK: Duration = Duration::from_millis(500);

/// Which rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// As the existing release: all policy switches off.
    Plain,
    /// As shipped: all policy switches on.
    Better,
}

impl Rules {
    /// The hosts' ha.toml.
    fn toml(self, score: ScoreProfile, profile: RecoveryProfile) -> Result<HaToml, ConfigError> {
        let lease = format!("lease.profile = \"{profile}\"\n");
        let mut toml = match self {
            Self::Plain => HaToml::layered(&Paths::default(), &[&plain_policy(), &lease])?,
            Self::Better => HaToml::parse(&Paths::default(), &lease)?,
        };
        toml.score.profile = score;
        Ok(toml)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a healthy engine that stayed.
    Recovered,
    /// Without one: the time that was measured is too short by an unknown amount.
    Down,
    /// The engine was not healthy when the fault was due; nothing was measured.
    NotReady,
    /// A promise was broken, which ends a run.
    Broke(Promise),
}

/// What came of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Time without a healthy engine from the fault on.
    pub outage: Duration,
    /// How it ended.
    pub ending: Ending,
    /// Simulated time.
    pub lasted: Duration,
}

/// A measurement that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The hosts' settings are refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A run cannot begin.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a seed draws.
struct Draw {
    script: Vec<Step>,
    /// When the fault comes.
    fault_at: Duration,
    /// When it is over.
    over_at: Duration,
}

fn millis(rng: &mut impl Rng, most: Duration) -> Duration {
    Duration::from_millis(rng.random_range(0..=u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
}

fn draw(fault: Fault, seed: u64) -> Draw {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let at_once = |command| Step { at: Duration::ZERO, command, lasts: None };
    let worst = Duration::from_millis(rng.random_range(2..=200));
    let mut script = vec![
        at_once(Command::GuestBootsIn(FIRST_BOOT.0, FIRST_BOOT.1)),
        at_once(Command::Storage(Who::All, StorageFault::Slow { worst })),
    ];
    for id in 1..=fault.hosts() {
        script.push(at_once(Command::ClockRate(Who::Id(id), rng.random_range(-100..=100))));
        let at = millis(&mut rng, BOOTS);
        script.push(Step { at, command: Command::Boot(Who::Id(id)), lasts: None });
    }
    let fault_at = READY + millis(&mut rng, PHASES);
    let boots = Command::GuestBootsIn(GUEST_BOOT.0, GUEST_BOOT.1);
    script.push(Step { at: READY, command: boots, lasts: None });
    let steps = fault.steps(&mut rng);
    let lasts = steps.iter().map(|step| step.at + step.lasts.unwrap_or_default()).max().unwrap_or_default();
    script.extend(steps.into_iter().map(|step| Step { at: fault_at + step.at, ..step }));
    Draw { script, fault_at, over_at: fault_at + lasts.max(fault.shows_within()) }
}

/// Runs one fault once.
///
/// # Errors
/// When it cannot be run.
pub fn measure(fault: Fault, rules: Rules, seed: u64) -> Result<(Outcome, Report), RecoveryError> {
    measure_with(RecoveryProfile::default(), fault, rules, seed)
}

/// The same with the leases' times of a recovery-time profile.
fn measure_with(
    profile: RecoveryProfile,
    fault: Fault,
    rules: Rules,
    seed: u64,
) -> Result<(Outcome, Report), RecoveryError> {
    let Draw { script, fault_at, over_at } = draw(fault, seed);
    let plan = Plan {
        shape: Shape {
            hosts: fault.hosts(),
            toml: rules.toml(fault.profile(), profile)?,
            agent: AgentConf::default(),
            has_watchdog: true,
            stalled_vm_cannot_die: true,
            seed,
        },
        script,
        // The watch ends before.
        end: over_at + PATIENCE * 2,
        ends_well: false,
        breaks: Vec::new(),
    };
    let mut watch = Watch { outage: Duration::ZERO, ending: Ending::NotReady };
    let report = run_until(&plan, async |world| watch.look_on(world, fault_at, over_at).await)?;
    let ending = report.violations.first().map_or(watch.ending, |broken| Ending::Broke(broken.promise));
    Ok((Outcome { outage: watch.outage, ending, lasted: report.lasted }, report))
}

struct Watch {
    outage: Duration,
    ending: Ending,
}

impl Watch {
    async fn look_on(&mut self, world: &World, fault_at: Duration, over_at: Duration) {
        let healthy = || world.state().engine_is_healthy(world.now());
        tokio::time::sleep_until(world.instant(fault_at.saturating_sub(Duration::from_millis(1)))).await;
        if !healthy() {
            return;
        }
        self.ending = Ending::Down;
        tokio::time::sleep_until(world.instant(fault_at)).await;
        let mut was_healthy = healthy();
        let (mut seen, mut next, mut healthy_since) = (fault_at, fault_at + LOOK, fault_at);
        loop {
            let wakes = boot_ends(world).map_or(next, |at| at.min(next));
            // Whether it was an event or the time does not matter.
            let _ = tokio::time::timeout_at(world.instant(wakes), world.vm_moved.notified()).await;
            let now = world.now();
            if !was_healthy {
                self.outage += now.saturating_sub(seen);
            }
            let is_healthy = healthy();
            if is_healthy && !was_healthy {
                healthy_since = now;
            }
            (seen, was_healthy) = (now, is_healthy);
            while next <= now {
                next += LOOK;
            }
            if is_healthy && now >= healthy_since.max(over_at) + SETTLED {
                self.ending = Ending::Recovered;
                return;
            }
            if now >= over_at + PATIENCE {
                return;
            }
        }
    }
}

/// When a VM that boots will answer, if nothing comes between.
fn boot_ends(world: &World) -> Option<Duration> {
    let state = world.state();
    let at = state.hosts.iter().filter_map(|host| host.vm.as_ref()).map(|vm| vm.healthy_at).min()?;
    (at > world.now()).then_some(at)
}

/// Runs a fault with the seeds `base`, `base` + 1 and so on, `runs` of them, on so many threads. The outcomes come in
/// the order of the seeds, however many threads there are.
///
/// # Errors
/// When one cannot be run.
pub fn measure_many(
    profile: RecoveryProfile,
    fault: Fault,
    rules: Rules,
    base: u64,
    runs: u64,
    threads: usize,
) -> Result<Vec<Outcome>, RecoveryError> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return Ok::<_, RecoveryError>(done);
            }
            done.push((run, measure_with(profile, fault, rules, base.wrapping_add(run))?.0));
        }
    };
    let mut outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, RecoveryError>(all)
    })?;
    outcomes.sort_by_key(|(run, _)| *run);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fault: Fault, rules: Rules) -> Outcome {
        measure(fault, rules, 1).unwrap().0
    }

    #[test]
    fn a_crash_costs_at_least_a_boot_and_is_survived() {
        for rules in [Rules::Plain, Rules::Better] {
            let Outcome { outage, ending, .. } = outcome(Fault::VmCrash, rules);
            assert_eq!(ending, Ending::Recovered);
            assert!(outage >= GUEST_BOOT.0 && outage < Duration::from_mins(5), "{outage:?}");
        }
    }

    #[test]
    fn killing_the_broker_disturbs_nobody() {
        let Outcome { outage, ending, .. } = outcome(Fault::BrokerKilled, Rules::Better);
        assert_eq!((outage, ending), (Duration::ZERO, Ending::Recovered));
    }

    #[test]
    fn a_short_stall_costs_its_own_length() {
        let Outcome { outage, ending, .. } = outcome(Fault::AllStorageStalled15, Rules::Better);
        assert_eq!((outage, ending), (Duration::from_secs(15), Ending::Recovered));
    }

    #[test]
    fn both_sets_of_rules_meet_the_same_draw_and_seeds_differ() {
        let script = |seed| draw(Fault::PowerCycle, seed).script;
        assert_eq!(script(7), script(7));
        assert_ne!(script(7), script(8));
        let draw = draw(Fault::StorageStalled200, 7);
        assert_eq!(draw.over_at, draw.fault_at + Duration::from_secs(200));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let with = |threads| {
            measure_many(RecoveryProfile::Standard, Fault::AgentKilled, Rules::Plain, 40, 4, threads).unwrap()
        };
        let alone = with(1);
        assert_eq!(alone.len(), 4);
        assert_eq!(alone, with(3));
    }
}
