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
    pub retry_window_by_monotonic_clock: bool,
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
}

impl Policy {
    /// All switches off: the recorded behaviour of the existing release.
    pub const fn plain() -> Self {
        Self {
            retry_window_by_monotonic_clock: false,
            start_waits_for_liveness: false,
            lease_refusal_is_no_failure: false,
            local_maintenance_moves_vm: false,
            start_needs_footing: false,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry_window_by_monotonic_clock: true,
            start_waits_for_liveness: true,
            lease_refusal_is_no_failure: true,
            local_maintenance_moves_vm: true,
            start_needs_footing: true,
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
        }
    }
}
