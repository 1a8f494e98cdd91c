//! The engine VM on simulated hosts: a hypervisor process that runs under sanlock's lease, a guest that boots, serves
//! its page, falls ill, pauses, powers down or does not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, Receiver, StartMode, VmActivity, VmError, VmEvent, VmExit, VmStatus,
};
use metadata_format::HostId;
use rand::Rng;
use tokio::sync::broadcast;

pub use crate::guest::{Guest, Process};
use crate::sanlock::{Refusal, Space, Standing};
use crate::world::{HostRef, State};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The host's agent.
    Agent,
    /// A person.
    Operator,
}

fn within(rng: &mut impl Rng, (least, most): (Duration, Duration)) -> Duration {
    rng.random_range(least..=most.max(least))
}

impl HostRef {
    pub(crate) fn vm<T>(&self, look: impl FnOnce(&mut Option<Process>) -> T) -> T {
        look(&mut self.world.state().hosts[self.index()].vm)
    }

    pub(crate) fn tell_vm(&self, event: VmEvent) {
        // Nobody need listen.
        let _ = self.world.state().hosts[self.index()].vm_events.send(event);
    }

    /// Starts the VM.
    pub async fn start_vm(&self, by: By) -> Result<(), VmError> {
        let pid = |process: &Process| u32::try_from(process.instance).unwrap_or(u32::MAX);
        if let Some(process) = self.vm(|vm| vm.clone()) {
            return Err(VmError::AlreadyExists { pid: Some(pid(&process)) });
        }
        self.world.vm_asked(self.id, by, Ask::Start);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let fails = {
            let mut state = self.world.state();
            let host = &mut state.hosts[self.index()];
            host.vm_exit = None;
            let fails = host.failing_starts > 0;
            host.failing_starts = host.failing_starts.saturating_sub(1);
            fails
        };
        if fails {
            let detail = "the hypervisor process ended at once".to_owned();
            self.set_exit(VmExit::StartFailed { detail: detail.clone() });
            return Err(VmError::Failed { action: "start the VM", detail });
        }
        if let Err(refusal) = self.acquire_vm_lease().await {
            let error = match refusal {
                Refusal::Held(detail) => {
                    self.set_exit(VmExit::LeaseRefused { detail: detail.clone() });
                    VmError::LeaseHeld { detail }
                }
                Refusal::NotJoined => {
                    VmError::NoLease { detail: "this host is not in the lockspace".to_owned() }
                }
                Refusal::Storage(errno) => VmError::NoLease { detail: errno.to_string() },
            };
            self.world.vm_refused(self.id, &error);
            return Err(error);
        }
        {
            let mut state = self.world.state();
            let now = self.world.now();
            let State { rng, hosts, guest, instances, .. } = &mut *state;
            guest.hangs = false;
            *instances += 1;
            hosts[self.index()].vm = Some(Process {
                instance: *instances,
                activity: VmActivity::Up,
                healthy_at: now + within(rng, guest.boot),
                asked_down: false,
                between: false,
                called_off: false,
                arrival: None,
                dying: None,
            });
        }
        self.world.vm_started(self.id);
        self.tell_vm(VmEvent::Changed(VmActivity::Up));
        self.io_errors_pause_it();
        Ok(())
    }

    fn set_exit(&self, exit: VmExit) {
        self.world.state().hosts[self.index()].vm_exit = Some(exit.clone());
        self.tell_vm(VmEvent::Ended(exit));
    }

    /// Takes the process away, and what it told of its migration with it. False when there was none.
    fn take_vm(&self) -> bool {
        let mut state = self.world.state();
        let host = &mut state.hosts[self.index()];
        host.migration = None;
        host.vm.take().is_some()
    }

    /// The hypervisor process is gone.
    fn vm_gone(&self, exit: VmExit) {
        if !self.take_vm() {
            return;
        }
        self.world.vm_ended(self.id, &exit);
        self.release_vm_lease();
        self.set_exit(exit);
    }

    /// Ends the process, which cannot die while a request of it hangs in storage. True when it is gone.
    fn end_vm(&self, exit: VmExit) -> bool {
        let stuck = {
            let mut state = self.world.state();
            let host = &mut state.hosts[self.index()];
            let writes = host.vm.as_ref().is_some_and(Process::may_write);
            let stuck = host.path.stalled && writes && self.world.shape.stalled_vm_cannot_die;
            match &mut host.vm {
                None => return true,
                Some(process) if stuck => process.dying = Some(exit.clone()),
                Some(_) => {}
            }
            stuck
        };
        if stuck {
            self.world.vm_changed();
            return false;
        }
        self.vm_gone(exit);
        true
    }

    /// As by SIGKILL from sanlock. True when it is gone, or was not there.
    pub fn kill_vm(&self, why: &str) -> bool {
        self.end_vm(VmExit::Crashed { detail: why.to_owned() })
    }

    /// What a process that waits for storage does when storage is back.
    pub fn storage_is_back(&self) {
        let exit = self.vm(|vm| vm.as_mut().and_then(|process| process.dying.take()));
        if let Some(exit) = exit {
            self.vm_gone(exit);
        }
    }

    /// Stops the guest's processors soon after storage began to fail.
    pub fn io_errors_pause_it(&self) {
        let (group, wait) = {
            let state = self.world.state();
            let host = &state.hosts[self.index()];
            (host.guest_group.clone(), state.guest.notices_io_error)
        };
        let (Some(group), host) = (group, self.clone()) else { return };
        group.spawn(async move {
            tokio::time::sleep(wait).await;
            let paused = {
                let mut state = host.world.state();
                let host = &mut state.hosts[host.index()];
                let fails = host.path.errno.is_some() || host.path.write_errno.is_some();
                match &mut host.vm {
                    Some(process) if fails && process.executes() => {
                        process.activity = VmActivity::PausedByIoError;
                        true
                    }
                    _ => false,
                }
            };
            if paused {
                host.world.vm_note(host.id, "the VM is paused by an I/O error");
                host.world.vm_changed();
                host.tell_vm(VmEvent::IoErrorPause);
            }
        });
    }

    /// Asks the guest to power down.
    pub fn shut_vm_down(&self, by: By) -> Result<(), VmError> {
        if self.vm(|vm| vm.is_none()) {
            return Err(VmError::NotRunning);
        }
        self.world.vm_asked(self.id, by, Ask::Shutdown);
        let (group, deaf, time, instance) = {
            let mut state = self.world.state();
            let State { rng, hosts, guest, .. } = &mut *state;
            let host = &mut hosts[self.index()];
            let Some(process) = &mut host.vm else { return Err(VmError::NotRunning) };
            process.asked_down = true;
            let deaf = guest.ignores_shutdown || guest.hangs || !process.executes();
            if !deaf {
                process.activity = VmActivity::PoweringDown;
            }
            (host.guest_group.clone(), deaf, within(rng, guest.power_down), process.instance)
        };
        let (Some(group), host) = (group, self.clone()) else { return Ok(()) };
        if !deaf {
            group.spawn(async move {
                tokio::time::sleep(time).await;
                let same =
                    host.vm(|vm| vm.as_ref().is_some_and(|vm| vm.instance == instance && vm.executes()));
                if same {
                    host.end_vm(VmExit::Orderly { detail: "the guest powered off".to_owned() });
                }
            });
        }
        Ok(())
    }

    /// Ends the VM at once.
    pub async fn destroy_vm(&self, by: By) -> Result<(), VmError> {
        if self.vm(|vm| vm.is_none()) {
            return Err(VmError::NotRunning);
        }
        self.world.vm_asked(self.id, by, Ask::Destroy);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let gone = Arc::clone(&self.world.state().hosts[self.index()].sanlock.vm_gone);
        let mut gone = std::pin::pin!(gone.notified());
        gone.as_mut().enable();
        if !self.end_vm(VmExit::Orderly { detail: "ended on request".to_owned() }) {
            gone.await;
        }
        Ok(())
    }

    /// Lets a paused guest go on.
    pub fn resume_vm(&self) -> Result<(), VmError> {
        let failed = |detail: &str| VmError::Failed { action: "resume the VM", detail: detail.to_owned() };
        {
            let mut state = self.world.state();
            let host = &mut state.hosts[self.index()];
            if !host.sanlock.holds_vm_lease {
                return Err(VmError::NoLease { detail: "its lease is not held".to_owned() });
            }
            let Some(process) = &mut host.vm else { return Err(VmError::NotRunning) };
            if process.dying.is_some()
                || !matches!(process.activity, VmActivity::Paused | VmActivity::PausedByIoError)
            {
                return Err(failed("it is not paused"));
            }
            process.activity = VmActivity::Up;
        }
        self.world.vm_note(self.id, "the VM goes on");
        self.world.vm_changed();
        self.tell_vm(VmEvent::Changed(VmActivity::Up));
        self.io_errors_pause_it();
        Ok(())
    }

    fn vm_status(&self) -> VmStatus {
        let state = self.world.state();
        let host = &state.hosts[self.index()];
        match &host.vm {
            None => VmStatus {
                activity: VmActivity::Down,
                exit: host.vm_exit.clone(),
                lease: LeaseHolding::NoVm,
                pid: None,
            },
            Some(process) => VmStatus {
                activity: process.activity,
                exit: None,
                lease: if process.arrival.is_some() || process.between {
                    LeaseHolding::Pending { detail: "it is on its way between two hosts".to_owned() }
                } else {
                    match (host.sanlock.holds_vm_lease, host.sanlock.space(Space::Domain).standing) {
                        (true, Standing::Held | Standing::Failing) => LeaseHolding::Held,
                        _ => LeaseHolding::Lost { detail: "sanlock names no such owner".to_owned() },
                    }
                },
                pid: u32::try_from(process.instance).ok(),
            },
        }
    }
}

/// What is asked of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To start.
    Start,
    /// To power down.
    Shutdown,
    /// To end.
    Destroy,
    /// To move to that host.
    Migrate {
        /// Which.
        to: HostId,
    },
}

/// The port to the VM on one host, for its agent and its broker.
pub struct SimVm(pub HostRef);

#[async_trait]
impl EngineVm for SimVm {
    async fn status(&self) -> Result<VmStatus, VmError> {
        Ok(self.0.vm_status())
    }

    async fn start(&self, _mode: StartMode) -> Result<(), VmError> {
        self.0.start_vm(By::Agent).await
    }

    async fn lease_outlook(&self) -> Result<LeaseOutlook, VmError> {
        self.0.io(false).await.map_err(|errno| VmError::Unreachable { detail: errno.to_string() })?;
        Ok(self.0.vm_lease_outlook())
    }

    async fn lease_gives_way(&self) {
        while self.0.vm_lease_outlook() != LeaseOutlook::Free {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn shutdown(&self, _delay: Duration, _message: &str) -> Result<(), VmError> {
        self.0.shut_vm_down(By::Agent)
    }

    async fn destroy(&self) -> Result<(), VmError> {
        self.0.destroy_vm(By::Agent).await
    }

    async fn pause(&self) -> Result<(), VmError> {
        self.0.vm(|vm| match vm {
            None => Err(VmError::NotRunning),
            Some(process) => {
                process.activity = VmActivity::Paused;
                Ok(())
            }
        })
    }

    async fn resume(&self) -> Result<(), VmError> {
        self.0.resume_vm()
    }

    fn receiver(&self) -> Receiver {
        if self.0.world.state().host(self.0.id).migrates {
            Receiver::Prepared
        } else {
            Receiver::Never { why: "its hypervisor cannot".to_owned() }
        }
    }

    async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        self.0.prepare_to_receive(listen).await
    }

    async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError> {
        self.0.send_to(target)
    }

    async fn migrate_cancel(&self) -> Result<(), VmError> {
        self.0.call_off();
        Ok(())
    }

    async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        let state = self.0.world.state();
        Ok(match &state.hosts[self.0.index()].migration {
            Some(progress) => progress.clone(),
            None => MigrationProgress::None,
        })
    }

    async fn set_console_password(&self, _password: &str, _valid: Duration) -> Result<(), VmError> {
        Err(VmError::Unsupported { adapter: "simulated", action: "show a console" })
    }

    async fn console(&self, _kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        Err(VmError::Unsupported { adapter: "simulated", action: "show a console" })
    }

    async fn cpu_use(&self) -> Result<Option<CpuUse>, VmError> {
        Ok(None)
    }

    fn events(&self) -> broadcast::Receiver<VmEvent> {
        self.0.world.state().hosts[self.0.index()].vm_events.subscribe()
    }
}

impl HostRef {
    /// The guest powers itself off.
    pub fn guest_powers_off(&self) {
        self.end_vm(VmExit::Orderly { detail: "the guest powered off by itself".to_owned() });
    }

    /// The process is gone and nobody on the host can say how it ended, as after the end of the hypervisor's daemon.
    pub fn vm_vanishes(&self) {
        if !self.take_vm() {
            return;
        }
        self.world.vm_ended(self.id, &VmExit::Crashed { detail: "nobody on its host knows how".to_owned() });
        self.release_vm_lease();
        self.world.state().hosts[self.index()].vm_exit = None;
    }

    /// The VM has left or arrived: whoever watches should look.
    pub fn told_of_move(&self) {
        let here = self.vm(|vm| vm.is_some());
        self.tell_vm(if here {
            VmEvent::Changed(VmActivity::Up)
        } else {
            VmEvent::Ended(VmExit::MigratedAway)
        });
    }
}
