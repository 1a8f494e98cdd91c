//! The broker's way to the lock manager of its simulated host.

use async_trait::async_trait;
use ha_broker::lockspace::{Hosts, LockError, Lockspace, Phase};
use metadata_format::HostId;

use crate::sanlock::{Life, Space, Standing};
use crate::world::HostRef;

/// The broker's port to the daemon, for one lockspace.
pub struct SimLockspace {
    /// On this host.
    pub host: HostRef,
    /// Which.
    pub space: Space,
}

#[async_trait]
impl Lockspace for SimLockspace {
    fn name(&self) -> String {
        match self.space {
            Space::Blocks => "hosted-engine".to_owned(),
            Space::Domain => "domain".to_owned(),
        }
    }

    async fn join(&self, _id: HostId) -> Result<(), LockError> {
        self.host.join(self.space).await
    }

    async fn phase(&self, _id: HostId) -> Result<Phase, LockError> {
        Ok(match self.host.sanlock(|daemon| daemon.space(self.space).standing) {
            Standing::Out => Phase::NotHeld,
            Standing::Held => Phase::Held,
            Standing::Joining | Standing::Failing | Standing::Leaving => Phase::Changing,
        })
    }

    async fn leave(&self, id: HostId) -> Result<(), LockError> {
        let host = &self.host;
        let busy = self.space == Space::Domain && host.sanlock(|daemon| daemon.holds_vm_lease);
        if busy {
            return Err(LockError::Failed(format!("host id {id} protects the engine VM's lease")));
        }
        if host.sanlock(|daemon| daemon.space(self.space).standing) != Standing::Held {
            return Ok(());
        }
        host.sanlock(|daemon| {
            let space = daemon.space_mut(self.space);
            space.standing = Standing::Leaving;
            for task in space.tasks.drain(..) {
                task.abort();
            }
        });
        let group = host.world.state().hosts[host.index()].daemon_group.clone();
        let (host, space) = (host.clone(), self.space);
        if let Some(group) = group {
            group.spawn(async move {
                if host.io(true).await.is_ok() {
                    host.my_lease(space, |lease| lease.stamp = 0);
                }
                host.sanlock(|daemon| daemon.space_mut(space).standing = Standing::Out);
            });
        }
        Ok(())
    }

    async fn live_hosts(&self) -> Result<Hosts, LockError> {
        let own = self.host.id.get();
        let ids: Vec<u16> =
            self.host.sanlock(|daemon| daemon.space(self.space).seen.keys().copied().collect());
        let mut hosts = Hosts { live: Vec::new(), is_complete: true };
        for id in ids {
            match self.host.life_of(self.space, id) {
                Some(Life::Live) => hosts.live.extend(HostId::new(id)),
                // The daemon knows of itself without watching.
                Some(Life::Unknown) if id == own => hosts.live.push(self.host.id),
                Some(Life::Unknown) => hosts.is_complete = false,
                Some(Life::Free | Life::Silent | Life::Dead) | None => {}
            }
        }
        Ok(hosts)
    }

    async fn reset(&self) -> Result<(), LockError> {
        let live = self.live_hosts().await?.live;
        if !live.is_empty() {
            return Err(LockError::Live(format!("host ids {live:?} are live")));
        }
        self.host.world.state().areas.ids[self.space as usize].clear();
        Ok(())
    }
}
