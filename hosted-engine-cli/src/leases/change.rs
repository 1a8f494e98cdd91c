//! Changing the xleases volume.

use anyhow::{Context, bail};
use clock::{Clock, SystemClock};
use ha_config::ha_toml::{Hypervisor, LeaseAdapter};
use ha_config::{HaToml, HostedEngineConf};
use sanlock_client::{Client, GridSize};
use serde_json::json;
use xleases::index::INDEX_BYTES;
use xleases::{
    Index, IndexError, LeaseName, LeasesVolume, Mend, Record, SanlockResources, Slot, VolumeError,
    grid_of_index,
};

use super::{ChangeArgs, VolumeArgs};
use crate::lease_status::gather::domain_grid;
use crate::setup::grid_for;
use crate::shared_file::SharedFile;
use crate::terminal::Terminal;

type Volume = LeasesVolume<SharedFile, SanlockResources>;

/// The volume with the right to change it, before its index is read.
struct Opened {
    file: SharedFile,
    resources: SanlockResources,
    grid: GridSize,
    lockspace: String,
}

fn open(conf: &HostedEngineConf, force: bool) -> anyhow::Result<Opened> {
    let toml = HaToml::load(conf.paths())?;
    if toml.vm.hypervisor == Hypervisor::Vdsm && !force {
        bail!(
            "this storage domain is VDSM's: its storage pool manager may change VM leases at any moment and takes no lock \
             for it. Use the engine's VM leases; or make sure that nobody changes any there, and repeat with --force"
        );
    }
    if toml.lease.adapter == LeaseAdapter::File {
        bail!(
            "leases of VMs need sanlock; {} has [lease] adapter = \"file\"",
            conf.paths().ha_toml().display()
        );
    }
    let path = conf.xleases_path()?;
    let file = SharedFile::open(&path, true)?;
    let hint = domain_grid(conf);
    let found = grid_of_index(&file, hint).with_context(|| format!("cannot read {}", path.display()))?;
    let grid = match found.or(hint) {
        Some(grid) => grid,
        None => grid_for(file.sector_size()?),
    };
    let client = Client::new(std::path::absolute(conf.paths().sanlock_socket())?);
    let lockspace = conf.sd_uuid()?.to_owned();
    let resources = SanlockResources::exclude(client, &file, grid, &lockspace)?;
    Ok(Opened { file, resources, grid, lockspace })
}

/// The path of the volume in front of what is wrong with it.
fn named(conf: &HostedEngineConf) -> impl Fn(VolumeError) -> anyhow::Error {
    let path = conf.xleases_path().map(|path| path.display().to_string()).unwrap_or_default();
    move |error| {
        let advice = match &error {
            VolumeError::Interrupted => ": hosted-engine --lease-rebuild",
            VolumeError::Index(IndexError::Blank) => ": hosted-engine --lease-format makes it ready for them",
            _ => "",
        };
        anyhow::anyhow!("{path}: {error}{advice}")
    }
}

fn to_change(conf: &HostedEngineConf, force: bool) -> anyhow::Result<Volume> {
    let Opened { file, resources, grid, lockspace } = open(conf, force)?;
    let volume = LeasesVolume::open(file, resources, grid).map_err(named(conf))?;
    same_lockspace(&volume, &lockspace, conf)?;
    Ok(volume)
}

/// A copy of another domain's volume names leases that no host here could take.
fn same_lockspace(volume: &Volume, lockspace: &str, conf: &HostedEngineConf) -> anyhow::Result<()> {
    let found = &volume.index().metadata().lockspace;
    if found != lockspace {
        bail!(
            "{}: its index is of the lockspace {found}, and this storage domain is {lockspace}: it was copied here; format \
             it anew",
            conf.xleases_path()?.display()
        );
    }
    Ok(())
}

fn now() -> u64 {
    SystemClock.wall().0.unsigned_abs()
}

/// `--lease-create`.
pub fn create(conf: &HostedEngineConf, args: &ChangeArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let name = LeaseName::new(&args.name)?;
    let lease = to_change(conf, args.force)?.add(&name).map_err(named(conf))?;
    let path = conf.xleases_path()?;
    if args.json {
        let (lockspace, offset) = (lease.lockspace, lease.offset);
        let lease = json!({ "name": args.name, "lockspace": lockspace, "path": path, "offset": offset });
        terminal.say(json!({ "created": lease }).to_string());
    } else {
        terminal.say(format!("Lease {name} made at offset {} of {}.", lease.offset, path.display()));
    }
    Ok(())
}

/// `--lease-remove`.
pub fn remove(conf: &HostedEngineConf, args: &ChangeArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let name = LeaseName::new(&args.name)?;
    let used_by_engine = HaToml::load(conf.paths())?.lease.vm;
    if used_by_engine.as_deref() == Some(name.as_str()) {
        bail!("lease {name} protects the engine VM ([lease] vm in {})", conf.paths().ha_toml().display());
    }
    to_change(conf, args.force)?.remove(&name).map_err(named(conf))?;
    if args.json {
        terminal.say(json!({ "removed": args.name }).to_string());
    } else {
        terminal.say(format!("Lease {name} removed."));
    }
    Ok(())
}

/// `--lease-rebuild`.
pub fn rebuild(conf: &HostedEngineConf, args: &VolumeArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let Opened { file, resources, grid, lockspace } = open(conf, args.force)?;
    let mut volume = LeasesVolume::open_to_mend(file, resources, grid).map_err(named(conf))?;
    same_lockspace(&volume, &lockspace, conf)?;
    let changes: Vec<String> = volume.rebuild(now()).map_err(named(conf))?.iter().map(in_words).collect();
    if args.json {
        terminal.say(json!({ "changes": changes }).to_string());
        return Ok(());
    }
    for change in &changes {
        terminal.say(change);
    }
    let count = changes.len();
    terminal.say(match count {
        0 => "Index and leases agree; nothing had to be changed.".to_owned(),
        _ => format!("{count} changes made; index and leases agree."),
    });
    Ok(())
}

fn in_words(mend: &Mend) -> String {
    match mend {
        Mend::WriteResource(slot, name) => format!("place {}: lease {name} written anew", slot.number()),
        Mend::ClearResource(slot) => format!("place {}: a lease that no record names cleared", slot.number()),
        Mend::WriteRecord(slot, name) => {
            format!("place {}: damaged record written anew for lease {name}", slot.number())
        }
        Mend::ClearRecord(slot) => {
            format!("place {}: a record that cannot be used was freed", slot.number())
        }
    }
}

/// `--lease-format`.
pub fn format(conf: &HostedEngineConf, args: &VolumeArgs, terminal: &mut Terminal) -> anyhow::Result<()> {
    let Opened { file, resources, grid, lockspace } = open(conf, args.force)?;
    let path = conf.xleases_path()?;
    let shown = path.display();
    if !args.force {
        refuse_used(&file, grid).with_context(|| shown.to_string())?;
    }
    LeasesVolume::format(file, resources, grid, &lockspace, now()).map_err(named(conf))?;
    if args.json {
        terminal.say(json!({ "formatted": path, "lockspace": lockspace }).to_string());
    } else {
        terminal.say(format!("{shown} is ready for leases."));
    }
    Ok(())
}

/// Refuses a volume whose index names leases, or holds something that nobody can read.
fn refuse_used(file: &SharedFile, grid: GridSize) -> anyhow::Result<()> {
    match Index::parse(&file.read(grid.align_bytes(), INDEX_BYTES)?) {
        Err(IndexError::Blank) => Ok(()),
        Err(error) => Err(error).context("it may hold leases; --lease-format --force writes an empty index"),
        Ok(index) => {
            let used = Slot::all().filter(|slot| !matches!(index.get(*slot), Ok(Record::Free))).count();
            anyhow::ensure!(used == 0, "{used} leases are on it, which would be lost; repeat with --force");
            Ok(())
        }
    }
}
