//! How fit this host is to run the engine VM: a sum of terms, each with its reason.
//!
//! Two profiles of one idea: a base, minus a penalty for each failing factor, never below 0. The weights can
//! be set one by one (agent.conf, section `[score]`) and must be equal on all hosts. Pure: no I/O, no clock.

use std::fmt;

use metadata_format::Score;
use serde::{Deserialize, Serialize};

use super::input::Local;
use super::policy::Limits;
use super::state::State;

/// Which set of factors and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// The founding design's: highest 2400. What new clusters are set up with.
    #[serde(rename = "founding")]
    Founding,
    /// The existing release's: highest 3400. What a host without a choice uses, to fit existing clusters.
    #[serde(rename = "ovirt-4.5")]
    Ovirt45,
}

impl Profile {
    /// Its name in ha.toml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::Ovirt45 => "ovirt-4.5",
        }
    }
}

/// The numbers of a profile; all penalties are points to take off, 0 or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The profile that they started from.
    pub profile: Profile,
    /// `base-score`: the highest score.
    pub base: i64,
    /// `network-score-penalty`: for a network that does not answer at all.
    pub network: i64,
    /// `not-uptodate-config-penalty` (ovirt-4.5 only).
    pub config: i64,
    /// `mgmt-bridge-score-penalty`.
    pub bridge: i64,
    /// `free-memory-score-penalty`.
    pub memory: i64,
    /// `cpu-load-score-penalty`: the most that processor load can cost.
    pub cpu: i64,
    /// `engine-retry-score-penalty`: for each failed start.
    pub retry: i64,
    /// `cpu-load-penalty-min`: load at which the penalty begins, 0.0 to 1.0.
    pub cpu_min: f64,
    /// `cpu-load-penalty-max`: load at which it is complete, 0.0 to 1.0.
    pub cpu_max: f64,
    /// `mem-load-score-penalty`: memory in use ≥ 80 % (founding only).
    pub mem_load: i64,
}

/// Share of memory in use from which the founding profile penalises.
const MEM_LOAD_LIMIT: f64 = 0.8;
/// Share of network tries that must succeed for the founding profile's all-or-nothing gateway check: most.
const GATEWAY_SHARE: f64 = 0.5;

/// A weight that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// No weight has that name.
    #[error("[score] {key}: no such key; known are {}", Weights::KEYS.join(", "))]
    UnknownKey {
        /// The key as given.
        key: String,
    },
    /// The value is not what the key takes.
    #[error("[score] {key}={value}: {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// The value as given.
        value: String,
        /// What is right.
        expected: &'static str,
    },
    /// Two values contradict each other.
    #[error("[score] cpu-load-penalty-min={min} is above cpu-load-penalty-max={max}; it must not be")]
    LoadRange {
        /// cpu-load-penalty-min.
        min: String,
        /// cpu-load-penalty-max.
        max: String,
    },
}

impl Weights {
    /// The keys of agent.conf's section `[score]`.
    pub const KEYS: [&'static str; 10] = [
        "base-score",
        "network-score-penalty",
        "not-uptodate-config-penalty",
        "mgmt-bridge-score-penalty",
        "free-memory-score-penalty",
        "cpu-load-score-penalty",
        "engine-retry-score-penalty",
        "cpu-load-penalty-min",
        "cpu-load-penalty-max",
        "mem-load-score-penalty",
    ];

    /// A profile's own numbers.
    pub const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Founding => Self {
                profile,
                base: 2400,
                network: 1000,
                config: 0,
                bridge: 800,
                memory: 400,
                cpu: 100,
                retry: 50,
                cpu_min: 0.8,
                cpu_max: 0.8,
                mem_load: 100,
            },
            Profile::Ovirt45 => Self {
                profile,
                base: 3400,
                network: 1600,
                config: 1000,
                bridge: 600,
                memory: 400,
                cpu: 1000,
                retry: 50,
                cpu_min: 0.4,
                cpu_max: 0.9,
                mem_load: 0,
            },
        }
    }

    /// Sets one number by its key in agent.conf.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), WeightError> {
        let bad = |expected| WeightError::BadValue { key: key.to_owned(), value: value.to_owned(), expected };
        let points = || {
            let number = value.trim().parse::<i64>().ok().filter(|number| (0..=1_000_000).contains(number));
            number.ok_or_else(|| bad("must be a whole number from 0 to 1000000"))
        };
        let share = || {
            let number = value.trim().parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            number.ok_or_else(|| bad("must be a number from 0.0 to 1.0"))
        };
        match key {
            "base-score" => self.base = points()?,
            "network-score-penalty" => self.network = points()?,
            "not-uptodate-config-penalty" => self.config = points()?,
            "mgmt-bridge-score-penalty" => self.bridge = points()?,
            "free-memory-score-penalty" => self.memory = points()?,
            "cpu-load-score-penalty" => self.cpu = points()?,
            "engine-retry-score-penalty" => self.retry = points()?,
            "cpu-load-penalty-min" => self.cpu_min = share()?,
            "cpu-load-penalty-max" => self.cpu_max = share()?,
            "mem-load-score-penalty" => self.mem_load = points()?,
            _ => return Err(WeightError::UnknownKey { key: key.to_owned() }),
        }
        Ok(())
    }

    /// Checks what only the whole set shows.
    pub fn validate(&self) -> Result<(), WeightError> {
        if self.cpu_min > self.cpu_max {
            let (min, max) = (self.cpu_min.to_string(), self.cpu_max.to_string());
            return Err(WeightError::LoadRange { min, max });
        }
        Ok(())
    }
}

/// What the score is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The state the host is in.
    pub state: State,
    /// Its monitors.
    pub local: &'a Local,
    /// Processor load over the history.
    pub load: f64,
    /// Failed starts that are not forgotten yet.
    pub retries: u32,
    /// Local maintenance counts at once, before the state `LocalMaintenance` is reached.
    pub maintenance_counts: bool,
}

/// A score with its explanation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreSheet {
    /// The score.
    pub total: Score,
    /// Summands; their points add up to the total.
    pub terms: Vec<Term>,
}

/// One summand.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What it is for, with the numbers behind it.
    pub factor: Factor,
    /// Points; negative for a penalty.
    pub points: i64,
}

/// What a summand is for. Closed: every text about a score is rendered from here.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum Factor {
    Base { profile: Profile },
    Network { share: Option<f64> },
    Bridge { known: bool },
    Memory { free: Option<f64>, needed: u64 },
    CpuLoad { load: f64 },
    MemLoad { load: f64 },
    Config,
    Retries { count: u32 },
    TooManyRetries { count: u32 },
    Floor,
    LocalMaintenance,
    UnexpectedShutdown,
    Reinitializing,
    Stopped,
    LeasesNotHeld,
}

impl Factor {
    /// Short name, for tables and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Base { .. } => "base",
            Self::Network { .. } => "gateway",
            Self::Bridge { .. } => "mgmt-bridge",
            Self::Memory { .. } => "memory",
            Self::CpuLoad { .. } => "cpu-load",
            Self::MemLoad { .. } => "mem-load",
            Self::Config => "config",
            Self::Retries { .. } | Self::TooManyRetries { .. } => "retries",
            Self::Floor => "floor",
            Self::LocalMaintenance => "local-maintenance",
            Self::UnexpectedShutdown => "unexpected-shutdown",
            Self::Reinitializing => "reinitializing",
            Self::Stopped => "stopped",
            Self::LeasesNotHeld => "leases",
        }
    }
}

/// What a summand is, for sums that leave some out.
enum Kind {
    /// Processor load.
    Processor,
    /// Memory, free or in use.
    Memory,
    /// Anything else that adds or takes points.
    Other,
    /// It fills up to 0.
    Floor,
    /// It makes the score 0, whatever the others are.
    Zero,
}

impl Factor {
    const fn kind(&self) -> Kind {
        match self {
            Self::CpuLoad { .. } => Kind::Processor,
            Self::Memory { .. } | Self::MemLoad { .. } => Kind::Memory,
            Self::Base { .. }
            | Self::Network { .. }
            | Self::Bridge { .. }
            | Self::Config
            | Self::Retries { .. } => Kind::Other,
            Self::Floor => Kind::Floor,
            Self::TooManyRetries { .. }
            | Self::LocalMaintenance
            | Self::UnexpectedShutdown
            | Self::Reinitializing
            | Self::Stopped
            | Self::LeasesNotHeld => Kind::Zero,
        }
    }

    /// Memory, free or in use.
    pub const fn is_memory(&self) -> bool {
        matches!(self.kind(), Kind::Memory)
    }

    /// How busy the host is: processor and memory.
    pub const fn is_load(&self) -> bool {
        matches!(self.kind(), Kind::Memory | Kind::Processor)
    }
}

impl ScoreSheet {
    /// The same with the score 0, and why.
    #[must_use]
    pub(super) fn zeroed(&self, why: Factor) -> Self {
        let mut terms = self.terms.clone();
        terms.push(Term { factor: why, points: -i64::from(self.total.0) });
        Self { total: Score(0), terms }
    }

    /// The score without the summands that `left_out` names. What makes the score 0 still does.
    pub fn leaving_out(&self, left_out: fn(&Factor) -> bool) -> Score {
        let mut points: i64 = 0;
        for term in &self.terms {
            match term.factor.kind() {
                Kind::Zero => return self.total,
                Kind::Floor => {}
                Kind::Processor | Kind::Memory | Kind::Other if left_out(&term.factor) => {}
                Kind::Processor | Kind::Memory | Kind::Other => points = points.saturating_add(term.points),
            }
        }
        Score(u32::try_from(points.max(0)).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base { profile } => write!(f, "highest score of the profile {}", profile.name()),
            Self::Network { share: Some(share) } => {
                write!(f, "network test: {:.0} % of the tries succeeded", share * 100.0)
            }
            Self::Network { share: None } => f.write_str("network test: no result"),
            Self::Bridge { known: true } => f.write_str("the management bridge is down"),
            Self::Bridge { known: false } => f.write_str("management bridge: no result"),
            Self::Memory { free: Some(free), needed } => {
                write!(f, "{free:.0} MB of memory free, the engine VM needs {needed} MB")
            }
            Self::Memory { free: None, needed } => {
                write!(f, "free memory is not known, the engine VM needs {needed} MB")
            }
            Self::CpuLoad { load } => write!(f, "average processor load {:.0} %", load * 100.0),
            Self::MemLoad { load } => write!(f, "memory in use {:.0} %", load * 100.0),
            Self::Config => f.write_str("vm.conf is not up to date with shared storage"),
            Self::Retries { count } => write!(f, "{count} failed start(s) of the engine VM"),
            Self::TooManyRetries { count } => {
                write!(f, "{count} failed starts of the engine VM: other hosts get their chance")
            }
            Self::Floor => f.write_str("a score is never below 0"),
            Self::LocalMaintenance => f.write_str("local maintenance"),
            Self::UnexpectedShutdown => f.write_str("the engine VM ended unexpectedly here"),
            Self::Reinitializing => f.write_str("the agent is finding out where it stands"),
            Self::Stopped => f.write_str("the agent is stopped"),
            Self::LeasesNotHeld => f.write_str(
                "this host does not hold its leases, so it can neither start the VM nor speak for itself",
            ),
        }
    }
}

/// Why a state has no score of its own, if it has none.
const fn zero(state: State) -> Option<Factor> {
    match state {
        State::StartState | State::ReinitializeFSM => Some(Factor::Reinitializing),
        State::LocalMaintenance => Some(Factor::LocalMaintenance),
        State::EngineUnexpectedlyDown => Some(Factor::UnexpectedShutdown),
        State::AgentStopped => Some(Factor::Stopped),
        State::EngineDown
        | State::EngineStart
        | State::EngineStarting
        | State::EngineUp
        | State::EngineUpBadHealth
        | State::EngineStop
        | State::EngineForceStop
        | State::EngineMaybeAway
        | State::UnknownLocalVmState
        | State::GlobalMaintenance
        | State::EngineMigratingAway => None,
    }
}

/// Computes the score.
pub fn score(facts: &Facts<'_>, weights: &Weights, limits: &Limits) -> ScoreSheet {
    let mut sum = Sum::default();
    sum.add(Factor::Base { profile: weights.profile }, weights.base);
    if let Some(factor) = zero(facts.state) {
        return sum.zero(factor);
    }
    if facts.maintenance_counts && facts.local.maintenance {
        return sum.zero(Factor::LocalMaintenance);
    }
    let founding = weights.profile == Profile::Founding;
    let local = facts.local;
    if !local.conf_up_to_date {
        sum.take(Factor::Config, weights.config);
    }
    let share = local.network.filter(|share| share.is_finite());
    let tried = share.unwrap_or(0.0).clamp(0.0, 1.0);
    if founding {
        if tried < GATEWAY_SHARE {
            sum.take(Factor::Network { share }, weights.network);
        }
    } else {
        sum.take(Factor::Network { share }, share_of(1.0 - tried, weights.network));
    }
    if local.bridge != Some(true) {
        sum.take(Factor::Bridge { known: local.bridge.is_some() }, weights.bridge);
    }
    sum.take(Factor::CpuLoad { load: facts.load }, cpu_penalty(facts.load, weights));
    if founding && let Some(load) = local.mem_load.filter(|load| *load >= MEM_LOAD_LIMIT) {
        sum.take(Factor::MemLoad { load }, weights.mem_load);
    }
    if (founding || memory_matters(facts.state)) && short_of_memory(local) {
        sum.take(Factor::Memory { free: local.mem_free, needed: local.min_memory }, weights.memory);
    }
    let too_many =
        if founding { facts.retries >= limits.retry_max } else { facts.retries > limits.retry_max };
    if too_many {
        return sum.zero(Factor::TooManyRetries { count: facts.retries });
    }
    if facts.retries > 0 {
        let points = weights.retry.saturating_mul(i64::from(facts.retries));
        sum.take(Factor::Retries { count: facts.retries }, points);
    }
    sum.finish()
}

/// The existing release does not count memory while the VM is up here (it is what uses it), nor in global
/// maintenance.
const fn memory_matters(state: State) -> bool {
    !matches!(
        state,
        State::EngineUp | State::EngineUpBadHealth | State::EngineMigratingAway | State::GlobalMaintenance
    )
}

#[allow(clippy::cast_precision_loss, reason = "megabytes of memory are far below 2^53")]
fn short_of_memory(local: &Local) -> bool {
    local.mem_free.filter(|free| free.is_finite()).unwrap_or(0.0) < local.min_memory as f64
}

fn cpu_penalty(load: f64, weights: &Weights) -> i64 {
    let range = weights.cpu_max - weights.cpu_min;
    if range <= 0.0 {
        return if load < weights.cpu_min { 0 } else { weights.cpu };
    }
    share_of((load - weights.cpu_min) / range, weights.cpu).clamp(0, weights.cpu)
}

/// `share` of `points`, cut to a whole number towards zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "points are below a million")]
fn share_of(share: f64, points: i64) -> i64 {
    (share * points as f64) as i64
}

/// A sum in the making.
#[derive(Default)]
struct Sum {
    terms: Vec<Term>,
    points: i64,
}

impl Sum {
    fn add(&mut self, factor: Factor, points: i64) {
        self.points = self.points.saturating_add(points);
        self.terms.push(Term { factor, points });
    }

    fn take(&mut self, factor: Factor, points: i64) {
        if points > 0 {
            self.add(factor, -points);
        }
    }

    fn zero(mut self, factor: Factor) -> ScoreSheet {
        let points = -self.points;
        self.add(factor, points);
        self.finish()
    }

    fn finish(mut self) -> ScoreSheet {
        if self.points < 0 {
            let missing = -self.points;
            self.add(Factor::Floor, missing);
        }
        ScoreSheet { total: Score(u32::try_from(self.points).unwrap_or(u32::MAX)), terms: self.terms }
    }
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
