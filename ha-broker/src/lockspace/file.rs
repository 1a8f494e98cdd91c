//! File locks as lock manager: for one machine only (`[lease] adapter = "file"`).
//!
//! Each host id is a lock file beside the lockspace's file; holding the lock is holding the id. The kernel frees it
//! when the process ends, however it ends. Between machines it protects nothing, and it does not notice failing
//! storage: that is what sanlock is for.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use metadata_format::HostId;

use super::{Hosts, LockError, Lockspace, Phase};

/// One lockspace of lock files.
#[derive(Debug)]
pub struct FileLockspace {
    path: PathBuf,
    held: Mutex<Option<(HostId, File)>>,
}

impl FileLockspace {
    /// Lock files are `PATH.ID.lock`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<(HostId, File)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, id: HostId) -> bool {
        self.held().as_ref().is_some_and(|(ours, _)| *ours == id)
    }

    fn lock_file(&self, id: HostId) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{id}.lock"));
        PathBuf::from(name)
    }

    /// The lock of `id`, if nobody has it.
    fn try_lock(&self, id: HostId) -> Result<Option<File>, LockError> {
        let path = self.lock_file(id);
        let failed = |error| LockError::Failed(format!("cannot lock {}: {error}", path.display()));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Ids that have a lock file.
    fn ids(&self) -> Result<Vec<HostId>, LockError> {
        let failed =
            |error| LockError::Failed(format!("cannot list locks of {}: {error}", self.path.display()));
        let (Some(directory), Some(stem)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(Vec::new());
        };
        let prefix = format!("{}.", stem.display());
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".lock"));
            ids.extend(id.and_then(|id| id.parse::<HostId>().ok()));
        }
        Ok(ids)
    }
}

#[async_trait]
impl Lockspace for FileLockspace {
    fn name(&self) -> String {
        format!("of file locks at {}", self.path.display())
    }

    async fn join(&self, id: HostId) -> Result<(), LockError> {
        let mut held = self.held();
        match held.as_ref() {
            Some((ours, _)) if *ours == id => return Ok(()),
            Some((ours, _)) => {
                return Err(LockError::OtherId(format!("host id {ours} is held: release it before {id}")));
            }
            None => {}
        }
        match self.try_lock(id)? {
            Some(file) => {
                *held = Some((id, file));
                Ok(())
            }
            None => Err(LockError::InUse(format!(
                "host id {id} is in use by another process of this machine: {} is locked",
                self.lock_file(id).display()
            ))),
        }
    }

    async fn phase(&self, id: HostId) -> Result<Phase, LockError> {
        Ok(if self.holds(id) { Phase::Held } else { Phase::NotHeld })
    }

    async fn leave(&self, id: HostId) -> Result<(), LockError> {
        let mut held = self.held();
        if held.as_ref().is_some_and(|(ours, _)| *ours == id) {
            *held = None;
        }
        Ok(())
    }

    async fn live_hosts(&self) -> Result<Hosts, LockError> {
        let mut live = Vec::new();
        for id in self.ids()? {
            if self.holds(id) || self.try_lock(id)?.is_none() {
                live.push(id);
            }
        }
        live.sort_unstable();
        // A lock is held or it is not: there is nothing to wait for.
        Ok(Hosts { live, is_complete: true })
    }

    async fn reset(&self) -> Result<(), LockError> {
        match self.live_hosts().await?.live.as_slice() {
            // A lock file without a lock is a free id: there is nothing to write anew.
            [] => Ok(()),
            live => Err(LockError::Live(format!(
                "host ids {live:?} are locked at {}: stop those hosts first",
                self.path.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_per_id_and_the_lock_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosted-engine.lockspace");
        let (a, b) = (FileLockspace::new(path.clone()), FileLockspace::new(path));
        let (one, two) = (HostId::new(1).unwrap(), HostId::new(2).unwrap());
        a.join(one).await.unwrap();
        assert_eq!(a.phase(one).await, Ok(Phase::Held));
        assert_eq!(b.phase(one).await, Ok(Phase::NotHeld));
        assert!(matches!(b.join(one).await, Err(LockError::InUse(_))));
        assert!(matches!(a.join(two).await, Err(LockError::OtherId(_))));
        b.join(two).await.unwrap();
        assert_eq!(a.live_hosts().await.unwrap().live, [one, two]);
        assert!(matches!(b.reset().await, Err(LockError::Live(_))));
        drop(a);
        assert_eq!(b.live_hosts().await.unwrap().live, [two]);
        b.leave(two).await.unwrap();
        b.join(one).await.unwrap();
        b.leave(one).await.unwrap();
        b.reset().await.unwrap();
    }
}
