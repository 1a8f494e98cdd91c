//! The metadata file behind a gate: while the storage domain is being connected nothing is tried on the file, and
//! whoever wants to use it is told how far that is. What stood at the file's place before may be anything.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::error::{Connecting, PutError, StorageError};
use super::{Block, BlockRange, Permit, Reading, Whiteboard};

/// The adapter.
pub struct Gated {
    file: Arc<dyn Whiteboard>,
    /// `None` while the gate is open.
    shut: watch::Receiver<Option<Connecting>>,
}

impl Gated {
    /// Lets requests through to `file` while `shut` has nothing.
    pub const fn new(file: Arc<dyn Whiteboard>, shut: watch::Receiver<Option<Connecting>>) -> Self {
        Self { file, shut }
    }

    fn pass(&self) -> Result<(), StorageError> {
        match self.shut.borrow().clone() {
            None => Ok(()),
            Some(how_far) => Err(StorageError::Connecting(how_far)),
        }
    }
}

#[async_trait]
impl Whiteboard for Gated {
    async fn read(&self, ranges: &[BlockRange]) -> Result<Reading, StorageError> {
        self.pass()?;
        self.file.read(ranges).await
    }

    async fn write(&self, block: u16, bytes: &Block, permit: &dyn Permit) -> Result<(), PutError> {
        self.pass()?;
        self.file.write(block, bytes, permit).await
    }

    fn name(&self) -> String {
        self.file.name()
    }
}
