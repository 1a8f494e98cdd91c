//! What the kernel says when a way to storage may be back: the mount table changed, a block device came or changed, a
//! network link came up. Whoever waits to try again tries then, instead of at the end of its pause.
//!
//! ```text
//! /proc/self/mountinfo   POLLPRI        a file system was mounted or unmounted
//! netlink, uevents       add, change    of the subsystem block: a disk, a path of multipath, a logical volume
//! netlink, route         RTM_NEWLINK    with IFF_RUNNING on a link that had it not
//! ```
//!
//! None of these proves anything: they say when a look is worth it. What cannot be listened to (a container without
//! netlink) is passed over with a line in the log; the pauses are kept all the same.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Number of signs so far; a change is a sign.
pub type Returned = watch::Receiver<u64>;

/// Bytes of one datagram: uevents are below 8 KiB, link messages below 32 KiB.
const DATAGRAM: usize = 32 * 1024;

/// Multicast group of the kernel's own uevents (2 would be udev's).
const KERNEL_UEVENTS: u32 = 1;
/// `NETLINK_ROUTE`, which is protocol 0.
const ROUTE: Option<Protocol> = None;
/// `RTMGRP_LINK`
const LINKS: u32 = 1;
/// `RTM_NEWLINK`
const NEW_LINK: u16 = 16;
/// `IFF_RUNNING`
const RUNNING: u32 = 0x40;

/// Never a sign: for tests, and where nobody listens.
pub fn never() -> Returned {
    watch::channel(0).1
}

/// Starts to listen, on tasks of the runtime that this is called in; they end with the last receiver.
pub fn listen() -> Returned {
    let (sender, receiver) = watch::channel(0);
    let sender = Arc::new(sender);
    for (what, source) in
        [("the mount table", mounts()), ("block devices", uevents()), ("network links", links())]
    {
        match source {
            Ok(source) => drop(tokio::spawn(source.follow(what, Arc::clone(&sender)))),
            Err(error) => tracing::info!("cannot listen for changes of {what}: {error}"),
        }
    }
    receiver
}

/// Whether a datagram is a sign.
type IsSign = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

enum Source {
    /// A file that is ready when its content changed.
    Changes(AsyncFd<File>),
    /// Datagrams, of which some are signs.
    Datagrams(AsyncFd<OwnedFd>, IsSign),
}

fn mounts() -> io::Result<Source> {
    let file = File::open("/proc/self/mountinfo")?;
    Ok(Source::Changes(registered(file, Interest::PRIORITY)?))
}

fn uevents() -> io::Result<Source> {
    let socket = netlink_socket(Some(netlink::KOBJECT_UEVENT), KERNEL_UEVENTS)?;
    Ok(Source::Datagrams(socket, Box::new(is_block_device)))
}

fn links() -> io::Result<Source> {
    let running = Mutex::new(HashMap::new());
    let is_sign =
        move |bytes: &[u8]| came_up(bytes, &mut running.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Source::Datagrams(netlink_socket(ROUTE, LINKS)?, Box::new(is_sign)))
}

fn netlink_socket(protocol: Option<Protocol>, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    registered(socket, Interest::READABLE)
}

pub(crate) fn registered<T: Into<OwnedFd> + AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `inner` is a descriptor that it owns, and the `AsyncFd` owns `inner`: it is closed only after it was taken
    // out of the reactor.
    Ok(unsafe { AsyncFd::register_with_interest(inner, interest) }?)
}

impl Source {
    async fn follow(self, what: &'static str, sender: Arc<watch::Sender<u64>>) {
        loop {
            let sign = tokio::select! {
                biased;
                () = sender.closed() => return,
                sign = self.next() => sign,
            };
            match sign {
                Ok(true) => {
                    tracing::debug!("{what} changed");
                    sender.send_modify(|count| *count += 1);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::info!("no longer listening for changes of {what}: {error}");
                    return;
                }
            }
        }
    }

    /// Whether the next message is a sign.
    async fn next(&self) -> io::Result<bool> {
        match self {
            Self::Changes(file) => {
                file.ready(Interest::PRIORITY).await?.clear_ready();
                Ok(true)
            }
            Self::Datagrams(socket, is_sign) => {
                let mut ready = socket.readable().await?;
                let mut buffer = vec![0; DATAGRAM];
                match rustix::net::recv(socket.get_ref(), &mut buffer[..], RecvFlags::empty()) {
                    Ok((_, len)) => Ok(is_sign(&buffer[..len.min(DATAGRAM)])),
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                        ready.clear_ready();
                        Ok(false)
                    }
                    // More came than fits: something did.
                    Err(rustix::io::Errno::NOBUFS) => Ok(true),
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }
}

/// Whether a uevent says that a block device came or changed: NUL-separated `ACTION@devpath`, then `key=value`.
fn is_block_device(event: &[u8]) -> bool {
    let mut fields = event.split(|byte| *byte == 0);
    let action = fields.next().unwrap_or_default();
    let action = action.split(|byte| *byte == b'@').next().unwrap_or_default();
    matches!(action, b"add" | b"change" | b"online") && fields.any(|field| field == b"SUBSYSTEM=block")
}

/// Whether messages of the route family say that a link runs which did not. `running` is what is known of each link.
///
/// ```text
///  0  4  length of the message, with this header, u32      16  4  family, type
///  4  2  type, u16                                         20  4  number of the link, i32
///  6 10  flags, sequence, port                             24  4  flags, u32
/// ```
fn came_up(mut bytes: &[u8], running: &mut HashMap<u32, bool>) -> bool {
    const HEADER: usize = 16;
    let u32_at = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|chunk| u32::from_ne_bytes(*chunk))
    };
    let mut is_sign = false;
    while let Some(len) =
        u32_at(bytes, 0).and_then(|len| usize::try_from(len).ok()).filter(|len| *len >= HEADER)
    {
        let kind = bytes.get(4..).and_then(|rest| rest.first_chunk()).map(|chunk| u16::from_ne_bytes(*chunk));
        if let (Some(NEW_LINK), Some(link), Some(flags)) = (kind, u32_at(bytes, 20), u32_at(bytes, 24)) {
            let runs = flags & RUNNING != 0;
            let did = running.insert(link, runs);
            is_sign |= runs && did != Some(true);
        }
        let Some(rest) = bytes.get(len.next_multiple_of(4)..) else { break };
        bytes = rest;
    }
    is_sign
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn link(number: u32, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&32_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
        bytes[20..24].copy_from_slice(&number.to_ne_bytes());
        bytes[24..28].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_link_that_comes_up_is_a_sign_and_one_that_stays_up_is_none() {
        let mut known = HashMap::new();
        assert!(came_up(&link(2, RUNNING), &mut known), "not seen before");
        assert!(!came_up(&link(2, RUNNING | 1), &mut known));
        assert!(!came_up(&link(2, 0), &mut known));
        assert!(came_up(&[link(3, 0), link(2, RUNNING)].concat(), &mut known));
        for len in 0..32 {
            assert!(!came_up(&link(9, RUNNING)[..len.min(27)], &mut known), "cut off at {len}");
        }
        assert!(!came_up(&[0xff; 40], &mut known));
    }

    #[test]
    fn a_disk_that_comes_is_a_sign_and_other_devices_are_none() {
        let event = |action: &str, subsystem: &str| {
            format!("{action}@/devices/x/block/sdb\0ACTION={action}\0SUBSYSTEM={subsystem}\0").into_bytes()
        };
        assert!(is_block_device(&event("add", "block")) && is_block_device(&event("change", "block")));
        assert!(!is_block_device(&event("remove", "block")) && !is_block_device(&event("add", "usb")));
        assert!(!is_block_device(b""));
    }

    #[tokio::test]
    async fn the_end_of_a_mount_and_a_new_one_are_signs() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut returned = listen();
        returned.mark_unchanged();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", dir.path(), "tmpfs", flags, None).unwrap();
        let sign = tokio::time::timeout(Duration::from_secs(10), returned.changed()).await;
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        sign.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(10), returned.changed()).await.unwrap().unwrap();
    }
}
