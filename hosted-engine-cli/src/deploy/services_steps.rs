//! The daemons: the broker before the engine VM, the agent after it.

use std::time::Duration;

use anyhow::Context as _;
use broker_api::BrokerClient;
use broker_api::status::{HostRow, StatusDocument, StorageState};
use clock::{Clock as _, SystemClock};
use metadata_format::{Health, HostId, VmState};

use super::made::{ChangedMaintenance, ChangedService, JoinedLockspaces};
use super::services::ServiceState;
use super::{DeployError, Job, Request, Step, StepId};
use crate::maintenance::set_global;
use crate::terminal::Terminal;

/// The broker's service.
pub(super) const BROKER: &str = "ovirt-ha-broker";
/// The agent's service.
pub(super) const AGENT: &str = "ovirt-ha-agent";

/// From its start until the broker has read shared storage.
const BROKER_PATIENCE: Duration = Duration::from_mins(2);
/// From its start until the agent has looked at the cluster, written its row, and seen the VM. It may have to join.
const AGENT_PATIENCE: Duration = Duration::from_mins(5);
/// The same of a VM that was started a moment ago, with its engine.
const ENGINE_PATIENCE: Duration = Duration::from_mins(20);
/// Between two looks at the broker.
const LOOK: Duration = Duration::from_millis(500);

/// The broker runs, this host is in the lockspaces; on a first host in global maintenance.
pub struct Broker;

/// The agent runs and looks after the engine VM.
pub struct HandOver;

/// Waits for something of a daemon's.
///
/// # Errors
/// When the operating system gives no poll.
pub(super) fn asked<T>(answer: impl Future<Output = T>) -> Result<T, DeployError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| DeployError::Refused(format!("cannot wait for answers: {error}")))?;
    let answer = runtime.block_on(answer);
    runtime.shutdown_background();
    Ok(answer)
}

impl Step for Broker {
    fn id(&self) -> StepId {
        StepId::Broker
    }

    fn title(&self) -> String {
        "Starting the broker and joining the lockspaces".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (paths, request) = (job.world.paths, job.world.request);
        service(job, BROKER, |before| ServiceState { is_active: true, ..before })?;
        let broker = BrokerClient::new(paths.broker_socket());
        let log = paths.broker_log();
        let read = "the broker has read shared storage";
        await_broker(&broker, read, BROKER_PATIENCE, &log, |status| match &status.storage {
            StorageState::Good { .. } => Ok(()),
            StorageState::Starting => Err("it has not read it yet".to_owned()),
            StorageState::Connecting { step, error, .. } => {
                Err(error.clone().unwrap_or_else(|| format!("it waits for {step}")))
            }
            StorageState::Stuck { operation, .. } => Err(format!("storage does not answer: {operation}")),
            StorageState::Failed { error, .. } => Err(error.clone()),
        })?;
        let host_id = request.host().id;
        job.make(JoinedLockspaces { host_id, sd_uuid: request.sd_uuid() }, |_| {
            let joined = asked(async {
                broker.start_domain_monitor(host_id).await?;
                broker.lock_host_id(host_id).await
            })?;
            joined.map_err(|error| DeployError::Refused(format!("cannot join the lockspaces: {error}")))
        })?;
        match request {
            Request::FirstHost(_) => maintenance(job, &broker, true),
            // The cluster's mode is the operator's business.
            Request::FurtherHost(_) => Ok(()),
        }
    }
}

impl Step for HandOver {
    fn id(&self) -> StepId {
        StepId::HandOver
    }

    fn title(&self) -> String {
        "Starting the agent".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (paths, request) = (job.world.paths, job.world.request);
        let on = ServiceState { is_enabled: true, is_active: true };
        service(job, BROKER, |_| on)?;
        service(job, AGENT, |_| on)?;
        let broker = BrokerClient::new(paths.broker_socket());
        let log = paths.agent_log();
        let spoken = "this host's row is live";
        await_broker(&broker, spoken, AGENT_PATIENCE, &log, |status| own_row(status, request.host().id))?;
        let Request::FirstHost(_) = request else { return Ok(()) };
        job.world.report.info("Handing the engine VM over to the agents");
        maintenance(job, &broker, false)?;
        let seen = "the agent looks after the engine VM";
        let patience = if request.moves().is_some() { ENGINE_PATIENCE } else { AGENT_PATIENCE };
        await_broker(&broker, seen, patience, &log, |status| engine_is_kept(status, request.host().id))
    }
}

/// Has a service run as wanted.
pub(super) fn service(
    job: &mut Job<'_>,
    name: &str,
    wanted: impl FnOnce(ServiceState) -> ServiceState,
) -> Result<(), DeployError> {
    let Some(before) = job.world.services.state(name)? else {
        return Err(DeployError::Refused(format!(
            "there is no service {name} on this host: install the package ovirt-hosted-engine-ha"
        )));
    };
    let wanted = wanted(before);
    if before == wanted {
        return Ok(());
    }
    let changed = ChangedService { name: name.to_owned(), before, reads_files: false };
    job.make(changed, |world| world.services.set(name, wanted))
}

/// Sets or ends global maintenance.
fn maintenance(job: &mut Job<'_>, broker: &BrokerClient, after: bool) -> Result<(), DeployError> {
    let said = asked(broker.status())?.map_err(|error| DeployError::Refused(error.to_string()))?;
    let before = said.and_then(|status| status.global_maintenance).unwrap_or(false);
    if before == after {
        return Ok(());
    }
    job.make(ChangedMaintenance { before, after }, |_| {
        let set = asked(set_global(broker, after, &mut Terminal::recording()))?;
        let what = if after { "cannot set global maintenance" } else { "cannot end global maintenance" };
        set.context(what).map_err(|error| DeployError::Refused(format!("{error:#}")))
    })
}

/// Looks at the broker's status until `look` finds nothing missing; what is missing last is told.
fn await_broker(
    broker: &BrokerClient,
    what: &str,
    patience: Duration,
    log: &std::path::Path,
    look: impl Fn(&StatusDocument) -> Result<(), String>,
) -> Result<(), DeployError> {
    let end = SystemClock.monotonic().plus(patience);
    asked(async {
        loop {
            let missing = match broker.status().await {
                Ok(Some(status)) => look(&status),
                Ok(None) => Err("the broker is of a release that tells nothing".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let Err(missing) = missing else { return Ok(()) };
            if SystemClock.monotonic() >= end {
                return Err(DeployError::Refused(format!(
                    "waited {} s until {what}: {missing}. Its log says more: {}",
                    patience.as_secs(),
                    log.display()
                )));
            }
            // A row that appears is no event of the broker's.
            tokio::time::sleep(LOOK).await;
        }
    })?
}

fn own_row(status: &StatusDocument, id: u16) -> Result<(), String> {
    let Some(agent) = &status.agent else { return Err("the agent has not spoken yet".to_owned()) };
    let row = HostId::new(id).ok().and_then(|id| status.hosts.get(&id));
    match row {
        Some(HostRow::Good(row)) if row.live && !row.stopped => Ok(()),
        Some(HostRow::Bad { error }) => Err(error.clone()),
        Some(HostRow::Good(_)) | None => {
            let warnings = agent.warnings.join("; ");
            let why = if warnings.is_empty() { format!("it is in {}", agent.state) } else { warnings };
            Err(format!("the agent has not written it: {why}"))
        }
    }
}

fn engine_is_kept(status: &StatusDocument, id: u16) -> Result<(), String> {
    own_row(status, id)?;
    let state = status.agent.as_ref().map_or("", |agent| agent.state.as_str());
    let row = HostId::new(id).ok().and_then(|id| status.hosts.get(&id));
    let Some(HostRow::Good(row)) = row else { return Err("this host has no row".to_owned()) };
    let engine = &row.engine_status;
    if status.global_maintenance == Some(false)
        && engine.vm == VmState::Up
        && engine.health == Health::Good
        && matches!(state, "EngineUp" | "EngineStarting")
    {
        return Ok(());
    }
    let reason = engine.reason.as_deref().unwrap_or("");
    Err(format!("it is in {state}, and says of the VM: {:?}, {:?} {reason}", engine.vm, engine.health))
}
