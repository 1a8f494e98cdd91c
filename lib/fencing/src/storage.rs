//! Resetting a host through storage: sanlock's own reset daemon there (`sanlk-resetd`, package sanlk-reset) is asked by a
//! message in a lockspace, answers that it has let the watchdog go, and the host is dead when its watchdog has fired.
//!
//! ```text
//!  this host: RESET ──(its next renewal)──▶ target: sanlk-resetd lets the watchdog expire, RESETTING
//!  RESETTING seen ◀──(its next renewal)──┘  then: no more renewals; dead to the lock manager after 8N + W
//! ```
//!
//! It needs a target that renews its host id, and a watchdog there: a host that has lost its storage, is frozen or has no
//! power never answers. What the messages' bits mean is the reset daemon's own.

use std::time::Duration;

use metadata_format::HostId;
use sanlock_client::{Client, EventWatch, HostEvent, HostState, HostStatus, LockspaceName, SanlockError};

use crate::switch::Power;

/// The request: the watchdog shall reset the host.
const RESET: u64 = 1;
/// The answer: the watchdog will.
const RESETTING: u64 = 2;
/// So many renewals of the target without an answer mean that nobody listens there: request and answer take three.
const DEAF_AFTER: u32 = 5;
/// Pause between two looks at the target, in which its answer is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// sanlock's watchdog time-out W, and the time until the watchdog's daemon notices that it shall let go.
const WATCHDOG: u64 = 60 + 10;

/// Why a host was not reset, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum StorageResetError {
    /// The lock manager on this host could not do its part.
    #[error("{0}")]
    LockManager(#[from] SanlockError),
    /// It is not in the lockspace.
    #[error(
        "host {host} is {state} in the lockspace {lockspace}: only a host that renews its host id can be told to reset itself"
    )]
    NotLive {
        /// The host.
        host: HostId,
        /// How it is.
        state: HostState,
        /// The lockspace.
        lockspace: LockspaceName,
    },
    /// Nobody answers.
    #[error(
        "host {host} has renewed its host id {renewals} times and not answered: sanlk-resetd does not run there, does not \
         watch the lockspace {lockspace} (sanlk-reset reg {lockspace}), or cannot reach the watchdog"
    )]
    Deaf {
        /// The host.
        host: HostId,
        /// How often.
        renewals: u32,
        /// The lockspace.
        lockspace: LockspaceName,
    },
    /// It answered, and is still there.
    #[error("host {host} answered that its watchdog resets it, and is still {state} {secs} s later")]
    StillThere {
        /// The host.
        host: HostId,
        /// How it is.
        state: HostState,
        /// Since the answer.
        secs: u64,
    },
}

/// The way to one host through one lockspace. It blocks; async callers put it on a blocking thread.
#[derive(Debug, Clone)]
pub struct StorageReset {
    client: Client,
    lockspace: LockspaceName,
    host: HostId,
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The request was handed to the lock manager.
    Asked,
    /// The host has answered.
    Answered,
}

impl StorageReset {
    /// The way to `host`, by the lock manager behind `client`, which must have joined the lockspace.
    pub const fn new(client: Client, lockspace: LockspaceName, host: HostId) -> Self {
        Self { client, lockspace, host }
    }

    fn host_status(&self) -> Result<Option<HostStatus>, SanlockError> {
        let id = u64::from(self.host.get());
        Ok(self.client.get_hosts(&self.lockspace, Some(id))?.into_iter().find(|host| host.host_id == id))
    }

    /// Whether the host is there, by the lock manager: dead or gone is off.
    ///
    /// # Errors
    /// When the lock manager does not say, or calls it failing.
    pub fn status(&self) -> Result<Power, StorageResetError> {
        match self.host_status()?.map_or(HostState::Unknown, |host| host.state) {
            HostState::Live => Ok(Power::On),
            HostState::Dead => Ok(Power::Off),
            state @ (HostState::Unknown | HostState::Free | HostState::Fail) => Err(self.not_live(state)),
        }
    }

    fn not_live(&self, state: HostState) -> StorageResetError {
        StorageResetError::NotLive { host: self.host, state, lockspace: self.lockspace.clone() }
    }

    /// Has the host reset itself. Returns when it is dead to the lock manager: 3 to 5 renewals for the answer, the
    /// watchdog's time, and 8N + W after the last renewal; 4 to 5 minutes with N = 10.
    pub(crate) fn reset(&self, tell: &mut dyn FnMut(Step)) -> Result<(), StorageResetError> {
        let first = self.host_status()?;
        let first = match first {
            Some(host) if host.state == HostState::Live => host,
            Some(HostStatus { state, .. }) => return Err(self.not_live(state)),
            None => return Err(self.not_live(HostState::Unknown)),
        };
        let mut watch = EventWatch::register(&self.client, &self.lockspace)?;
        let id = u64::from(self.host.get());
        let event = HostEvent { host_id: id, generation: first.generation, event: RESET, data: 0 };
        self.client.set_event(&self.lockspace, event)?;
        tell(Step::Asked);
        let (mut stamp, mut renewals) = (first.timestamp, 0);
        loop {
            let heard = watch.next(LOOK)?;
            if heard.is_some_and(|heard| heard.from == id && heard.event.event & RESETTING != 0) {
                break;
            }
            let now = self.host_status()?;
            let state = now.map_or(HostState::Unknown, |host| host.state);
            match now {
                Some(now) if state == HostState::Live && now.generation == first.generation => {
                    renewals += u32::from(now.timestamp != stamp);
                    stamp = now.timestamp;
                }
                // It ended before its answer was written, or never heard the request: nobody knows.
                Some(_) | None => return Err(self.not_live(state)),
            }
            if renewals >= DEAF_AFTER {
                return Err(StorageResetError::Deaf {
                    host: self.host,
                    renewals,
                    lockspace: self.lockspace.clone(),
                });
            }
        }
        tell(Step::Answered);
        self.wait_until_dead(&mut watch, first)
    }

    fn wait_until_dead(&self, watch: &mut EventWatch, first: HostStatus) -> Result<(), StorageResetError> {
        // It renews until its watchdog fires, and is dead 8N + W after that; two renewals for what is seen late.
        let n = u64::from(first.io_timeout);
        let patience = WATCHDOG + 8 * n + WATCHDOG + 4 * n;
        for _ in 0..patience {
            watch.next(LOOK)?;
            let now = self.host_status()?;
            // A greater generation: it has been reset and is back.
            let gone =
                now.is_some_and(|now| now.state == HostState::Dead || now.generation > first.generation);
            if gone {
                return Ok(());
            }
        }
        let state = self.host_status()?.map_or(HostState::Unknown, |host| host.state);
        Err(StorageResetError::StillThere { host: self.host, state, secs: patience })
    }
}
