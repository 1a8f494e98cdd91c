//! `--migrate-vm`: asks this host's agent, through its broker, to move the running engine VM to another host.
//!
//! The agent decides whether it can be done, and does it; what is looked at here only gives an early answer.

use anyhow::Result;
use broker_api::BrokerClient;
use broker_api::status::MigrationPhase;
use engine_vm::EngineVm;
use metadata_format::{HostId, VmState};
use tokio::time::Instant;

use crate::moving::{self, NO_AGENT};
use crate::progress::Progress;
use crate::status::View;
use crate::terminal::{Exit, Terminal};

/// Moves the engine VM from this host, where it runs, to another one without a stop. The host's agent does it, in global
/// maintenance too, and goes on when this command is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct MigrateVmArgs {
    /// Id of the host to move it to; the agent chooses the best one when it is not given
    #[arg(long, value_name = "ID", value_parser = host_id)]
    host_id: Option<HostId>,
    /// Only ask for it; do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

fn host_id(text: &str) -> Result<HostId, String> {
    let number: u16 = text.parse().map_err(|_| "a host id is a number from 1 to 2000".to_owned())?;
    HostId::new(number).map_err(|error| error.to_string())
}

impl MigrateVmArgs {
    /// To that host, waiting for the end.
    pub const fn to(host_id: Option<HostId>) -> Self {
        Self { host_id, no_wait: false }
    }
}

/// This host, as far as moving the VM needs it.
pub struct Host<'a> {
    /// Its id.
    pub id: HostId,
    /// Its broker.
    pub broker: &'a BrokerClient,
    /// Its hypervisor, when that can be asked.
    pub vm: Option<&'a dyn EngineVm>,
}

/// How the request ended.
enum End {
    /// The VM is there.
    Moved(String),
    /// It is where it was, or nobody knows.
    NotMoved(String),
}

/// `--migrate-vm`. Exit code 0 when the VM runs there (or was there already, or was asked for with `--no-wait`), 1 when
/// it does not.
pub async fn migrate(args: MigrateVmArgs, host: Host<'_>, terminal: &mut Terminal) -> Result<Exit> {
    let view = match View::fetch(host.broker).await {
        Ok(view) => view,
        Err(error) => {
            terminal.complain(error.to_string());
            return Ok(Exit::FAILED);
        }
    };
    if args.host_id == Some(host.id) && is_here(&host, &view).await {
        terminal.say("The engine VM runs on this host already");
        return Ok(Exit::OK);
    }
    if let Err(why) = may_ask(args, &host, &view).await {
        terminal.complain(why);
        return Ok(Exit::FAILED);
    }
    let begun = Instant::now();
    let earlier = view.migration().and_then(|report| report.request);
    if !host.broker.ask_migration(args.host_id).await? {
        terminal.complain("This host's broker is of a release that does not move the engine VM");
        return Ok(Exit::FAILED);
    }
    let place = args.host_id.map_or_else(|| "the best other host".to_owned(), |to| view.name_of(to));
    terminal.say(format!("This host's agent was asked to move the engine VM to {place}"));
    if args.no_wait {
        return Ok(Exit::OK);
    }
    Ok(match follow(&host, earlier, terminal).await {
        Ok(End::Moved(to)) => {
            let seconds = begun.elapsed().as_secs_f64();
            terminal.say(format!("The engine VM runs on {to} now, {seconds:.1} s after it was asked for"));
            Exit::OK
        }
        Ok(End::NotMoved(why)) => {
            terminal.complain(format!("The engine VM was not moved: {why}"));
            Exit::FAILED
        }
        Err(error) => {
            terminal.complain(format!(
                "It is not known what became of it: {error:#}. Look with: hosted-engine --vm-status"
            ));
            Exit::FAILED
        }
    })
}

async fn is_here(host: &Host<'_>, view: &View) -> bool {
    if let Some(vm) = host.vm
        && let Ok(status) = vm.status().await
    {
        return status.exists();
    }
    view.vm_state(host.id) == Some(VmState::Up)
}

/// Why the agent need not even be asked.
async fn may_ask(args: MigrateVmArgs, host: &Host<'_>, view: &View) -> Result<(), String> {
    if !is_here(host, view).await {
        let elsewhere = view.live_hosts_with_vm(Some(host.id));
        return Err(if elsewhere.is_empty() {
            "The engine VM is not on this host, and no live host says that it is up there; see --vm-status"
                .to_owned()
        } else {
            format!(
                "The engine VM is not on this host; it is up on {}: give the command there",
                elsewhere.join(", ")
            )
        });
    }
    let others = view.others(host.id);
    match args.host_id {
        Some(to) => match others.iter().find(|(id, _, _)| *id == to) {
            None => {
                let known: Vec<&str> = others.iter().map(|(_, name, _)| name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!("There is no host {to}; the other hosts are: {known}"));
            }
            Some((_, name, Some(why))) => return Err(format!("{name} cannot take the engine VM: {why}")),
            Some((_, _, None)) => {}
        },
        None if others.iter().all(|(_, _, unfit)| unfit.is_some()) => {
            return Err(format!("No other host can take the engine VM{}", reasons(&others)));
        }
        None => {}
    }
    match &view.document {
        Some(document) if document.agent.is_none() => Err(format!("{NO_AGENT}. Nobody would move the VM")),
        Some(_) | None => Ok(()),
    }
}

/// A line for each host that cannot take the VM.
pub fn reasons(others: &[(HostId, String, Option<String>)]) -> String {
    if others.is_empty() {
        return ": there is no other host".to_owned();
    }
    let lines = others.iter().filter_map(|(_, name, unfit)| Some(format!("\n  {name}: {}", unfit.as_ref()?)));
    format!(":{}", lines.collect::<String>())
}

/// Shows what becomes of the request. `earlier` is the one that was answered before.
async fn follow(host: &Host<'_>, earlier: Option<i64>, terminal: &mut Terminal) -> Result<End> {
    let mut progress = Progress::new(terminal);
    let mut asked_at = None;
    moving::watch(host.broker, |view| {
        let request = view.document.as_ref()?.migration_request.map(|request| request.asked_at);
        asked_at = asked_at.max(request);
        let report = view.migration().filter(|report| report.request.is_some_and(|at| Some(at) > earlier));
        if let Some(report) = report {
            moving::show(report, &mut progress, terminal);
            return match &report.phase {
                MigrationPhase::Asked | MigrationPhase::Sending { .. } => None,
                MigrationPhase::Done => Some(End::Moved(moving::destination(report))),
                MigrationPhase::Failed { .. } if report.request < asked_at => None,
                MigrationPhase::Failed { detail } => Some(End::NotMoved(detail.clone())),
            };
        }
        // Neither the request nor an answer, from an agent that speaks: it was started anew, or nobody answered.
        let is_forgotten = request.is_none() && view.document.as_ref()?.agent.is_some();
        if !is_forgotten {
            return None;
        }
        let elsewhere = view.live_hosts_with_vm(Some(host.id));
        let is_here = view.vm_state(host.id) == Some(VmState::Up);
        match elsewhere.into_iter().next() {
            Some(place) if !is_here => Some(End::Moved(place)),
            Some(_) | None => Some(End::NotMoved(
                "the agent does not say why; hosted-engine --vm-status --explain shows what it does"
                    .to_owned(),
            )),
        }
    })
    .await
}
