//! A VM that does as a script says, and an operator who answers as one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, OwnerLife, Receiver, StartMode, VmActivity, VmError, VmEvent, VmExit, VmStatus,
};
use ha_config::{HostedEngineConf, VmConf};
use tokio::sync::broadcast;

use crate::deploy::vm::operator::Operator;

/// What became of the VM, shared by all who open it.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub activity: VmActivity,
    pub exit: Option<VmExit>,
    /// How it ends at the looks that follow its next starts: one for each start; `None` lives on.
    pub ends: VecDeque<Option<VmExit>>,
    pub held_elsewhere: bool,
    pub calls: Vec<String>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            activity: VmActivity::Down,
            exit: None,
            ends: VecDeque::new(),
            held_elsewhere: false,
            calls: Vec::new(),
        }
    }
}

/// The life, and which descriptions it was opened with.
#[derive(Debug, Clone, Default)]
pub(super) struct Script(pub Arc<Mutex<Life>>);

impl Script {
    pub fn opener(&self) -> impl Fn(&HostedEngineConf) -> anyhow::Result<Arc<dyn EngineVm>> + use<> {
        let script = self.clone();
        move |conf| Ok(Arc::new(ScriptedVm { script: script.clone(), conf: conf.clone() }))
    }

    pub fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    pub fn with(self, change: impl FnOnce(&mut Life)) -> Self {
        change(&mut self.0.lock().unwrap());
        self
    }
}

struct ScriptedVm {
    script: Script,
    conf: HostedEngineConf,
}

pub(super) fn orderly() -> VmExit {
    VmExit::Orderly { detail: "the guest reset, which ends it".to_owned() }
}

pub(super) fn crashed() -> VmExit {
    VmExit::Crashed { detail: "signal 9".to_owned() }
}

#[async_trait]
impl EngineVm for ScriptedVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        let mut life = self.script.0.lock().unwrap();
        let seen = life.clone();
        if seen.activity == VmActivity::Up
            && let Some(Some(exit)) = life.ends.front().cloned()
        {
            life.ends.pop_front();
            life.activity = VmActivity::Down;
            life.exit = Some(exit);
        }
        let lease = if seen.activity == VmActivity::Down { LeaseHolding::NoVm } else { LeaseHolding::Held };
        Ok(VmStatus { activity: seen.activity, exit: seen.exit, lease, pid: None })
    }
    /// Notes what it starts from.
    async fn start(&self, _: StartMode) -> Result<(), VmError> {
        let conf = VmConf::load(self.conf.vm_conf_path()).unwrap();
        let disc = conf
            .devices()
            .find(|device| device.device() == Some("cdrom"))
            .and_then(|drive| drive.text("path"));
        let from = if conf.ends_on_reboot().unwrap() { "media" } else { "disk" };
        let disc = disc.map(|path| path.rsplit('/').next().unwrap().to_owned()).unwrap_or_default();
        let mut life = self.script.0.lock().unwrap();
        life.calls.push(format!("start from {from} {disc}").trim().to_owned());
        (life.activity, life.exit) = (VmActivity::Up, None);
        if life.ends.front() == Some(&None) {
            life.ends.pop_front();
        }
        Ok(())
    }
    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        Ok(if self.script.0.lock().unwrap().held_elsewhere {
            LeaseOutlook::Held { host_id: 2, life: OwnerLife::Live, free_in: None }
        } else {
            LeaseOutlook::Free
        })
    }
    async fn lease_gives_way(&self) {
        std::future::pending::<()>().await;
    }
    async fn shutdown(&self, _: Duration, _: &str) -> Result<(), VmError> {
        let mut life = self.script.0.lock().unwrap();
        life.calls.push("shutdown".to_owned());
        (life.activity, life.exit) = (VmActivity::Down, Some(orderly()));
        Ok(())
    }
    async fn destroy(&self) -> Result<(), VmError> {
        let mut life = self.script.0.lock().unwrap();
        if life.activity == VmActivity::Down {
            return Err(VmError::NotRunning);
        }
        life.calls.push("destroy".to_owned());
        (life.activity, life.exit) = (VmActivity::Down, Some(orderly()));
        Ok(())
    }
    async fn pause(&self) -> Result<(), VmError> {
        Err(VmError::Unsupported { adapter: "scripted", action: "pause" })
    }
    async fn resume(&self) -> Result<(), VmError> {
        let mut life = self.script.0.lock().unwrap();
        life.calls.push("resume".to_owned());
        life.activity = VmActivity::Up;
        Ok(())
    }
    fn receiver(&self) -> Receiver {
        Receiver::Never { why: "it is scripted".to_owned() }
    }
    async fn prepare_incoming(&self, _: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        Err(VmError::Unsupported { adapter: "scripted", action: "receive" })
    }
    async fn migrate(&self, _: &MigrationTarget) -> Result<(), VmError> {
        Err(VmError::Unsupported { adapter: "scripted", action: "migrate" })
    }
    async fn migrate_cancel(&self) -> Result<(), VmError> {
        Ok(())
    }
    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        Ok(MigrationProgress::None)
    }
    async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        let call = format!("password of {} for {} s", password.len(), valid.as_secs());
        self.script.0.lock().unwrap().calls.push(call);
        Ok(())
    }
    async fn console(&self, _: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        Ok(ConsoleAddress { kind: "vnc".to_owned(), address: "127.0.0.1:5900".to_owned() })
    }
    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        Ok(None)
    }
    fn events(&self) -> broadcast::Receiver<VmEvent> {
        broadcast::channel(1).1
    }
}

/// Says these lines one after the other and is then silent; with none at all nobody is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Says {
    lines: Arc<Mutex<VecDeque<&'static str>>>,
    pub shown: Arc<Mutex<Vec<String>>>,
    is_there: bool,
    delay: Duration,
}

impl Says {
    /// Each line only after so long.
    pub fn slowly(lines: &[&'static str], delay: Duration) -> Self {
        Self { delay, ..Self::lines(lines) }
    }

    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn lines(lines: &[&'static str]) -> Self {
        Self {
            lines: Arc::new(Mutex::new(lines.iter().copied().collect())),
            is_there: true,
            ..Self::default()
        }
    }
}

#[async_trait]
impl Operator for Says {
    fn is_there(&self) -> bool {
        self.is_there
    }
    fn show(&self, text: &str) {
        self.shown.lock().unwrap().push(text.to_owned());
    }
    async fn line(&self) -> String {
        tokio::time::sleep(self.delay).await;
        let next = self.lines.lock().unwrap().pop_front();
        match next {
            Some(line) => line.to_owned(),
            None => std::future::pending().await,
        }
    }
}
