//! The VM on this host while it is deployed: started under its lease or adopted, followed, shown.

use std::time::Duration;

use engine_vm::{
    ConsoleKind, EngineVm, LeaseHolding, LeaseOutlook, StartMode, VmActivity, VmError, VmEvent, VmExit,
};
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::operator::Operator;
use crate::deploy::DeployError;
use crate::password::VALID;
use crate::setup::Report;

/// Between two looks at the VM: events may be lost, and not every hypervisor sends them to a command.
pub(super) const LOOK: Duration = Duration::from_secs(1);

pub(super) fn refused(text: impl Into<String>) -> DeployError {
    DeployError::Refused(text.into())
}

/// How a VM ended, for people.
pub(super) fn words(exit: Option<&VmExit>) -> String {
    match exit {
        None => "it ended, and nobody knows how".to_owned(),
        Some(VmExit::Orderly { detail }) => format!("it ended in order: {detail}"),
        Some(VmExit::Crashed { detail }) => format!("it crashed: {detail}"),
        Some(VmExit::MigratedAway) => "it runs on another host now".to_owned(),
        Some(VmExit::LeaseRefused { detail }) => format!("its lease is held elsewhere: {detail}"),
        Some(VmExit::StartFailed { detail }) => format!("it did not start: {detail}"),
    }
}

/// Starts the VM, unless it runs here already.
pub(in crate::deploy) async fn ensure(vm: &dyn EngineVm, report: &dyn Report) -> Result<(), DeployError> {
    let failed = |error: VmError| refused(error.to_string());
    let status = vm.status().await.map_err(failed)?;
    if status.exists() {
        return match (status.lease, status.activity) {
            (LeaseHolding::Lost { detail }, _) => Err(refused(format!(
                "the engine VM runs on this host without its lease ({detail}); power it off (hosted-engine --vm-poweroff), \
                 then go on with --resume"
            ))),
            (LeaseHolding::Held, VmActivity::Paused) => {
                report.info("The VM is there already, and paused: letting it go on");
                vm.resume().await.map_err(failed)
            }
            _ => {
                report
                    .info(&format!("The VM is there already ({}): going on with it", status.activity.word()));
                Ok(())
            }
        };
    }
    match vm.lease_outlook().await {
        Ok(LeaseOutlook::Held { host_id, .. }) => {
            return Err(refused(format!(
                "the engine VM's lease is held by the host with id {host_id}, where the VM may run: stop it there first"
            )));
        }
        // Only a start can tell then.
        Ok(LeaseOutlook::Free) | Err(_) => {}
    }
    vm.start(StartMode::Run).await.map_err(failed)?;
    report.info("The VM is started under its lease");
    Ok(())
}

/// Waits for the next event, at most [`LOOK`].
pub(super) async fn something(events: &mut tokio::sync::broadcast::Receiver<VmEvent>) {
    let event = async {
        match events.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    };
    // Nothing happened: look all the same.
    let _ = tokio::time::timeout(LOOK, event).await;
}

/// Waits until there is no VM on this host; says when it is paused, and when the hypervisor cannot be asked.
pub(super) async fn ended(vm: &dyn EngineVm, report: &dyn Report) -> Option<VmExit> {
    let mut events = vm.events();
    let mut said = String::new();
    loop {
        let trouble = match vm.status().await {
            Ok(status) if !status.exists() => return status.exit,
            Ok(status) => trouble(status.activity).map(ToOwned::to_owned),
            Err(error) => Some(error.to_string()),
        };
        let trouble = trouble.unwrap_or_default();
        if trouble != said {
            if !trouble.is_empty() {
                report.warning(&trouble);
            }
            said = trouble;
        }
        something(&mut events).await;
    }
}

/// What keeps a VM from working, for people.
pub(super) fn trouble(activity: VmActivity) -> Option<&'static str> {
    match activity {
        VmActivity::Paused => Some("the VM is paused; let it go on with: hosted-engine --vm-start"),
        VmActivity::PausedByIoError => Some(
            "the VM is paused, since its disk could not be read or written; look at the storage and at the room on it",
        ),
        VmActivity::WaitForLaunch
        | VmActivity::PoweringUp
        | VmActivity::Up
        | VmActivity::PoweringDown
        | VmActivity::MigrationSource
        | VmActivity::MigrationDestination
        | VmActivity::RebootInProgress
        | VmActivity::RestoringState
        | VmActivity::SavingState
        | VmActivity::Down => None,
    }
}

/// Sets a password for the graphical console and shows it once, to somebody who is there.
pub(super) async fn show_console(vm: &dyn EngineVm, operator: &dyn Operator, report: &dyn Report) {
    if !operator.is_there() {
        report.info("A password for the VM's console is given by: hosted-engine --add-console-password");
        return;
    }
    // VNC looks at eight characters: 32 random bits and more.
    let password: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let set = vm.set_console_password(&password, VALID).await;
    match (set, vm.console(ConsoleKind::Graphical).await) {
        (Ok(()), Ok(console)) => operator.show(&format!(
            "The VM's console is {} at {}; the password {password} is good for {} s (a new one: hosted-engine \
             --add-console-password).\nFrom another machine, first: ssh -L 5900:{} root@THIS-HOST",
            console.kind.to_uppercase(),
            console.address,
            VALID.as_secs(),
            console.address,
        )),
        (Err(error), _) | (_, Err(error)) => {
            report.warning(&format!("the VM's console cannot be used: {error}"));
        }
    }
}
