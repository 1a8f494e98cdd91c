//! A virtual machine that only remembers what it was told.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, Receiver, StartMode, VmActivity, VmError, VmEvent, VmStatus,
};
use tokio::sync::broadcast;

pub struct FakeVm {
    pub activity: Mutex<VmActivity>,
    pub lease: LeaseHolding,
    /// The lease is held by another host.
    pub lease_taken: bool,
    pub calls: Mutex<Vec<String>>,
}

impl FakeVm {
    pub fn new(activity: VmActivity, lease: LeaseHolding) -> Self {
        Self { activity: Mutex::new(activity), lease, lease_taken: false, calls: Mutex::default() }
    }

    pub fn down() -> Self {
        Self::new(VmActivity::Down, LeaseHolding::NoVm)
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn act(&self, call: String, then: VmActivity) {
        self.calls.lock().unwrap().push(call);
        *self.activity.lock().unwrap() = then;
    }

    fn here(&self) -> Result<(), VmError> {
        if *self.activity.lock().unwrap() == VmActivity::Down { Err(VmError::NotRunning) } else { Ok(()) }
    }
}

fn unsupported<T>(action: &'static str) -> Result<T, VmError> {
    Err(VmError::Unsupported { adapter: "fake", action })
}

#[async_trait]
impl EngineVm for FakeVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        let activity = *self.activity.lock().unwrap();
        Ok(VmStatus { activity, exit: None, lease: self.lease.clone(), pid: None })
    }
    async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        if self.lease_taken {
            return Err(VmError::LeaseHeld { detail: "-243".to_owned() });
        }
        self.act(format!("start {mode:?}"), VmActivity::Up);
        Ok(())
    }
    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        unsupported("tell who holds its lease")
    }
    async fn lease_gives_way(&self) {
        std::future::pending::<()>().await;
    }
    async fn shutdown(&self, delay: Duration, _message: &str) -> Result<(), VmError> {
        self.here()?;
        self.act(format!("shutdown {}", delay.as_secs()), VmActivity::PoweringDown);
        Ok(())
    }
    async fn destroy(&self) -> Result<(), VmError> {
        self.here()?;
        self.act("destroy".to_owned(), VmActivity::Down);
        Ok(())
    }
    async fn pause(&self) -> Result<(), VmError> {
        unsupported("pause")
    }
    async fn resume(&self) -> Result<(), VmError> {
        self.act("resume".to_owned(), VmActivity::Up);
        Ok(())
    }
    fn receiver(&self) -> Receiver {
        Receiver::Never { why: "this is a fake".to_owned() }
    }
    async fn prepare_incoming(&self, _: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        unsupported("receive")
    }
    async fn migrate(&self, _: &MigrationTarget) -> Result<(), VmError> {
        unsupported("migrate")
    }
    async fn migrate_cancel(&self) -> Result<(), VmError> {
        unsupported("stop a migration")
    }
    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        Ok(MigrationProgress::None)
    }
    async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        self.here()?;
        self.calls.lock().unwrap().push(format!("password {} {}", password.len(), valid.as_secs()));
        Ok(())
    }
    async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        let (kind, address) = match kind {
            ConsoleKind::Serial => ("serial", "/nonexistent/serial.sock"),
            ConsoleKind::Graphical => ("vnc", "127.0.0.1:5900"),
        };
        Ok(ConsoleAddress { kind: kind.to_owned(), address: address.to_owned() })
    }
    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        Ok(None)
    }
    fn events(&self) -> broadcast::Receiver<VmEvent> {
        broadcast::channel(1).1
    }
}
