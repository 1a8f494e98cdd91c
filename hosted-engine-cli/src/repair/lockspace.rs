//! `--reinitialize-lockspace`: what is bad in the `hosted-engine` lockspace is mended ([`mend`](super::mend)), or all of it
//! is written anew, empty.
//!
//! The VM's own lease is in another lockspace and is not touched.

use std::collections::BTreeSet;
use std::process::ExitCode;

use broker_api::client::LOCKSPACE_TIMEOUT;
use clap::Args;
use ha_config::{HaToml, HostedEngineConf, Paths};
use metadata_format::HostId;
use sanlock_client::{GridSize, LockspaceRecord, RemoveOptions};

use super::liveness::{Snapshot, names, patience, watch};
use super::{Broker, Stop, deployed, finish, mend};
use crate::backup::backup;
use crate::delta_lease;
use crate::setup::{LOCKSPACE_NAME, Leases, Lines, Report, grid_for};
use crate::shared_file::SharedFile;

/// Look at the lockspace of the hosted-engine hosts, show what is in the sector of each host id, and write those anew that
/// are provably bad. Hosts with a good sector keep their leases and go on.
#[derive(Debug, Clone, Default, Args)]
pub struct ReinitializeLockspaceArgs {
    /// Write the sectors of ids that no host has anew, too.
    #[arg(long, conflicts_with_all = ["all", "force"])]
    pub unused: bool,
    /// Write the whole lockspace anew, which wipes all leases on host ids: global maintenance must be on, and all agents
    /// must have been stopped.
    #[arg(long)]
    pub all: bool,
    /// As --all, without global maintenance and although agents did not stop in order. A host that is seen alive is never
    /// overridden.
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
pub fn reinitialize_lockspace(args: &ReinitializeLockspaceArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    finish(reinitialize(args, paths, &Lines))
}

/// What the blocks allow, before anybody is watched.
pub(super) fn judge(snapshot: &Snapshot) -> Result<(), String> {
    if !snapshot.global_maintenance() {
        return Err("Refused: the lockspace can be written anew in global maintenance only \
                    (hosted-engine --set-maintenance --mode=global)"
            .to_owned());
    }
    let unknown: Vec<_> = snapshot.blocks.keys().filter(|id| snapshot.block(**id).is_err()).collect();
    if !unknown.is_empty() {
        return Err(format!(
            "Refused: the blocks of {} cannot be read, so nobody knows whether their agents run",
            names(snapshot, unknown)
        ));
    }
    let active: Vec<_> = snapshot
        .blocks
        .keys()
        .filter(|id| snapshot.block(**id).ok().flatten().is_some_and(|block| !block.stopped))
        .collect();
    if active.is_empty() {
        return Ok(());
    }
    Err(format!(
        "Refused: the agents of {} did not stop in order. Stop ovirt-ha-agent there first, or have the cluster forget \
         hosts that are gone (hosted-engine --clean-metadata --host-id=ID)",
        names(snapshot, active)
    ))
}

pub(super) async fn reinitialize(
    args: &ReinitializeLockspaceArgs,
    paths: &Paths,
    report: &dyn Report,
) -> Result<(), Stop> {
    let conf = deployed(paths)?;
    let toml = HaToml::load(paths)?;
    if !(args.all || args.force) {
        return mend::mend(args.unused, &conf, &toml, report).await;
    }
    let own = conf.require_host_id()?;
    let broker = Broker::find(paths).await?;
    let first = Snapshot::read(&conf)?;
    match judge(&first) {
        Err(text) if !args.force => {
            return Err(Stop::refused(format!("{text}. --force overrides this check")));
        }
        Err(text) => report.warning(&format!("{text}. Going on because of --force")),
        Ok(()) => {}
    }
    let leases = Leases::new(paths, &toml);
    let mine = own_lockspace(&leases)?;
    let renewed_here = (mine.is_some() || matches!(broker, Broker::Runs { .. })).then_some(own);
    let mut suspects: BTreeSet<HostId> = first.suspects();
    // Of a host whose lease is renewed here only its block can tell whether its agent runs.
    suspects.retain(|host| renewed_here != Some(*host) || first.blocks.contains_key(host));
    let wait = patience(&toml, &first);
    let (live, last) = watch(&conf, first, &suspects, renewed_here, wait, report).await?;
    if !live.is_empty() {
        let signs: Vec<_> = live.iter().map(|(host, sign)| format!("{}: {sign}", last.name(*host))).collect();
        let advice = "Stop the HA services of these hosts first; this cannot be forced";
        return Err(Stop::refused(format!("Refused: hosts are alive ({}). {advice}", signs.join("; "))));
    }

    let path = conf.lockspace_path()?;
    let file = SharedFile::open(&path, false)?;
    let grid = grid_of(&file)?;
    keep_copy(paths, &area(&file, grid)?, report)?;
    match broker {
        Broker::Runs { client, .. } => {
            report.info("Writing the lockspace anew through the broker of this host");
            let client = client.with_timeout(LOCKSPACE_TIMEOUT);
            client.reset_lockspace().await.map_err(|error| Stop::service(error.to_string()))?;
        }
        Broker::Absent => {
            report.info("Writing the lockspace anew directly: the broker of this host does not run");
            directly(&conf, &leases, mine.as_ref(), grid)?;
        }
    }
    report.info("The lockspace is empty; start the HA services of the hosts again");
    Ok(())
}

/// The `hosted-engine` lockspace, if this host's sanlock is in it.
fn own_lockspace(leases: &Leases) -> Result<Option<LockspaceRecord>, Stop> {
    let Leases::Sanlock { client, .. } = leases else { return Ok(None) };
    let all = client.get_lockspaces().map_err(|error| Stop::service(error.to_string()))?;
    Ok(all.into_iter().find(|record| record.lockspace.name.as_str() == LOCKSPACE_NAME))
}

fn directly(
    conf: &HostedEngineConf,
    leases: &Leases,
    mine: Option<&LockspaceRecord>,
    grid: GridSize,
) -> Result<(), Stop> {
    if let (Some(mine), Leases::Sanlock { client, .. }) = (mine, leases) {
        // Left behind by a broker that died. With `unused` nobody is killed for it.
        let options = RemoveOptions { unused: true, is_async: false };
        client
            .clone()
            .with_deadline(LOCKSPACE_TIMEOUT)
            .remove_lockspace(&mine.lockspace, options)
            .map_err(|error| Stop::service(error.to_string()))?;
    }
    Ok(leases.write_lockspace(LOCKSPACE_NAME, &conf.lockspace_path()?, grid)?)
}

/// The layout that the lockspace has; where it is too damaged to say, the one that set-up gives to such storage.
fn grid_of(file: &SharedFile) -> Result<GridSize, Stop> {
    Ok(match delta_lease::layout(file)? {
        Some(grid) => grid,
        None => grid_for(file.sector_size()?),
    })
}

/// All bytes of the lockspace.
pub(super) fn area(file: &SharedFile, grid: GridSize) -> Result<Vec<u8>, Stop> {
    let length =
        usize::try_from(grid.align_bytes()).map_err(|_| Stop::refused("the lockspace is too large"))?;
    Ok(file.read(0, length)?)
}

/// Of the whole lockspace, before anything is written to it.
pub(super) fn keep_copy(paths: &Paths, bytes: &[u8], report: &dyn Report) -> Result<(), Stop> {
    let copy = backup(paths, LOCKSPACE_NAME, bytes)?;
    report.info(&format!("Kept a copy of the lockspace in {}", copy.display()));
    Ok(())
}
