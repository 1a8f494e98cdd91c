//! Looking at the VM: the process, its lease, what QEMU says, and how the last one ended.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Mutex, Notify, broadcast};

use super::handover::{Handover, Phase};
use super::journal::{self, Journal, Remains};
use super::launch::{ExitRecord, LaunchMode, ProcessRecord};
use super::process::Process;
use super::qmp::{Qmp, QmpError};
use super::run_dir::{DESTROYING, EXIT, PROCESS, QEMU_LOG, RunDir};
use super::settings::QemuSettings;
use crate::outlook::OwnerWatch;
use crate::port::{LeaseHolding, VmActivity, VmError, VmEvent, VmExit, VmStatus};

/// How long QEMU may take to answer a question. Its main loop answers in microseconds unless it hangs on storage.
pub(super) const QUESTION: Duration = Duration::from_secs(2);
/// How long QEMU may take to carry out a command.
pub(super) const COMMAND: Duration = Duration::from_secs(5);
/// The end of QEMU's log that may matter.
const LOG_TAIL: usize = 4096;

/// What the parts of the adapter share.
#[derive(Debug)]
pub(super) struct Inner {
    pub settings: QemuSettings,
    pub dir: RunDir,
    pub qmp: Mutex<Option<Qmp>>,
    pub events: broadcast::Sender<VmEvent>,
    /// A VM was started: whoever watches should look.
    pub started: Notify,
    /// What was seen of the lease's owner.
    pub owner: OwnerWatch,
}

/// A VM process that exists.
#[derive(Debug)]
pub(super) struct Found {
    pub process: Process,
    pub record: ProcessRecord,
    /// The process has become QEMU; before that it is the launcher.
    pub is_qemu: bool,
}

pub(super) fn unreachable(what: &str, error: &io::Error) -> VmError {
    VmError::Unreachable { detail: format!("cannot {what}: {error}") }
}

pub(super) fn failed(action: &'static str, detail: impl Into<String>) -> VmError {
    VmError::Failed { action, detail: detail.into() }
}

/// Waits for blocking work that has a deadline of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, VmError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| VmError::Unreachable { detail: format!("a helper thread failed: {e}") })
}

impl Inner {
    /// The VM's process, if it exists; an error when that cannot be known.
    pub fn find(&self) -> Result<Option<Found>, VmError> {
        let record: Option<ProcessRecord> = self
            .dir
            .read(PROCESS)
            .map_err(|e| unreachable(&format!("read {}", self.dir.file(PROCESS).display()), &e))?;
        let Some(record) = record else { return Ok(None) };
        let process = Process::find(&record)
            .map_err(|e| unreachable(&format!("look for process {}", record.pid), &e))?;
        let Some(process) = process else { return Ok(None) };
        let is_qemu = process
            .is_vm(&record)
            .map_err(|e| unreachable(&format!("look at process {}", record.pid), &e))?;
        Ok(Some(Found { process, record, is_qemu }))
    }

    /// The same, when there must be one.
    pub fn require(&self) -> Result<Found, VmError> {
        self.find()?.filter(|found| found.is_qemu).ok_or(VmError::NotRunning)
    }

    /// How the last VM ended. Called when there is none now; the first to know writes it down.
    pub fn exit(&self) -> Result<Option<VmExit>, VmError> {
        let cannot = |e| unreachable("read how the last VM ended", &e);
        let known: Option<ExitRecord> = self.dir.read(EXIT).map_err(cannot)?;
        let process: Option<ProcessRecord> = self.dir.read(PROCESS).map_err(cannot)?;
        let Some(process) = process else { return Ok(known.map(|known| known.exit)) };
        if let Some(known) = known
            && known.process.as_ref() == Some(&process)
        {
            return Ok(Some(known.exit));
        }
        let mut journal = Journal::load(&self.dir);
        let exit = match Handover::load(&self.dir).map(|handover| handover.phase) {
            Some(Phase::Failed { detail })
                if process.mode == LaunchMode::Incoming && !journal.was_resumed =>
            {
                VmExit::StartFailed { detail }
            }
            failed => {
                // A source that sent everything and was not relieved of the lease has gone nowhere.
                journal.is_migrated &= !matches!(failed, Some(Phase::Failed { .. }));
                journal::exit_of(Remains {
                    mode: process.mode,
                    journal: &journal,
                    is_destroyed: self.dir.file(DESTROYING).exists(),
                    log: &self.dir.tail(QEMU_LOG, LOG_TAIL),
                })
            }
        };
        let record = ExitRecord { process: Some(process), exit: exit.clone() };
        if let Err(error) = self.dir.write(EXIT, &record) {
            // It can be worked out again from the same remains.
            tracing::warn!(%error, "cannot write down how the VM ended");
        }
        Ok(Some(exit))
    }

    /// Our role's monitor. One connection is kept while QEMU lives.
    pub async fn monitor(&self) -> Result<Qmp, QmpError> {
        let mut slot = self.qmp.lock().await;
        if let Some(qmp) = slot.as_ref().filter(|qmp| !qmp.is_closed()) {
            return Ok(qmp.clone());
        }
        let qmp = Qmp::connect(&self.dir, self.settings.role, QUESTION).await?;
        *slot = Some(qmp.clone());
        Ok(qmp)
    }

    /// Runs a command on our monitor. `action` names it in errors.
    pub async fn command(
        &self,
        action: &'static str,
        command: &str,
        arguments: Value,
    ) -> Result<Value, VmError> {
        let run = async { self.monitor().await?.execute(command, arguments, COMMAND).await };
        self.answered(action, run.await)
    }

    /// Gives QEMU a descriptor under a name, for the next command.
    pub async fn pass(
        &self,
        action: &'static str,
        name: &str,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), VmError> {
        let run = async { self.monitor().await?.pass(name, descriptor, COMMAND).await };
        self.answered(action, run.await).map(drop)
    }

    fn answered(&self, action: &'static str, answer: Result<Value, QmpError>) -> Result<Value, VmError> {
        match answer {
            Ok(value) => Ok(value),
            Err(QmpError::Refused { desc, .. }) => Err(failed(action, desc)),
            Err(error) => match self.find()? {
                Some(_) => Err(VmError::Unreachable { detail: error.to_string() }),
                None => Err(VmError::NotRunning),
            },
        }
    }

    /// Whether the lease belongs to process `pid`, as the lock manager says.
    pub async fn holding(&self, pid: u32) -> Result<LeaseHolding, VmError> {
        let lease = self.settings.lease.clone();
        blocking(move || lease.holding(pid)).await
    }

    /// One look at everything.
    pub async fn look(&self) -> Result<VmStatus, VmError> {
        let Some(found) = self.find()? else {
            let exit = self.exit()?;
            return Ok(VmStatus { activity: VmActivity::Down, exit, lease: LeaseHolding::NoVm, pid: None });
        };
        let pid = found.process.pid;
        if !found.is_qemu {
            let detail = "the VM is being launched; no guest code runs before it has its lease".to_owned();
            let lease = LeaseHolding::Unknown { detail };
            return Ok(VmStatus { activity: VmActivity::WaitForLaunch, exit: None, lease, pid: Some(pid) });
        }
        let (holding, asked) = tokio::join!(self.holding(pid), self.ask());
        let holding = holding?;
        let journal = Journal::load(&self.dir);
        let asked = match asked {
            Ok(asked) => asked,
            // It may just have ended.
            Err(_) if found.process.has_ended().unwrap_or(false) => return Box::pin(self.look()).await,
            // Whoever must destroy it, or count how long nobody vouches for it, needs no more than this.
            Err(_) if matches!(holding, LeaseHolding::Lost { .. } | LeaseHolding::Unknown { .. }) => {
                Asked::from_journal(&journal)
            }
            Err(error) => {
                let detail = format!("process {pid} is the engine VM, but {error}");
                return Err(VmError::Unreachable { detail });
            }
        };
        let is_between = Handover::load(&self.dir).is_some_and(|handover| handover.is_under_way());
        let activity = asked.activity(&found.record, &journal, is_between);
        let lease = asked.lease(activity, holding, is_between);
        Ok(VmStatus { activity, exit: None, lease, pid: Some(pid) })
    }

    async fn ask(&self) -> Result<Asked, QmpError> {
        let qmp = self.monitor().await?;
        let status = qmp.execute("query-status", Value::Null, QUESTION).await?;
        let migration = qmp.execute("query-migrate", Value::Null, QUESTION).await?;
        let text = |value: &Value| value["status"].as_str().unwrap_or_default().to_owned();
        Ok(Asked { run_state: text(&status), migration: text(&migration) })
    }

    /// Tells whoever listens; nobody listening is no error.
    pub fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event);
    }
}

/// QEMU's words about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    run_state: String,
    migration: String,
}

impl Asked {
    /// What its own record says, when it does not answer.
    fn from_journal(journal: &Journal) -> Self {
        let run_state = if journal.is_stopped { "paused" } else { "running" };
        Self { run_state: run_state.to_owned(), migration: String::new() }
    }

    fn is_migrating(&self) -> bool {
        matches!(
            self.migration.as_str(),
            "setup"
                | "wait-unplug"
                | "active"
                | "pre-switchover"
                | "device"
                | "cancelling"
                | "postcopy-active"
        )
    }

    /// `is_handed_over`: a hand-over of the lease is under way.
    fn activity(&self, record: &ProcessRecord, journal: &Journal, is_handed_over: bool) -> VmActivity {
        let has_arrived = record.mode != LaunchMode::Incoming || journal.was_resumed;
        match self.run_state.as_str() {
            "inmigrate" => VmActivity::MigrationDestination,
            _ if !has_arrived => VmActivity::MigrationDestination,
            "finish-migrate" => VmActivity::MigrationSource,
            "postmigrate" if is_handed_over => VmActivity::MigrationSource,
            "running" | "paused" if self.is_migrating() => VmActivity::MigrationSource,
            "running" | "suspended" if journal.is_powering_down => VmActivity::PoweringDown,
            "running" | "suspended" => VmActivity::Up,
            "prelaunch" if record.mode == LaunchMode::Paused => VmActivity::Paused,
            "prelaunch" => VmActivity::WaitForLaunch,
            "shutdown" => VmActivity::PoweringDown,
            "save-vm" => VmActivity::SavingState,
            "restore-vm" => VmActivity::RestoringState,
            "io-error" => VmActivity::PausedByIoError,
            // paused, internal-error, guest-panicked, watchdog, debug, colo, and what is yet to come: the
            // processors stand still.
            _ => VmActivity::Paused,
        }
    }

    /// A guest that stands still on its way between two hosts is without its lease for a good reason, while
    /// somebody sees to it.
    fn lease(&self, activity: VmActivity, holding: LeaseHolding, is_handed_over: bool) -> LeaseHolding {
        let is_between = match activity {
            VmActivity::MigrationDestination => self.run_state != "running",
            VmActivity::MigrationSource => self.run_state == "postmigrate",
            _ => false,
        };
        match holding {
            LeaseHolding::Lost { detail } if is_between && is_handed_over => {
                LeaseHolding::Pending { detail: format!("the lease is being handed over ({detail})") }
            }
            other => other,
        }
    }
}

/// Shared by tasks.
pub(super) type Shared = Arc<Inner>;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn record(mode: LaunchMode) -> ProcessRecord {
        ProcessRecord { pid: 1, start_ticks: 1, boot_id: String::new(), uuid: Uuid::nil(), mode }
    }

    fn asked(run_state: &str, migration: &str) -> Asked {
        Asked { run_state: run_state.to_owned(), migration: migration.to_owned() }
    }

    #[test]
    fn each_run_state_has_its_word() {
        let quiet = Journal::default();
        let resumed = Journal { was_resumed: true, ..Journal::default() };
        let leaving = Journal { is_powering_down: true, ..Journal::default() };
        let run = record(LaunchMode::Run);
        let incoming = record(LaunchMode::Incoming);
        assert_eq!(asked("running", "").activity(&run, &quiet, false), VmActivity::Up);
        assert_eq!(asked("running", "failed").activity(&run, &quiet, false), VmActivity::Up);
        assert_eq!(asked("running", "active").activity(&run, &quiet, false), VmActivity::MigrationSource);
        assert_eq!(asked("running", "").activity(&run, &leaving, false), VmActivity::PoweringDown);
        assert_eq!(asked("paused", "").activity(&run, &quiet, false), VmActivity::Paused);
        assert_eq!(asked("internal-error", "").activity(&run, &quiet, false), VmActivity::Paused);
        let io_error = asked("io-error", "").activity(&run, &quiet, false);
        assert_eq!((io_error, io_error.word()), (VmActivity::PausedByIoError, "Paused"));
        assert_eq!(asked("io-error", "").activity(&incoming, &quiet, true), VmActivity::MigrationDestination);
        assert_eq!(
            asked("prelaunch", "").activity(&record(LaunchMode::Paused), &quiet, false),
            VmActivity::Paused
        );
        assert_eq!(
            asked("inmigrate", "active").activity(&incoming, &quiet, true),
            VmActivity::MigrationDestination
        );
        assert_eq!(
            asked("paused", "completed").activity(&incoming, &quiet, true),
            VmActivity::MigrationDestination
        );
        assert_eq!(asked("running", "completed").activity(&incoming, &resumed, false), VmActivity::Up);
    }

    #[test]
    fn a_lost_lease_is_excused_only_while_the_guest_stands_still_between_two_hosts() {
        let lost = || LeaseHolding::Lost { detail: String::new() };
        let is_lost = |asked: Asked, activity, is_handed_over| {
            matches!(asked.lease(activity, lost(), is_handed_over), LeaseHolding::Lost { .. })
        };
        assert!(is_lost(asked("running", "active"), VmActivity::MigrationSource, true));
        assert!(!is_lost(asked("postmigrate", "completed"), VmActivity::MigrationSource, true));
        assert!(is_lost(asked("postmigrate", "completed"), VmActivity::Paused, false));
        assert!(!is_lost(asked("inmigrate", ""), VmActivity::MigrationDestination, true));
        assert!(is_lost(asked("inmigrate", ""), VmActivity::MigrationDestination, false));
        assert!(is_lost(asked("paused", ""), VmActivity::Paused, true));
    }
}
