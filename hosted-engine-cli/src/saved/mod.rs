//! `--backup` and `--restore`: the HA configuration of a cluster and of one of its hosts in a file.
//!
//! A backup changes nothing and needs no service to run. Restoring writes configuration; blocks of the shared status only
//! where that is asked for, since they tell of a past that hosts would have to live with; leases never.

mod archive;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use clock::{Clock as _, SystemClock};
use ha_config::{HostedEngineConf, Paths, atomic, conf_volume};
use metadata_format::{BLOCK_SIZE, MAX_HOST_ID};
use sanlock_client::GridSize;

pub use archive::{ArchiveError, Saved, Whose};
pub use restore::{RestoreArgs, restore};

use crate::deployed::{self, NOT_DEPLOYED};
use crate::lease_status::gather::domain_grid;
use crate::setup::grid_for;
use crate::shared_file::SharedFile;
use crate::terminal::{Exit, Terminal};

/// Member names.
const CONFIGURATION: &str = "shared/configuration.tar";
const METADATA: &str = "shared/metadata";
const LOCKSPACE: &str = "shared/lockspace";
const XLEASES: &str = "shared/xleases";

/// Save the HA configuration in a file: the cluster's configuration and shared status, and this host's files.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// The file, which must not be there yet. It gets mode 0600: passwords are in it.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// This host's files, by their names in a backup.
fn host_files(paths: &Paths) -> [(&'static str, PathBuf); 6] {
    [
        ("host/hosted-engine.conf", paths.hosted_engine_conf()),
        ("host/answers.conf", paths.answers_conf()),
        ("host/ha.toml", paths.ha_toml()),
        ("host/agent.conf", paths.agent_conf()),
        ("host/broker.conf", paths.broker_conf()),
        ("host/vm.conf", paths.vm_conf()),
    ]
}

/// `--backup FILE`.
///
/// # Errors
/// What cannot be read or written.
pub fn backup(args: &BackupArgs, paths: &Paths, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    let Some(conf) = deployed::configuration(paths)? else { bail!(NOT_DEPLOYED) };
    ensure!(
        !args.file.exists(),
        "{} is there already: give another name, a backup is never overwritten",
        args.file.display()
    );
    let saved = gather(&conf)?;
    let bytes = saved.encode().with_context(|| args.file.display().to_string())?;
    atomic::write(&args.file, &bytes, atomic::Mode::Private)?;
    // Whoever needs it finds out too late that it cannot be read.
    let read =
        std::fs::read(&args.file).with_context(|| format!("cannot read {} back", args.file.display()))?;
    ensure!(Saved::parse(&read)? == saved, "{} reads back as something else", args.file.display());
    for (name, bytes) in &saved.members {
        terminal.say(format!("{:9} bytes  {name}", bytes.len()));
    }
    terminal.say(format!(
        "Saved in {}; it has passwords in it: keep it where only root reads it",
        args.file.display()
    ));
    Ok(Exit::OK.into())
}

fn gather(conf: &HostedEngineConf) -> anyhow::Result<Saved> {
    let advice = "is the storage connected (hosted-engine --connect-storage)?";
    let mut members = BTreeMap::new();
    for (name, path) in host_files(conf.paths()) {
        match std::fs::read(&path) {
            Ok(bytes) => drop(members.insert(name.to_owned(), bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    if let Some(path) = conf.conf_volume_path()? {
        let archive = conf_volume::read(&path).context(advice)?;
        members.insert(CONFIGURATION.to_owned(), archive.encode()?);
    }
    let blocks = (usize::from(MAX_HOST_ID) + 1) * BLOCK_SIZE;
    let metadata = read_used(&conf.metadata_path()?, 0, blocks, BLOCK_SIZE).context(advice)?;
    members.insert(METADATA.to_owned(), metadata);
    let grid = domain_grid(conf).unwrap_or(GridSize::Sector512Align1M);
    let area = usize::try_from(grid.align_bytes()).unwrap_or(usize::MAX);
    let lockspace = conf.lockspace_path()?;
    let sector = SharedFile::open(&lockspace, false)?.sector_size()?;
    let own = usize::try_from(grid_for(sector).align_bytes()).unwrap_or(usize::MAX);
    members.insert(LOCKSPACE.to_owned(), read_used(&lockspace, 0, own, 512).context(advice)?);
    let xleases = conf.xleases_path()?;
    if xleases.exists() {
        // The index: slot 1.
        members.insert(XLEASES.to_owned(), read_used(&xleases, grid.align_bytes(), area, 512)?);
    }
    Ok(Saved { whose: whose(conf)?, members })
}

fn whose(conf: &HostedEngineConf) -> anyhow::Result<Whose> {
    Ok(Whose {
        at: SystemClock.wall().0,
        host_id: conf.require_host_id()?.get(),
        host_name: node_name(),
        fqdn: conf.fqdn()?.to_owned(),
        sd_uuid: conf.sd_uuid()?.to_owned(),
        vmid: conf.vmid()?.to_owned(),
    })
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Up to the last unit that is not all zeros. A file may end earlier than `len`.
fn read_used(path: &Path, offset: u64, len: usize, unit: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = SharedFile::open(path, false)?.read(offset, len)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used.next_multiple_of(unit).min(bytes.len()));
    Ok(bytes)
}
