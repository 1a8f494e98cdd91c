//! The step that starts the VM, and has it installed when it boots from media at first.
//!
//! ```text
//!              ┌── restart ──┐
//!              ▼             │
//!  media ─▶ installation ────┴─ powered off, restarted, or the operator says so ─▶ disk ─▶ runs
//!              │ crash: its reason; start again or give up                          ▲
//!  disk image ─┴────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! With media, a guest that restarts ends the VM, so that neither a lost event nor a cut of the deployment can make a
//! second installation out of it. When the step goes on after a cut, the stage is read from the description that was
//! written for it, and a VM that runs is adopted.

use std::path::Path;
use std::time::Duration;

use engine_vm::{VmError, VmExit};

use super::first_start::{self, Stage};
use super::made::MadeVm;
use super::operator::{AtTerminal, Operator, choose};
use super::run::{ended, ensure, refused, show_console, words};
use crate::deploy::services_steps::asked;
use crate::deploy::{Boot, DeployError, FirstHost, Job, Request, Step, StepId, World};

/// How long an installation that nobody watches may take.
const INSTALLATION: Duration = Duration::from_hours(4);
/// How long a guest may take to shut down before it is powered off.
const SHUTDOWN: Duration = Duration::from_mins(2);

/// Starts the VM.
pub struct StartEngineVm {
    operator: Box<dyn Operator>,
}

impl StartEngineVm {
    /// With an operator.
    pub fn new(operator: Box<dyn Operator>) -> Self {
        Self { operator }
    }
}

impl Default for StartEngineVm {
    fn default() -> Self {
        Self::new(Box::new(AtTerminal))
    }
}

/// What the operator wants while the VM is installed.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Continue,
    Restart,
    Console,
    Abort,
}

const INSTALLING: [(&str, Wish); 4] = [
    ("Continue: the installation is complete, start the VM from its disk", Wish::Continue),
    ("Power off and start again from the media", Wish::Restart),
    ("A new password for the console", Wish::Console),
    ("Abort", Wish::Abort),
];
/// The numbers mean the same: the VM may end while somebody types.
const DIED: [(&str, Wish); 3] = [
    ("Continue: the installation is complete, start the VM from its disk", Wish::Continue),
    ("Start it again from the media", Wish::Restart),
    ("Abort", Wish::Abort),
];

impl Step for StartEngineVm {
    fn id(&self) -> StepId {
        StepId::EngineVm
    }

    fn title(&self) -> String {
        "Starting the engine VM".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let Request::FirstHost(first) = job.world.request else { return Ok(()) };
        let directory = first_start::directory(job.world.paths, first.ids.deploy);
        let made = MadeVm { vm: first.ids.vm, directory: directory.clone() };
        job.make(made, |world| asked(self.start(world, first, &directory))?)
    }
}

impl StartEngineVm {
    async fn start(&self, world: &World<'_>, first: &FirstHost, directory: &Path) -> Result<(), DeployError> {
        let from_media = matches!(first.vm.boot, Boot::Cdrom(_) | Boot::Pxe);
        if from_media && first_start::stage(directory)? != Some(Stage::Disk) {
            self.install(world, first, directory).await?;
            world.report.info("The VM is started from its disk now");
        }
        first_start::write(world, first, directory, Stage::Disk)?;
        let vm = first_start::open(world, directory)?;
        ensure(vm.as_ref(), world.report).await?;
        show_console(vm.as_ref(), self.operator.as_ref(), world.report).await;
        Ok(())
    }

    async fn install(
        &self,
        world: &World<'_>,
        first: &FirstHost,
        directory: &Path,
    ) -> Result<(), DeployError> {
        let World { report, .. } = *world;
        let operator = self.operator.as_ref();
        loop {
            first_start::write(world, first, directory, Stage::Media)?;
            let vm = first_start::open(world, directory)?;
            ensure(vm.as_ref(), report).await?;
            show_console(vm.as_ref(), operator, report).await;
            report.info(
                "Install the operating system in the VM, over its console. When that is done, restart the VM or power it off: \
                 it is started from its disk then",
            );
            let wish = tokio::select! {
                exit = ended(vm.as_ref(), report) => match exit {
                    Some(VmExit::Orderly { detail }) => {
                        report.info(&format!("The installation is over: {detail}"));
                        return Ok(());
                    }
                    other => self.died(world, other.as_ref()).await?,
                },
                wish = self.wish(vm.as_ref(), report) => wish,
                () = patience(operator) => {
                    return Err(refused(format!(
                        "the installation in the VM did not end within {} hours; the VM still runs: look at its console, then go \
                         on with --resume or give up with --undo",
                        INSTALLATION.as_secs() / 3600
                    )));
                }
            };
            match wish {
                Wish::Continue => return end_guest(vm.as_ref(), world).await,
                Wish::Restart | Wish::Console => power_off(vm.as_ref()).await?,
                Wish::Abort => {
                    return Err(refused(
                        "stopped by the operator; go on with hosted-engine --deploy --resume, or take everything back with --undo",
                    ));
                }
            }
        }
    }

    /// Menu while the VM runs; new console passwords are given on the way.
    async fn wish(&self, vm: &dyn engine_vm::EngineVm, report: &dyn crate::setup::Report) -> Wish {
        if !self.operator.is_there() {
            return std::future::pending().await;
        }
        loop {
            match choose(self.operator.as_ref(), &INSTALLING).await {
                Wish::Console => show_console(vm, self.operator.as_ref(), report).await,
                other => return other,
            }
        }
    }

    async fn died(&self, world: &World<'_>, exit: Option<&VmExit>) -> Result<Wish, DeployError> {
        let why = format!("the VM ended before the installation was over: {}", words(exit));
        if !self.operator.is_there() {
            return Err(refused(format!("{why}; start it again with hosted-engine --deploy --resume")));
        }
        world.report.warning(&why);
        Ok(choose(self.operator.as_ref(), &DIED).await)
    }
}

async fn patience(operator: &dyn Operator) {
    if operator.is_there() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(INSTALLATION).await;
}

async fn power_off(vm: &dyn engine_vm::EngineVm) -> Result<(), DeployError> {
    match vm.destroy().await {
        Ok(()) | Err(VmError::NotRunning) => Ok(()),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Ends the installed guest in order, or by force when it does not listen.
async fn end_guest(vm: &dyn engine_vm::EngineVm, world: &World<'_>) -> Result<(), DeployError> {
    match vm.shutdown(Duration::ZERO, "The installation is over").await {
        Ok(()) => {
            let gone = tokio::time::timeout(SHUTDOWN, ended(vm, world.report)).await;
            if gone.is_ok() {
                return Ok(());
            }
            world.report.warning("The guest does not shut down: powering it off");
        }
        Err(VmError::NotRunning) => return Ok(()),
        Err(error) => world.report.warning(&format!("{error}: powering the VM off")),
    }
    power_off(vm).await
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
