//! Looking at the VM: what libvirt says, whose the lease is, how the last one ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys as c;

use super::link::{Link, QUESTION, Trouble};
use super::notes::{Notebook, Notes};
use super::settings::LibvirtSettings;
use super::sys::{Job, Listener, job};
use crate::lease::LeaseOwner;
use crate::outlook::OwnerWatch;
use crate::port::{LeaseHolding, MigrationProgress, VmActivity, VmError, VmEvent, VmExit, VmStatus};

/// A lease that seems lost is looked at so often again before it is called lost: libvirt learns a little later than
/// sanlock that a guest went on, stood still or ended, and the other way round.
const DOUBTS: u32 = 2;
/// From one such look to the next.
const DOUBT: Duration = Duration::from_millis(400);
/// libvirt's word about the end of a domain comes so long after the domain went.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The end of a VM that was destroyed by us.
pub(super) const BY_COMMAND: &str = "powered off by command";

/// What the parts of the adapter share.
#[derive(Debug)]
pub(super) struct Inner {
    pub settings: LibvirtSettings,
    pub link: Link,
    pub notes: Notebook,
    pub events: broadcast::Sender<VmEvent>,
    /// What was seen of the lease's owner.
    pub owner: OwnerWatch,
    /// libvirt told of an end.
    pub ended: Notify,
    memory: Mutex<Memory>,
}

/// Shared by tasks.
pub(super) type Shared = Arc<Inner>;

/// What is remembered between looks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The VM that was seen and has not ended, as far as was told.
    pub vm: Option<Life>,
    /// This process is starting one.
    pub is_starting: bool,
    /// What became of the migration that was begun here.
    pub migration: Option<Migration>,
}

/// What was seen of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Life {
    /// Its guest code was seen running.
    pub has_run: bool,
    /// It was seen leaving for another host.
    pub was_leaving: bool,
    /// A signal from this host made QEMU end.
    pub is_ended_by_signal: bool,
}

/// A migration that this process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Migration {
    UnderWay,
    Done,
    Failed(String),
}

impl Migration {
    /// How it goes once the domain is here no more, whose end libvirt tells as `exit`, if it did already.
    pub fn without_domain(begun: Option<Self>, exit: Option<&VmExit>) -> MigrationProgress {
        match (exit, begun) {
            (Some(VmExit::MigratedAway), _) | (_, Some(Self::Done)) => MigrationProgress::Completed,
            (_, Some(Self::Failed(detail))) => MigrationProgress::Failed { detail },
            // The daemon's answer, which is about to come, tells more than a domain that is gone.
            (_, Some(Self::UnderWay)) => MigrationProgress::Active { transferred: 0, remaining: 0 },
            (_, None) => MigrationProgress::None,
        }
    }
}

/// The domain, as libvirt describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// libvirt's number of the running domain; `None` for one that is only defined.
    pub id: Option<u32>,
    pub state: u32,
    pub reason: i32,
    pub job: Job,
}

pub(super) fn failed(action: &'static str, detail: impl Into<String>) -> VmError {
    VmError::Failed { action, detail: detail.into() }
}

/// The domain `uuid`; `None` when there is none.
pub(super) fn find(connect: &Connect, uuid: &str) -> Result<Option<Domain>, Error> {
    let uuid = Uuid::parse_str(uuid).unwrap_or_default();
    match Domain::lookup_by_uuid(connect, uuid) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn see(domain: &Domain) -> Result<Seen, Error> {
    let (state, reason) = domain.get_state()?;
    let id = domain.get_id();
    // Only what runs, or stands still for it, can be on its way.
    let may_move = id.is_some() && matches!(state, c::VIR_DOMAIN_RUNNING | c::VIR_DOMAIN_PAUSED);
    let job = if may_move { job(domain).unwrap_or_default() } else { Job::default() };
    Ok(Seen { id, state, reason, job })
}

impl Seen {
    pub fn is_leaving(&self) -> bool {
        let is_running =
            matches!(self.job.kind.cast_unsigned(), c::VIR_DOMAIN_JOB_BOUNDED | c::VIR_DOMAIN_JOB_UNBOUNDED);
        is_running && self.job.operation.cast_unsigned() == c::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    }

    /// What the VM does. Source of the numbers: `virDomainState` and the reasons that belong to it.
    pub fn activity(&self, notes: Notes, has_run: bool) -> VmActivity {
        if self.id.is_none() {
            return VmActivity::Down;
        }
        match self.state {
            c::VIR_DOMAIN_RUNNING | c::VIR_DOMAIN_BLOCKED if self.is_leaving() => VmActivity::MigrationSource,
            c::VIR_DOMAIN_RUNNING | c::VIR_DOMAIN_BLOCKED | c::VIR_DOMAIN_PMSUSPENDED => {
                if notes.is_powering_down { VmActivity::PoweringDown } else { VmActivity::Up }
            }
            c::VIR_DOMAIN_PAUSED => self.stopped(notes, has_run),
            c::VIR_DOMAIN_SHUTDOWN => VmActivity::PoweringDown,
            c::VIR_DOMAIN_SHUTOFF => VmActivity::Down,
            c::VIR_DOMAIN_NOSTATE => VmActivity::WaitForLaunch,
            // Crashed and kept, and what is yet to come: the processors stand still.
            _ => VmActivity::Paused,
        }
    }

    fn stopped(&self, notes: Notes, has_run: bool) -> VmActivity {
        match self.reason.cast_unsigned() {
            c::VIR_DOMAIN_PAUSED_STARTING_UP => VmActivity::WaitForLaunch,
            c::VIR_DOMAIN_PAUSED_IOERROR => VmActivity::PausedByIoError,
            c::VIR_DOMAIN_PAUSED_SAVE => VmActivity::SavingState,
            c::VIR_DOMAIN_PAUSED_SHUTTING_DOWN => VmActivity::PoweringDown,
            c::VIR_DOMAIN_PAUSED_MIGRATION if has_run || self.is_leaving() => VmActivity::MigrationSource,
            c::VIR_DOMAIN_PAUSED_MIGRATION => VmActivity::MigrationDestination,
            // The guest runs on the other host already.
            c::VIR_DOMAIN_PAUSED_POSTCOPY | c::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => {
                VmActivity::MigrationSource
            }
            _ if notes.is_launching => VmActivity::WaitForLaunch,
            _ => VmActivity::Paused,
        }
    }
}

/// No VM here.
pub(super) fn down(exit: Option<VmExit>) -> VmStatus {
    VmStatus { activity: VmActivity::Down, exit, lease: LeaseHolding::NoVm, pid: None }
}

impl Inner {
    pub fn new(
        settings: LibvirtSettings,
        listener: Option<Listener>,
        events: broadcast::Sender<VmEvent>,
    ) -> Self {
        Self {
            link: Link::new(&settings.uri, &settings.uuid, listener),
            notes: Notebook::new(&settings.notes_dir),
            settings,
            events,
            owner: OwnerWatch::default(),
            ended: Notify::new(),
            memory: Mutex::default(),
        }
    }

    /// Never held over an await.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guest code of the VM was seen running.
    pub fn has_run(&self) -> bool {
        self.memory().vm.is_some_and(|vm| vm.has_run)
    }

    /// Asks about the domain; `None` when there is none.
    pub async fn ask<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce(&Domain) -> Result<T, Error> + Send + 'static,
    ) -> Result<Option<T>, Trouble> {
        let uuid = self.settings.uuid.clone();
        let asked = self
            .link
            .ask(deadline, move |connect| find(connect, &uuid)?.map(|domain| work(&domain)).transpose());
        match asked.await {
            // It went while it was being asked.
            Err(Trouble::Refused(error)) if error.code() == ErrorNumber::NoDomain => Ok(None),
            other => other,
        }
    }

    /// The same, for a call that needs a VM that runs.
    pub async fn command<T: Send + 'static>(
        &self,
        action: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Domain) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, VmError> {
        let run = move |domain: &Domain| match domain.get_id() {
            Some(_) => work(domain).map(Some),
            None => Ok(None),
        };
        let answer = self.ask(deadline, run).await.map_err(|trouble| trouble.to_error(action))?;
        answer.flatten().ok_or(VmError::NotRunning)
    }

    /// The domain as libvirt sees it now; `None` when none is active.
    pub async fn see(&self) -> Result<Option<Seen>, Trouble> {
        let seen = self.ask(QUESTION, see).await?;
        Ok(seen.filter(|seen| seen.id.is_some() && seen.state != c::VIR_DOMAIN_SHUTOFF))
    }

    /// One look at everything.
    pub async fn look(&self) -> Result<VmStatus, VmError> {
        let mut doubts = 0;
        loop {
            let seen =
                self.see().await.map_err(|trouble| VmError::Unreachable { detail: trouble.to_string() })?;
            let Some(seen) = seen else { return Ok(down(self.exit().await)) };
            let activity = seen.activity(self.notes.read(), self.has_run());
            self.note(activity);
            let pid = self.pid();
            let lease = self.holding(activity, pid).await;
            if matches!(lease, LeaseHolding::Lost { .. }) && doubts < DOUBTS {
                doubts += 1;
                tokio::time::sleep(DOUBT).await;
                continue;
            }
            return Ok(VmStatus { activity, exit: None, lease, pid });
        }
    }

    /// Notes that there is a VM.
    pub fn note(&self, activity: VmActivity) {
        let is_new = {
            let mut memory = self.memory();
            let is_new = memory.vm.is_none();
            let vm = memory.vm.get_or_insert_default();
            vm.was_leaving |= activity == VmActivity::MigrationSource;
            vm.has_run |= !matches!(
                activity,
                VmActivity::WaitForLaunch | VmActivity::MigrationDestination | VmActivity::RestoringState
            );
            is_new
        };
        if is_new && self.notes.exit().is_some() {
            // One that came from another host, for a start has done this before.
            self.notes.write(Notes::default());
            self.notes.forget_exit();
        }
    }

    /// How the last VM here ended. Called when there is none.
    pub async fn exit(&self) -> Option<VmExit> {
        let told = self.ended.notified();
        if self.memory().vm.is_some() && self.settings.role != crate::qemu::QmpRole::Cli {
            // The follower takes libvirt's word down.
            let _ = tokio::time::timeout(LAST_WORD, told).await;
        }
        let last = self.memory().vm.take();
        if let Some(exit) = self.notes.exit() {
            return Some(exit);
        }
        let last = last?;
        if self.notes.last().is_destroying {
            let exit = VmExit::Orderly { detail: BY_COMMAND.to_owned() };
            self.over(&exit);
            return Some(exit);
        }
        let is_taken_over =
            last.was_leaving && matches!(self.lease_owner().await, Ok(LeaseOwner::Other { .. }));
        let detail = "it ended while libvirt could not be heard, and left no word why".to_owned();
        let exit = match (is_taken_over, last.has_run) {
            (true, _) => VmExit::MigratedAway,
            (false, true) => VmExit::Crashed { detail },
            (false, false) => VmExit::StartFailed { detail },
        };
        self.over(&exit);
        Some(exit)
    }

    /// The VM has ended.
    pub fn over(&self, exit: &VmExit) {
        self.notes.write_exit(exit);
        self.memory().vm = None;
    }

    /// Tells whoever listens; nobody listening is no error.
    pub fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: u32, reason: u32) -> Seen {
        Seen { id: Some(1), state, reason: reason.cast_signed(), job: Job::default() }
    }

    fn plain(state: u32, reason: u32) -> VmActivity {
        seen(state, reason).activity(Notes::default(), true)
    }

    #[test]
    fn each_state_has_its_word() {
        assert_eq!(plain(c::VIR_DOMAIN_RUNNING, c::VIR_DOMAIN_RUNNING_BOOTED), VmActivity::Up);
        assert_eq!(plain(c::VIR_DOMAIN_PAUSED, c::VIR_DOMAIN_PAUSED_USER), VmActivity::Paused);
        assert_eq!(plain(c::VIR_DOMAIN_PAUSED, c::VIR_DOMAIN_PAUSED_IOERROR), VmActivity::PausedByIoError);
        assert_eq!(plain(c::VIR_DOMAIN_SHUTDOWN, 0), VmActivity::PoweringDown);
        assert_eq!(plain(c::VIR_DOMAIN_SHUTOFF, 0), VmActivity::Down);
        assert_eq!(plain(c::VIR_DOMAIN_CRASHED, 0), VmActivity::Paused);
        assert_eq!(plain(99, 0), VmActivity::Paused);
        let defined = Seen { id: None, ..seen(c::VIR_DOMAIN_RUNNING, 0) };
        assert_eq!(defined.activity(Notes::default(), true), VmActivity::Down);
    }

    #[test]
    fn notes_tell_what_libvirt_does_not() {
        let asked = Notes { is_powering_down: true, ..Notes::default() };
        assert_eq!(seen(c::VIR_DOMAIN_RUNNING, 0).activity(asked, true), VmActivity::PoweringDown);
        let launching = Notes { is_launching: true, ..Notes::default() };
        let paused = seen(c::VIR_DOMAIN_PAUSED, c::VIR_DOMAIN_PAUSED_USER);
        assert_eq!(paused.activity(launching, false), VmActivity::WaitForLaunch);
    }

    #[test]
    fn who_leaves_and_who_arrives_are_told_apart() {
        let moving = seen(c::VIR_DOMAIN_PAUSED, c::VIR_DOMAIN_PAUSED_MIGRATION);
        assert_eq!(moving.activity(Notes::default(), false), VmActivity::MigrationDestination);
        assert_eq!(moving.activity(Notes::default(), true), VmActivity::MigrationSource);
        let out = Job {
            kind: c::VIR_DOMAIN_JOB_UNBOUNDED.cast_signed(),
            operation: c::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT.cast_signed(),
            ..Job::default()
        };
        let running = Seen { job: out, ..seen(c::VIR_DOMAIN_RUNNING, 0) };
        assert_eq!(running.activity(Notes::default(), true), VmActivity::MigrationSource);
        let backup = Job { operation: c::VIR_DOMAIN_JOB_OPERATION_BACKUP.cast_signed(), ..out };
        let running = Seen { job: backup, ..seen(c::VIR_DOMAIN_RUNNING, 0) };
        assert_eq!(running.activity(Notes::default(), true), VmActivity::Up);
    }
}
