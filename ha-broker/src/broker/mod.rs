//! The broker behind its verbs: the whiteboard, the two lockspaces, the alive list, the monitors and the
//! notifications, put together. It keeps facts and carries out orders; it decides nothing.
//!
//! Every verb ends in bounded time whatever storage does: reads answer from what was seen last, writes have the
//! whiteboard's deadline. Only joining a lockspace takes as long as the lock manager's time-outs say.

mod metrics;
mod standing;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker_api::status::{AgentReport, LeaseState, MigrationRequest, MonitorRow, StatusDocument, Wake};
use clock::Clock;
use metadata_format::{BLOCK_SIZE, BlockError, HostBlock, HostId};

use crate::alive::Fresh;
use crate::lockspace::Keeper;
use crate::news::News;
use crate::verbs::{MonitorOptions, VerbError, Verbs};
use crate::wake::WakeCounter;
use crate::whiteboard::cluster::Change;
use crate::whiteboard::commit::Payload;
use crate::whiteboard::{BlockLease, CLUSTER_BLOCK, PutError, Service, zero_block};

/// How long giving up a host id may take before the caller is told that it goes on.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);

/// How long an operator's request for a migration is kept for the agent.
const REQUEST_KEPT: Duration = Duration::from_mins(10);

/// What the broker needs of the monitors. No call waits for a measurement.
#[async_trait]
pub trait Monitors: Send + Sync + 'static {
    /// Starts (or finds running) the monitor `kind`; gives its id.
    async fn start(&self, kind: &str, options: MonitorOptions) -> Result<String, VerbError>;
    /// Stops it.
    async fn stop(&self, id: &str) -> Result<(), VerbError>;
    /// Its last result as text; `None` before the first.
    async fn value(&self, id: &str) -> Result<Option<String>, VerbError>;
    /// All of them.
    fn rows(&self) -> BTreeMap<String, MonitorRow>;
}

/// What the broker needs of the notifications.
pub trait Notifications: Send + Sync + 'static {
    /// Queues a notification and returns at once; true if a rule wants it sent.
    fn notify(&self, event: &str, detail: &str, options: BTreeMap<String, String>) -> bool;
}

/// What the broker is made of.
pub struct Parts {
    /// This host's id by its configuration.
    pub host_id: Option<HostId>,
    /// The shared metadata file.
    pub whiteboard: Service,
    /// The `hosted-engine` lockspace, which protects the blocks.
    pub lease: Keeper,
    /// The storage domain's lockspace, which carries the VM's lease.
    pub domain: Keeper,
    /// The monitors.
    pub monitors: Arc<dyn Monitors>,
    /// The notifications.
    pub notifications: Arc<dyn Notifications>,
    /// Grows with what the agent should see at once; shared with the other parts.
    pub wake: WakeCounter,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How long the agent's alive list and report hold.
    pub alive_list: Duration,
}

/// The broker.
pub struct Broker {
    parts: Parts,
    alive: Mutex<Fresh<Vec<u16>>>,
    report: Mutex<Fresh<AgentReport>>,
    migration: Mutex<Fresh<Option<MigrationRequest>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// Puts it together; nothing happens until [`Broker::run`].
    pub fn new(parts: Parts) -> Self {
        let keep = parts.alive_list;
        Self {
            parts,
            alive: Mutex::new(Fresh::new(keep)),
            report: Mutex::new(Fresh::new(keep)),
            migration: Mutex::new(Fresh::new(REQUEST_KEPT)),
        }
    }

    /// Reads, writes and watches until it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.parts.whiteboard.run(), self.follow_hosts(), self.follow_news());
    }

    /// Has the agent look at the world now, for something that this broker does not tell it.
    pub fn wake_agent(&self) {
        self.parts.wake.bump();
    }

    /// Keeps the whiteboard reading the blocks of this host and of all hosts that the lock manager sees.
    async fn follow_hosts(&self) {
        let mut watch = self.parts.lease.watch();
        loop {
            let kept = watch.borrow_and_update().clone();
            let blocks: BTreeSet<u16> = (kept.live.iter())
                .chain(&kept.wanted)
                .chain(&self.parts.host_id)
                .map(|id| id.get())
                .collect();
            self.parts.whiteboard.set_wanted(blocks);
            if watch.changed().await.is_err() {
                // The keeper is gone: what is wanted cannot change any more.
                return std::future::pending().await;
            }
        }
    }

    /// Wakes the agent when another host's block says something that decisions depend on.
    async fn follow_news(&self) {
        let mut watch = self.parts.whiteboard.watch();
        let mut news = News::default();
        loop {
            let snapshot = watch.borrow_and_update().clone();
            if news.take(&snapshot, self.parts.host_id) {
                self.parts.wake.bump();
            }
            if watch.changed().await.is_err() {
                // The whiteboard is gone: there is no news any more.
                return std::future::pending().await;
            }
        }
    }

    /// Gives up the host ids without waiting, for a clean stop: as the existing broker does, so that this host's
    /// lock manager can be stopped, and another host need not wait to use the id. `domain` says whether the
    /// storage domain's is ours to give up. Sanlock refuses that one while a VM here has its lease in it; the VM
    /// goes on undisturbed.
    pub async fn give_up_ids(&self, domain: bool) {
        let of_domain = async {
            if domain {
                self.parts.domain.abandon().await;
            }
        };
        // A lock manager that is slow with the one must not keep the other from being asked for.
        tokio::join!(self.parts.lease.abandon(), of_domain);
    }

    /// The state of storage in a few words, for the service manager's status line.
    pub fn headline(&self) -> String {
        status::headline(&self.parts)
    }
}

/// The keeper's word counts for whoever writes blocks.
#[async_trait]
impl BlockLease for Keeper {
    async fn may_write(&self, block: u16) -> Result<(), String> {
        let id = HostId::new(block).map_err(|error| error.to_string())?;
        self.held_now(id).await
    }
}

fn host_id(id: u16) -> Result<HostId, VerbError> {
    HostId::new(id).map_err(|error| VerbError::BadArgument(error.to_string()))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn put_error(error: PutError) -> VerbError {
    let text = error.to_string();
    match error {
        PutError::NotHeld(_) => VerbError::NotHeld(text),
        PutError::BadText(_) => VerbError::BadArgument(text),
        PutError::Storage(_) | PutError::Abandoned | PutError::Busy { .. } | PutError::Stopping => {
            VerbError::Storage(text)
        }
    }
}

/// Checks what a client wants to have in host `id`'s block. Anything that every reader would refuse is refused
/// here; a newer format than ours is not, for an agent may be updated before its broker.
fn host_payload(id: HostId, bytes: &[u8]) -> Result<Payload, VerbError> {
    let bad = |what: String| VerbError::BadArgument(format!("block {id} not written: {what}"));
    if bytes.len() > BLOCK_SIZE {
        return Err(bad(format!("{} bytes do not fit into a block of {BLOCK_SIZE}", bytes.len())));
    }
    let mut block = zero_block();
    block[..bytes.len()].copy_from_slice(bytes);
    if block[0] == 0 {
        // An empty block takes the host out of the file; then it must be empty altogether.
        if block.iter().any(|byte| *byte != 0) {
            return Err(bad(
                "its first byte is NUL, which means an absent block, but others are not".to_owned()
            ));
        }
        return Ok(Payload::Host(Box::new(block)));
    }
    match HostBlock::parse(id, &block) {
        Ok(_) | Err(BlockError::TooNew { .. }) => Ok(Payload::Host(Box::new(block))),
        Err(error) => Err(bad(error.to_string())),
    }
}

#[async_trait]
impl Verbs for Broker {
    async fn start_monitor(&self, kind: &str, options: MonitorOptions) -> Result<String, VerbError> {
        self.parts.monitors.start(kind, options).await
    }

    async fn stop_monitor(&self, id: &str) -> Result<(), VerbError> {
        self.parts.monitors.stop(id).await
    }

    async fn status_monitor(&self, id: &str) -> Result<Option<String>, VerbError> {
        self.parts.monitors.value(id).await
    }

    async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, VerbError> {
        let snapshot = self.parts.whiteboard.snapshot();
        Ok(snapshot.blocks.iter().map(|(block, seen)| (*block, seen.bytes.to_vec())).collect())
    }

    async fn put_stats(&self, block: u16, bytes: Vec<u8>) -> Result<(), VerbError> {
        let payload = if block == CLUSTER_BLOCK {
            Payload::Cluster(Change::parse(&bytes).map_err(put_error)?)
        } else {
            let id = host_id(block)?;
            let payload = host_payload(id, &bytes)?;
            // What is known already needs no thread; the write itself asks the lock manager.
            self.parts.lease.held_lately(id).map_err(VerbError::NotHeld)?;
            payload
        };
        self.parts.whiteboard.put(block, payload).await.map_err(put_error)
    }

    async fn push_hosts_state(&self, alive: Vec<u16>) -> Result<(), VerbError> {
        for id in &alive {
            host_id(*id)?;
        }
        lock(&self.alive).set(alive, self.parts.clock.monotonic());
        Ok(())
    }

    async fn is_host_alive(&self) -> Result<Vec<u16>, VerbError> {
        let mut alive = lock(&self.alive).get(self.parts.clock.monotonic()).cloned().unwrap_or_default();
        let lost = standing::lost(&self.parts.whiteboard.state(), &self.parts.lease.kept().state);
        if let (Some(_), Some(own)) = (lost, self.parts.host_id) {
            alive.retain(|id| *id != own.get());
        }
        Ok(alive)
    }

    async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: BTreeMap<String, String>,
    ) -> Result<bool, VerbError> {
        Ok(self.parts.notifications.notify(event, detail, options))
    }

    async fn start_domain_monitor(&self, id: u16) -> Result<(), VerbError> {
        self.parts.domain.hold(host_id(id)?).await.map_err(VerbError::Lockspace)
    }

    async fn stop_domain_monitor(&self) -> Result<(), VerbError> {
        self.parts.domain.release(RELEASE_PATIENCE).await.map_err(VerbError::Lockspace)
    }

    async fn lock_host_id(&self, id: u16) -> Result<(), VerbError> {
        self.parts.lease.hold(host_id(id)?).await.map_err(VerbError::Lockspace)
    }

    async fn release_host_id(&self) -> Result<(), VerbError> {
        self.parts.lease.release(RELEASE_PATIENCE).await.map_err(VerbError::Lockspace)
    }

    async fn reset_lockspace(&self) -> Result<(), VerbError> {
        let lease = &self.parts.lease;
        let kept = lease.kept();
        let others: Vec<String> =
            kept.live.iter().filter(|id| kept.wanted != Some(**id)).map(HostId::to_string).collect();
        if matches!(kept.state, LeaseState::Held { .. }) && !others.is_empty() {
            return Err(VerbError::Lockspace(format!(
                "lockspace {} is not written anew: host ids {} are live in it. Stop the HA services of those hosts \
                 first",
                lease.port().name(),
                others.join(", ")
            )));
        }
        // Our own id must not be in it either. It is taken again afterwards, whatever the outcome.
        lease.release(RELEASE_PATIENCE).await.map_err(VerbError::Lockspace)?;
        let result = lease.reset().await;
        // Taking it takes as long as a join takes; the outcome is in the lease's state.
        if let Some(id) = kept.wanted
            && let Err(error) = lease.ask_for(id).await
        {
            tracing::warn!("host id {id} is not taken again after the reset: {error}");
        }
        result.map_err(|error| VerbError::Lockspace(error.to_string()))
    }

    async fn status(&self) -> StatusDocument {
        let now = self.parts.clock.monotonic();
        let alive = lock(&self.alive).get(now).cloned().unwrap_or_default();
        let report = lock(&self.report).get(now).cloned();
        let migration = lock(&self.migration).get(now).copied().flatten();
        status::document(&self.parts, &alive, report, migration, now)
    }

    async fn put_agent_report(&self, report: AgentReport) {
        let now = self.parts.clock.monotonic();
        let answered = report.migration.as_ref().filter(|migration| migration.phase.is_end());
        if let Some(asked_at) = answered.and_then(|migration| migration.request) {
            let mut kept = lock(&self.migration);
            if kept.get(now).copied().flatten().is_some_and(|request| request.asked_at == asked_at) {
                kept.set(None, now);
            }
        }
        lock(&self.report).set(report, now);
    }

    async fn ask_migration(&self, to: Option<HostId>) {
        let now = self.parts.clock.monotonic();
        {
            let mut kept = lock(&self.migration);
            // Two within a second, or after the wall clock went back, are still two.
            let earlier = kept.get(now).copied().flatten().map_or(i64::MIN, |request| request.asked_at);
            let asked_at = self.parts.clock.wall().0.max(earlier.saturating_add(1));
            kept.set(Some(MigrationRequest { to, asked_at }), now);
        }
        self.parts.wake.bump();
    }

    async fn wake(&self, after: u64, timeout: Duration) -> Wake {
        Wake { counter: self.parts.wake.wait(after, timeout).await }
    }

    async fn metrics(&self) -> String {
        let now = self.parts.clock.monotonic();
        let report_age = lock(&self.report).age(now);
        metrics::render(&self.parts, &self.status().await, report_age)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod virtual_time_tests;
