//! The whiteboard as the broker uses it: what was read last, writes that are acknowledged after they were read
//! back, and the state of storage in words.
//!
//! Two tasks run as long as the broker: one reads a cycle after the other, one takes the next write from the
//! queue. Each has its own lane, so that a hanging write does not stop reading. Neither ever ends because of
//! storage: a failure is kept, shown, and tried again. After [`Timing::try_anew`] of hanging, reads are tried on
//! a fresh thread; writes only once the file under the name is another one, so that an old write can never come
//! after a newer one on the same file.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_api::status::StorageState;
use clock::{Clock, Monotonic, Wall};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot, watch};

use super::commit::{Payload, commit, read_one};
pub use super::counters::Counters;
use super::error::{Connecting, PutError, StorageError, utc};
use super::lane::{Lane, Stuck};
use super::permit::{BlockLease, RequestPermit};
use super::plan::{Planner, cycle_length};
use super::queue::{Job, WriteQueues};
use super::snapshot::Snapshot;
use super::timing::{PATIENT, SOON, Timing};
use super::{Block, BlockRange, CLUSTER_BLOCK, Identity, Reading, Whiteboard};
use crate::returned::{self, Returned};
use crate::spawner::Spawner;
use crate::wake::WakeCounter;

type Ticket = oneshot::Sender<Result<(), PutError>>;

/// The first failure since it last worked.
#[derive(Debug, Clone)]
struct Failure {
    since: Wall,
    error: StorageError,
}

#[derive(Debug, Default)]
struct Health {
    read: Option<Failure>,
    write: Option<Failure>,
    /// When reading is tried next, while it fails or hangs.
    next_try: Option<Wall>,
    shown: Option<std::mem::Discriminant<StorageState>>,
    identity: Option<Identity>,
}

/// The service. Clones share everything.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    port: Arc<dyn Whiteboard>,
    lease: Arc<dyn BlockLease>,
    clock: Arc<dyn Clock>,
    timing: Timing,
    wake: WakeCounter,
    reader: Lane,
    writer: Lane,
    queues: Mutex<WriteQueues<Ticket>>,
    work: Notify,
    wanted: Mutex<BTreeSet<u16>>,
    returned: Mutex<Returned>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    health: Mutex<Health>,
    counters: Mutex<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stuck_error(stuck: &Stuck) -> StorageError {
    StorageError::Stuck {
        since: stuck.since.0,
        operation: stuck.operation.clone(),
        deadline_ms: u64::try_from(stuck.deadline.as_millis()).unwrap_or(u64::MAX),
    }
}

impl Service {
    /// Puts it together. Nothing happens until [`Service::run`].
    pub fn new(
        port: Arc<dyn Whiteboard>,
        lease: Arc<dyn BlockLease>,
        clock: Arc<dyn Clock>,
        spawner: &Arc<dyn Spawner>,
        timing: Timing,
        wake: WakeCounter,
    ) -> Self {
        let lane = |name| Lane::new(name, Arc::clone(&clock), Arc::clone(spawner));
        Self(Arc::new(Inner {
            reader: lane("storage-read"),
            writer: lane("storage-write"),
            port,
            lease,
            clock,
            timing,
            wake,
            queues: Mutex::default(),
            work: Notify::new(),
            wanted: Mutex::default(),
            returned: Mutex::new(returned::never()),
            snapshot: watch::Sender::new(Arc::default()),
            health: Mutex::default(),
            counters: Mutex::default(),
        }))
    }

    /// Tries reads that hang anew, too, when the kernel says that something came back. To be called before
    /// [`Service::run`].
    pub fn try_anew_on(&self, returned: Returned) {
        *lock(&self.0.returned) = returned;
    }

    /// Reads and writes until it is dropped. Writes that wait then fail with [`PutError::Stopping`].
    pub async fn run(&self) {
        tokio::join!(self.0.read_forever(), self.0.write_forever());
    }

    /// Writes a block and waits until it was read back.
    ///
    /// # Errors
    /// When it was not written, or not proven to be; at once while an earlier write hangs.
    pub async fn put(&self, block: u16, payload: Payload) -> Result<(), PutError> {
        if let Some(stuck) = self.0.writer.blocked() {
            return Err(stuck_error(&stuck).into());
        }
        let (ticket, answer) = oneshot::channel();
        lock(&self.0.queues).push(block, payload, ticket).map_err(|(error, _)| error)?;
        self.0.work.notify_one();
        answer.await.unwrap_or(Err(PutError::Stopping))
    }

    /// What was seen last.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.borrow().clone()
    }

    /// Changes with each good read and each acknowledged write.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshot.subscribe()
    }

    /// Blocks to read in each cycle even when they are absent: our own, and those of hosts that the lock manager
    /// sees.
    pub fn set_wanted(&self, blocks: BTreeSet<u16>) {
        *lock(&self.0.wanted) = blocks;
    }

    /// The state of storage.
    pub fn state(&self) -> StorageState {
        self.0.state(&lock(&self.0.health))
    }

    /// Counts for the metrics page.
    pub fn counters(&self) -> Counters {
        *lock(&self.0.counters)
    }

    /// How long the oldest request hangs; zero when none does.
    pub fn stuck_for(&self) -> Duration {
        let now = self.0.clock.monotonic();
        self.0.stuck().map_or(Duration::ZERO, |stuck| now.saturating_since(stuck.since_monotonic))
    }

    /// Threads that hang in storage now; at most 18.
    pub fn hanging_threads(&self) -> usize {
        self.0.reader.hanging_threads() + self.0.writer.hanging_threads()
    }

    /// Callers whose write waits or is under way.
    pub fn waiting_writes(&self) -> usize {
        lock(&self.0.queues).waiting()
    }
}

impl Inner {
    fn stuck(&self) -> Option<Stuck> {
        let both = [self.reader.stuck(), self.writer.stuck()];
        both.into_iter().flatten().min_by_key(|stuck| stuck.since_monotonic)
    }

    fn state(&self, health: &Health) -> StorageState {
        if let Some(stuck) = self.stuck() {
            let next_try = health.next_try.map(|at| at.0);
            return StorageState::Stuck { since: stuck.since.0, operation: stuck.operation, next_try };
        }
        let failures = [&health.read, &health.write];
        if let Some(failure) = failures.into_iter().flatten().min_by_key(|failure| failure.since) {
            if let StorageError::Connecting(Connecting { since, step, error, next_try }) =
                failure.error.clone()
            {
                return StorageState::Connecting { since, step, error, next_try };
            }
            let (since, next_try) = (failure.since.0, health.next_try.map(|at| at.0));
            return StorageState::Failed { since, error: failure.error.to_string(), next_try };
        }
        if self.snapshot.borrow().read_at.is_none() {
            return StorageState::Starting;
        }
        let read_ms = u64::try_from(lock(&self.counters).last_read_time.as_millis()).unwrap_or(u64::MAX);
        StorageState::Good { read_ms }
    }

    /// Says a change of the kind of state, and wakes the agent.
    fn tell(&self) {
        let mut health = lock(&self.health);
        let state = self.state(&health);
        let kind = std::mem::discriminant(&state);
        if health.shown.replace(kind) == Some(kind) {
            return;
        }
        drop(health);
        match &state {
            StorageState::Starting => return,
            // Whoever connects it tells more about it.
            StorageState::Connecting { step, .. } => tracing::info!("storage waits for {step}"),
            StorageState::Good { read_ms } => tracing::info!(read_ms, "storage works"),
            StorageState::Stuck { since, operation, .. } => {
                tracing::warn!(
                    "storage stuck since {}: to {operation} does not come back; it resumes by itself",
                    utc(*since)
                );
            }
            StorageState::Failed { error, .. } => tracing::warn!("storage failed: {error}"),
        }
        self.wake.bump();
    }

    async fn read_forever(&self) {
        let mut planner = Planner::default();
        let mut returned = lock(&self.returned).clone();
        loop {
            let mut used = lock(&self.wanted).clone();
            used.extend(self.snapshot.borrow().blocks.keys());
            let mut next = planner;
            let ranges = next.next_cycle(&used);
            match self.read_cycle(ranges).await {
                Ok(bytes) => {
                    planner = next;
                    let took = lock(&self.counters).last_read_time;
                    tokio::time::sleep(cycle_length(bytes, took, self.timing.cycle)).await;
                }
                Err(StorageError::Stuck { .. }) => self.wait_for_reader(&mut returned).await,
                Err(_) => tokio::time::sleep(self.timing.cycle).await,
            }
        }
    }

    async fn read_cycle(&self, ranges: Vec<BlockRange>) -> Result<u64, StorageError> {
        let port = Arc::clone(&self.port);
        let operation = format!("read {}", self.port.name());
        let started = self.clock.monotonic();
        let read = async move { port.read(&ranges).await };
        let result = match self.reader.run(&operation, self.timing.deadline, |_| Box::pin(read)).await {
            Ok(result) => result,
            Err(stuck) => Err(stuck_error(&stuck)),
        };
        let now = self.clock.monotonic();
        let result = result.and_then(|reading| {
            let bytes = reading.bytes;
            self.take(reading, started, now).map(|()| bytes)
        });
        let mut health = lock(&self.health);
        match &result {
            Ok(_) => (health.read, health.next_try) = (None, None),
            Err(error) => {
                lock(&self.counters).read_failures += 1;
                health.next_try = Some(later(self.clock.wall(), self.timing.cycle));
                note_failure(&mut health.read, error, self.clock.wall());
            }
        }
        drop(health);
        self.tell();
        result
    }

    /// Takes over a good reading; an error when the file is shorter than it must be.
    fn take(&self, reading: Reading, started: Monotonic, now: Monotonic) -> Result<(), StorageError> {
        let took = now.saturating_since(started);
        {
            let mut counters = lock(&self.counters);
            counters.reads += 1;
            counters.read_bytes += reading.bytes;
            counters.last_cycle_bytes = reading.bytes;
            counters.read_time += took;
            counters.last_read_time = took;
        }
        let before = lock(&self.health).identity.replace(reading.identity);
        if before.is_some_and(|before| before != reading.identity) {
            tracing::warn!(file = self.port.name(), "another file or device is under this name now");
            if self.writer.stuck().is_some() {
                self.writer.replace();
            }
        }
        let file_blocks = reading.file_blocks;
        let wanted = lock(&self.wanted).last().copied().unwrap_or(1).max(1);
        let old = self.snapshot.borrow().clone();
        let mut new = Snapshot::clone(&old);
        let gone = new.take(reading, started, now);
        self.publish(&old, new);
        if let Some(block) = gone {
            return Err(StorageError::Truncated { file: self.port.name(), file_blocks, block });
        }
        if file_blocks <= u64::from(wanted) {
            let len = file_blocks * metadata_format::BLOCK_SIZE as u64;
            let end = metadata_format::block_offset(wanted) + metadata_format::BLOCK_SIZE as u64;
            return Err(StorageError::TooShort { file: self.port.name().into(), len, block: wanted, end });
        }
        Ok(())
    }

    fn publish(&self, old: &Snapshot, new: Snapshot) {
        let cluster_changed = old.read_at.is_some() && old.cluster() != new.cluster();
        self.snapshot.send_replace(Arc::new(new));
        if cluster_changed {
            self.wake.bump();
        }
    }

    /// Until the request that hangs came back, or a fresh thread may be tried.
    async fn wait_for_reader(&self, returned: &mut Returned) {
        let mut watch = self.reader.watch();
        loop {
            returned.mark_unchanged();
            let is_soon = self.reader.hanging_threads() <= SOON;
            let pause = if is_soon { self.timing.try_anew } else { self.timing.try_anew.max(PATIENT) };
            lock(&self.health).next_try = Some(later(self.clock.wall(), pause));
            let came_back = async {
                if returned.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let is_back = tokio::select! {
                biased;
                _ = watch.wait_for(Option::is_none) => true,
                () = came_back => false,
                () = tokio::time::sleep(pause) => false,
            };
            if is_back || self.reader.replace() {
                return;
            }
        }
    }

    async fn write_forever(&self) {
        let mut lane = self.writer.watch();
        loop {
            lane.mark_unchanged();
            if let Some(stuck) = self.writer.blocked() {
                for ticket in lock(&self.queues).drain() {
                    let _ = ticket.send(Err(stuck_error(&stuck).into()));
                }
                tokio::select! {
                    biased;
                    _ = lane.changed() => self.tell(),
                    () = self.work.notified() => {}
                }
                continue;
            }
            let job = lock(&self.queues).pop();
            if let Some(job) = job {
                self.write(job).await;
                continue;
            }
            tokio::select! {
                biased;
                _ = lane.changed() => self.tell(),
                () = self.work.notified() => {}
            }
        }
    }

    async fn write(&self, job: Job<Ticket>) {
        let started = self.clock.monotonic();
        let result = match self.write_once(job.block, &job.payload).await {
            Ok(stored) => self.settle(&job, stored).await,
            Err(error) => Err(error),
        };
        let now = self.clock.monotonic();
        {
            let mut health = lock(&self.health);
            let mut counters = lock(&self.counters);
            match &result {
                Ok(_) => {
                    let took = now.saturating_since(started);
                    counters.writes += 1;
                    counters.write_time += took;
                    counters.last_write_time = took;
                    health.write = None;
                }
                Err(error) => {
                    counters.write_failures += 1;
                    // A conflict with another host is not the storage's fault; that a write hangs, the lane says
                    // itself for as long as it does.
                    if let PutError::Storage(error) = error
                        && !matches!(
                            error,
                            StorageError::Conflict { .. }
                                | StorageError::Stuck { .. }
                                | StorageError::Connecting(_)
                        )
                    {
                        note_failure(&mut health.write, error, self.clock.wall());
                    }
                }
            }
        }
        if let Ok(stored) = &result {
            let old = self.snapshot.borrow().clone();
            let mut new = Snapshot::clone(&old);
            new.take_written(job.block, stored, now);
            self.publish(&old, new);
        }
        self.tell();
        let answer = result.map(|_| ());
        for ticket in job.tickets {
            // A caller who went away needs no answer.
            let _ = ticket.send(answer.clone());
        }
    }

    async fn write_once(&self, block: u16, payload: &Payload) -> Result<Box<Block>, PutError> {
        let (port, lease, payload) = (Arc::clone(&self.port), Arc::clone(&self.lease), payload.clone());
        let operation = format!("write block {block} of {}", self.port.name());
        let job = move |abandoned| -> BoxFuture<'static, _> {
            let permit = RequestPermit { lease, block, abandoned };
            Box::pin(async move { commit(&*port, block, &payload, &permit).await })
        };
        match self.writer.run(&operation, self.timing.deadline, job).await {
            Ok(result) => result,
            Err(stuck) => Err(stuck_error(&stuck).into()),
        }
    }

    /// Looks at the cluster block once more after a moment: another host that read it before our write and wrote
    /// after it would have undone our change.
    async fn settle(&self, job: &Job<Ticket>, stored: Box<Block>) -> Result<Box<Block>, PutError> {
        let Payload::Cluster(change) = &job.payload else { return Ok(stored) };
        tokio::time::sleep(self.timing.settle).await;
        let port = Arc::clone(&self.port);
        let operation = format!("read back block {CLUSTER_BLOCK} of {}", self.port.name());
        let read = async move { read_one(&*port, CLUSTER_BLOCK).await };
        let again = self.writer.run(&operation, self.timing.deadline, |_| Box::pin(read)).await;
        let again = again.map_err(|stuck| stuck_error(&stuck))??;
        match change.missing_in(&again) {
            None => Ok(again),
            Some(key) => Err(StorageError::Conflict { file: self.port.name(), key: key.to_owned() }.into()),
        }
    }
}

fn later(now: Wall, by: Duration) -> Wall {
    Wall(now.0.saturating_add(by.as_secs().cast_signed()))
}

/// Keeps when it began, and what it is now.
fn note_failure(kept: &mut Option<Failure>, error: &StorageError, now: Wall) {
    let since = kept.as_ref().map_or(now, |failure| failure.since);
    *kept = Some(Failure { since, error: error.clone() });
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
