//! The mails that wait, and the task that sends them.
//!
//! The queue is bounded: when it is full the oldest mail goes. A mail that cannot be sent now is tried again, later and
//! later, for an hour: a network that just failed is a likely reason for the mail.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::mail::Mail;
use super::smtp::Transport;

/// Mails that may wait.
pub const MAX_MAILS: usize = 64;

/// Pause after the first failure; it doubles up to [`MAX_PAUSE`].
pub const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// Longest pause between two tries.
pub const MAX_PAUSE: Duration = Duration::from_mins(5);

/// A mail that could not be sent for this long is given up.
pub const MAX_AGE: Duration = Duration::from_hours(1);

/// How many mails went which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Taken by the mail server.
    pub sent: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Given up: refused for good, too old, or pushed out of a full queue.
    pub lost: u64,
}

#[derive(Default)]
struct State {
    mails: VecDeque<(Instant, Mail)>,
    counts: Counts,
    closed: bool,
}

/// Mails on their way from those who report events to the task that sends.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits. A full queue loses its oldest mail.
    pub fn push(&self, mail: Mail) {
        let mut state = self.state();
        if state.mails.len() == MAX_MAILS {
            state.mails.pop_front();
            state.counts.lost += 1;
        }
        state.mails.push_back((Instant::now(), mail));
        drop(state);
        self.changed.notify_one();
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.state().mails.len()
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Lets the task end when nothing waits any more, and ends its pauses.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// The next mail; `None` when closed and empty.
    async fn next(&self) -> Option<(Instant, Mail)> {
        loop {
            {
                let mut state = self.state();
                if let Some(mail) = state.mails.pop_front() {
                    return Some(mail);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits `pause`, or less when the queue is closed.
    async fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.state().closed {
            if tokio::time::timeout_at(until, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }
}

/// Sends until the queue is closed and empty.
pub async fn work(queue: Arc<Queue>, transport: impl Transport) {
    let trouble = Trouble::default();
    while let Some((queued, mail)) = queue.next().await {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = transport.send(&mail).await else {
                queue.count(|counts| counts.sent += 1);
                debug!(server = mail.server, port = mail.port, "a notification was sent");
                if let Some(failures) = trouble.over() {
                    info!(failures, server = mail.server, "notifications can be sent again");
                }
                break;
            };
            queue.count(|counts| counts.failures += 1);
            let give_up = error.permanent || queued.elapsed() + pause > MAX_AGE || queue.state().closed;
            if let Some(failures) = trouble.report() {
                warn!(
                    failures, server = mail.server, port = mail.port, %error, give_up,
                    "a notification cannot be sent; check smtp-server and its neighbours in broker.conf"
                );
            }
            if give_up {
                queue.count(|counts| counts.lost += 1);
                break;
            }
            queue.pause(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

/// Something that keeps failing: worth a line at the 1st, 2nd, 4th, 8th… time, and one when it is over.
#[derive(Debug, Default)]
pub struct Trouble {
    failures: AtomicU64,
}

impl Trouble {
    /// One more failure; how many there were if that is worth a line.
    pub fn report(&self) -> Option<u64> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        failures.is_power_of_two().then_some(failures)
    }

    /// It worked; how often it failed before that, if it did.
    pub fn over(&self) -> Option<u64> {
        Some(self.failures.swap(0, Ordering::Relaxed)).filter(|failures| *failures > 0)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use lettre::Address;

    use super::*;
    use crate::notify::smtp::SendError;

    /// A mail server that fails so many times, then takes everything.
    struct Failing {
        left: AtomicU64,
        permanent: bool,
    }

    #[async_trait]
    impl Transport for Arc<Failing> {
        async fn send(&self, _mail: &Mail) -> Result<(), SendError> {
            let left = self.left.load(Ordering::Relaxed);
            if left == 0 {
                return Ok(());
            }
            self.left.store(left - 1, Ordering::Relaxed);
            Err(SendError { permanent: self.permanent, text: "no".to_owned() })
        }
    }

    fn mail() -> Mail {
        let address: Address = "a@example.org".parse().unwrap();
        Mail {
            server: "mail".to_owned(),
            port: 25,
            timeout: Duration::from_secs(10),
            from: address.clone(),
            to: vec![address],
            message: Vec::new(),
        }
    }

    /// Two mails against a server with so many failures; the counts after `time`.
    async fn after(failures: u64, permanent: bool, time: Duration) -> Counts {
        let queue = Arc::new(Queue::default());
        queue.push(mail());
        queue.push(mail());
        let failing = Arc::new(Failing { left: AtomicU64::new(failures), permanent });
        let task = tokio::spawn(work(Arc::clone(&queue), failing));
        tokio::time::sleep(time).await;
        task.abort();
        queue.counts()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_gets_the_mail_with_growing_pauses() {
        // Tries at 0, 10, 30 and 70 s.
        assert_eq!(after(3, false, Duration::from_secs(69)).await, Counts { sent: 0, failures: 3, lost: 0 });
        assert_eq!(after(3, false, Duration::from_secs(71)).await, Counts { sent: 2, failures: 3, lost: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_is_given_up_after_an_hour_or_at_once_when_refused_for_good() {
        let counts = after(u64::MAX, false, Duration::from_hours(2)).await;
        assert_eq!((counts.sent, counts.lost), (0, 2));
        assert!(counts.failures < 40, "{counts:?}");
        assert_eq!(after(1, true, Duration::from_secs(1)).await, Counts { sent: 1, failures: 1, lost: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_pauses_and_the_task() {
        let queue = Arc::new(Queue::default());
        queue.push(mail());
        let failing = Arc::new(Failing { left: AtomicU64::new(9), permanent: false });
        let task = tokio::spawn(work(Arc::clone(&queue), failing));
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.close();
        task.await.unwrap();
        assert_eq!(queue.counts(), Counts { sent: 0, failures: 2, lost: 1 });
    }

    #[test]
    fn trouble_is_worth_fewer_and_fewer_lines() {
        let trouble = Trouble::default();
        let lines: Vec<_> = (0..20).filter_map(|_| trouble.report()).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16]);
        assert_eq!((trouble.over(), trouble.over()), (Some(20), None));
    }
}
