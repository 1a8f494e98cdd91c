//! A task that follows the hypervisor for an adapter, and ends with it.

use tokio::task::JoinHandle;

/// Aborts its task when it is dropped.
#[derive(Debug)]
pub struct Follower(JoinHandle<()>);

impl Follower {
    /// Starts the task. Must be called inside a Tokio runtime.
    pub fn start(following: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(following))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_task_ends_with_its_owner() {
        let (alive, ended) = oneshot::channel::<()>();
        let follower = Follower::start(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(follower);
        assert!(ended.await.is_err(), "the task's end drops what it has");
    }
}
