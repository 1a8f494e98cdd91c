//! Starting and ending the VM, pausing it and letting it go on.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorDomain, ErrorNumber};
use virt::storage_pool::StoragePool;
use virt::sys as c;

use super::description;
use super::link::{QUESTION, Trouble};
use super::look::{Inner, failed};
use super::notes::Notes;
use super::protection::{ADVICE, Registration, check_daemon};
use crate::domain_xml;
use crate::lease::{LeaseError, LeaseOwner};
use crate::port::{LeaseHolding, StartMode, VmActivity, VmError, VmEvent, VmExit, VmStatus};
use crate::qemu::launch::{LaunchMode, ProcessRecord};
use crate::qemu::process::{Process, boot_id, start_ticks};
use crate::under_libvirt::is_refusal;

const START: &str = "start the engine VM";
const DESTROY: &str = "destroy the engine VM";
const SHUTDOWN: &str = "shut the engine VM down";
const PAUSE: &str = "pause the guest";
const RESUME: &str = "resume the guest";

/// Until QEMU stands ready with stopped processors.
const CREATE: Duration = Duration::from_mins(1);
/// Until the guest runs. The lease of a dead host is free after 8 N + W at the latest (140 s with sanlock's defaults).
const LAUNCH: Duration = Duration::from_mins(5);
/// Until the daemon shows what came of a call whose answer was lost.
const APPEAR: Duration = Duration::from_secs(10);
/// A command to a guest that runs.
const COMMAND: Duration = Duration::from_secs(10);
/// libvirt gives QEMU some 30 s to be gone, more when storage hangs.
const VANISH: Duration = Duration::from_mins(1);
/// From one look to the next.
const POLL: Duration = Duration::from_millis(50);

/// What a start that libvirt refused means. Codes first; texts are the last resort.
fn refused(error: &Error, owner: Result<LeaseOwner, LeaseError>) -> VmError {
    let detail = error.message().to_owned();
    let is_locking = error.domain() == ErrorDomain::Locking;
    match owner {
        Ok(LeaseOwner::Other { detail: owner }) => {
            VmError::LeaseHeld { detail: format!("{detail}; {owner}") }
        }
        // For libvirt this too is a busy resource.
        Err(LeaseError::Missing(why)) if is_locking => {
            VmError::NoLease { detail: format!("{detail}; {why}") }
        }
        _ if is_locking && error.code() == ErrorNumber::ResourceBusy => VmError::LeaseHeld { detail },
        _ if is_refusal(&detail) => VmError::LeaseHeld { detail },
        _ if is_locking => VmError::NoLease { detail },
        _ => failed(START, detail),
    }
}

/// Storage pools that the description's disks are in are made to run.
fn start_pools(connect: &Connect, pools: &[String]) -> Result<(), Error> {
    for name in pools {
        let pool = StoragePool::lookup_by_name(connect, name)?;
        if !pool.is_active()? {
            pool.create(0)?;
        }
        pool.refresh(0)?;
    }
    Ok(())
}

/// The proof of the start: sanlock names QEMU as the lease's owner.
fn judge(status: Result<VmStatus, VmError>) -> Result<VmActivity, VmError> {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(%error, "the engine VM was started, and whether it owns its lease is not known");
            return Ok(VmActivity::Up);
        }
    };
    match status.lease {
        LeaseHolding::Held | LeaseHolding::Pending { .. } => Ok(status.activity),
        LeaseHolding::Unknown { detail } => {
            tracing::warn!(detail, "the engine VM runs, and whether it owns its lease is not known");
            Ok(status.activity)
        }
        LeaseHolding::NoVm => Err(failed(START, "it ended at once")),
        LeaseHolding::Lost { detail } => {
            tracing::error!(detail, "the engine VM was started without its lease: it is ended");
            Err(VmError::NoLease { detail: format!("{detail}, although the VM was running; {ADVICE}") })
        }
    }
}

impl Inner {
    /// Starts the VM. Returns once QEMU owns the lease and the guest runs, or stands ready if that was asked for.
    pub async fn start(&self, mode: StartMode) -> Result<(), VmError> {
        let _lock = self.notes.begin_start(START)?;
        self.clear().await?;
        self.memory().is_starting = true;
        self.memory().migration = None;
        self.notes.forget_exit();
        self.notes.write(Notes { is_launching: true, ..Notes::default() });
        let started = self.launch(mode).await;
        self.memory().is_starting = false;
        match &started {
            Ok(activity) => {
                self.notes.write(Notes::default());
                self.note(*activity);
                self.tell(VmEvent::Changed(*activity));
            }
            Err(error) => self.over(&match error {
                VmError::LeaseHeld { detail } => VmExit::LeaseRefused { detail: detail.clone() },
                other => VmExit::StartFailed { detail: other.to_string() },
            }),
        }
        started.map(drop)
    }

    /// Clears what is left of a start that was broken off.
    async fn clear(&self) -> Result<(), VmError> {
        let seen = self.see().await.map_err(|trouble| trouble.to_error(START))?;
        match seen {
            None => Ok(()),
            Some(seen) if self.is_stale(&seen) => self.end().await,
            Some(_) => Err(VmError::AlreadyExists { pid: self.pid() }),
        }
    }

    async fn launch(&self, mode: StartMode) -> Result<VmActivity, VmError> {
        check_daemon(&self.settings)?;
        let xml = description::to_start(&self.settings).await?;
        let pools = domain_xml::describe(&xml)?.pools;
        let create = move |connect: &Connect| {
            start_pools(connect, &pools)?;
            Domain::create_xml(connect, &xml, c::VIR_DOMAIN_START_PAUSED).map(drop)
        };
        match self.link.ask(CREATE, create).await {
            Ok(()) => {}
            Err(Trouble::Refused(error)) => return Err(self.explain(&error).await),
            Err(Trouble::Unreachable(detail)) => return Err(VmError::Unreachable { detail }),
            Err(Trouble::Unsure(detail)) => {
                tracing::warn!(detail, "whether libvirt creates the engine VM is seen by looking");
            }
        }
        let begun = match self.appeared().await {
            Ok(()) => self.go(mode).await,
            Err(error) => Err(error),
        };
        if begun.is_err()
            && let Err(error) = self.end().await
            && !matches!(error, VmError::NotRunning)
        {
            tracing::error!(%error, "a VM that could not be started is left");
        }
        begun
    }

    /// The domain that was just created.
    async fn appeared(&self) -> Result<(), VmError> {
        let end = Instant::now() + APPEAR;
        loop {
            match self.see().await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if Instant::now() >= end => {
                    return Err(failed(START, "libvirt has no such VM, though it was told to create it"));
                }
                Err(trouble) if Instant::now() >= end => return Err(trouble.to_error(START)),
                Ok(None) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Lets the guest of a domain that stands ready go, if it is protected.
    async fn go(&self, mode: StartMode) -> Result<VmActivity, VmError> {
        let pid = self.pid();
        if !self.settings.allow_unprotected {
            self.prove(pid).await?;
        }
        if mode == StartMode::Paused {
            return Ok(VmActivity::Paused);
        }
        match self.ask(LAUNCH, Domain::resume).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(failed(START, "it ended before it ran")),
            Err(Trouble::Refused(error)) => return Err(self.explain(&error).await),
            Err(trouble) => {
                tracing::warn!(%trouble, "whether the engine VM runs is seen by looking");
                self.resumed().await?;
            }
        }
        let status = self.look().await;
        judge(status)
    }

    /// Nothing of the guest has run yet: now is the time to see that a lock manager stands behind QEMU.
    async fn prove(&self, pid: Option<u32>) -> Result<(), VmError> {
        let Some(pid) = pid else { return Ok(()) };
        match self.registration(pid).await {
            Ok(Registration::Holds | Registration::Known) => Ok(()),
            Ok(Registration::Unknown { detail }) => Err(VmError::NoLease {
                detail: format!(
                    "libvirt did not register QEMU (process {pid}) with sanlock ({detail}), so it was ended before the \
                     guest ran; {ADVICE}"
                ),
            }),
            Err(error) => Err(VmError::NoLease { detail: error.to_string() }),
        }
    }

    /// After a lost answer to a resume.
    async fn resumed(&self) -> Result<(), VmError> {
        let end = Instant::now() + APPEAR;
        loop {
            let last = match self.see().await {
                Ok(Some(seen)) if seen.state == c::VIR_DOMAIN_RUNNING => return Ok(()),
                Ok(Some(_)) => failed(START, "its processors were not started"),
                Ok(None) => return Err(failed(START, "it ended at once")),
                Err(trouble) => trouble.to_error(START),
            };
            if Instant::now() >= end {
                return Err(last);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn explain(&self, error: &Error) -> VmError {
        refused(error, self.lease_owner().await)
    }

    /// Ends the VM by command.
    pub async fn destroy(&self) -> Result<(), VmError> {
        self.notes.change(|notes| notes.is_destroying = true);
        self.memory().vm.get_or_insert_default();
        if let Err(error) = self.end().await {
            self.notes.change(|notes| notes.is_destroying = false);
            return Err(error);
        }
        // Written down before the caller looks.
        self.exit().await;
        Ok(())
    }

    /// Ends the VM; returns when libvirt has none.
    pub async fn end(&self) -> Result<(), VmError> {
        match self.command(DESTROY, VANISH, Domain::destroy).await {
            Ok(()) => {}
            Err(VmError::Unreachable { detail }) => return self.kill(&detail).await,
            Err(error) => return Err(error),
        }
        let end = Instant::now() + VANISH;
        loop {
            let last = match self.see().await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => failed(DESTROY, format!("it is there after {} s", VANISH.as_secs())),
                Err(trouble) => trouble.to_error(DESTROY),
            };
            if Instant::now() >= end {
                return Err(last);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A daemon that does not answer must not keep a VM alive that has to end: its QEMU is killed.
    async fn kill(&self, why: &str) -> Result<(), VmError> {
        let Some(process) = self.process() else {
            return Err(VmError::Unreachable { detail: why.to_owned() });
        };
        tracing::warn!(pid = process.pid, why, "QEMU is killed, since libvirt cannot be told to end it");
        let cannot = |error: std::io::Error| failed(DESTROY, format!("process {}: {error}", process.pid));
        process.kill().map_err(cannot)?;
        let Ok(ended) = tokio::time::timeout(VANISH, process.ended()).await else {
            let secs = VANISH.as_secs();
            return Err(failed(DESTROY, format!("process {} is there after {secs} s", process.pid)));
        };
        ended.map_err(cannot)
    }

    /// QEMU's process, pinned.
    fn process(&self) -> Option<Process> {
        let pid = self.pid()?;
        let record = ProcessRecord {
            pid,
            start_ticks: start_ticks(pid).ok()??,
            boot_id: boot_id().ok()?,
            uuid: Uuid::parse_str(&self.settings.uuid).ok()?,
            mode: LaunchMode::Run,
        };
        let process = Process::find(&record).ok()??;
        process.is_vm(&record).unwrap_or(false).then_some(process)
    }

    /// libvirt presses the guest's power button, or asks its agent, at once; it knows no delay and no message.
    pub async fn shutdown(&self) -> Result<(), VmError> {
        let seen = self.see().await.map_err(|trouble| trouble.to_error(SHUTDOWN))?;
        if seen.ok_or(VmError::NotRunning)?.state == c::VIR_DOMAIN_PAUSED {
            let detail =
                "its processors are stopped, so it would not notice; resume it first, or power it off";
            return Err(failed(SHUTDOWN, detail));
        }
        self.notes.change(|notes| notes.is_powering_down = true);
        let asked = self.command(SHUTDOWN, COMMAND, Domain::shutdown).await.map(drop);
        if matches!(asked, Err(VmError::Failed { .. })) {
            self.notes.change(|notes| notes.is_powering_down = false);
        }
        asked
    }

    pub async fn pause(&self) -> Result<(), VmError> {
        let paused = self.command(PAUSE, COMMAND, Domain::suspend).await.map(drop);
        self.settle(paused, |state| state == c::VIR_DOMAIN_PAUSED).await
    }

    /// libvirt takes the lease again before the guest goes on, the very version that it gave back, or lets it stand.
    pub async fn resume(&self) -> Result<(), VmError> {
        match self.look().await?.lease {
            LeaseHolding::Held | LeaseHolding::Pending { .. } => {}
            LeaseHolding::Unknown { .. } if self.settings.allow_unprotected => {}
            LeaseHolding::Lost { detail } | LeaseHolding::Unknown { detail } => {
                return Err(VmError::NoLease { detail });
            }
            LeaseHolding::NoVm => return Err(VmError::NotRunning),
        }
        let resumed = match self.ask(LAUNCH, Domain::resume).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(VmError::NotRunning),
            Err(Trouble::Refused(error)) if error.domain() == ErrorDomain::Locking => {
                Err(VmError::NoLease { detail: error.message().to_owned() })
            }
            Err(trouble) => Err(trouble.to_error(RESUME)),
        };
        self.settle(resumed, |state| state == c::VIR_DOMAIN_RUNNING).await
    }

    /// When the answer was lost, a look decides.
    async fn settle(&self, done: Result<(), VmError>, is_done: fn(u32) -> bool) -> Result<(), VmError> {
        match done {
            Err(VmError::Unreachable { detail }) => match self.ask(QUESTION, Domain::get_state).await {
                Ok(Some((state, _))) if is_done(state) => Ok(()),
                _ => Err(VmError::Unreachable { detail }),
            },
            other => other,
        }
    }
}
