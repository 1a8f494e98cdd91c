//! This host's VDSM, asked by the steps of a deployment.

pub mod network;

use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, HostedEngineConf, Paths};
use vdsm_client::{CallError, Client};

use super::services_steps::asked;
use super::{DeployError, Request, World};

/// How long VDSM may need for one task: a preallocated disk is written out on some storage.
const TASK: Duration = Duration::from_hours(1);
/// First pause between two looks at a task; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(10);
/// Longest pause between two looks at a task.
const LONGEST: Duration = Duration::from_secs(1);

/// Who runs VMs on a host on which nothing says so yet: VDSM where it is installed, which its certificate tells. The
/// cluster's own word counts as soon as it can be read.
pub fn hypervisor_here(paths: &Paths) -> Hypervisor {
    if paths.vdsm_cert().exists() { Hypervisor::Vdsm } else { Hypervisor::default() }
}

/// Asks VDSM something. It is found by the cluster's ha.toml, of a further host by this host's own.
///
/// # Errors
/// What `work` says; or that there is no way to ask.
pub fn ask<T>(
    world: &World<'_>,
    work: impl AsyncFnOnce(&Client) -> Result<T, DeployError>,
) -> Result<T, DeployError> {
    ask_for(world.paths, world.request, work)
}

/// The same for those who only look.
///
/// # Errors
/// As [`ask`].
pub fn ask_for<T>(
    paths: &Paths,
    request: &Request,
    work: impl AsyncFnOnce(&Client) -> Result<T, DeployError>,
) -> Result<T, DeployError> {
    let toml = match request {
        Request::FirstHost(first) => HaToml::parse(paths, &first.ha_toml)?,
        Request::FurtherHost(_) => HaToml::load(paths)?,
    };
    // With TLS, as VDSM is installed.
    let conf = HostedEngineConf::parse(paths, "");
    asked(async {
        let vdsm =
            engine_vm::vdsm::client(&conf, &toml).map_err(|error| DeployError::Refused(error.to_string()))?;
        work(&vdsm).await
    })?
}

/// For `map_err`: what was being done when VDSM said no.
pub fn while_(what: &str) -> impl FnOnce(CallError) -> DeployError {
    move |error| DeployError::Refused(format!("{what}: {error}"))
}

/// Waits until a task has ended, and has VDSM forget it.
///
/// # Errors
/// What VDSM says of a task that failed; or that it takes longer than an hour.
pub async fn finish(vdsm: &Client, task: &str, what: &str) -> Result<(), DeployError> {
    let end = SystemClock.monotonic().plus(TASK);
    let mut pause = FIRST;
    loop {
        let status = vdsm.task_status(task).await.map_err(while_(what))?;
        if status.is_finished() {
            // What is not forgotten now is so when VDSM restarts.
            let _ = vdsm.task_clear(task).await;
            if status.is_success() {
                return Ok(());
            }
            let (words, code) = (status.message.unwrap_or_default(), status.code.unwrap_or_default());
            return Err(DeployError::Refused(format!("{what}: VDSM says: {words} (code {code})")));
        }
        if SystemClock.monotonic() >= end {
            return Err(DeployError::Refused(format!(
                "{what}: VDSM's task {task} has not ended within {} s; vdsm-client Task getStatus tells of it",
                TASK.as_secs()
            )));
        }
        // VDSM tells of no task's end by itself.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
