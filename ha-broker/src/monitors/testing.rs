//! Stand-ins for the hypervisor and the clock, for the monitors' tests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clock::{Clock, Monotonic, Wall};
use engine_vm::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, Receiver, StartMode, VmActivity, VmError, VmEvent, VmStatus,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

/// A status with nothing remarkable beside the activity.
pub fn status_of(activity: VmActivity) -> VmStatus {
    VmStatus { activity, exit: None, lease: LeaseHolding::NoVm, pid: None }
}

enum Answer {
    Status(VmStatus),
    Fails(String),
    Hangs,
}

/// A VM that is what the test says.
pub struct FakeVm {
    answer: Mutex<Answer>,
    cpu: Mutex<Option<CpuUse>>,
    looks: AtomicU32,
    events: broadcast::Sender<VmEvent>,
}

impl FakeVm {
    pub fn new(status: VmStatus) -> Arc<Self> {
        let events = broadcast::Sender::new(16);
        Arc::new(Self {
            answer: Mutex::new(Answer::Status(status)),
            cpu: Mutex::new(None),
            looks: AtomicU32::new(0),
            events,
        })
    }

    pub fn set(&self, status: VmStatus) {
        *self.answer.lock().unwrap() = Answer::Status(status);
    }

    pub fn fail(&self, why: &str) {
        *self.answer.lock().unwrap() = Answer::Fails(why.to_owned());
    }

    pub fn hang(&self) {
        *self.answer.lock().unwrap() = Answer::Hangs;
    }

    /// How often it was asked for its status.
    pub fn looks(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }

    pub fn tell(&self, event: VmEvent) {
        assert!(self.events.send(event).is_ok(), "somebody listens");
    }

    async fn answer(&self) -> Result<VmStatus, VmError> {
        let answer = match &*self.answer.lock().unwrap() {
            Answer::Status(status) => Some(Ok(status.clone())),
            Answer::Fails(why) => Some(Err(VmError::Unreachable { detail: why.clone() })),
            Answer::Hangs => None,
        };
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

fn unsupported<T>() -> Result<T, VmError> {
    Err(VmError::Unsupported { adapter: "fake", action: "act: a monitor must not" })
}

#[async_trait]
impl EngineVm for FakeVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.answer().await
    }

    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        self.answer().await?;
        Ok(*self.cpu.lock().unwrap())
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.events.subscribe()
    }

    async fn start(&self, _: StartMode) -> Result<(), VmError> {
        unsupported()
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        unsupported()
    }

    async fn lease_gives_way(&self) {
        std::future::pending::<()>().await;
    }

    async fn shutdown(&self, _: Duration, _: &str) -> Result<(), VmError> {
        unsupported()
    }

    async fn destroy(&self) -> Result<(), VmError> {
        unsupported()
    }

    async fn pause(&self) -> Result<(), VmError> {
        unsupported()
    }

    async fn resume(&self) -> Result<(), VmError> {
        unsupported()
    }

    fn receiver(&self) -> Receiver {
        Receiver::Never { why: "this is a fake".to_owned() }
    }

    async fn prepare_incoming(&self, _: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        unsupported()
    }

    async fn migrate(&self, _: &MigrationTarget) -> Result<(), VmError> {
        unsupported()
    }

    async fn migrate_cancel(&self) -> Result<(), VmError> {
        unsupported()
    }

    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        unsupported()
    }

    async fn set_console_password(&self, _: &str, _: Duration) -> Result<(), VmError> {
        unsupported()
    }

    async fn console(&self, _: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        unsupported()
    }
}

/// A clock that goes with tokio's, which tests pause.
pub struct TokioClock(Instant);

impl TokioClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for TokioClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_duration(self.0.elapsed())
    }

    fn wall(&self) -> Wall {
        Wall(0)
    }
}
