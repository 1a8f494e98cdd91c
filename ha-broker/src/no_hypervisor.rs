//! In place of a hypervisor that this build has no adapter for: every question is answered with the reason. The
//! engine's health is then `unknown`, and all else of the broker works.

use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{
    ConsoleAddress, EngineVm, MigrationProgress, MigrationTarget, StartMode, VmError, VmEvent, VmStatus,
};
use tokio::sync::broadcast;

/// The adapter that is none.
#[derive(Debug)]
pub struct NoHypervisor {
    reason: String,
    events: broadcast::Sender<VmEvent>,
}

impl NoHypervisor {
    /// `reason` is what callers are told.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), events: broadcast::Sender::new(1) }
    }

    fn no<T>(&self) -> Result<T, VmError> {
        Err(VmError::Unreachable { detail: self.reason.clone() })
    }
}

#[async_trait]
impl EngineVm for NoHypervisor {
    async fn status(&self) -> Result<VmStatus, VmError> {
        self.no()
    }
    async fn start(&self, _: StartMode) -> Result<(), VmError> {
        self.no()
    }
    async fn shutdown(&self, _: Duration, _: &str) -> Result<(), VmError> {
        self.no()
    }
    async fn destroy(&self) -> Result<(), VmError> {
        self.no()
    }
    async fn pause(&self) -> Result<(), VmError> {
        self.no()
    }
    async fn resume(&self) -> Result<(), VmError> {
        self.no()
    }
    async fn prepare_incoming(&self, _: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        self.no()
    }
    async fn migrate(&self, _: &MigrationTarget) -> Result<(), VmError> {
        self.no()
    }
    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        self.no()
    }
    async fn set_console_password(&self, _: &str, _: Duration) -> Result<(), VmError> {
        self.no()
    }
    async fn console(&self) -> Result<ConsoleAddress, VmError> {
        self.no()
    }
    async fn cpu_time(&self) -> Result<Option<Duration>, VmError> {
        self.no()
    }
    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_are_told_why_nobody_knows() {
        let error = NoHypervisor::new("ha.toml names libvirt").status().await.unwrap_err();
        assert!(error.to_string().contains("ha.toml names libvirt"), "{error}");
    }
}
