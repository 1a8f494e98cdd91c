//! Whether a write may still happen: asked directly before each byte that goes to storage.

use std::sync::Arc;

use async_trait::async_trait;

use super::CLUSTER_BLOCK;
use super::error::PutError;
use super::lane::Abandoned;

/// The permission to write.
#[async_trait]
pub trait Permit: Send + Sync {
    /// Whether the next write may happen. Asked where blocking is fine.
    ///
    /// # Errors
    /// Any means "do not write".
    async fn ask(&self) -> Result<(), PutError>;
}

/// What can be said without waiting.
#[async_trait]
impl<F: Fn() -> Result<(), PutError> + Send + Sync> Permit for F {
    async fn ask(&self) -> Result<(), PutError> {
        self()
    }
}

/// Who may write which host's block.
#[async_trait]
pub trait BlockLease: Send + Sync + 'static {
    /// Whether `block`'s lease is held at this moment. Asked on the lane's thread, which it may block for a moment;
    /// never asked for the cluster block.
    ///
    /// # Errors
    /// Why not, in words for the caller.
    async fn may_write(&self, block: u16) -> Result<(), String>;
}

/// The permission of one request: its caller still waits, and the lease of its block is held.
pub(super) struct RequestPermit {
    pub lease: Arc<dyn BlockLease>,
    pub block: u16,
    pub abandoned: Abandoned,
}

#[async_trait]
impl Permit for RequestPermit {
    async fn ask(&self) -> Result<(), PutError> {
        if self.abandoned.is_set() {
            return Err(PutError::Abandoned);
        }
        if self.block == CLUSTER_BLOCK {
            return Ok(());
        }
        self.lease.may_write(self.block).await.map_err(PutError::NotHeld)
    }
}
