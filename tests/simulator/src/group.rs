//! A process of a simulated host: its tasks stop and go on together, and die together.
//!
//! The shipped code asks a [`Spawner`] for its threads and tasks. Here each becomes a task of the one thread that the
//! simulation runs on, behind a gate: while the gate is shut the task is not polled (as a process under SIGSTOP is
//! not scheduled; its timers go on), and once the group is dead it is dropped where it stood (as a process at a power
//! loss).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ha_broker::spawner::{Spawner, TaskHandle};
use tokio::task::AbortHandle;

use crate::world::World;

/// The tasks of one process. Clones share them.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    name: &'static str,
    world: Weak<World>,
    gate: Arc<Gate>,
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Default)]
struct Gate(Mutex<GateState>);

#[derive(Default)]
struct GateState {
    shut: bool,
    dead: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let mut state = self.lock();
        change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}

/// Polls its task only while the gate is open.
struct Gated {
    gate: Arc<Gate>,
    task: BoxFuture<'static, ()>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut gate = self.gate.lock();
            if gate.dead {
                return Poll::Ready(());
            }
            if gate.shut {
                gate.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        self.task.poll_unpin(cx)
    }
}

impl Group {
    /// A running process without a task yet.
    pub fn new(name: &'static str, world: &Arc<World>) -> Self {
        Self(Arc::new(Inner {
            name,
            world: Arc::downgrade(world),
            gate: Arc::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Starts a task in it. One that panics is a violation like any other.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let (world, name) = (Weak::clone(&self.0.world), self.0.name);
        let guarded = async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
                if let Some(world) = world.upgrade() {
                    world.panicked(name, text);
                }
            }
        };
        let gated = Gated { gate: Arc::clone(&self.0.gate), task: guarded.boxed() };
        let handle = tokio::spawn(gated).abort_handle();
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() >= 32 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(handle.clone());
        handle
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.0.gate.lock().shut = true;
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.0.gate.change(|gate| gate.shut = false);
    }

    /// SIGKILL: nothing of it runs any more.
    pub fn kill(&self) {
        self.0.gate.change(|gate| gate.dead = true);
        for task in std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)) {
            task.abort();
        }
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.0.gate.lock().dead
    }

    /// Whether its tasks run now.
    pub fn runs(&self) -> bool {
        let gate = self.0.gate.lock();
        !gate.dead && !gate.shut
    }
}

impl Spawner for Group {
    fn thread(&self, _name: &'static str, work: BoxFuture<'static, ()>) -> std::io::Result<()> {
        self.spawn(work);
        Ok(())
    }

    fn task(&self, work: BoxFuture<'static, ()>) -> TaskHandle {
        let task = self.spawn(work);
        TaskHandle::new(move || task.abort())
    }
}
