//! The gate between the kernel's queue and the file system: carries requests one way and answers the other, as
//! whole messages. While the storage hangs it leaves requests in the kernel; while it is slow it carries each one
//! later. It never looks inside a message.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use super::fault::{Fault, Mode};

/// The largest message: the kernel's largest request (128 KiB of data without the negotiated extension) and room
/// for its headers. The kernel refuses a reader with a smaller buffer than it may need.
const LARGEST: usize = 1024 * 1024 + 4096;

/// Requests carried and not yet handed on; more stay in the kernel.
const IN_FLIGHT: usize = 64;

/// A pair of sockets that keep message boundaries and hold the largest message.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&a, &b] {
        // The forced form ignores the machine's limit; it needs CAP_NET_ADMIN, which the sandbox has anyway.
        sockopt::set_socket_send_buffer_size_force(end, 2 * LARGEST)?;
    }
    Ok((a, b))
}

/// Starts the threads that carry messages until the device is unmounted.
pub fn start(device: OwnedFd, session: OwnedFd, fault: Arc<Fault>) -> io::Result<()> {
    let (device, session) = (Arc::new(device), Arc::new(session));
    let (queue, queued) = mpsc::sync_channel::<(Monotonic, Vec<u8>)>(IN_FLIGHT);

    let (from, to) = (Arc::clone(&session), Arc::clone(&device));
    std::thread::Builder::new().name("answers".into()).spawn(move || answers(&from, &to))?;
    let to = Arc::clone(&session);
    std::thread::Builder::new().name("deliver".into()).spawn(move || deliver(&queued, &to))?;
    std::thread::Builder::new().name("gate".into()).spawn(move || {
        requests(&device, &fault, &queue);
        // The file system reads an end of file and its loop ends.
        let _ = rustix::net::shutdown(&*session, rustix::net::Shutdown::Both);
    })?;
    Ok(())
}

/// Takes requests out of the kernel's queue, unless storage hangs.
fn requests(device: &OwnedFd, fault: &Fault, queue: &mpsc::SyncSender<(Monotonic, Vec<u8>)>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let mut ready = [PollFd::new(device, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        // Asked again behind the switch: a hang that began meanwhile takes nothing. A request is there, and this
        // thread is the only reader, so the read does not block, unless the request's owner was just killed.
        let taken = fault.unless_hanging(|mode| {
            let mut ready = [PollFd::new(device, PollFlags::IN)];
            match poll(&mut ready, Some(&rustix::event::Timespec::default())) {
                Ok(0) => Err(Errno::AGAIN),
                Ok(_) => read(device, &mut buffer).map(|length| (length, mode)),
                Err(error) => Err(error),
            }
        });
        let (length, mode) = match taken {
            Ok(taken) => taken,
            // ENOENT: the request was taken back between the kernel's announcement and our read.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => continue,
            Err(_) => return,
        };
        let delay = if let Mode::Delay(by) = mode { by } else { Duration::ZERO };
        let due = SystemClock.monotonic().plus(delay);
        if queue.send((due, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Hands requests on when they are due. All wait equally long, so they keep their order.
fn deliver(queued: &mpsc::Receiver<(Monotonic, Vec<u8>)>, session: &OwnedFd) {
    while let Ok((due, message)) = queued.recv() {
        let wait = due.saturating_since(SystemClock.monotonic());
        if !wait.is_zero() {
            let timeout = rustix::event::Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            let _ = poll(&mut [], Some(&timeout));
        }
        if carry(session, &message).is_err() {
            return;
        }
    }
}

/// Carries answers back to the kernel.
fn answers(session: &OwnedFd, device: &OwnedFd) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = match read(session, &mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        match carry(device, &buffer[..length]) {
            // ENOENT: the request's owner was killed meanwhile. Other refusals concern that one answer too.
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(_) => return,
        }
    }
}

fn carry(to: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    loop {
        match write(to, message) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}
