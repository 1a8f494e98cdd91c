//! The reasons about live migrations, and the words for each.

use std::fmt;

use super::reason::{HostName, NoFooting};

/// Why the VM is not moved while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum NoMigration {
    SwitchedOff,
    Adapter { why: String },
    FailedLately { times: u32, window: u64 },
    VmNotWell { detail: String },
    NotHere { host: Option<HostName> },
    BeingStopped,
    ToItself,
    NoSuchHost { id: u16 },
    Unreadable { id: u16 },
    NotAlive { host: HostName },
    NotFit { host: HostName },
    NoFitHost,
    NotNeeded,
    Unanswered { host: HostName, secs: u64 },
    UnansweredByNew { host: HostName, left: u64 },
    Vanished,
}

impl fmt::Display for NoMigration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff => f.write_str("policy.live_migration in ha.toml is off"),
            Self::Adapter { why } => f.write_str(why),
            Self::FailedLately { times, window } => {
                write!(f, "{times} live migrations within {window} s failed")
            }
            Self::VmNotWell { detail } => write!(f, "the VM is not well (status {detail})"),
            Self::NotHere { host: Some(host) } => write!(f, "the engine VM runs on {host}; ask there"),
            Self::NotHere { host: None } => f.write_str("the engine VM does not run on this host"),
            Self::BeingStopped => f.write_str("the engine VM is being stopped"),
            Self::ToItself => f.write_str("the engine VM runs on that host already"),
            Self::NoSuchHost { id } => write!(f, "there is no host {id}: shared storage has no block of it"),
            Self::Unreadable { id } => write!(f, "the block of host {id} cannot be read"),
            Self::NotAlive { host } => write!(f, "{host} is not alive"),
            Self::NotFit { host } => write!(f, "{host} cannot take it: its score is 0"),
            Self::NoFitHost => f.write_str("no other live host can take it"),
            Self::NotNeeded => f.write_str("what asked for it is over"),
            Self::UnansweredByNew { host, left } => write!(
                f,
                "{host} has just come up and did not get ready for it in time: it is asked again, and the VM goes on here \
                 for {left} s at least"
            ),
            Self::Unanswered { host, secs } => {
                write!(
                    f,
                    "{host} did not get ready for it within {secs} s; does its release know live migration?"
                )
            }
            Self::Vanished => f.write_str("the hypervisor knows of no migration any more"),
        }
    }
}

/// What is decided about a live migration, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum MoveReason {
    Begins { to: HostName },
    Elsewhere { why: NoMigration, to: HostName },
    NotMigrated { why: NoMigration },
    RequestTaken { to: HostName },
    RequestRefused { why: NoMigration },
    RequestWaits,
    Asked { to: HostName, secs: u64, limit: u64 },
    Sends { to: HostName },
    Sent,
    GoesOn { to: Option<HostName>, percent: Option<u64> },
    Found,
    Finished { to: Option<HostName> },
    Failed { detail: String },
    NotMigrating,
    GivenUp { why: NoMigration },
    TooSlow { limit: u64 },
    TargetDied { to: HostName },
    Cancelled,
    CancelFailed { detail: String },
    GetsReady { from: HostName },
    Ready,
    ReadyFailed { detail: String },
    CannotReceive { cause: NoFooting },
    Arriving,
    Unasked { left: u64 },
    ArrivalNotWanted,
    ArrivalEnded,
    ArrivalEndFailed { detail: String },
    OnItsWay { host: HostName },
}

impl fmt::Display for MoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins { to } => write!(f, "moving the engine VM to {to} while it runs"),
            Self::Elsewhere { why, to } => write!(f, "moving the engine VM to {to} instead: {why}"),
            Self::NotMigrated { why } => write!(f, "it is not moved while it runs: {why}"),
            Self::RequestTaken { to } => write!(f, "an operator wants the engine VM on {to}"),
            Self::RequestRefused { why } => {
                write!(f, "an operator's request to move the engine VM is refused: {why}")
            }
            Self::RequestWaits => f.write_str(
                "an operator's request to move the engine VM waits until it is known which hosts are alive",
            ),
            Self::Asked { to, secs, limit } => {
                write!(f, "waiting for {to} to get ready for the engine VM ({secs} of {limit} s)")
            }
            Self::Sends { to } => write!(f, "sending the engine VM to {to}"),
            Self::Sent => f.write_str("the engine VM's memory is on its way"),
            Self::GoesOn { to, percent } => {
                f.write_str("the engine VM is moving to ")?;
                match to {
                    Some(to) => write!(f, "{to}")?,
                    None => f.write_str("another host")?,
                }
                percent.map_or(Ok(()), |percent| write!(f, ": {percent} % of its memory"))
            }
            Self::Found => f.write_str("the engine VM is being moved away from this host"),
            Self::Finished { to: Some(to) } => write!(f, "the engine VM has moved to {to}"),
            Self::Finished { to: None } => f.write_str("the engine VM has moved to another host"),
            Self::Failed { detail } => write!(f, "moving the engine VM failed; it goes on here: {detail}"),
            Self::NotMigrating => f.write_str("the engine VM is not being moved any more"),
            Self::GivenUp { why } => write!(f, "the engine VM is not moved while it runs: {why}"),
            Self::TooSlow { limit } => {
                write!(
                    f,
                    "moving the engine VM has not ended within {limit} s: it is called off, the VM stays here"
                )
            }
            Self::TargetDied { to } => {
                write!(f, "{to} is not alive any more: moving the engine VM is called off, it stays here")
            }
            Self::Cancelled => f.write_str("the hypervisor was asked to call the migration off"),
            Self::CancelFailed { detail } => write!(f, "calling the migration off failed: {detail}"),
            Self::GetsReady { from } => write!(f, "{from} wants to send the engine VM: getting ready for it"),
            Self::Ready => f.write_str("this host is ready to receive the engine VM"),
            Self::ReadyFailed { detail } => {
                write!(f, "getting ready to receive the engine VM failed: {detail}")
            }
            Self::CannotReceive { cause } => write!(f, "the engine VM cannot be received here: {cause}"),
            Self::Arriving => f.write_str("the engine VM is on its way to this host"),
            Self::Unasked { left } => {
                write!(
                    f,
                    "this host is ready to receive the engine VM and nobody sends it: given up in {left} s"
                )
            }
            Self::ArrivalNotWanted => {
                f.write_str("the engine VM will not arrive here: what waits for it is ended")
            }
            Self::ArrivalEnded => f.write_str("this host waits for the engine VM no more"),
            Self::ArrivalEndFailed { detail } => {
                write!(f, "ending what waits for the engine VM failed: {detail}")
            }
            Self::OnItsWay { host } => {
                write!(
                    f,
                    "the engine VM runs nowhere, but {host} says that it is moving from one host to another"
                )
            }
        }
    }
}
