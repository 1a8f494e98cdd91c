//! The engine VM through a libvirt daemon, under the lease that libvirt's lock manager takes from sanlock for QEMU.
//!
//! ```text
//!                create, stopped             QEMU is registered with sanlock: resume
//!  Down ─────────────────────► WaitForLaunch ──────────────────────────────────────► Up ◄──► Paused (lease given back)
//!   ▲                               │ not registered, or the lease is refused         │
//!   └───────────────────────────────┴───────────────────────────────────────────────┘
//!     LeaseRefused, StartFailed           Orderly, Crashed, MigratedAway
//! ```
//!
//! No guest code runs before sanlock itself was asked: libvirt starts QEMU with stopped processors in any case, registers
//! it with the lock manager, and takes the lease when the processors are let go. In between this adapter looks whether
//! QEMU's process really is known to sanlock, and ends it when it is not. After that sanlock protects the VM, whatever
//! libvirtd and our daemons do.
//!
//! The domain is transient: nothing stays behind on a host that the VM left. What the VM does is libvirt's word, whether it
//! owns its lease is sanlock's. libvirt's calls block and have no deadline: each runs in a thread of its own, and who asks
//! waits only so long. A call whose answer was lost is never repeated: a look decides what came of it.

pub mod host_setup;

#[cfg(feature = "libvirt")]
mod adapter;
#[cfg(feature = "libvirt")]
mod console;
#[cfg(feature = "libvirt")]
mod description;
#[cfg(feature = "libvirt")]
mod end;
#[cfg(feature = "libvirt")]
mod follow;
#[cfg(feature = "libvirt")]
mod link;
#[cfg(feature = "libvirt")]
mod look;
#[cfg(feature = "libvirt")]
mod migration;
#[cfg(feature = "libvirt")]
mod notes;
#[cfg(feature = "libvirt")]
mod protection;
#[cfg(feature = "libvirt")]
mod settings;
#[cfg(feature = "libvirt")]
mod start;
#[cfg(feature = "libvirt")]
mod sys;

#[cfg(feature = "libvirt")]
pub use adapter::LibvirtVm;
#[cfg(feature = "libvirt")]
pub use settings::LibvirtSettings;
