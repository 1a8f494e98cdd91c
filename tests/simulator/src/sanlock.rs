//! sanlock's rules on a simulated host: a daemon that renews its host ids, knows who else does, kills what runs under
//! a lease that it cannot renew, and a watchdog behind it. Figures are sanlock's own, with N its I/O time-out and W the
//! watchdog's: renewal each 2N; at 8N without one the lease's holders are killed; at 8N+W the host is reset, and
//! others may take its leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine_vm::{LeaseOutlook, OwnerLife};
use ha_broker::lockspace::LockError;
use rustix::io::Errno;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::host::PowerLoss;
use crate::world::{HostRef, State};

/// The two lockspaces of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// `hosted-engine`: protects the blocks.
    Blocks,
    /// The storage domain's: carries the VM's lease.
    Domain,
}

/// Both.
pub const SPACES: [Space; 2] = [Space::Blocks, Space::Domain];

/// A host id's lease as storage has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeltaLease {
    /// The host that wrote it last.
    pub owner: u16,
    /// Grows each time that the id is taken.
    pub generation: u64,
    /// Changes with each renewal; 0 when the id was given up.
    pub stamp: u64,
}

/// The VM's lease as storage has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmLease {
    /// Host id and generation of the owner; `None` when it is free.
    pub owner: Option<(u16, u64)>,
    /// Grows each time that it is taken.
    pub version: u64,
}

/// The lock manager's areas on storage.
#[derive(Debug, Default)]
pub struct Areas {
    /// Leases of the host ids.
    pub ids: [BTreeMap<u16, DeltaLease>; 2],
    /// The VM's.
    pub vm: VmLease,
}

/// How far the daemon is with this host's id in one lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Not in it.
    #[default]
    Out,
    /// On the way in.
    Joining,
    /// In it.
    Held,
    /// Renewals failed for 8N: what runs under it is being killed.
    Failing,
    /// On the way out.
    Leaving,
}

/// What one look at another host's lease taught.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    lease: DeltaLease,
    /// When it was last found changed, or first seen.
    changed: Duration,
    /// It was found changed: who was only seen so far may have been dead for long.
    has_changed: bool,
}

/// The daemon's memory of one lockspace.
#[derive(Debug, Default)]
pub struct Membership {
    /// How far it is.
    pub standing: Standing,
    /// Of this host's id.
    pub generation: u64,
    /// When the last renewal that worked was begun.
    pub renewed: Duration,
    pub(crate) seen: BTreeMap<u16, Seen>,
    pub(crate) tasks: Vec<AbortHandle>,
}

/// The daemon of one host.
#[derive(Debug, Default)]
pub struct Daemon {
    spaces: [Membership; 2],
    /// The VM's lease is held for the VM's process.
    pub holds_vm_lease: bool,
    stamp: u64,
    /// The VM's process has gone.
    pub vm_gone: Arc<Notify>,
}

impl Daemon {
    /// One lockspace.
    pub fn space(&self, space: Space) -> &Membership {
        &self.spaces[space as usize]
    }

    pub(crate) fn space_mut(&mut self, space: Space) -> &mut Membership {
        &mut self.spaces[space as usize]
    }

    /// Whether any lockspace is held, so that the watchdog is armed.
    pub fn arms_watchdog(&self) -> bool {
        self.spaces.iter().any(|space| matches!(space.standing, Standing::Held | Standing::Failing))
    }
}

/// What sanlock says of an acquire that it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// -243, -247: another host's.
    Held(String),
    /// This host is not in the lockspace.
    NotJoined,
    /// Storage failed.
    Storage(Errno),
}

/// What this host can know of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Gave its id up, or never had one.
    Free,
    /// Not watched for long enough to tell.
    Unknown,
    /// Renews.
    Live,
    /// Silent.
    Silent,
    /// Silent for 8N+W.
    Dead,
}

impl HostRef {
    /// sanlock's figures: N, 8N and 8N+W, in this host's seconds, as the world's time.
    fn io_timeout(&self) -> Duration {
        self.ticks(Duration::from_secs(self.world.shape.io_timeout()))
    }

    fn fails_after(&self) -> Duration {
        self.io_timeout() * 8
    }

    fn dead_after(&self) -> Duration {
        self.fails_after() + self.ticks(Duration::from_secs(self.world.shape.watchdog()))
    }

    pub(crate) fn sanlock<T>(&self, act: impl FnOnce(&mut Daemon) -> T) -> T {
        act(&mut self.world.state().hosts[self.index()].sanlock)
    }

    pub(crate) fn my_lease(&self, space: Space, change: impl FnOnce(&mut DeltaLease)) {
        let mut state = self.world.state();
        let stamp = {
            let daemon = &mut state.hosts[self.index()].sanlock;
            daemon.stamp += 1;
            daemon.stamp
        };
        let lease = state.areas.ids[space as usize].entry(self.id.get()).or_default();
        lease.stamp = stamp;
        change(lease);
    }

    fn lease_of(&self, space: Space, id: u16) -> DeltaLease {
        self.world.state().areas.ids[space as usize].get(&id).copied().unwrap_or_default()
    }

    /// Takes this host's id. The daemon goes on with it when the caller goes away.
    pub(crate) async fn join(&self, space: Space) -> Result<(), LockError> {
        if self.sanlock(|daemon| daemon.space(space).standing) == Standing::Held {
            return Ok(());
        }
        let Some(group) = self.world.state().hosts[self.index()].daemon_group.clone() else {
            return Err(LockError::Failed("sanlock does not run".to_owned()));
        };
        let (tell, told) = oneshot::channel();
        let host = self.clone();
        group.spawn(async move {
            let result = host.take_id(space).await;
            // The broker may be gone.
            let _ = tell.send(result);
        });
        told.await.unwrap_or_else(|_| Err(LockError::Failed("sanlock was stopped".to_owned())))
    }

    async fn take_id(&self, space: Space) -> Result<(), LockError> {
        let standing = self.sanlock(|daemon| daemon.space(space).standing);
        if standing != Standing::Out {
            return Err(LockError::Failed(format!("sanlock is busy with this lockspace ({standing:?})")));
        }
        self.sanlock(|daemon| daemon.space_mut(space).standing = Standing::Joining);
        let result = self.write_id(space).await;
        if result.is_err() {
            self.sanlock(|daemon| daemon.space_mut(space).standing = Standing::Out);
        }
        result
    }

    async fn write_id(&self, space: Space) -> Result<(), LockError> {
        let failed = |errno: Errno| LockError::Failed(format!("cannot read or write the lockspace: {errno}"));
        let id = self.id.get();
        self.io(false).await.map_err(failed)?;
        let before = self.lease_of(space, id);
        if before.stamp != 0 && before.owner != id {
            // Another host's: only when it stands still for as long as a dead host's lease lasts.
            tokio::time::sleep(self.dead_after()).await;
            self.io(false).await.map_err(failed)?;
            if self.lease_of(space, id) != before {
                return Err(LockError::InUse(format!("host id {id} is in use by host {}", before.owner)));
            }
        } else if before.stamp != 0 {
            // This host's own, from before a crash.
            tokio::time::sleep(self.io_timeout()).await;
        }
        self.io(true).await.map_err(failed)?;
        let generation = before.generation + 1;
        self.my_lease(space, |lease| *lease = DeltaLease { owner: id, generation, stamp: lease.stamp });
        let begun = self.world.now();
        tokio::time::sleep(self.io_timeout() * 2).await;
        self.io(false).await.map_err(failed)?;
        if self.lease_of(space, id).owner != id {
            return Err(LockError::InUse(format!("another host took host id {id} at the same time")));
        }
        self.sanlock(|daemon| {
            let space = daemon.space_mut(space);
            *space =
                Membership { standing: Standing::Held, generation, renewed: begun, ..Membership::default() };
        });
        self.look_at_others(space);
        let group = self.world.state().hosts[self.index()].daemon_group.clone();
        if let Some(group) = group {
            let (renewer, watcher) = (self.clone(), self.clone());
            let tasks = vec![
                group.spawn(async move { renewer.renew_forever(space).await }),
                group.spawn(async move { watcher.watch(space).await }),
            ];
            self.sanlock(|daemon| daemon.space_mut(space).tasks = tasks);
        }
        Ok(())
    }

    async fn renew_forever(&self, space: Space) {
        let pace = self.io_timeout() * 2;
        loop {
            let renewed = self.sanlock(|daemon| daemon.space(space).renewed);
            tokio::time::sleep((renewed + pace).saturating_sub(self.world.now())).await;
            let begun = self.world.now();
            // An answer after the I/O time-out is no renewal, although the write may have landed.
            let written = self.io(true).await;
            let late = self.world.now().saturating_sub(begun) > self.io_timeout();
            if written.is_ok() {
                self.my_lease(space, |_| ());
            }
            if written.is_ok() && !late {
                self.sanlock(|daemon| daemon.space_mut(space).renewed = begun);
                self.look_at_others(space);
            } else {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Each renewal reads all ids.
    fn look_at_others(&self, space: Space) {
        let now = self.world.now();
        let mut state = self.world.state();
        let State { areas, hosts, .. } = &mut *state;
        let seen = &mut hosts[self.index()].sanlock.space_mut(space).seen;
        for (id, lease) in &areas.ids[space as usize] {
            let entry = seen.entry(*id).or_insert(Seen { lease: *lease, changed: now, has_changed: false });
            if entry.lease != *lease {
                *entry = Seen { lease: *lease, changed: now, has_changed: true };
            }
        }
    }

    /// Ends what runs under the lease once it cannot be renewed.
    async fn watch(&self, space: Space) {
        loop {
            let due = self.sanlock(|daemon| daemon.space(space).renewed) + self.fails_after();
            if self.world.now() >= due {
                break;
            }
            tokio::time::sleep_until(self.world.instant(due)).await;
        }
        let reset_at = self.sanlock(|daemon| {
            let space = daemon.space_mut(space);
            space.standing = Standing::Failing;
            if let Some(renewer) = space.tasks.first() {
                renewer.abort();
            }
            space.renewed
        }) + self.dead_after();
        self.world.lease_failing(self.id, space);
        if space == Space::Domain {
            let gone = self.sanlock(|daemon| Arc::clone(&daemon.vm_gone));
            let mut gone = std::pin::pin!(gone.notified());
            gone.as_mut().enable();
            if !self.kill_vm("sanlock killed it: its lease could not be renewed") {
                // It waits for storage and cannot die: the watchdog decides.
                if self.world.shape.has_watchdog {
                    tokio::select! {
                        biased;
                        () = &mut gone => {}
                        () = tokio::time::sleep_until(self.world.instant(reset_at)) => {
                            self.world.lose_power(self.id, PowerLoss::Watchdog);
                            return;
                        }
                    }
                } else {
                    gone.await;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.sanlock(|daemon| daemon.space_mut(space).standing = Standing::Out);
    }

    /// Who `id` is to this host.
    pub fn life_of(&self, space: Space, id: u16) -> Option<Life> {
        let (fails, dead) = (self.fails_after(), self.dead_after());
        let now = self.world.now();
        let state = self.world.state();
        let seen = state.hosts[self.index()].sanlock.space(space).seen.get(&id)?;
        let silent = now.saturating_sub(seen.changed);
        Some(if seen.lease.stamp == 0 {
            Life::Free
        } else if !seen.has_changed && silent < dead {
            Life::Unknown
        } else if silent < fails {
            Life::Live
        } else if silent < dead {
            Life::Silent
        } else {
            Life::Dead
        })
    }

    /// Whether another host holds the VM's lease and may be alive, as far as this host's daemon has seen.
    pub fn vm_lease_outlook(&self) -> LeaseOutlook {
        let owner = self.world.state().areas.vm.owner;
        let Some((owner, generation)) = owner.filter(|(owner, _)| *owner != self.id.get()) else {
            return LeaseOutlook::Free;
        };
        let now = self.world.now();
        let seen = {
            let state = self.world.state();
            state.hosts[self.index()].sanlock.space(Space::Domain).seen.get(&owner).copied()
        };
        if seen.is_some_and(|seen| seen.lease.generation > generation) {
            return LeaseOutlook::Free;
        }
        let life = match self.life_of(Space::Domain, owner) {
            Some(Life::Free | Life::Dead) => return LeaseOutlook::Free,
            Some(Life::Live) => OwnerLife::Live,
            Some(Life::Silent) => OwnerLife::Failing,
            Some(Life::Unknown) | None => OwnerLife::Unknown,
        };
        let since = seen.map_or(now, |seen| seen.changed);
        let free_in = (life != OwnerLife::Live).then(|| (since + self.dead_after()).saturating_sub(now));
        LeaseOutlook::Held { host_id: owner.into(), life, free_in }
    }

    /// Takes the VM's lease for a process of this host, without waiting for anybody.
    pub async fn acquire_vm_lease(&self) -> Result<(), Refusal> {
        self.io(false).await.map_err(Refusal::Storage)?;
        let found = self.world.state().areas.vm;
        let joined = self.sanlock(|daemon| {
            let space = daemon.space(Space::Domain);
            (space.standing == Standing::Held).then_some(space.generation)
        });
        let generation = joined.ok_or(Refusal::NotJoined)?;
        if let Some((owner, its_generation)) = found.owner
            && owner != self.id.get()
        {
            let now_there = self.lease_of(Space::Domain, owner);
            let gone = now_there.generation != its_generation || now_there.stamp == 0;
            // The daemon reads the owner's own lease again: it may have been unable to look for long.
            let known =
                self.sanlock(|daemon| daemon.space(Space::Domain).seen.get(&owner).map(|seen| seen.lease));
            let life = match known {
                Some(known) if known != now_there => Some(Life::Live),
                _ => self.life_of(Space::Domain, owner),
            };
            if !gone && life != Some(Life::Dead) {
                let life = match life {
                    Some(Life::Silent) => "silent",
                    Some(Life::Live | Life::Free | Life::Dead) => "live",
                    Some(Life::Unknown) | None => "not known yet",
                };
                return Err(Refusal::Held(format!("the owner is host id {owner}, which is {life}")));
            }
        }
        for _ in 0..2 {
            self.io(true).await.map_err(Refusal::Storage)?;
        }
        let mut state = self.world.state();
        if state.areas.vm != found {
            return Err(Refusal::Held("another host took it at the same moment".to_owned()));
        }
        let daemon = &mut state.hosts[self.index()].sanlock;
        if daemon.space(Space::Domain).standing != Standing::Held {
            return Err(Refusal::NotJoined);
        }
        daemon.holds_vm_lease = true;
        state.areas.vm = VmLease { owner: Some((self.id.get(), generation)), version: found.version + 1 };
        Ok(())
    }

    /// The VM's process is gone: its lease is given up as soon as storage takes it.
    pub fn release_vm_lease(&self) {
        let (group, version) = {
            let mut state = self.world.state();
            let version = state.areas.vm.version;
            let host = &mut state.hosts[self.index()];
            host.sanlock.holds_vm_lease = false;
            host.sanlock.vm_gone.notify_waiters();
            (host.daemon_group.clone(), version)
        };
        let (Some(group), host) = (group, self.clone()) else { return };
        group.spawn(async move {
            while host.io(true).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let mut state = host.world.state();
            let vm = &mut state.areas.vm;
            if vm.version == version && vm.owner.is_some_and(|(id, _)| id == host.id.get()) {
                vm.owner = None;
            }
        });
    }
}
