//! What the broker's logic runs on besides the caller: threads for what may block, and tasks.
//!
//! The logic starts neither by itself. It asks a [`Spawner`], so that a simulator can run the same logic of many
//! hosts in one thread and on virtual time, and can pause or kill all that belongs to one host. It never uses the
//! runtime's pool of blocking threads either: virtual time stands still while one of those works.

use std::fmt;
use std::io;
use std::sync::mpsc;

use futures_util::future::BoxFuture;

/// Stack of each thread, in bytes: they make system calls and little else.
const STACK: usize = 256 * 1024;

/// Starts what is to run beside the caller.
pub trait Spawner: Send + Sync {
    /// Runs `work` to its end on a thread of its own, which it may block. It may use timers, but no sockets of
    /// the runtime. A panic ends that thread only.
    ///
    /// # Errors
    /// When the system gives no thread; `work` is then dropped.
    fn thread(&self, name: &'static str, work: BoxFuture<'static, ()>) -> io::Result<()>;

    /// Runs `work` beside the caller's own; it must not block.
    fn task(&self, work: BoxFuture<'static, ()>) -> TaskHandle;
}

/// A task that was started. Dropping the handle lets the task go on.
pub struct TaskHandle(Box<dyn Fn() + Send + Sync>);

impl TaskHandle {
    /// A handle whose task ends when `abort` is called.
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(abort))
    }

    /// Ends the task where it waits next. Nothing happens when it has ended.
    pub fn abort(&self) {
        (self.0)();
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskHandle")
    }
}

/// The real one: threads of the system, tasks of the tokio runtime that it is called in.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSpawner;

impl Spawner for HostSpawner {
    fn thread(&self, name: &'static str, work: BoxFuture<'static, ()>) -> io::Result<()> {
        // The thread comes first: a runtime that nobody takes could not be dropped inside of another one.
        let (hand_over, take) = mpsc::sync_channel::<tokio::runtime::Runtime>(1);
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            if let Ok(runtime) = take.recv() {
                runtime.block_on(work);
            }
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        hand_over.send(runtime).map_err(|_| io::Error::other("the thread ended before it began"))
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn task(&self, work: BoxFuture<'static, ()>) -> TaskHandle {
        let task = tokio::spawn(work).abort_handle();
        TaskHandle::new(move || task.abort())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{BoxFuture, Spawner, TaskHandle, io};

    /// Threads and tasks alike are tasks of the caller's runtime, so that its time can be paused.
    pub struct TaskSpawner;

    impl Spawner for TaskSpawner {
        fn thread(&self, _: &'static str, work: BoxFuture<'static, ()>) -> io::Result<()> {
            drop(tokio::spawn(work));
            Ok(())
        }

        fn task(&self, work: BoxFuture<'static, ()>) -> TaskHandle {
            super::HostSpawner.task(work)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_thread_has_its_name_and_timers_and_may_block() {
        let (tell, told) = oneshot::channel();
        let (let_go, blocked) = mpsc::channel::<()>();
        let work = async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = blocked.recv();
            let _ = tell.send(std::thread::current().name().map(str::to_owned));
        };
        HostSpawner.thread("blocked", Box::pin(work)).unwrap();
        // This test has one thread: it would not get here if the work ran on it.
        let_go.send(()).unwrap();
        assert_eq!(told.await.unwrap().as_deref(), Some("blocked"));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_thread_only() {
        let (tell, told) = oneshot::channel::<()>();
        let work = async move {
            let _tell = tell;
            panic!("meant: it belongs to the test");
        };
        HostSpawner.thread("panics", Box::pin(work)).unwrap();
        assert!(told.await.is_err());
    }

    #[tokio::test]
    async fn a_task_ends_by_abort_and_not_by_dropping_its_handle() {
        let (tell, told) = oneshot::channel();
        let (let_go, wait) = oneshot::channel::<()>();
        drop(HostSpawner.task(Box::pin(async move {
            let _ = tell.send(wait.await.is_ok());
        })));
        let_go.send(()).unwrap();
        assert_eq!(told.await, Ok(true));
        let (kept, ended) = oneshot::channel::<()>();
        let handle = HostSpawner.task(Box::pin(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        }));
        handle.abort();
        assert!(ended.await.is_err());
        handle.abort();
    }
}
