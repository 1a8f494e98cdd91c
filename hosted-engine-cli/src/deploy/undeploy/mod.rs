//! `hosted-engine --undeploy`: taking this host out of its cluster.
//!
//! ```text
//!  look ── refuse ──▶ empty the host ─▶ stop the agent ─▶ forget its block ─▶ give its number up ─▶ files
//!                     local maintenance │ from here on the journal says that the host is taken out
//! ```
//!
//! Each part finds out itself what is left of it, so that an interrupted one goes on when it is run again. What belongs to
//! the cluster is never touched: the storage domain with all that is in it, the mode of maintenance.

mod facts;
mod files;
mod leave;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use clock::{Clock as _, SystemClock};
use ha_config::Paths;

use super::carry_out::Hands;
use super::command::{confirm, service_manager};
use super::log::{Logged, Told};
use super::{DeployError, Installed, Journal, Outcome, Secrets};
use crate::cli::OpenVm;
use crate::setup::Report as _;
use crate::terminal::{Exit, Terminal};
use facts::Facts;

/// Take this host out of its hosted engine: the engine VM moves away, the HA services stop, the host's number and its
/// block are given up, what deployment made on the host is removed. The storage domain stays as it is.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct UndeployArgs {
    /// Go on although no other host can take the engine VM, which is shut down then, and although shared storage does not
    /// answer.
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub plan: bool,
    /// Confirm it; no terminal is needed.
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// Why nothing was done.
pub fn undeploy(args: UndeployArgs, paths: &Paths, open_vm: &OpenVm) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root() || !paths.is_real_host(),
        "taking this host out changes it: run it as root"
    );
    if let Some(half) = super::half_move(paths)? {
        anyhow::bail!("{half}");
    }
    let services = service_manager(paths, &Installed);
    let facts = Facts::gather(paths, services.as_ref(), open_vm)?;
    let notes = facts.judge(args.force).map_err(anyhow::Error::msg)?;
    let plan = facts.plan(paths, &notes);
    if args.plan {
        Terminal::default().print(&plan);
        return Ok(Exit::OK.into());
    }
    let told = Told::new(paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    told.info(&format!("Log file: {}", told.log_file().display()));
    told.text(&plan);
    if !confirm("Take this host out?", args.yes)? {
        told.failure("Nothing was changed");
        return Ok(Exit::FAILED.into());
    }
    let services = service_manager(paths, &tools);
    let hands = Hands { paths, tools: &tools, report: &told, services: services.as_ref(), open_vm };
    if let Err(error) = take_out(&hands, &facts, args.force, |_| {}) {
        told.failure(&format!("{error}\nWhat was done so far stays done; {}", super::UNDEPLOY_ON));
        return Ok(Exit::FAILED.into());
    }
    told.info("This host does not belong to a hosted engine any more; the logs stay");
    if let Some(text) = facts.end_of_cluster() {
        told.text(&text);
    }
    Ok(Exit::OK.into())
}

fn take_out(
    hands: &Hands<'_>,
    facts: &Facts,
    force: bool,
    watch: impl FnOnce(&mut Journal),
) -> Result<(), DeployError> {
    let path = hands.paths.deploy_journal();
    // Held to the end: nobody deploys meanwhile.
    let mut journal =
        Journal::open(&path)?.filter(|journal| journal.story().outcome != Some(Outcome::Undone));
    if let Some(journal) = &mut journal {
        watch(journal);
    }
    let leaving = facts.member.as_ref().map(|member| leave::Leaving { hands, member, force });
    if let Some(leaving) = &leaving {
        leaving.empty_host()?;
    }
    if let Some(journal) = &mut journal {
        journal.undeploy(SystemClock.wall().0)?;
    }
    if let Some(leaving) = &leaving {
        leaving.stop_agent()?;
        leaving.forget_block()?;
        leaving.give_up_number()?;
    }
    leave::stop_services(hands)?;
    files::keep_copies(hands)?;
    match &mut journal {
        Some(journal) => files::by_journal(hands, journal)?,
        None => files::known(hands, facts.member.as_ref())?,
    }
    files::main_configuration(hands)?;
    if let Some(journal) = &mut journal {
        journal.over(Outcome::Undone)?;
    }
    Secrets::forget(hands.paths)
}
