//! Why a decision was taken: the closed list of reasons, and the words for each.
//!
//! Logs, status displays, JSON and notifications render these values; nobody writes other words about a
//! decision. A reason carries the numbers and the host that the rule looked at.

use std::fmt;

use metadata_format::{HostId, Score};

use super::input::{LeaseOwner, OwnerLife};
use super::move_reason::MoveReason;
use super::state::State;

/// Another host, for texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// Its id.
    pub id: HostId,
    /// Its name as it says itself.
    pub name: String,
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (id {})", self.name.escape_debug(), self.id)
    }
}

/// Why a start is not tried although this host should start the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum NoFooting {
    BlockNotWritten { secs: u64, limit: u64 },
    HostLeaseNotHeld,
    StorageStuck { secs: u64 },
}

/// How a sick engine is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum ResetBy {
    Shutdown,
    Force,
}

/// What follows when a sick engine stays sick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum NextStep {
    Reset { by: ResetBy, secs: u64 },
    BudgetUsed { resets: u32, secs: u64 },
    Never,
}

/// What is measured, and borne for some samples while the VM runs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum Monitored {
    Network,
    Bridge,
}

/// Why the core decided as it did. All figures in seconds or points.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum Reason {
    AgentStarted,
    AgentStopping,
    GlobalMaintenance,
    GlobalMaintenanceEnded,
    LocalMaintenance,
    LocalMaintenanceEnded,
    MaintenanceMovesVm { to: HostName },
    MaintenanceWaits,
    MaintenanceForced,
    LocalVmUnknown { detail: String },
    LocalVmKnown,
    VmRunsHere,
    NoVmHere,
    EngineElsewhere { host: HostName },
    HistoryTooShort { secs: u64, needed: u64 },
    BestHost { score: Score, next: Option<(HostName, Score)> },
    BetterHost { score: Score, host: HostName, theirs: Score },
    OthersFirst { score: Score, host: HostName, left: u64 },
    StartWithheld { cause: NoFooting },
    RestartsHere { detail: String, number: u32, times: u32, window: u64 },
    RestartBudgetUsed { times: u32, window: u64 },
    PausesAlone { left: u64 },
    RestartsAlone { pause: u64 },
    Starting,
    Started,
    StartFailed { failures: u32, detail: String },
    StartRefused { detail: String },
    LeaseWaits { owner: LeaseOwner },
    PoweringUp { detail: String, left: Option<u64> },
    EngineHealthy,
    TakenOver { detail: String },
    VmVanished { detail: String },
    VmDown { detail: String },
    VmDiedUnexpectedly { detail: String },
    VmAlsoRunsOn { host: HostName },
    HandOver { score: Score, host: HostName, theirs: Score, margin: u32 },
    HandOverWaits { score: Score, host: HostName, theirs: Score, seen: u32, needed: u32 },
    BadSampleBorne { what: Monitored, needed: u32, samples: u32 },
    BadHealth { detail: String, left: Option<u64> },
    EngineSick { detail: String, next: NextStep },
    SlowStart { detail: String, next: NextStep },
    EngineReset { state: State, limit: u64, by: ResetBy, number: u32, times: u32 },
    EngineRuns,
    ShuttingDown,
    ShutdownAsked,
    StopNotNeeded,
    ShutdownGoesOn { secs: u64, limit: u64 },
    ShutdownFailed { detail: String },
    VmPaused,
    PausedWaits { secs: u64 },
    PausedLeaseUnknown,
    PausedLeaseLost,
    PausedVmGone { detail: String },
    Resuming { attempt: u32, of: u32 },
    Resumed,
    ResumeFailed { detail: String },
    ResumePauses { left: u64 },
    StartPauses { left: u64 },
    ResumeGivenUp { tries: u32 },
    StorageIsWaitedFor { secs: u64 },
    VmStopped,
    Ending,
    Ended,
    EndFailed { detail: String },
    LookingElsewhere { left: Option<u64> },
    VmBack,
    Resting { left: Option<u64> },
    TimerFired { state: State, limit: u64 },
    Move(MoveReason),
    ResultLost,
}

impl fmt::Display for NoFooting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlockNotWritten { secs, limit } => write!(
                f,
                "this host's own block was not written for {secs} s (limit {limit} s), so the other hosts may think it dead"
            ),
            Self::HostLeaseNotHeld => f.write_str("this host does not hold its host id lease"),
            Self::StorageStuck { secs } => write!(f, "shared storage has not worked for {secs} s"),
        }
    }
}

impl fmt::Display for ResetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "the guest is asked to power down",
            Self::Force => "the VM is ended by force",
        })
    }
}

impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset { by, secs } => write!(f, "{by} in {secs} s if that lasts"),
            Self::BudgetUsed { resets, secs } => write!(
                f,
                "it was reset {resets} times within an hour, the next reset is possible in {secs} s"
            ),
            Self::Never => f.write_str("it is never reset, as rules.sick_engine in ha.toml says"),
        }
    }
}

impl fmt::Display for Monitored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "the network test is worse",
            Self::Bridge => "the management bridge is down",
        })
    }
}

/// `, N s left` when a timer runs.
struct Left(Option<u64>);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(secs) => write!(f, ", {secs} s left"),
            None => Ok(()),
        }
    }
}

impl Reason {
    /// It sends a VM away that is not itself what is wrong.
    pub(super) const fn asks_vm_to_leave(&self) -> bool {
        matches!(self, Self::HandOver { .. } | Self::MaintenanceMovesVm { .. } | Self::MaintenanceForced)
    }
}

impl fmt::Display for Reason {
    #[allow(clippy::too_many_lines, reason = "one line for each reason")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStarted => f.write_str("the agent has started"),
            Self::AgentStopping => {
                f.write_str("the agent was told to stop; a running engine VM is left alone")
            }
            Self::GlobalMaintenance => f.write_str("global maintenance: nothing is done to the engine VM"),
            Self::GlobalMaintenanceEnded => f.write_str("global maintenance has ended"),
            Self::LocalMaintenance => f.write_str("this host is in local maintenance"),
            Self::LocalMaintenanceEnded => f.write_str("local maintenance has ended"),
            Self::MaintenanceMovesVm { to } => {
                write!(f, "local maintenance: the engine VM leaves this host so that {to} can take it")
            }
            Self::MaintenanceWaits => f.write_str(
                "local maintenance waits: no other live host can take the engine VM, so it stays here until one can, or \
                 until maintenance is set with --force",
            ),
            Self::MaintenanceForced => f.write_str(
                "no other live host can take the engine VM, and local maintenance was forced: it is shut down",
            ),
            Self::LocalVmUnknown { detail } => {
                write!(f, "nobody knows whether the engine VM runs here ({detail}); nothing is done")
            }
            Self::LocalVmKnown => f.write_str("the engine VM's state on this host is known again"),
            Self::VmRunsHere | Self::EngineRuns => f.write_str("the engine VM runs on this host"),
            Self::NoVmHere => f.write_str("the engine VM does not run on this host"),
            Self::EngineElsewhere { host } => write!(f, "the engine VM runs on {host}"),
            Self::HistoryTooShort { secs, needed } => write!(
                f,
                "the engine VM runs nowhere; {secs} s of observation do not yet tell which hosts are alive (needs more than {needed} s)"
            ),
            Self::BestHost { score, next: None } => write!(
                f,
                "the engine VM runs nowhere and no other live host can start it (own score {score})"
            ),
            Self::BestHost { score, next: Some((host, theirs)) } => write!(
                f,
                "the engine VM runs nowhere and this host's score {score} is the best (next: {host} with {theirs})"
            ),
            Self::BetterHost { score, host, theirs } => write!(
                f,
                "the engine VM runs nowhere; {host} should start it: its score {theirs} is above this host's {score}"
            ),
            Self::OthersFirst { score, host, left } => write!(
                f,
                "the engine VM runs nowhere; {host} comes first with the same score {score}, trying here in {left} s"
            ),
            Self::RestartsHere { detail, number, times, window } => write!(
                f,
                "the engine VM ended without being asked to ({detail}): restart {number} of {times} within {window} s on this host"
            ),
            Self::RestartBudgetUsed { times, window } => {
                write!(
                    f,
                    "not started here again at once: {times} of {times} restarts within {window} s are used up"
                )
            }
            Self::PausesAlone { left } => write!(
                f,
                "the engine VM ended unexpectedly here and no other live host can start it: starting it here in {left} s"
            ),
            Self::RestartsAlone { pause } => write!(
                f,
                "no other live host can start the engine VM: starting it here after a pause of {pause} s"
            ),
            Self::StartWithheld { cause } => {
                write!(f, "the engine VM runs nowhere, but is not started here: {cause}")
            }
            Self::Starting => f.write_str("starting the engine VM"),
            Self::Started => f.write_str("the engine VM was started on this host"),
            Self::StartFailed { failures, detail } => {
                write!(f, "starting the engine VM failed ({failures} in a row): {detail}")
            }
            Self::StartRefused { detail } => {
                write!(f, "the engine VM cannot be started here yet: {detail}")
            }
            Self::LeaseWaits { owner: LeaseOwner { host, life, free_in } } => {
                write!(f, "the engine VM runs nowhere; waiting for the lease that host {host} holds, ")?;
                match (life, free_in) {
                    (OwnerLife::Live, _) => f.write_str("which is alive and must give it up first"),
                    (OwnerLife::Failing, Some(secs)) => {
                        write!(f, "which does not renew it any more: free in {secs} s at the latest")
                    }
                    (OwnerLife::Failing, None) => f.write_str("which does not renew it any more"),
                    (OwnerLife::Unknown, Some(secs)) => {
                        write!(f, "of which nobody knows yet whether it is alive: free in {secs} s if it is not")
                    }
                    (OwnerLife::Unknown, None) => f.write_str("of which nobody knows yet whether it is alive"),
                }
            }
            Self::PoweringUp { detail, left } => {
                write!(f, "the engine VM is powering up (status {detail}{})", Left(*left))
            }
            Self::EngineHealthy => f.write_str("the engine in the VM is healthy"),
            Self::TakenOver { detail } => {
                write!(f, "the start did not last ({detail}): another host may have taken over")
            }
            Self::VmVanished { detail } => {
                write!(f, "the engine VM is gone from this host ({detail}); looking where it is")
            }
            Self::VmDown { detail } => {
                write!(f, "the engine VM went down on this host ({detail}); it probably runs on another host")
            }
            Self::VmDiedUnexpectedly { detail } => {
                write!(f, "the engine VM ended without being asked to ({detail})")
            }
            Self::VmAlsoRunsOn { host } => {
                write!(f, "the engine VM runs, and in better health, on {host}: stopping it here")
            }
            Self::HandOver { score, host, theirs, margin } => write!(
                f,
                "{host} is better by {margin} points or more ({theirs} to {score}): the engine VM is handed over"
            ),
            Self::HandOverWaits { score, host, theirs, seen, needed } => write!(
                f,
                "{host} would be better ({theirs} to {score}): seen in {seen} of its samples, handed over after {needed}"
            ),
            Self::BadSampleBorne { what, needed, samples } => write!(
                f,
                "{what} now; it counts against the running engine VM when {needed} of the last {samples} samples are bad"
            ),
            Self::EngineSick { detail, next } => {
                write!(f, "the engine in the VM is not healthy ({detail}); {next}")
            }
            Self::SlowStart { detail, next } => {
                write!(f, "the engine VM is powering up (status {detail}); {next}")
            }
            Self::EngineReset { state, limit, by, number, times } => write!(
                f,
                "{state} has lasted more than {limit} s and the engine is not healthy: reset {number} of {times} within an hour, {by}"
            ),
            Self::BadHealth { detail, left } => {
                write!(f, "the engine in the VM is not healthy ({detail}{})", Left(*left))
            }
            Self::ShuttingDown => f.write_str("asking the engine VM to power down"),
            Self::ShutdownAsked => f.write_str("the engine VM was asked to power down"),
            Self::StopNotNeeded => {
                f.write_str("nothing asks any more for the engine VM to be stopped here: it is left alone")
            }
            Self::ShutdownGoesOn { secs, limit } => {
                write!(
                    f,
                    "waiting for the engine VM to power down ({secs} of {limit} s, then it is ended by force)"
                )
            }
            Self::ShutdownFailed { detail } => {
                write!(f, "asking the engine VM to power down failed: {detail}")
            }
            Self::VmPaused => f.write_str("the engine VM is paused and cannot power down by itself"),
            Self::PausedWaits { secs } => write!(
                f,
                "an I/O error paused the engine VM; it goes on when shared storage, which has not worked for {secs} s, is back"
            ),
            Self::PausedLeaseUnknown => f.write_str(
                "an I/O error paused the engine VM; it goes on when the lock manager says that its lease is held",
            ),
            Self::PausedLeaseLost => f.write_str(
                "an I/O error paused the engine VM and its lease was lost: it is ended, and started where it can run",
            ),
            Self::PausedVmGone { detail } => {
                write!(f, "the engine VM, which an I/O error had paused, was ended ({detail})")
            }
            Self::Resuming { attempt, of } => {
                write!(f, "an I/O error paused the engine VM and storage is back: letting it go on (try {attempt} of {of})")
            }
            Self::Resumed => f.write_str("the engine VM was let go on"),
            Self::ResumeFailed { detail } => write!(f, "letting the engine VM go on failed: {detail}"),
            Self::ResumePauses { left } => {
                write!(f, "an I/O error paused the engine VM again; the next try to let it go on is due in {left} s")
            }
            Self::StartPauses { left } => {
                write!(f, "a start of the engine VM failed here; the next try is due in {left} s")
            }
            Self::ResumeGivenUp { tries } => write!(
                f,
                "the engine VM stays paused by I/O errors although storage works, after {tries} tries to let it go on: it is ended"
            ),
            Self::StorageIsWaitedFor { secs } => write!(
                f,
                "shared storage has not worked for {secs} s; as long as the host id lease is held it is waited for"
            ),
            Self::VmStopped => f.write_str("the engine VM does not run on this host any more"),
            Self::Ending => f.write_str("ending the engine VM at once"),
            Self::Ended => f.write_str("the engine VM was ended"),
            Self::EndFailed { detail } => write!(f, "ending the engine VM failed: {detail}"),
            Self::LookingElsewhere { left } => {
                write!(f, "waiting for the engine VM to appear on a host{}", Left(*left))
            }
            Self::VmBack => f.write_str("the engine VM runs on this host after all"),
            Self::Resting { left } => {
                write!(f, "the engine VM ended unexpectedly here; other hosts come first{}", Left(*left))
            }
            Self::TimerFired { state, limit } => {
                write!(f, "{state} has lasted more than {limit} s")
            }
            Self::Move(reason) => reason.fmt(f),
            Self::ResultLost => f.write_str("the result of the last action is not known; looking again"),
        }
    }
}
