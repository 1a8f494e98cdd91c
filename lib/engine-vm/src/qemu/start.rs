//! Starting and ending the VM's process.

use std::fs::File;
use std::time::Duration;

use ha_config::deadlines::{LAUNCH, QEMU_READY};
use ha_config::ha_toml::Accel;
use rustix::fs::FlockOperation;
use tokio::time::timeout;

use super::accel;
use super::command_line::{Accelerator, Launch, arguments, tap_placeholder};
use super::handover::Handover;
use super::launch::{ExitRecord, LaunchFile, LaunchMode, Outcome, Tap};
use super::look::{Found, Inner, QUESTION, failed, unreachable};
use super::machine::{Machine, NicBackend};
use super::qmp::QmpError;
use super::run_dir::{DESTROYING, EXIT, HANDOVER, START_LOCK};
use crate::lease::{self, open_lock};
use crate::port::{LeaseHolding, VmError, VmEvent, VmExit};

/// The launcher talks to the lock manager twice.
const _: () =
    assert!(2 * lease::DEADLINE.as_secs() < LAUNCH.as_secs(), "the launcher could not say why it fails");
/// How long QEMU may take to end in order before it is killed.
const QUIT: Duration = Duration::from_secs(3);
/// How long a killed process may take to be gone. It waits for I/O under way: hung storage keeps it.
const KILL: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a monitor that is about to appear.
const POLL: Duration = Duration::from_millis(20);

impl Inner {
    /// Starts the VM. Returns once QEMU answers and (but for an arrival) owns the lease.
    /// `handover` is what an arrival may go on with; it is there before the process is.
    pub async fn launch(&self, mode: LaunchMode, handover: Option<&Handover>) -> Result<Found, VmError> {
        self.dir
            .create()
            .map_err(|e| failed("start", format!("cannot make {}: {e}", self.dir.path().display())))?;
        let _lock = self.start_lock()?;
        if let Some(found) = self.find()? {
            return Err(VmError::AlreadyExists { pid: Some(found.process.pid) });
        }
        if let Some(handover) = handover {
            self.dir.write(HANDOVER, handover).map_err(|e| unreachable("note the migration", &e))?;
        }
        let result = self.launch_locked(mode).await;
        if let Err(error) = &result {
            self.note_failed_start(error);
        }
        result
    }

    /// Keeps two starts on this host from crossing.
    fn start_lock(&self) -> Result<File, VmError> {
        let path = self.dir.file(START_LOCK);
        let file =
            open_lock(&path).map_err(|e| failed("start", format!("cannot open {}: {e}", path.display())))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(failed("start", "another start on this host is under way; wait for its result"))
            }
            Err(e) => Err(failed("start", format!("cannot lock {}: {e}", path.display()))),
        }
    }

    async fn launch_locked(&self, mode: LaunchMode) -> Result<Found, VmError> {
        let file = self.launch_file(mode).await?;
        let outcome = self
            .settings
            .launcher
            .run(&self.dir, &file, LAUNCH)
            .await
            .map_err(|e| failed("start", e.to_string()))?;
        match outcome {
            Outcome::Executing { .. } => {}
            Outcome::AlreadyExists { pid } => return Err(VmError::AlreadyExists { pid: Some(pid) }),
            Outcome::LeaseHeld { detail } => return Err(VmError::LeaseHeld { detail }),
            Outcome::NoLease { detail } => return Err(VmError::NoLease { detail }),
            Outcome::Failed { detail } => return Err(failed("start", detail)),
        }
        let found = self.ready().await?;
        if mode != LaunchMode::Incoming
            && let LeaseHolding::Lost { detail } = self.holding(found.process.pid).await?
        {
            self.end(&found).await?;
            return Err(VmError::NoLease { detail });
        }
        self.started.notify_waiters();
        Ok(found)
    }

    async fn launch_file(&self, mode: LaunchMode) -> Result<LaunchFile, VmError> {
        let settings = &self.settings;
        let machine = settings.machine.load()?;
        let launch = Launch {
            accelerator: self.accelerator().await?,
            is_paused: mode == LaunchMode::Paused,
            is_incoming: mode == LaunchMode::Incoming,
            user: settings.user.clone(),
            extra_args: settings.extra_args.clone(),
        };
        let args = arguments(&machine, &launch).map_err(|e| VmError::Config { detail: e.to_string() })?;
        Ok(LaunchFile {
            run_dir: self.dir.path().to_owned(),
            program: settings.program.clone(),
            args,
            uuid: machine.uuid,
            mode,
            lease: settings.lease.clone(),
            taps: taps(&machine),
        })
    }

    async fn accelerator(&self) -> Result<Accelerator, VmError> {
        match self.settings.accel {
            Accel::Kvm => Ok(Accelerator::Kvm),
            Accel::Tcg => Ok(Accelerator::Tcg),
            Accel::Auto => accel::best(&self.dir, &self.settings.program).await.map_err(|e| {
                failed(
                    "start",
                    format!(
                        "cannot find out whether KVM works with {}: {e}",
                        self.settings.program.display()
                    ),
                )
            }),
        }
    }

    /// Waits until QEMU answers, or has ended. It gives no signal when its monitors are there, so they are tried.
    async fn ready(&self) -> Result<Found, VmError> {
        let tried = async {
            loop {
                let Some(found) = self.find()? else {
                    let detail = match self.exit()? {
                        Some(VmExit::StartFailed { detail } | VmExit::Crashed { detail }) => detail,
                        _ => "QEMU ended at once".to_owned(),
                    };
                    return Err(failed("start", detail));
                };
                if found.is_qemu {
                    match self.monitor().await {
                        Ok(_) => return Ok(found),
                        Err(QmpError::Io { .. } | QmpError::Deadline { .. }) => {}
                        Err(QmpError::Refused { desc, .. }) => return Err(failed("start", desc)),
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(QEMU_READY, tried).await.unwrap_or_else(|_| {
            let detail = format!("QEMU runs but its monitor did not answer within {QEMU_READY:?}");
            Err(VmError::Unreachable { detail })
        })
    }

    /// Writes down why there is no VM, unless the launcher did.
    fn note_failed_start(&self, error: &VmError) {
        let exit = match error {
            VmError::Config { .. } | VmError::Failed { .. } => {
                VmExit::StartFailed { detail: error.to_string() }
            }
            _ => return,
        };
        let has_remains = self.find().is_ok_and(|found| found.is_some())
            || matches!(self.exit(), Ok(Some(VmExit::StartFailed { .. })));
        if !has_remains {
            let process = self.dir.read(super::run_dir::PROCESS).unwrap_or_default();
            if let Err(error) = self.dir.write(EXIT, &ExitRecord { process, exit }) {
                tracing::warn!(%error, "cannot write down why the VM did not start");
            }
        }
    }

    /// Ends the process: asks QEMU to quit, then kills it. Returns when it is gone.
    pub async fn end(&self, found: &Found) -> Result<(), VmError> {
        std::fs::write(self.dir.file(DESTROYING), "")
            .map_err(|e| unreachable("mark the VM as destroyed", &e))?;
        if found.is_qemu {
            let quit =
                async { self.monitor().await?.execute("quit", serde_json::Value::Null, QUESTION).await };
            // An error is expected when it is gone before it answers; what counts is whether the process ends.
            if let Err(error) = quit.await {
                tracing::debug!(%error, "QEMU did not confirm that it quits");
            }
        }
        let is_gone = |waited: Result<std::io::Result<()>, _>| matches!(waited, Ok(Ok(())));
        let in_order = found.is_qemu && is_gone(timeout(QUIT, found.process.ended()).await);
        if !in_order {
            found.process.kill().map_err(|e| failed("destroy", e.to_string()))?;
            if !is_gone(timeout(KILL, found.process.ended()).await) {
                let detail = format!(
                    "process {} was killed and is still there after {KILL:?}: it waits for I/O that does not end",
                    found.process.pid
                );
                return Err(failed("destroy", detail));
            }
        }
        *self.qmp.lock().await = None;
        if let Some(exit) = self.exit()? {
            self.tell(VmEvent::Ended(exit));
        }
        Ok(())
    }
}

fn taps(machine: &Machine) -> Vec<Tap> {
    let bridged = machine.nics.iter().enumerate().filter_map(|(index, nic)| match &nic.backend {
        NicBackend::Bridge(bridge) => {
            Some(Tap { bridge: bridge.clone(), placeholder: tap_placeholder(index) })
        }
        NicBackend::User | NicBackend::Disconnected => None,
    });
    bridged.collect()
}
