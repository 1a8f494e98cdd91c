//! The counter that wakes agents: it grows with each event that they should see at once.

use std::time::Duration;

use tokio::sync::watch;

/// A counter that can be waited for. Clones count together.
#[derive(Debug, Clone)]
pub struct WakeCounter(watch::Sender<u64>);

impl Default for WakeCounter {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl WakeCounter {
    /// Something happened.
    pub fn bump(&self) {
        self.0.send_modify(|counter| *counter = counter.wrapping_add(1));
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until the value is not `after`, `timeout` at most; gives the value. A value from before a restart of
    /// the broker does not match either, and is answered at once.
    pub async fn wait(&self, after: u64, timeout: Duration) -> u64 {
        let mut receiver = self.0.subscribe();
        // Both ends of it are fine: the value is what counts.
        let _ = tokio::time::timeout(timeout, receiver.wait_for(|counter| *counter != after)).await;
        self.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn waits_for_the_next_event_and_not_longer_than_asked() {
        let wake = WakeCounter::default();
        assert_eq!(wake.wait(0, SHORT).await, 0);
        let other = wake.clone();
        let (value, ()) = tokio::join!(wake.wait(0, LONG), async { other.bump() });
        assert_eq!(value, 1);
        assert_eq!(wake.wait(77, LONG).await, 1, "a counter of an earlier broker is answered at once");
    }
}
