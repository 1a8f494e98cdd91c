//! The simulated lock manager: holds and loses ids as told. No I/O.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use metadata_format::HostId;
use tokio::sync::watch;

use super::{Hosts, LockError, Lockspace, Phase};

/// One lockspace.
#[derive(Debug, Default)]
pub struct MemoryLockspace {
    state: Mutex<State>,
    joins_hang: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    ours: Option<HostId>,
    others: BTreeSet<HostId>,
    joins: u32,
    unsure: bool,
    broken: Option<String>,
}

impl MemoryLockspace {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another host holds `id` from now on.
    pub fn take_elsewhere(&self, id: HostId) {
        self.lock().others.insert(id);
    }

    /// No other host holds `id` any more.
    pub fn free_elsewhere(&self, id: HostId) {
        self.lock().others.remove(&id);
    }

    /// Our id is gone, as after failed renewals.
    pub fn lose(&self) {
        self.lock().ours = None;
    }

    /// Each question fails with these words, until `None`.
    pub fn set_broken(&self, words: Option<&str>) {
        self.lock().broken = words.map(str::to_owned);
    }

    /// Whether some host was not watched for long enough to say whether it is live.
    pub fn set_unsure(&self, unsure: bool) {
        self.lock().unsure = unsure;
    }

    /// Whether a join hangs.
    pub fn set_joins_hang(&self, hang: bool) {
        self.joins_hang.send_replace(hang);
    }

    /// How often a join was tried.
    pub fn joins(&self) -> u32 {
        self.lock().joins
    }
}

#[async_trait]
impl Lockspace for MemoryLockspace {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn join(&self, id: HostId) -> Result<(), LockError> {
        self.lock().joins += 1;
        // The sender lives as long as this borrow of it.
        let _ = self.joins_hang.subscribe().wait_for(|hang| !hang).await;
        let mut state = self.lock();
        if let Some(words) = &state.broken {
            return Err(LockError::Failed(words.clone()));
        }
        if state.others.contains(&id) {
            return Err(LockError::InUse(format!("host id {id} is in use by another host")));
        }
        state.ours = Some(id);
        Ok(())
    }

    async fn phase(&self, id: HostId) -> Result<Phase, LockError> {
        let state = self.lock();
        match &state.broken {
            Some(words) => Err(LockError::Failed(words.clone())),
            None if state.ours == Some(id) => Ok(Phase::Held),
            None => Ok(Phase::NotHeld),
        }
    }

    async fn leave(&self, id: HostId) -> Result<(), LockError> {
        let mut state = self.lock();
        if state.ours == Some(id) {
            state.ours = None;
        }
        Ok(())
    }

    async fn live_hosts(&self) -> Result<Hosts, LockError> {
        let state = self.lock();
        let live = state.others.iter().chain(&state.ours).copied().collect();
        Ok(Hosts { live, is_complete: !state.unsure })
    }

    async fn reset(&self) -> Result<(), LockError> {
        match self.live_hosts().await?.live.as_slice() {
            [] => Ok(()),
            live => Err(LockError::Live(format!("host ids {live:?} are live"))),
        }
    }
}
