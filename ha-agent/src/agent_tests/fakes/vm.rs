//! The world's VM: it does at once what it is told, unless a test says otherwise.

use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseOutlook, MigrationProgress, MigrationTarget,
    Receiver, StartMode, VmActivity, VmError, VmEvent, VmStatus,
};
use tokio::sync::broadcast;

use super::{World, no_vm, running_vm};

#[async_trait]
impl EngineVm for World {
    async fn status(&self) -> Result<VmStatus, VmError> {
        Ok(self.lock().vm.clone())
    }

    async fn start(&self, _mode: StartMode) -> Result<(), VmError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.actions.push((now, "start"));
        if !inner.start_errors.is_empty() {
            return Err(inner.start_errors.remove(0));
        }
        inner.vm = running_vm();
        Ok(())
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        Ok(self.lock().outlook)
    }

    async fn lease_gives_way(&self) {
        while self.lock().outlook != LeaseOutlook::Free {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn shutdown(&self, _delay: Duration, _message: &str) -> Result<(), VmError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.actions.push((now, "shutdown"));
        inner.vm = no_vm();
        Ok(())
    }

    async fn destroy(&self) -> Result<(), VmError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.actions.push((now, "destroy"));
        inner.vm = no_vm();
        Ok(())
    }

    async fn pause(&self) -> Result<(), VmError> {
        Err(VmError::NotRunning)
    }

    async fn resume(&self) -> Result<(), VmError> {
        let now = self.now();
        let mut inner = self.lock();
        inner.actions.push((now, "resume"));
        if !inner.resume_errors.is_empty() {
            return Err(inner.resume_errors.remove(0));
        }
        inner.vm.activity = VmActivity::Up;
        Ok(())
    }

    fn receiver(&self) -> Receiver {
        Receiver::Never { why: "this is a fake".to_owned() }
    }

    async fn prepare_incoming(&self, _listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        Err(VmError::NotRunning)
    }

    async fn migrate(&self, _target: &MigrationTarget) -> Result<(), VmError> {
        Err(VmError::NotRunning)
    }

    async fn migrate_cancel(&self) -> Result<(), VmError> {
        Err(VmError::NotRunning)
    }

    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        Ok(MigrationProgress::None)
    }

    async fn set_console_password(&self, _password: &str, _valid: Duration) -> Result<(), VmError> {
        Err(VmError::NotRunning)
    }

    async fn console(&self, _: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        Err(VmError::NotRunning)
    }

    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        Ok(None)
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }
}
