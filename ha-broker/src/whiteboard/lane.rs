//! I/O that may block, on a dedicated thread, one request at a time, each under a deadline.
//!
//! ```text
//! free ── run ──▶ busy ── done ──▶ free
//!                  │ deadline
//!                  ▼
//!                stuck ── the request comes back ──▶ free
//!                  │ replace (a few times at most)
//!                  ▼
//!                trying anew on a fresh thread ── a request comes back ──▶ free
//!                  │ deadline
//!                  ▼
//!                stuck, since the first one
//! ```
//!
//! While a lane is stuck, further requests fail at once: threads never pile up. A thread that was replaced ends
//! when its request comes back. This module knows nothing about files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::{Clock, Monotonic, Wall};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::spawner::Spawner;

/// Threads of one lane that may hang at the same time besides its current one. They cost little: a stack that is hardly
/// used, and a place in the kernel's queue.
pub const MAX_REPLACED: usize = 8;

/// A request that has not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// When the first request that hangs was sent.
    pub since: Wall,
    /// The same on the clock that decisions use.
    pub since_monotonic: Monotonic,
    /// What it was to do.
    pub operation: String,
    /// The deadline that it missed.
    pub deadline: Duration,
}

/// Set once the caller of a request was told that it failed.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

type Job = BoxFuture<'static, ()>;

/// One lane. Callers take turns: `run` is for one caller at a time, more of them wait for each other.
pub struct Lane {
    name: &'static str,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    turn: tokio::sync::Mutex<()>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    stuck: watch::Sender<Option<Stuck>>,
}

#[derive(Default)]
struct State {
    sender: Option<mpsc::UnboundedSender<Job>>,
    generation: u64,
    replaced: usize,
    /// A fresh thread may be tried although the lane counts as stuck.
    trying_anew: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// A lane without a thread yet; the first request starts it.
    pub fn new(name: &'static str, clock: Arc<dyn Clock>, spawner: Arc<dyn Spawner>) -> Self {
        let shared = Shared { state: Mutex::default(), stuck: watch::Sender::new(None) };
        Self { name, clock, spawner, turn: tokio::sync::Mutex::new(()), shared: Arc::new(shared) }
    }

    /// The request that hangs; `None` when the lane works.
    pub fn stuck(&self) -> Option<Stuck> {
        self.shared.stuck.borrow().clone()
    }

    /// Why a request would fail at once; `None` when it would be tried.
    pub fn blocked(&self) -> Option<Stuck> {
        self.stuck().filter(|_| !self.shared.lock().trying_anew)
    }

    /// Changes each time the lane gets stuck or comes back.
    pub fn watch(&self) -> watch::Receiver<Option<Stuck>> {
        self.shared.stuck.subscribe()
    }

    /// Threads that hang now.
    pub fn hanging_threads(&self) -> usize {
        self.shared.lock().replaced + usize::from(self.stuck().is_some())
    }

    /// Runs `job` on the lane's thread, which it may block, and waits for its result, `deadline` at most.
    ///
    /// # Errors
    /// [`Stuck`] at once when an earlier request hangs, and when this one misses its deadline; `job` then sees
    /// that it was abandoned.
    pub async fn run<T: Send + 'static>(
        &self,
        operation: &str,
        deadline: Duration,
        job: impl FnOnce(Abandoned) -> BoxFuture<'static, T> + Send + 'static,
    ) -> Result<T, Stuck> {
        let _turn = self.turn.lock().await;
        if let Some(stuck) = self.blocked() {
            return Err(stuck);
        }
        let abandoned = Abandoned::default();
        let (result, answer) = oneshot::channel();
        let stuck = Stuck {
            since: self.clock.wall(),
            since_monotonic: self.clock.monotonic(),
            operation: operation.to_owned(),
            deadline,
        };
        let theirs = abandoned.clone();
        let sent = self.send(Box::pin(async move { drop(result.send(job(theirs).await)) }));
        if let Err(error) = sent {
            let operation = format!("{operation} (no thread: {error})");
            return Err(Stuck { operation, ..stuck });
        }
        let mut answer = answer;
        match tokio::time::timeout(deadline, &mut answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(_)) => {
                // The job panicked, and its thread is gone: the next request gets a new one.
                self.shared.lock().sender = None;
                let operation = format!("{operation} (it failed inside: this is a bug)");
                return Err(Stuck { operation, ..stuck });
            }
            Err(_) => {}
        }
        let mut state = self.shared.lock();
        // The thread publishes under this lock, so it is either seen here or sees that the lane is stuck.
        if let Ok(value) = answer.try_recv() {
            return Ok(value);
        }
        abandoned.0.store(true, Ordering::SeqCst);
        state.trying_anew = false;
        let first = self.stuck().unwrap_or(stuck);
        self.shared.stuck.send_replace(Some(first.clone()));
        drop(state);
        Err(first)
    }

    /// Lets the next request try a fresh thread although an earlier one hangs. False when too many hang already.
    pub fn replace(&self) -> bool {
        let mut state = self.shared.lock();
        if state.replaced >= MAX_REPLACED || self.stuck().is_none() || state.trying_anew {
            return state.trying_anew;
        }
        state.replaced += 1;
        state.generation += 1;
        state.sender = None;
        state.trying_anew = true;
        drop(state);
        self.shared.stuck.send_modify(|_| {});
        true
    }

    fn send(&self, job: Job) -> std::io::Result<()> {
        let mut state = self.shared.lock();
        let job = match state.sender.as_ref() {
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::SendError(job)) => job,
            },
            None => job,
        };
        let (sender, jobs) = mpsc::unbounded_channel::<Job>();
        let work = work(jobs, Arc::clone(&self.shared), state.generation);
        self.spawner.thread(self.name, Box::pin(work))?;
        // The thread holds the other end, and takes jobs until this end is dropped.
        let _ = sender.send(job);
        state.sender = Some(sender);
        Ok(())
    }
}

impl Drop for Lane {
    /// Its thread keeps the shared state, and with it the way to itself: without this it would never end.
    fn drop(&mut self) {
        self.shared.lock().sender = None;
    }
}

async fn work(mut jobs: mpsc::UnboundedReceiver<Job>, shared: Arc<Shared>, generation: u64) {
    while let Some(job) = jobs.recv().await {
        job.await;
        let mut state = shared.lock();
        if state.generation != generation {
            state.replaced = state.replaced.saturating_sub(1);
            return;
        }
        state.trying_anew = false;
        shared.stuck.send_if_modified(|stuck| stuck.take().is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use clock::SystemClock;

    use super::*;
    use crate::spawner::HostSpawner;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(20);

    fn lane() -> Lane {
        Lane::new("test", Arc::new(SystemClock), Arc::new(HostSpawner))
    }

    fn hang() -> (Sender<()>, impl FnOnce(Abandoned) -> BoxFuture<'static, bool> + Send + 'static) {
        let (release, wait): (Sender<()>, Receiver<()>) = channel();
        (release, |abandoned: Abandoned| {
            Box::pin(async move {
                // Blocks the thread, as a system call does.
                let _ = wait.recv();
                abandoned.is_set()
            })
        })
    }

    async fn until(lane: &Lane, stuck: bool) {
        let mut watch = lane.watch();
        tokio::time::timeout(LONG, watch.wait_for(|state| state.is_some() == stuck)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_hangs_fails_in_time_and_the_lane_comes_back_by_itself() {
        let lane = lane();
        assert_eq!(lane.run("add", LONG, |_| Box::pin(ready(1 + 1))).await, Ok(2));
        let (release, job) = hang();
        let stuck = lane.run("hang", SHORT, job).await.unwrap_err();
        assert_eq!(stuck.operation, "hang");
        assert_eq!(
            lane.run("later", LONG, |_| Box::pin(ready(()))).await.unwrap_err(),
            stuck,
            "later ones fail at once"
        );
        assert_eq!(lane.hanging_threads(), 1);
        release.send(()).unwrap();
        until(&lane, false).await;
        assert_eq!(lane.run("after", LONG, |_| Box::pin(ready(3))).await, Ok(3));
        assert_eq!(lane.hanging_threads(), 0);
    }

    #[tokio::test]
    async fn an_abandoned_request_can_see_it() {
        let lane = lane();
        let (release, wait) = channel::<()>();
        let (tell, told) = oneshot::channel();
        let job = |abandoned: Abandoned| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _ = wait.recv();
                tell.send(abandoned.is_set()).unwrap();
            })
        };
        lane.run("hang", SHORT, job).await.unwrap_err();
        release.send(()).unwrap();
        assert_eq!(told.await, Ok(true));
    }

    #[tokio::test]
    async fn fresh_threads_are_few() {
        let lane = lane();
        let mut releases = Vec::new();
        let (release, job) = hang();
        releases.push(release);
        let first = lane.run("first", SHORT, job).await.unwrap_err();
        for _ in 0..MAX_REPLACED {
            assert!(lane.replace());
            let (release, job) = hang();
            releases.push(release);
            assert_eq!(lane.run("again", SHORT, job).await.unwrap_err(), first, "stuck since the first");
        }
        assert!(!lane.replace());
        assert_eq!(lane.hanging_threads(), 1 + MAX_REPLACED);
        drop(releases);
        until(&lane, false).await;
        assert_eq!(lane.run("after", LONG, |_| Box::pin(ready(7))).await, Ok(7));
    }

    #[tokio::test]
    async fn a_fresh_thread_can_end_it_while_the_first_still_hangs() {
        let lane = lane();
        let (_release, job) = hang();
        lane.run("first", SHORT, job).await.unwrap_err();
        assert!(lane.replace());
        assert_eq!(lane.run("again", LONG, |_| Box::pin(ready(1))).await, Ok(1));
        until(&lane, false).await;
        assert_eq!(lane.hanging_threads(), 1, "the first one is still counted");
    }

    #[tokio::test]
    async fn a_request_that_panics_is_said_and_the_next_one_gets_a_new_thread() {
        let lane = lane();
        let stuck = lane.run("panic", LONG, |_| Box::pin(async { panic!("meant") })).await;
        let Err::<(), _>(stuck) = stuck else { panic!("a result") };
        assert!(stuck.operation.contains("this is a bug"), "{}", stuck.operation);
        assert_eq!(lane.stuck(), None);
        assert_eq!(lane.run("after", LONG, |_| Box::pin(ready(1))).await, Ok(1));
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_lane() {
        let lane = lane();
        lane.run("add", LONG, |_| Box::pin(ready(1))).await.unwrap();
        let mut watch = lane.watch();
        drop(lane);
        // Open as long as the thread has what it shares with the lane.
        let ended = async { while watch.changed().await.is_ok() {} };
        tokio::time::timeout(LONG, ended).await.unwrap();
    }
}
