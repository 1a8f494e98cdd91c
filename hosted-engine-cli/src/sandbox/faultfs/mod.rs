//! A pass-through file system between one sandbox host and the shared folder, which can be told to fail.
//!
//! Every host of the sandbox sees the storage through its own mount of this, so that faults hit one host only.
//! `O_DIRECT` and asynchronous I/O work on it, and nothing is cached in the kernel: what another host wrote is seen
//! at once, as on NFS with its caches off.
//!
//! ```text
//!  caller ── kernel ── /dev/fuse ──> gate ──> socket ──> file system ──> shared folder
//!                          ^        (stalls)            (fails)  │
//!                          └──────────── answers ────────────────┘
//! ```
//!
//! The gate sits in front of the kernel's queue: while storage hangs, no request is taken out of it, so that a
//! process that waits for one can still be killed, and what it wanted to write is then never written.
//! It never invents success: a request is passed on or fails.

mod control;
mod fault;
mod gate;
mod nodes;
mod passthrough;

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use fuser::{Session, SessionACL};
use rustix::mount::MountFlags;

pub use control::{ask, tell};
pub use fault::{Fault, Mode};

/// Mounts `source` at `mountpoint` and serves it until it is unmounted or this process ends. Faults are set
/// through the Unix socket `control`; see [`tell`].
pub fn serve(source: &Path, mountpoint: &Path, control: &Path) -> anyhow::Result<()> {
    let fault = Arc::new(Fault::default());
    let listener = bind(control)?;
    let (device, session_end) = (open_device()?, gate::socket_pair()?);
    let (for_session, for_gate) = session_end;
    let file_system = passthrough::PassThrough::new(source, Arc::clone(&fault))
        .with_context(|| format!("cannot open the shared folder {}", source.display()))?;
    mount(&device, mountpoint)?;

    let switch = Arc::clone(&fault);
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || control::serve(&listener, &switch))
        .context("cannot start a thread")?;
    gate::start(device, for_gate, fault).context("cannot start the gate's threads")?;
    Session::from_fd(file_system, for_session, SessionACL::All).run().context("the file system's loop ended")
}

/// Plays the file server at its port for those who look whether anybody is there: accepts, and says nothing.
pub fn answer_at(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    std::thread::Builder::new()
        .name("port".into())
        .spawn(move || listener.incoming().for_each(drop))
        .context("cannot start a thread")?;
    Ok(())
}

fn bind(control: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(control) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove the old socket {}", control.display()));
        }
        _ => {}
    }
    UnixListener::bind(control)
        .with_context(|| format!("cannot listen on {} (at most 107 bytes)", control.display()))
}

fn open_device() -> anyhow::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .context("cannot open /dev/fuse: the kernel must have FUSE, and only root may use the sandbox")?;
    Ok(device.into())
}

fn mount(device: &OwnedFd, mountpoint: &Path) -> anyhow::Result<()> {
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let data = std::ffi::CString::new(data).context("mount options hold a NUL")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // The kernel takes any word after the dot. libvirt moves VMs only between file systems that it knows to be shared; on
    // FUSE it knows GlusterFS's.
    rustix::mount::mount("ovirt-ha-sandbox", mountpoint, "fuse.glusterfs", flags, data.as_c_str())
        .with_context(|| format!("cannot mount at {}", mountpoint.display()))
}
