//! Who holds the VM's lease, and when it can be had at the latest.
//!
//! The lock manager tells each host's last renewal in that host's own seconds, which mean nothing here. What counts is
//! when a renewal was first *seen* here: from then on the owner has 8N + W until it is dead. A host that sanlock calls
//! failing has been silent for 8N already.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sanlock_client::{HostState, HostStatus, LockspaceName, Owner, SanlockError};
use tokio::time::Instant;

use crate::lease::{LeaseError, LeaseSpec};

use crate::port::{LeaseOutlook, OwnerLife};

/// How often the lock manager, which announces nothing, is asked whether an owner gives way. It answers from memory.
const POLL: Duration = Duration::from_millis(500);

/// What was seen of the owner.
#[derive(Debug, Clone)]
struct Seen {
    lockspace: LockspaceName,
    owner: Owner,
    /// Its last renewal, and when that was first seen.
    renewal: (u64, Instant),
    /// Since when it is seen failing.
    failing: Option<Instant>,
}

/// Remembers the owner between two questions. Clones share their memory.
#[derive(Debug, Clone, Default)]
pub struct OwnerWatch(Arc<Mutex<Option<Seen>>>);

impl OwnerWatch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner that was seen last, and its lockspace.
    pub fn owner(&self) -> Option<(LockspaceName, Owner)> {
        self.lock().as_ref().map(|seen| (seen.lockspace.clone(), seen.owner))
    }

    /// Takes what the lock manager says of the lease: who owns it by its record, and how that host is; `None` for one that
    /// it does not know. `watchdog` is W.
    pub fn judge(
        &self,
        lockspace: &LockspaceName,
        owner: Option<Owner>,
        host: Option<HostStatus>,
        watchdog: Duration,
        now: Instant,
    ) -> LeaseOutlook {
        let mut place = self.lock();
        let Some(owner) = owner.filter(|owner| !gives_way(*owner, host)) else {
            *place = None;
            return LeaseOutlook::Free;
        };
        let life = match host.map(|host| host.state) {
            Some(HostState::Live) => OwnerLife::Live,
            Some(HostState::Fail) => OwnerLife::Failing,
            // Free and dead ones have given way.
            Some(HostState::Unknown | HostState::Free | HostState::Dead) | None => OwnerLife::Unknown,
        };
        let stamp = host.map_or(0, |host| host.timestamp);
        let same = |seen: &Seen| seen.owner == owner && seen.lockspace == *lockspace;
        let before = place.take().filter(same);
        let renewal = before.as_ref().map(|seen| seen.renewal).filter(|(known, _)| *known == stamp);
        let renewal = renewal.unwrap_or((stamp, now));
        let failing =
            (life == OwnerLife::Failing).then(|| before.and_then(|seen| seen.failing).unwrap_or(now));
        *place = Some(Seen { lockspace: lockspace.clone(), owner, renewal, failing });
        let lost_after = Duration::from_secs(8 * u64::from(host.map_or(10, |host| host.io_timeout)));
        let dead = renewal.1 + lost_after + watchdog;
        let dead = failing.map_or(dead, |since| dead.min(since + watchdog));
        let free_in = (life != OwnerLife::Live).then(|| dead.saturating_duration_since(now));
        LeaseOutlook::Held { host_id: owner.host_id, life, free_in }
    }
}

impl LeaseSpec {
    /// Who holds the lease, for a start. A file lock tells only by taking it.
    pub fn outlook(&self, watch: &OwnerWatch, watchdog: Duration) -> Result<LeaseOutlook, LeaseError> {
        let Some((client, resource)) = self.client() else { return Ok(LeaseOutlook::Free) };
        let resource = resource?;
        let unavailable = |e: SanlockError| LeaseError::Unavailable(e.to_string());
        let owners = client.read_resource_owners(&resource).map_err(unavailable)?;
        let owner = owners.owners.first().copied();
        let host = match owner {
            Some(owner) => {
                let hosts =
                    client.get_hosts(&resource.lockspace, Some(owner.host_id)).map_err(unavailable)?;
                hosts.into_iter().find(|host| host.host_id == owner.host_id)
            }
            None => None,
        };
        Ok(watch.judge(&resource.lockspace, owner, host, watchdog, Instant::now()))
    }

    /// Whether the owner that was seen last has given way; `None` when none was seen.
    pub fn owner_gives_way(&self, watch: &OwnerWatch) -> Result<Option<bool>, LeaseError> {
        let (Some((client, _)), Some((lockspace, owner))) = (self.known(), watch.owner()) else {
            return Ok(None);
        };
        let hosts = client
            .get_hosts(&lockspace, Some(owner.host_id))
            .map_err(|e| LeaseError::Unavailable(e.to_string()))?;
        let host = hosts.into_iter().find(|host| host.host_id == owner.host_id);
        Ok(Some(gives_way(owner, host)))
    }
}

/// Waits until the owner that was seen last gives way; for ever when none was seen. `spec` says whose lock manager to ask.
pub async fn wait_for_owner(watch: &OwnerWatch, spec: &LeaseSpec) {
    loop {
        tokio::time::sleep(POLL).await;
        let (watch, spec) = (watch.clone(), spec.clone());
        let asked = tokio::task::spawn_blocking(move || spec.owner_gives_way(&watch)).await;
        match asked {
            Ok(Ok(Some(true))) => return,
            Ok(Ok(None)) => return std::future::pending().await,
            // A lock manager that does not answer is asked again.
            Ok(Ok(Some(false)) | Err(_)) | Err(_) => {}
        }
    }
}

/// Whether a lease of `owner` can be taken at once: its host is dead, gave its id up, or has joined anew since.
pub fn gives_way(owner: Owner, host: Option<HostStatus>) -> bool {
    host.is_some_and(|host| host.state.gives_way() || host.generation > owner.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Duration = Duration::from_mins(1);
    const OWNER: Owner = Owner { host_id: 2, generation: 4, timestamp: 100 };

    fn host(state: HostState, timestamp: u64) -> HostStatus {
        HostStatus { host_id: 2, generation: 4, timestamp, io_timeout: 10, state }
    }

    fn held(life: OwnerLife, free_in: Option<u64>) -> LeaseOutlook {
        LeaseOutlook::Held { host_id: 2, life, free_in: free_in.map(Duration::from_secs) }
    }

    #[test]
    fn the_end_is_reckoned_from_what_was_seen_here() {
        let watch = OwnerWatch::default();
        let space = LockspaceName::new("sd").unwrap();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let judge = |host, secs| watch.judge(&space, Some(OWNER), Some(host), W, at(secs));
        assert_eq!(judge(host(HostState::Unknown, 7), 0), held(OwnerLife::Unknown, Some(140)));
        assert_eq!(judge(host(HostState::Unknown, 7), 10), held(OwnerLife::Unknown, Some(130)));
        // It renewed in between.
        assert_eq!(judge(host(HostState::Live, 27), 20), held(OwnerLife::Live, None));
        assert_eq!(judge(host(HostState::Live, 27), 90), held(OwnerLife::Live, None));
        // Seen failing at 95 s: the renewal was seen late.
        assert_eq!(judge(host(HostState::Fail, 27), 95), held(OwnerLife::Failing, Some(60)));
        assert_eq!(judge(host(HostState::Fail, 27), 105), held(OwnerLife::Failing, Some(50)));
        assert_eq!(watch.owner(), Some((space.clone(), OWNER)));
        assert_eq!(judge(host(HostState::Dead, 27), 155), LeaseOutlook::Free);
        assert_eq!(watch.owner(), None);
    }

    #[test]
    fn who_gave_its_id_up_or_joined_anew_holds_nothing() {
        let watch = OwnerWatch::default();
        let space = LockspaceName::new("sd").unwrap();
        let now = Instant::now();
        let judge = |owner, host| watch.judge(&space, owner, host, W, now);
        assert_eq!(judge(None, None), LeaseOutlook::Free);
        assert_eq!(judge(Some(OWNER), Some(host(HostState::Free, 0))), LeaseOutlook::Free);
        let anew = HostStatus { generation: 5, ..host(HostState::Live, 9) };
        assert_eq!(judge(Some(OWNER), Some(anew)), LeaseOutlook::Free);
        assert_eq!(judge(Some(OWNER), None), held(OwnerLife::Unknown, Some(140)));
    }
}
