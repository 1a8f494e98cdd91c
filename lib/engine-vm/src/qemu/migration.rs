//! scratch
use super::look::{Inner, Shared};
use crate::port::{MigrationProgress, MigrationTarget, VmError};
impl Inner {
    pub async fn receive(_i: &Shared, _l: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        Err(VmError::Unsupported { adapter: "qemu", action: "x" })
    }
    pub async fn send(_i: &Shared, _l: &MigrationTarget) -> Result<(), VmError> {
        Err(VmError::Unsupported { adapter: "qemu", action: "x" })
    }
    pub async fn progress(&self) -> Result<MigrationProgress, VmError> {
        Ok(MigrationProgress::None)
    }
}
