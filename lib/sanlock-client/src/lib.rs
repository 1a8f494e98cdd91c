//! A client of the sanlock daemon in pure Rust: it speaks the daemon's Unix socket itself, without the C library.
//!
//! Sanlock keeps leases on shared storage. A *lockspace* gives each host an id that only one host can hold; a
//! *resource* is a lease that one process of one host can hold while its host id is alive. The daemon does all
//! the I/O and kills a holder whose host id cannot be renewed.
//!
//! This crate may touch that socket and nothing else. It blocks, with a deadline on each call; async callers
//! put it on a blocking thread. It never breaks a lease and never kills a process, and retries only what the daemon
//! refused because it was busy with the same process. It is written and
//! tested against the daemon's release 3.8.5. Only commands of protocol 1 are used; [`Client::version`] tells the
//! release, and a daemon that speaks another protocol, or gives structures of another size, is answered with
//! [`SanlockError::Protocol`] rather than misread.
//!
//! ```no_run
//! use sanlock_client::{AcquireOptions, Client, Disk, DiskPath, LockspaceName, Registration, Resource, ResourceName};
//!
//! # fn main() -> Result<(), sanlock_client::SanlockError> {
//! let client = Client::new("/run/sanlock/sanlock.sock");
//! println!("sanlock {}", client.version()?);
//! let resource = Resource {
//!     lockspace: LockspaceName::new("storage")?,
//!     name: ResourceName::new("disk-1")?,
//!     disks: vec![Disk { path: DiskPath::new("/shared/leases")?, offset: 1 << 20 }],
//! };
//! let mut registration = Registration::register_self(&client)?;
//! registration.acquire(&[resource], &AcquireOptions::default())?;
//! // The lease is ours until `registration` is dropped or this process ends.
//! # Ok(())
//! # }
//! ```

mod client;
mod delta;
mod error;
mod events;
mod model;
mod names;
mod paxos;
mod registration;
mod transport;
pub mod wire;

pub use client::{AddOptions, Client, RemoveOptions, WriteLockspaceOptions};
pub use delta::{BadRecord, DELTA_RECORD_BYTES, DeltaRecord};
pub use error::{Operation, Refusal, SanlockError};
pub use events::{EventWatch, HostEvent, ReceivedEvent};
pub use model::{
    DaemonSettings, Disk, GridSize, HostState, HostStatus, Lockspace, LockspacePhase, LockspaceRecord, Owner,
    Resource, ResourceHeld, ResourceOwners, ResourceRecord, Version,
};
pub use names::{DiskPath, LockspaceName, NameError, ResourceName};
pub use paxos::{PAXOS_RECORD_BYTES, PaxosRecord};
pub use registration::{AcquireOptions, Registration};
