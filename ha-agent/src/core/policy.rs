//! What an operator or a release may change about decisions: named switches, time limits, the score's weights.
//!
//! Plain data. The release that our existing clusters run is [`Policy::plain`] with [`Limits::default`]; each
//! switch is one deliberate difference from it and says what it is for.

use metadata_format::HostId;

use super::score::Weights;

/// Everything about decisions that does not change from step to step.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// This host.
    pub host_id: HostId,
    /// What the score is made of.
    pub weights: Weights,
    /// Differences from the plain behaviour.
    pub policy: Policy,
    /// Time limits.
    pub limits: Limits,
}

/// Named differences from the plain behaviour. Each can be switched alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "these are independent switches, each with its own name")]
pub struct Policy {
    /// Forget failed starts 600 s after the last one by the monotonic clock. Plain compares the wall clock
    /// with a monotonic stamp, so that with a real date the count is forgotten at once and never exceeds 1.
    pub retry_memory: bool,
    /// Decide about a start only when the history tells which hosts are alive. Plain decides one look too early
    /// when looks are exactly 10 s apart: after 60 s of history, while only a snapshot of more than 60 s ago
    /// shows anybody alive. For that look every host finds itself alone and starts the VM.
    pub start_waits_for_liveness: bool,
    /// A start that was refused because another host holds the VM's lease is no failed start: nothing is wrong
    /// with this host, and the next look tries again. Plain counts it, so that the loser of a race, or the
    /// survivor that comes before a dead host's lease is free, looks broken for 10 minutes.
    pub lease_refusal_is_no_failure: bool,
    /// Local maintenance on the host that runs the VM moves the VM away first (when another host can take it),
    /// and makes the score 0 at once. Plain ignores it while the engine is up, and otherwise leaves the VM
    /// running unwatched.
    pub local_maintenance_moves_vm: bool,
    /// Do not start the VM while the own block cannot be written, the host id lease is not held or storage is
    /// stuck: the other hosts may think us dead, and the start could not be protected. Plain tries.
    pub start_needs_footing: bool,
    /// A VM that crashed is started again on the same host at once when no better live host exists, within a budget;
    /// beyond it other hosts come first, and a host that nobody can stand in for only pauses. Plain rests for 560 s, also
    /// when no other host can start the VM.
    pub local_restart: bool,
    /// Network and bridge penalties count against a running VM only after several bad samples, and it is handed over only
    /// to a host that was better by the margin for as many of its own samples. Plain moves the VM on one bad sample.
    pub debounce: bool,
    /// Processor load and memory steer where the VM starts, and never stop a running one. Plain counts them in the
    /// comparison that hands the VM over.
    pub cpu_never_evicts: bool,
    /// Among equal best scores hosts start the VM in the order of their ids, some seconds apart; a second when its host died
    /// and `lease_aware_start` asks for the lease. Plain lets all of them
    /// try at once; the lease lets one succeed.
    pub ranked_start: bool,
    /// A delay of storage changes nothing as long as the host id lease is renewed. Plain lets a configuration that cannot
    /// be refreshed for some minutes cost points, and stops a VM whose engine does not answer because its disk hangs.
    pub storage_patience: bool,
    /// A VM that was paused by an I/O error goes on once storage is back and while its lease is held; otherwise it is
    /// ended, and started where it can run. Plain takes it for an unhealthy engine.
    pub paused_policy: bool,
    /// An agent that has just started takes the lock manager's word for which hosts are alive, if that can tell it of every
    /// host; only for starts, never against a running VM. Plain is blind for a minute.
    pub blip_free_restart: bool,
    /// A sick engine is reset in the configured steps, and only so many times an hour. Plain stops it again and again.
    pub health_escalation: bool,
    /// Before the guest is asked to power down, the cause is looked at again: a second after the decision, or a loop when the
    /// engine is sick, so that it is asked anew. Plain waits for a loop without looking: it stops a VM whose engine became healthy meanwhile, or that no other host can take any more.
    pub stop_needs_cause: bool,
    /// Before a start the lock manager is asked who holds the VM's lease; while that host may be alive nothing is tried,
    /// and the start follows within two seconds of its giving way. Plain tries in each loop, in vain.
    pub lease_aware_start: bool,
    /// A hand-over, a host's maintenance or an operator's request moves the VM while it runs, where the hypervisor and the
    /// destination can. Plain shuts it down and lets the other host start it.
    pub live_migration: bool,
}

impl Policy {
    /// All switches off: the recorded behaviour of the existing release.
    pub const fn plain() -> Self {
        Self {
            retry_memory: false,
            start_waits_for_liveness: false,
            lease_refusal_is_no_failure: false,
            local_maintenance_moves_vm: false,
            start_needs_footing: false,
            local_restart: false,
            debounce: false,
            cpu_never_evicts: false,
            ranked_start: false,
            storage_patience: false,
            paused_policy: false,
            blip_free_restart: false,
            health_escalation: false,
            stop_needs_cause: false,
            lease_aware_start: false,
            live_migration: false,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry_memory: true,
            start_waits_for_liveness: true,
            lease_refusal_is_no_failure: true,
            local_maintenance_moves_vm: true,
            start_needs_footing: true,
            local_restart: true,
            debounce: true,
            cpu_never_evicts: true,
            ranked_start: true,
            storage_patience: true,
            paused_policy: true,
            blip_free_restart: true,
            health_escalation: true,
            stop_needs_cause: true,
            lease_aware_start: true,
            live_migration: true,
        }
    }
}

/// Time limits and thresholds. The defaults are the existing release's; all hosts must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Seconds without a change of its timestamp after which a host counts as dead. Also how long the history
    /// must be before a start is decided.
    pub alive: u64,
    /// Seconds of history that are kept.
    pub history: u64,
    /// Seconds after the last start attempt when failed starts are forgotten.
    pub retry_window: u64,
    /// Failed starts after which the score is 0 (see [`Weights`] for the exact comparison).
    pub retry_max: u32,
    /// Seconds that a started VM has until its engine must be healthy.
    pub starting: u64,
    /// Seconds that a running VM's engine may be unhealthy.
    pub bad_health: u64,
    /// Seconds that a guest has for powering down.
    pub stop: u64,
    /// Seconds to look for a vanished VM on other hosts.
    pub away: u64,
    /// Seconds that a host stays at score 0 after its VM ended unexpectedly.
    pub unexpected_down: u64,
    /// Points by which another host must be better to take a running VM.
    pub hand_over_margin: u32,
    /// Starts on the same host after a crash, within [`Limits::restart_window`].
    pub restart_budget: u32,
    /// Seconds in which they are counted.
    pub restart_window: u64,
    /// Seconds that a lone host pauses after a crash beyond the budget, before it starts the VM again.
    pub restart_pause: u64,
    /// Samples that must be bad, of [`Limits::debounce_samples`], before the network or the bridge counts against a running
    /// VM; also as many samples of a better host must show it better.
    pub debounce_bad: u32,
    /// Samples that are looked at.
    pub debounce_samples: u32,
    /// Seconds between two hosts that may start the VM and are equally good.
    pub stagger: u64,
    /// Resets of a sick engine within [`Limits::engine_reset_window`].
    pub engine_resets: u32,
    /// Seconds in which they are counted. An hour, which the reasons say too; only the model checker has another.
    pub engine_reset_window: u64,
    /// How it is reset.
    pub sick_engine: SickEngine,
    /// Seconds that a live migration may take before it is called off.
    pub migration: u64,
    /// Seconds that its destination has to get ready.
    pub migration_answer: u64,
    /// Seconds in which failed migrations are counted: after two the VM is shut down instead.
    pub migration_failures: u64,
    /// Seconds that a destination stays ready without a source, and that a source goes on naming the destination after the
    /// VM has moved: two loops, so that the other hosts see one line or the other.
    pub arrival_grace: u64,
}

/// What a reset of a sick engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SickEngine {
    /// The guest is asked to power down, and ended when it does not within [`Limits::stop`].
    ShutdownThenForce,
    /// The VM is ended at once.
    Force,
    /// There is none: the VM is left alone, and the reason says so.
    LeftAlone,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            alive: 60,
            history: 15 * 60,
            retry_window: 600,
            retry_max: 3,
            starting: 600,
            bad_health: 300,
            stop: 300,
            away: 40,
            unexpected_down: 560,
            hand_over_margin: 800,
            restart_budget: 3,
            restart_window: 600,
            restart_pause: 60,
            debounce_bad: 3,
            debounce_samples: 4,
            stagger: 5,
            engine_resets: 3,
            engine_reset_window: 3600,
            sick_engine: SickEngine::ShutdownThenForce,
            migration: 600,
            migration_answer: 45,
            migration_failures: 600,
            arrival_grace: 20,
        }
    }
}
