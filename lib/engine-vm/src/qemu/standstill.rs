//! A host that stood still and goes on: frozen by whoever runs it, stopped in firmware, asleep. When that took longer than
//! a lease lasts without renewal, another host may have taken the lease, and QEMU goes on beside the VM there until the
//! lock manager has woken up and ends it: some tenths of a second. This ends it in the first moment.
//!
//! A thread sleeps in short pieces and looks at a clock that counts on meanwhile. A piece that took as long as the lease
//! lasts (8N) was a standstill, and in all of it nobody renewed the lease: the lock manager's own verdict is certain. The
//! kernel lets QEMU go on in the same moment as this thread, so the window becomes short, and is not closed: only a
//! watchdog does that. A machine whose clocks stand still with it is not noticed at all.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use clock::SystemClock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::process::{Process, kill};

/// One piece of sleep: the shorter, the more often the thread wakes; the end of a longer standstill wakes it at once.
const PIECE: Duration = Duration::from_secs(1);
/// The thread does next to nothing.
const STACK: usize = 64 * 1024;

/// Watches over `process` on a thread of its own until it ends: ends it when this host stood still for `lost_after`.
///
/// # Errors
/// When there is no thread or descriptor to be had.
pub fn watch(process: &Process, lost_after: Duration) -> io::Result<()> {
    let pidfd = process.pidfd()?;
    let pid = process.pid;
    let work = move || {
        if let Some(gap) = standstill(&pidfd, lost_after, PIECE, || SystemClock.since_boot()) {
            let ended = kill(&pidfd);
            tracing::error!(
                pid,
                "this host stood still for {} s, longer than the engine VM's lease lasts ({} s): the VM was ended at \
                 once ({})",
                gap.as_secs(),
                lost_after.as_secs(),
                ended.map_or_else(|error| error.to_string(), |()| "SIGKILL".to_owned())
            );
        }
    };
    std::thread::Builder::new().name("standstill".into()).stack_size(STACK).spawn(work).map(drop)
}

/// Waits for a standstill of `lost_after`, and gives how long it was; `None` when the process ended before.
fn standstill(
    pidfd: &OwnedFd,
    lost_after: Duration,
    piece: Duration,
    mut now: impl FnMut() -> Duration,
) -> Option<Duration> {
    let timeout = Timespec {
        tv_sec: i64::try_from(piece.as_secs()).unwrap_or(1),
        tv_nsec: piece.subsec_nanos().into(),
    };
    let mut before = now();
    loop {
        let woken = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout));
        // First of all: each moment counts.
        let after = now();
        let gap = after.saturating_sub(before);
        match woken {
            Ok(0) | Err(rustix::io::Errno::INTR) if gap >= lost_after => return Some(gap),
            Ok(0) | Err(rustix::io::Errno::INTR) => before = after,
            // It ended, or nobody can say any more.
            Ok(_) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_millis(5);
    const LOST: Duration = Duration::from_secs(80);

    fn sleeper() -> (std::process::Child, OwnedFd) {
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).unwrap();
        (child, pidfd)
    }

    /// A clock that gives these seconds one after the other, and the last one for ever.
    fn clock(secs: &[u64]) -> impl FnMut() -> Duration {
        let mut secs = secs.to_vec().into_iter();
        let mut last = 0;
        move || {
            last = secs.next().unwrap_or(last);
            Duration::from_secs(last)
        }
    }

    #[test]
    fn a_gap_as_long_as_the_lease_is_a_standstill_and_many_short_ones_are_none() {
        let (mut child, pidfd) = sleeper();
        let gap = standstill(&pidfd, LOST, PIECE, clock(&[0, 1, 80, 81, 160, 240]));
        assert_eq!(gap, Some(Duration::from_secs(80)), "not before the last of them");
        kill(&pidfd).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_watch_ends_with_the_process() {
        let (mut child, pidfd) = sleeper();
        kill(&pidfd).unwrap();
        child.wait().unwrap();
        assert_eq!(standstill(&pidfd, LOST, Duration::from_secs(60), clock(&[0, 1000])), None);
    }
}
