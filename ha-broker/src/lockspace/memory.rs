//! The simulated lock manager: holds and loses ids as told. No I/O.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use metadata_format::HostId;

use super::{Hosts, LockError, Lockspace, Phase};

/// One lockspace.
#[derive(Debug, Default)]
pub struct MemoryLockspace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ours: Option<HostId>,
    others: BTreeSet<HostId>,
    joins_hang: bool,
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
        self.lock().joins_hang = hang;
        self.changed.notify_all();
    }

    /// How often a join was tried.
    pub fn joins(&self) -> u32 {
        self.lock().joins
    }
}

impl Lockspace for MemoryLockspace {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn join(&self, id: HostId) -> Result<(), LockError> {
        let mut state = self.lock();
        state.joins += 1;
        while state.joins_hang {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(words) = &state.broken {
            return Err(LockError::Failed(words.clone()));
        }
        if state.others.contains(&id) {
            return Err(LockError::InUse(format!("host id {id} is in use by another host")));
        }
        state.ours = Some(id);
        Ok(())
    }

    fn phase(&self, id: HostId) -> Result<Phase, LockError> {
        let state = self.lock();
        match &state.broken {
            Some(words) => Err(LockError::Failed(words.clone())),
            None if state.ours == Some(id) => Ok(Phase::Held),
            None => Ok(Phase::NotHeld),
        }
    }

    fn leave(&self, id: HostId) -> Result<(), LockError> {
        let mut state = self.lock();
        if state.ours == Some(id) {
            state.ours = None;
        }
        Ok(())
    }

    fn live_hosts(&self) -> Result<Hosts, LockError> {
        let state = self.lock();
        let live = state.others.iter().chain(&state.ours).copied().collect();
        Ok(Hosts { live, is_complete: !state.unsure })
    }

    fn reset(&self) -> Result<(), LockError> {
        match self.live_hosts()?.live.as_slice() {
            [] => Ok(()),
            live => Err(LockError::Live(format!("host ids {live:?} are live"))),
        }
    }
}
