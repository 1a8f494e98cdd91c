//! `--clean-metadata`: the cluster forgets a host, until that host writes its block again.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use broker_api::BrokerClient;
use broker_api::client::LOCKSPACE_TIMEOUT;
use broker_api::status::{LeaseState, StatusDocument};
use clap::Args;
use ha_config::{HaToml, HostedEngineConf, Paths};
use metadata_format::{BLOCK_SIZE, BlockError, HostBlock, HostId, block_offset};

use super::liveness::{Snapshot, patience, read_block, watch};
use super::{Broker, Stop, deployed, finish};
use crate::backup::backup;
use crate::setup::{Lines, Report};
use crate::shared_file::SharedFile;

/// Remove a host's block from the shared status, so that the other hosts forget it.
#[derive(Debug, Clone, Default, Args)]
pub struct CleanMetadataArgs {
    /// Go on although the host's agent did not stop in order, or its block cannot be read. A host that is seen alive
    /// is never cleaned.
    #[arg(long)]
    pub force_cleanup: bool,
    /// The host to forget; default: this host.
    #[arg(long, value_name = "ID")]
    pub host_id: Option<HostId>,
}

/// Runs the command.
pub fn clean_metadata(args: &CleanMetadataArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    finish(clean(args, paths, &Lines))
}

/// What a block and the signs of life allow.
pub(super) fn judge(
    name: &str,
    block: &Result<Option<HostBlock>, BlockError>,
    sign_of_life: Option<&str>,
    force: bool,
) -> Result<(), String> {
    if let Some(sign) = sign_of_life {
        return Err(format!("Refused: {name} is alive: {sign}. Stop ovirt-ha-agent there first"));
    }
    match block {
        _ if force => Ok(()),
        Ok(Some(block)) if !block.stopped => Err(format!(
            "Refused: the agent of {name} did not stop in order, so its host may be cut off and come back. Stop \
             ovirt-ha-agent there, or use --force-cleanup when that host is gone for good"
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Refused: {error}. Use --force-cleanup to remove it all the same")),
    }
}

pub(super) async fn clean(args: &CleanMetadataArgs, paths: &Paths, report: &dyn Report) -> Result<(), Stop> {
    let conf = deployed(paths)?;
    let toml = HaToml::load(paths)?;
    let own = conf.require_host_id()?;
    let host = args.host_id.unwrap_or(own);
    let broker = Broker::find(paths).await?;
    if let Broker::Runs { status: Some(status), .. } = &broker
        && host == own
        && status.agent.is_some()
    {
        let advice = "stop it first (systemctl stop ovirt-ha-agent), and wait a minute after a crash";
        return Err(Stop::refused(format!("Refused: ovirt-ha-agent runs on this host: {advice}")));
    }

    let first = Snapshot::read(&conf)?;
    if !first.blocks.contains_key(&host) {
        report.info(&format!("There is no metadata of host {host}: nothing to do"));
        return Ok(());
    }
    let name = first.name(host);
    let suspects: BTreeSet<_> = first.suspects().into_iter().filter(|suspect| *suspect == host).collect();
    // A lease on this host's own id is renewed here, by our own broker's wish.
    let ours = matches!(broker, Broker::Runs { .. }).then_some(own);
    if let (Err(text), false) =
        (judge(&name, &first.block(host), None, args.force_cleanup), suspects.is_empty())
    {
        return Err(Stop::refused(text));
    }
    let wait = patience(&toml, &first);
    let (live, last) = watch(&conf, first, &suspects, ours, wait, report).await?;
    judge(&name, &last.block(host), live.get(&host).copied(), args.force_cleanup).map_err(Stop::refused)?;

    erase(&conf, broker, own, host, report).await?;
    report.info(&format!("The cluster has forgotten {name}"));
    Ok(())
}

/// Removes the block of this host, whose agent was stopped here, through the broker, which must run. Nothing to do when
/// there is none.
pub(crate) async fn forget_this_host(paths: &Paths, report: &dyn Report) -> Result<(), Stop> {
    let conf = deployed(paths)?;
    let own = conf.require_host_id()?;
    let metadata = conf.metadata_path()?;
    if read_block(&SharedFile::open(&metadata, false)?, own)?[0] == 0 {
        return Ok(());
    }
    match Broker::find(paths).await? {
        Broker::Absent => Err(Stop::service("The broker of this host does not run")),
        broker @ Broker::Runs { .. } => erase(&conf, broker, own, own, report).await,
    }
}

/// Keeps a copy of a block and writes zeros over it.
async fn erase(
    conf: &HostedEngineConf,
    broker: Broker,
    own: HostId,
    host: HostId,
    report: &dyn Report,
) -> Result<(), Stop> {
    let (paths, metadata) = (conf.paths(), conf.metadata_path()?);
    let bytes = read_block(&SharedFile::open(&metadata, false)?, host)?;
    let copy = backup(paths, &format!("hosted-engine.metadata.host-{host}"), &bytes)?;
    report.info(&format!("Kept a copy of the block in {}", copy.display()));
    match broker {
        Broker::Runs { client, status } if host == own => {
            report.info("Cleaning the metadata block through the broker of this host");
            through_broker(client, status.as_deref(), host).await?;
        }
        Broker::Runs { .. } | Broker::Absent => {
            let why = if host == own {
                "the broker does not run"
            } else {
                "the broker owns only this host's block"
            };
            report.info(&format!("Cleaning the metadata block directly on the storage: {why}"));
            SharedFile::open(&metadata, true)?.write(block_offset(host.get()), &[0; BLOCK_SIZE])?;
        }
    }
    Ok(())
}

/// The broker writes a block only while it holds the id's lease.
async fn through_broker(
    client: BrokerClient,
    status: Option<&StatusDocument>,
    host: HostId,
) -> Result<(), Stop> {
    let failed = |error: broker_api::ClientError| Stop::service(format!("Nothing was changed: {error}"));
    let held = status.is_some_and(|status| matches!(status.lease, LeaseState::Held { .. }));
    if !held {
        let patient = client.clone().with_timeout(LOCKSPACE_TIMEOUT.max(Duration::from_secs(1)));
        patient.lock_host_id(host.get()).await.map_err(failed)?;
    }
    let written = client.put_stats(host.get(), &[0; BLOCK_SIZE]).await.map_err(failed);
    if !held {
        client.release_host_id().await.map_err(|error| {
            Stop::service(format!("The host id was taken for the repair and could not be given up: {error}"))
        })?;
    }
    written
}
