//! `--vm-start`, `--vm-start-paused`, `--vm-shutdown`, `--vm-poweroff`: the engine VM on this host, by hand.
//!
//! Whatever is checked here is for the operator's sake. What keeps the VM from running twice is its lease, which
//! the hypervisor's side takes before any guest code runs.

use std::time::Duration;

use anyhow::Result;
use broker_api::BrokerClient;
use engine_vm::{EngineVm, LeaseHolding, StartMode, VmActivity, VmError, VmStatus};
use metadata_format::HostId;

use crate::status::View;
use crate::terminal::{Exit, Terminal};

/// How long the guest's users have after they were told; the same as the existing command's.
const SHUTDOWN_DELAY: Duration = Duration::from_mins(2);

/// This host, as far as handling the VM needs it.
pub struct Host<'a> {
    /// Its id, where it has one.
    pub id: Option<HostId>,
    /// Its broker.
    pub broker: &'a BrokerClient,
    /// Its hypervisor.
    pub vm: &'a dyn EngineVm,
}

/// `--vm-start` and `--vm-start-paused`.
pub async fn start(host: Host<'_>, mode: StartMode, terminal: &mut Terminal) -> Result<Exit> {
    let status = match host.vm.status().await {
        Ok(status) => status,
        Err(error) => return Ok(failed(&error, terminal)),
    };
    if status.exists() {
        match what_is_here(&host, &status, mode, terminal).await {
            Here::Done(exit) => return Ok(exit),
            Here::Gone => {}
        }
    }
    match View::fetch(host.broker).await {
        Ok(view) => {
            let elsewhere = view.live_hosts_with_vm(host.id);
            if !elsewhere.is_empty() {
                terminal.complain(format!(
                    "VM failed to launch: it is up on {}. Stop it there first, or let the agents decide",
                    elsewhere.join(", ")
                ));
                return Ok(Exit::FAILED);
            }
            warn_of_agents(&view, "the agents decide where the engine VM runs, and may stop it here", terminal);
        }
        Err(error) => terminal.complain(format!(
            "The other hosts' status is unknown ({error}); going on, since the VM starts only if its lease is free"
        )),
    }
    match host.vm.start(mode).await {
        Ok(()) => {
            terminal.say("VM in WaitForLaunch");
            Ok(Exit::OK)
        }
        Err(error) => {
            terminal.complain(error.to_string());
            if matches!(error, VmError::LeaseHeld { .. }) {
                terminal.complain("Another host runs the VM, or ran it until a moment ago: see --vm-status");
            }
            terminal.say("VM failed to launch");
            Ok(Exit::FAILED)
        }
    }
}

/// What a start means when there is a VM already.
enum Here {
    Done(Exit),
    Gone,
}

async fn what_is_here(host: &Host<'_>, status: &VmStatus, mode: StartMode, terminal: &mut Terminal) -> Here {
    let word = status.activity.word();
    match (&status.lease, status.activity, mode) {
        (LeaseHolding::Lost { detail }, _, _) => {
            terminal.say(format!("VM exists without its lease ({detail}), cleaning up and restarting"));
            match host.vm.destroy().await {
                Ok(()) | Err(VmError::NotRunning) => Here::Gone,
                Err(error) => Here::Done(failed(&error, terminal)),
            }
        }
        // Its memory is worth keeping: a guest that was paused goes on where it was.
        (
            LeaseHolding::Held | LeaseHolding::Pending { .. },
            VmActivity::Paused | VmActivity::PausedByIoError,
            StartMode::Run,
        ) => {
            terminal.say(match status.lease {
                LeaseHolding::Pending { .. } => "VM exists and is Paused: letting it go on under its lease",
                _ => "VM exists and is Paused, its lease is held: letting it go on",
            });
            match host.vm.resume().await {
                Ok(()) => Here::Done(Exit::OK),
                Err(error) => Here::Done(failed(&error, terminal)),
            }
        }
        (
            LeaseHolding::Unknown { detail },
            VmActivity::Paused | VmActivity::PausedByIoError,
            StartMode::Run,
        ) => {
            terminal.complain(format!(
                "VM exists and is Paused, and whether its lease is held is unknown ({detail}); \
                 it cannot be let go on safely"
            ));
            Here::Done(Exit::FAILED)
        }
        _ => {
            terminal.complain(format!("VM exists and its status is {word}"));
            Here::Done(Exit::FAILED)
        }
    }
}

/// `--vm-shutdown`: asks the guest; does not wait for it.
pub async fn shutdown(host: Host<'_>, terminal: &mut Terminal) -> Result<Exit> {
    let result = host.vm.shutdown(SHUTDOWN_DELAY, "VM is shutting down!").await;
    finish(&host, result, "The engine VM was asked to power down", terminal).await
}

/// `--vm-poweroff`: ends the VM's process.
pub async fn power_off(host: Host<'_>, terminal: &mut Terminal) -> Result<Exit> {
    let result = host.vm.destroy().await;
    finish(&host, result, "The engine VM was powered off", terminal).await
}

async fn finish(
    host: &Host<'_>,
    result: Result<(), VmError>,
    done: &str,
    terminal: &mut Terminal,
) -> Result<Exit> {
    match result {
        Ok(()) => {
            terminal.say(done);
            if let Ok(view) = View::fetch(host.broker).await {
                warn_of_agents(&view, "the agents start it again", terminal);
            }
            Ok(Exit::OK)
        }
        Err(VmError::NotRunning) => {
            let elsewhere = View::fetch(host.broker).await.map(|view| view.live_hosts_with_vm(host.id));
            let place = match elsewhere {
                Ok(hosts) if !hosts.is_empty() => format!("; it is up on {}", hosts.join(", ")),
                Ok(_) | Err(_) => String::new(),
            };
            terminal.complain(format!("The engine VM is not on this host{place}"));
            Ok(Exit::FAILED)
        }
        Err(error) => Ok(failed(&error, terminal)),
    }
}

fn warn_of_agents(view: &View, what: &str, terminal: &mut Terminal) {
    if view.global_maintenance != Some(true) {
        terminal.complain(format!(
            "Note: the cluster is not in global maintenance, so {what}; \
             to keep them away: hosted-engine --set-maintenance --mode=global"
        ));
    }
}

fn failed(error: &VmError, terminal: &mut Terminal) -> Exit {
    terminal.complain(error.to_string());
    Exit::FAILED
}
