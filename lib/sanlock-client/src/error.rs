//! What can go wrong with sanlock, as types, each with a sentence that says what to do.
//!
//! The daemon answers with a number: a negative errno, or one of its own from -201 down. The same number
//! means different things to different commands (`-ENOENT` of an inquiry is an answer, not a fault), so the
//! meaning is found from both.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::NameError;

/// A command, as an error names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is named by its own words below")]
pub enum Operation {
    Version,
    Status,
    Register,
    AddLockspace,
    InquireLockspace,
    RemoveLockspace,
    GetLockspaces,
    GetHosts,
    Acquire,
    Release,
    Inquire,
    KillPath,
    ReadLockspace,
    WriteLockspace,
    ReadResource,
    ReadResourceOwners,
    WriteResource,
    SetEvent,
    RegisterEvents,
    EndEvents,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "tell its version",
            Self::Status => "tell its settings",
            Self::Register => "register this process",
            Self::AddLockspace => "join the lockspace",
            Self::InquireLockspace => "tell about the lockspace",
            Self::RemoveLockspace => "leave the lockspace",
            Self::GetLockspaces => "list its lockspaces",
            Self::GetHosts => "list the hosts",
            Self::Acquire => "acquire the lease",
            Self::Release => "release the lease",
            Self::Inquire => "list the leases of the process",
            Self::KillPath => "set the kill path",
            Self::ReadLockspace => "read the lockspace",
            Self::WriteLockspace => "write the lockspace",
            Self::ReadResource => "read the resource",
            Self::ReadResourceOwners => "read the owners of the resource",
            Self::WriteResource => "write the resource",
            Self::SetEvent => "send a message to another host",
            Self::RegisterEvents => "listen to messages of other hosts",
            Self::EndEvents => "listen no more",
        })
    }
}

/// Why the daemon said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// -243: the owner renewed its host id lately.
    #[error("another host that is alive holds it; wait until that host lets it go or dies")]
    HeldByLiveHost,
    /// -247, only with no-wait: the owner is not provably dead, and was not seen to renew: it is silent, or this
    /// host joined too lately to have seen it (then it may well be alive).
    #[error("its owner was not seen renewing lately, nor is it provably dead; try again later")]
    OwnerSilent,
    /// -244, -245, -211 to -213: another host took it in the same moment.
    #[error("another host took it in the same moment; it is that host's now")]
    LostRace,
    /// -262: another host uses this host id.
    #[error("another host uses this host id; give this host another id or stop the other host")]
    HostIdBusy,
    /// -28 of an acquire, -2 of a host list: this host has not joined the lockspace, or is losing it.
    #[error("this host has not joined the lockspace (or is losing it); join it first")]
    LockspaceNotJoined,
    /// -2 of leaving: there is nothing to leave.
    #[error("this host is not in that lockspace")]
    NoSuchLockspace,
    /// -17 of joining: done already.
    #[error("this host has joined it already")]
    AlreadyJoined,
    /// -115: joining or leaving is under way.
    #[error("that is under way already; ask again later")]
    InProgress,
    /// -11 of joining: the lockspace is just being left.
    #[error("this host is just leaving it; try again when that is done")]
    LockspaceLeaving,
    /// -22 of joining: the name or the place is in use with another host id, place or name.
    #[error(
        "the lockspace's name or place is in use on this host with another host id, place or name; leave that one first"
    )]
    LockspaceConflict,
    /// -11 of a host list: the lockspace was joined a moment ago.
    #[error("nothing is known of the hosts before the first renewal; ask again in some seconds")]
    HostsNotYetKnown,
    /// -17 of an acquire: a process of this host holds it.
    #[error("a process on this host holds it already")]
    HeldOnThisHost,
    /// -11 or -16 of an acquire: this host is just taking or releasing it.
    #[error("this host is just taking or releasing it; try again at once")]
    Transient,
    /// -16 of leaving with `unused`: leases of the lockspace are held.
    #[error("leases of the lockspace are in use on this host; release them first")]
    LockspaceInUse,
    /// -3: the process is not registered with sanlock.
    #[error("that process is not registered with sanlock: it has ended, or never held a lease")]
    NoSuchProcess,
    /// -16 or -116: the process is ending or being killed because its lockspace failed.
    #[error("sanlock is ending that process, or is busy with another command for it")]
    ProcessEnding,
    /// -1 of a release: that process does not hold it.
    #[error("the process does not hold it")]
    NotHeld,
    /// -223: no such lease at that place.
    #[error("there is no lease at that place; check the path and offset, or write it first")]
    NotInitialised,
    /// -226, -227: the record there has another name.
    #[error("the lease at that place has another name; check the path and offset")]
    WrongName,
    /// -214, -222, -224, -225, -228, -229, -230, -270 to -278: the record cannot be right.
    #[error("the record on storage is damaged or inconsistent; check the storage before writing it anew")]
    Corrupt,
    /// -231: the host id does not fit into the lockspace.
    #[error("the host id is greater than the lockspace allows")]
    HostIdTooLarge,
    /// -202, -210, -220, -221, -241, -242, -5, -19 and their kin: storage did not answer or failed.
    #[error("storage failed or did not answer in time; check the path and the storage behind it")]
    Storage,
    /// -13, -1: the daemon may not open it.
    #[error("the sanlock daemon may not open it; give its user and group access")]
    Permission,
    /// -203: the watchdog could not be armed.
    #[error("sanlock cannot reach the watchdog daemon; start wdmd")]
    Watchdog,
    /// -250, -251, -260, -261: the lease on storage is not as this host left it.
    #[error("the lease on storage is not ours any more; treat it as lost")]
    Lost,
    /// A number that this crate does not know.
    #[error("sanlock gives no further reason")]
    Other,
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const ENOTTY: i32 = 25;
const ETIMEDOUT: i32 = 110;
const EINPROGRESS: i32 = 115;
const ESTALE: i32 = 116;

impl Refusal {
    /// What the number `code` (negative) means as an answer to `operation`.
    pub fn from_code(operation: Operation, code: i32) -> Self {
        use Operation as Op;
        match (operation, code.saturating_neg()) {
            (_, 243) => Self::HeldByLiveHost,
            (_, 247) => Self::OwnerSilent,
            (_, 211..=213 | 244..=246) => Self::LostRace,
            (_, 262) => Self::HostIdBusy,
            (_, 223) => Self::NotInitialised,
            (_, 226 | 227) => Self::WrongName,
            (_, 214 | 222 | 224 | 225 | 228..=230 | 270..=278) => Self::Corrupt,
            (_, 231) => Self::HostIdTooLarge,
            (_, 202 | 210 | 220 | 221 | 242) => Self::Storage,
            (_, 203) => Self::Watchdog,
            (_, 240 | 250 | 251 | 260 | 261) => Self::Lost,
            (_, 241) | (Op::Acquire, ENOSPC) | (Op::GetHosts, ENOENT) => Self::LockspaceNotJoined,
            (Op::RemoveLockspace, ENOENT) => Self::NoSuchLockspace,
            (Op::AddLockspace, EEXIST) => Self::AlreadyJoined,
            (Op::AddLockspace | Op::RemoveLockspace | Op::InquireLockspace, EINPROGRESS) => Self::InProgress,
            (Op::AddLockspace, EAGAIN) => Self::LockspaceLeaving,
            (Op::AddLockspace, EINVAL) => Self::LockspaceConflict,
            (Op::GetHosts, EAGAIN) => Self::HostsNotYetKnown,
            (Op::Acquire, EEXIST) => Self::HeldOnThisHost,
            (Op::Acquire, EAGAIN | EBUSY) => Self::Transient,
            (Op::RemoveLockspace, EBUSY) => Self::LockspaceInUse,
            (_, ESRCH) => Self::NoSuchProcess,
            (Op::Acquire | Op::Release | Op::Inquire | Op::KillPath, EBUSY | ESTALE | ENOTTY) => {
                Self::ProcessEnding
            }
            (Op::Release, EPERM) => Self::NotHeld,
            (_, EACCES | EPERM) => Self::Permission,
            (_, EIO | ENODEV | ENOENT | ENXIO | ETIMEDOUT) => Self::Storage,
            _ => Self::Other,
        }
    }
}

/// Why a call to sanlock failed.
#[derive(Debug, thiserror::Error)]
pub enum SanlockError {
    /// There is nobody to ask.
    #[error("cannot connect to sanlock at {}: {source}; is the daemon running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke in the middle.
    #[error("lost the connection to sanlock while asking it to {operation}: {source}")]
    Io {
        /// What was asked.
        operation: Operation,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer in time. What was asked may still happen; on a [`Registration`](crate::Registration) no
    /// further call is possible.
    #[error("sanlock did not {operation} within {} s; it may still do so", after.as_secs_f64())]
    Deadline {
        /// What was asked.
        operation: Operation,
        /// How long was waited.
        after: Duration,
    },
    /// The answer makes no sense: not sanlock, or a release that changed its protocol.
    #[error("sanlock's answer to the request to {operation} is not understood: {detail}")]
    Protocol {
        /// What was asked.
        operation: Operation,
        /// Which field, its value and what was expected.
        detail: String,
    },
    /// The daemon said no.
    #[error("sanlock cannot {operation}: {refusal} (sanlock says {code})")]
    Refused {
        /// What was asked.
        operation: Operation,
        /// Its number: a negative errno, or one of sanlock's own from -201 down.
        code: i32,
        /// What that means.
        refusal: Refusal,
    },
    /// A name or path that sanlock cannot carry.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An argument that cannot be sent.
    #[error("cannot ask sanlock to {operation}: {detail}")]
    Argument {
        /// What was to be asked.
        operation: Operation,
        /// Which argument, its value and what is right.
        detail: String,
    },
}

impl SanlockError {
    /// Why the daemon said no, when it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            Self::Connect { .. }
            | Self::Io { .. }
            | Self::Deadline { .. }
            | Self::Protocol { .. }
            | Self::Name(_)
            | Self::Argument { .. } => None,
        }
    }

    /// The daemon's number, when it said no.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn refused(operation: Operation, code: i32) -> Self {
        Self::Refused { operation, code, refusal: Refusal::from_code(operation, code) }
    }

    pub(crate) fn protocol(operation: Operation, detail: impl Into<String>) -> Self {
        Self::Protocol { operation, detail: detail.into() }
    }

    pub(crate) fn argument(operation: Operation, detail: impl Into<String>) -> Self {
        Self::Argument { operation, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_means_different_things_to_different_commands() {
        assert_eq!(Refusal::from_code(Operation::Acquire, -28), Refusal::LockspaceNotJoined);
        assert_eq!(Refusal::from_code(Operation::GetHosts, -11), Refusal::HostsNotYetKnown);
        assert_eq!(Refusal::from_code(Operation::AddLockspace, -11), Refusal::LockspaceLeaving);
        assert_eq!(Refusal::from_code(Operation::RemoveLockspace, -16), Refusal::LockspaceInUse);
        assert_eq!(Refusal::from_code(Operation::Release, -1), Refusal::NotHeld);
        assert_eq!(Refusal::from_code(Operation::Acquire, i32::MIN), Refusal::Other);
    }

    #[test]
    fn the_text_says_what_was_asked_what_it_means_and_the_number() {
        let error = SanlockError::refused(Operation::Acquire, -243);
        assert_eq!(
            error.to_string(),
            "sanlock cannot acquire the lease: another host that is alive holds it; wait until that host \
             lets it go or dies (sanlock says -243)"
        );
        assert_eq!(error.refusal(), Some(Refusal::HeldByLiveHost));
        assert_eq!(error.code(), Some(-243));
    }
}
