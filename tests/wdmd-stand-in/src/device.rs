//! The device's part: counts from the last time that it was petted, outside of the host, and ends the host.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clock::{Clock as _, Monotonic, SystemClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What pets it.
pub const PET: &[u8] = b"pet";
/// What disarms it until it is petted again.
pub const DISARM: &[u8] = b"disarm";

/// How its watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It fired: the host was ended.
    Fired {
        /// So long after it was petted last.
        after: Duration,
    },
    /// The host ended by itself.
    HostEnded,
}

/// Watches the host whose process 1 is `host`, until that ends or the device fires. It is armed by the first pet.
///
/// # Errors
/// When `socket` cannot be served, or the host is not there.
pub fn watch(socket: &Path, host: i32, fire_timeout: Duration) -> anyhow::Result<End> {
    let _ = std::fs::remove_file(socket);
    let datagrams =
        UnixDatagram::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    datagrams.set_nonblocking(true).context("cannot set up the socket")?;
    let pid = Pid::from_raw(host).context("0 is no process")?;
    // By a descriptor, so that no other process of that number can be meant later.
    let host = pidfd_open(pid, PidfdFlags::empty()).context("the host is not running")?;
    let mut petted: Option<Monotonic> = None;
    let since = |at: Monotonic| SystemClock.monotonic().saturating_since(at);
    loop {
        let left = petted.map(|at| fire_timeout.saturating_sub(since(at)));
        if let (Some(at), Some(Duration::ZERO)) = (petted, left) {
            pidfd_send_signal(&host, Signal::KILL).context("cannot end the host")?;
            return Ok(End::Fired { after: since(at) });
        }
        let mut waited =
            [PollFd::new(&datagrams, PollFlags::IN), PollFd::from_borrowed_fd(host.as_fd(), PollFlags::IN)];
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait"),
        }
        if !waited[1].revents().is_empty() {
            return Ok(End::HostEnded);
        }
        let mut word = [0; 16];
        while let Ok(len) = datagrams.recv(&mut word) {
            match &word[..len] {
                PET => petted = Some(SystemClock.monotonic()),
                DISARM => petted = None,
                _ => {}
            }
        }
    }
}
