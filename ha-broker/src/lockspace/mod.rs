//! Holding this host's id: the leases that say which host may write which block, and which carry the VM's lease.
//!
//! - [`Lockspace`] is the port: what a lock manager can be asked, each question with a deadline.
//! - [`sanlock`] asks the sanlock daemon; [`vdsm`] has VDSM join the storage domain's lockspace; [`file`] is the small stand-in for a single machine; [`memory`] is the
//!   simulated one.
//! - [`keeper`] joins, watches, says loss at once, and joins again by itself when that is possible.
//!
//! Nothing here breaks a lease of a live host, or kills anything.

pub mod file;
pub mod keeper;
pub mod memory;
pub mod sanlock;
#[cfg(test)]
mod testing;
pub mod vdsm;

use async_trait::async_trait;
use metadata_format::HostId;

pub use keeper::{Keeper, Pace};

/// How far this host is with a host id, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Ours.
    Held,
    /// Being taken or being given up.
    Changing,
    /// Not ours, and not on the way.
    NotHeld,
}

/// What the lock manager says about the hosts of a lockspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts {
    /// The ids of hosts that renewed their lease lately.
    pub live: Vec<HostId>,
    /// Every other id is known not to be live. False while one was not watched for long enough to say.
    pub is_complete: bool,
}

/// Why the lock manager did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Another host holds the id.
    #[error("{0}")]
    InUse(String),
    /// This host holds another id in the same lockspace.
    #[error("{0}")]
    OtherId(String),
    /// Hosts are live.
    #[error("{0}")]
    Live(String),
    /// It cannot be asked, or failed.
    #[error("{0}")]
    Failed(String),
}

/// The port to the lock manager. All calls take time, and may block their thread meanwhile, as those of the real
/// adapters do: [`Lockspace::join`] and [`Lockspace::reset`] for as long as sanlock's time-outs say, the others for a
/// few seconds at most. They are made on threads of the keeper and of the whiteboard's lanes only.
#[async_trait]
pub trait Lockspace: Send + Sync + 'static {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// Takes the id. Returns when it is held.
    ///
    /// # Errors
    /// [`LockError::InUse`] with the owner when another host has it.
    async fn join(&self, id: HostId) -> Result<(), LockError>;

    /// Whether the id is held now.
    ///
    /// # Errors
    /// When the lock manager cannot be asked: then nobody may take the id for held.
    async fn phase(&self, id: HostId) -> Result<Phase, LockError>;

    /// Begins to give the id up; does not wait for it. Fine when it is not held.
    ///
    /// # Errors
    /// When the lock manager refuses or cannot be asked.
    async fn leave(&self, id: HostId) -> Result<(), LockError>;

    /// Which hosts are live. Only while an id is held.
    ///
    /// # Errors
    /// When the lock manager cannot say.
    async fn live_hosts(&self) -> Result<Hosts, LockError>;

    /// Whether the host's watchdog resets this host when the lease cannot be renewed and its holders do not end; `None`
    /// when the lock manager does not say.
    async fn watchdog(&self) -> Option<bool> {
        None
    }

    /// Writes an empty lockspace, after it was watched for long enough to see that no host renews a lease.
    ///
    /// # Errors
    /// [`LockError::Live`] with the hosts when some do.
    async fn reset(&self) -> Result<(), LockError>;
}
