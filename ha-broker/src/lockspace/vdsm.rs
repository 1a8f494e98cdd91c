//! The storage domain's lockspace on a host that VDSM manages: VDSM joins and leaves it, when its domain monitor is told
//! to. It is never joined, left or written past VDSM.
//!
//! Whether the id is held, sanlock itself says where it can be asked: it knows better than VDSM, which looks every ten
//! seconds and may be restarting, while the lockspace stays joined. Else VDSM's word counts. A VDSM that was restarted has
//! forgotten what it monitored outside of a storage pool, and is told again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Monotonic};
use metadata_format::HostId;
use sanlock_client::{LockspaceName, LockspacePhase, LockspaceRecord, SanlockError};
use storage_domain::{Left, MonitorError, Monitoring};
use tokio::time::timeout;
use vdsm_client::{CallError, Client};

use super::sanlock::hosts_of;
use super::{Hosts, LockError, Lockspace, Phase};

/// How long a join may take: an id that another host held until it died is free after 140 s by sanlock's defaults.
const JOIN: Duration = Duration::from_mins(4);

/// How old VDSM's word may be; it looks at a domain every ten seconds itself, and logs each question.
const FRESH: Duration = Duration::from_secs(5);

/// How often VDSM is asked whether it still monitors a domain that is held.
const REMIND: Duration = Duration::from_secs(10);

/// How long that may take: whether the id is held does not depend on it.
const REMIND_PATIENCE: Duration = Duration::from_secs(2);

/// How long a question to sanlock may take; it answers from memory.
const ASK: Duration = Duration::from_secs(3);

/// The lock manager behind VDSM.
struct Sanlock {
    ask: sanlock_client::Client,
    name: LockspaceName,
}

impl Sanlock {
    fn record(&self) -> Result<Option<LockspaceRecord>, SanlockError> {
        let all = self.ask.get_lockspaces()?;
        Ok(all.into_iter().find(|record| record.lockspace.name == self.name))
    }
}

/// What sanlock says of the lockspace.
enum Word {
    /// It holds it, or is on the way.
    Has(LockspaceRecord),
    /// It knows nothing of it.
    HasNot,
    /// It cannot be asked.
    Silent,
}

/// What was asked of us last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// To hold the id; also before anything was asked.
    Hold,
    /// To give it up.
    Leave,
    /// The same, and VDSM keeps it for the storage pool: for us it is given up.
    LeaveToPool,
}

/// One storage domain's lockspace.
pub struct VdsmLockspace {
    vdsm: Client,
    sd: String,
    sanlock: Option<Sanlock>,
    clock: Arc<dyn Clock>,
    /// VDSM's last word.
    heard: Mutex<Option<(Monotonic, Monitoring)>>,
    wish: Mutex<Wish>,
    /// When VDSM was last asked whether it still monitors the domain.
    reminded: Mutex<Option<Monotonic>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VdsmLockspace {
    /// The lockspace of storage domain `sd`. `sanlock` is the lock manager's socket, where VDSM uses one that this
    /// process may ask.
    ///
    /// # Errors
    /// When `sd` cannot be a lockspace's name.
    pub fn new(
        vdsm: Client,
        sd: &str,
        sanlock: Option<&std::path::Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, sanlock_client::NameError> {
        let name = LockspaceName::new(sd)?;
        let sanlock = sanlock
            .map(|socket| Sanlock { ask: sanlock_client::Client::new(socket).with_deadline(ASK), name });
        let (heard, wish, reminded) = (Mutex::default(), Mutex::new(Wish::Hold), Mutex::default());
        Ok(Self { vdsm, sd: sd.to_owned(), sanlock, clock, heard, wish, reminded })
    }

    fn failed(&self, error: &CallError) -> LockError {
        LockError::Failed(format!("lockspace {}: {error}", self.name()))
    }

    /// VDSM's word, not older than [`FRESH`].
    async fn monitoring(&self) -> Result<Monitoring, LockError> {
        let heard = *lock(&self.heard);
        let now = self.clock.monotonic();
        if let Some((at, monitoring)) = heard
            && now.saturating_since(at) < FRESH
        {
            return Ok(monitoring);
        }
        let asked = storage_domain::monitoring(&self.vdsm, &self.sd).await;
        let monitoring = asked.map_err(|error| self.failed(&error))?;
        *lock(&self.heard) = Some((now, monitoring));
        Ok(monitoring)
    }

    fn forget(&self) {
        *lock(&self.heard) = None;
    }

    /// Has VDSM monitor the domain that is held: else it would neither tell how storage is, nor join again.
    async fn remind(&self, id: HostId) {
        let now = self.clock.monotonic();
        let lately = |at: Monotonic| now.saturating_since(at) < REMIND;
        {
            let mut reminded = lock(&self.reminded);
            if reminded.is_some_and(lately) {
                return;
            }
            *reminded = Some(now);
        }
        let asked = timeout(REMIND_PATIENCE, storage_domain::monitoring(&self.vdsm, &self.sd));
        let Ok(Ok(Monitoring::None)) = asked.await else { return };
        tracing::info!("VDSM does not monitor storage domain {}, and is told to", self.sd);
        match timeout(REMIND_PATIENCE, self.vdsm.start_monitoring_domain(&self.sd, id.get())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("VDSM does not monitor storage domain {}: {error}", self.sd),
            Err(_) => tracing::debug!("VDSM takes its time to monitor storage domain {}", self.sd),
        }
    }

    fn by_sanlock(&self) -> Word {
        let Some(sanlock) = &self.sanlock else { return Word::Silent };
        match sanlock.record() {
            Ok(Some(record)) => Word::Has(record),
            Ok(None) => Word::HasNot,
            Err(error) => {
                tracing::debug!("lockspace {}: {error}; VDSM's word counts", self.name());
                Word::Silent
            }
        }
    }

    /// VDSM keeps the id that it joined with, whatever is asked for later.
    fn check_id(&self, id: HostId) -> Result<(), LockError> {
        let Word::Has(record) = self.by_sanlock() else { return Ok(()) };
        let theirs = record.lockspace.host_id;
        if theirs == u64::from(id.get()) {
            return Ok(());
        }
        Err(LockError::OtherId(format!(
            "VDSM holds host id {theirs} in the lockspace of storage domain {}, and hosted-engine.conf says host_id={id}: \
             one of them is wrong; the engine's number for this host (vds_spm_id) must be the same",
            self.sd
        )))
    }
}

#[async_trait]
impl Lockspace for VdsmLockspace {
    fn name(&self) -> String {
        format!("{} (VDSM's)", self.sd)
    }

    async fn join(&self, id: HostId) -> Result<(), LockError> {
        *lock(&self.wish) = Wish::Hold;
        self.check_id(id)?;
        let held = storage_domain::hold(&self.vdsm, &self.sd, id.get(), JOIN).await;
        self.forget();
        match held {
            Ok(()) => self.check_id(id),
            Err(MonitorError::Call(error)) => Err(self.failed(&error)),
            Err(error @ MonitorError::Late { .. }) => Err(LockError::Failed(error.to_string())),
        }
    }

    async fn phase(&self, id: HostId) -> Result<Phase, LockError> {
        let wish = *lock(&self.wish);
        if wish == Wish::LeaveToPool {
            return Ok(Phase::NotHeld);
        }
        match self.by_sanlock() {
            Word::Has(record) if record.lockspace.host_id != u64::from(id.get()) => Ok(Phase::NotHeld),
            Word::Has(record) => Ok(match record.phase {
                LockspacePhase::Joined => {
                    if wish == Wish::Hold {
                        self.remind(id).await;
                    }
                    Phase::Held
                }
                LockspacePhase::Joining | LockspacePhase::Leaving => Phase::Changing,
                LockspacePhase::NotJoined => Phase::NotHeld,
            }),
            Word::HasNot => Ok(match self.monitoring().await? {
                Monitoring::None => Phase::NotHeld,
                // VDSM joins it again by itself, when it looks next.
                Monitoring::Pending | Monitoring::Acquired => Phase::Changing,
            }),
            Word::Silent => Ok(match self.monitoring().await? {
                Monitoring::None => Phase::NotHeld,
                Monitoring::Pending => Phase::Changing,
                Monitoring::Acquired => Phase::Held,
            }),
        }
    }

    async fn leave(&self, _: HostId) -> Result<(), LockError> {
        *lock(&self.wish) = Wish::Leave;
        let left = storage_domain::leave(&self.vdsm, &self.sd).await;
        self.forget();
        match left.map_err(|error| self.failed(&error))? {
            Left::Stopped => {}
            Left::Pool => {
                tracing::info!("storage domain {} is in a storage pool: VDSM goes on monitoring it", self.sd);
                *lock(&self.wish) = Wish::LeaveToPool;
            }
        }
        Ok(())
    }

    async fn live_hosts(&self) -> Result<Hosts, LockError> {
        let Some(sanlock) = &self.sanlock else {
            return Err(LockError::Failed(format!(
                "lockspace {}: VDSM does not name live hosts",
                self.name()
            )));
        };
        hosts_of(&sanlock.ask, &sanlock.name)
            .map_err(|error| LockError::Failed(format!("lockspace {}: {error}", self.name())))
    }

    async fn reset(&self) -> Result<(), LockError> {
        Err(LockError::Failed(format!("lockspace {} is VDSM's: it is not written anew here", self.name())))
    }
}

#[cfg(test)]
#[path = "vdsm_tests.rs"]
mod tests;
