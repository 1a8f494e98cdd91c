//! The leases of VMs in the storage domain's xleases volume: `--lease-list`, `--lease-info`, `--lease-create`,
//! `--lease-remove`, `--lease-rebuild`, `--lease-format`; and which of them the engine VM has, `--lease-use`.
//!
//! ```text
//!  is the domain VDSM's? ── yes, and no --force ──▶ refused: its storage pool manager changes this volume
//!    └── the right to change the volume (a sanlock lease in the volume itself) ── refused while another host has it
//!          └── the index read anew ── the change, in the order that survives a crash ── read back
//! ```
//!
//! Looking needs no daemon. Whatever may be held by a host that is not known to be gone is never overwritten, with or
//! without `--force`.

mod change;
mod show;
mod use_for_engine;

use clap::{Args, Subcommand};
use ha_config::{HostedEngineConf, Paths};

use crate::deploy::moved_notice;
use crate::repair::deployed;
use crate::terminal::{Exit, Terminal};

/// The commands. They block, and need no runtime.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Show the leases of VMs on the storage domain (its xleases volume), and who holds them.
    LeaseList(ListArgs),
    /// Show one lease: where it is, whether it is FREE or EXCLUSIVE, and whose.
    LeaseInfo(InfoArgs),
    /// Make a lease on the storage domain's xleases volume.
    LeaseCreate(ChangeArgs),
    /// Remove a lease that nobody holds.
    LeaseRemove(ChangeArgs),
    /// Make the index of the xleases volume and the leases on it agree again, after a crash or damage.
    LeaseRebuild(VolumeArgs),
    /// Write an empty index to the xleases volume of a new storage domain.
    LeaseFormat(VolumeArgs),
    /// Show the recovery-time profiles ([lease] profile in ha.toml): what each requires of storage, and when the leases of a
    /// lost host are free. N is sanlock's I/O time-out, W the watchdog's fire time-out; all in seconds.
    LeaseProfiles,
    /// Change which lease protects the engine VM, while it is shut down: one of the xleases volume, or its disk's own.
    LeaseUse(UseArgs),
}

/// Arguments of `--lease-list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// JSON on one line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `--lease-info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// The lease's name, usually a VM's uuid.
    pub name: String,
    /// JSON on one line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `--lease-create` and `--lease-remove`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The lease's name: 1 to 48 printable characters, usually a VM's uuid.
    pub name: String,
    /// JSON on one line.
    #[arg(long)]
    pub json: bool,
    /// Also on a storage domain that VDSM manages: nobody may change VM leases in the engine meanwhile.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `--lease-rebuild` and `--lease-format`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// JSON on one line.
    #[arg(long)]
    pub json: bool,
    /// Also on a storage domain that VDSM manages (nobody may change VM leases in the engine meanwhile); and formats a
    /// volume although its index names leases, or cannot be read.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `--lease-use`.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// The lease, made with --lease-create.
    #[arg(required_unless_present = "disk", conflicts_with = "disk")]
    pub name: Option<String>,
    /// Go back to the lease of the VM's disk.
    #[arg(long)]
    pub disk: bool,
}

/// Does it. Exit code 1 when it was not done, or there is no such lease.
pub fn run(command: &LeaseCommand, paths: &Paths, terminal: &mut Terminal) -> Exit {
    if matches!(command, LeaseCommand::LeaseProfiles) {
        terminal.print(&ha_config::ha_toml::profile_table());
        return Exit::OK;
    }
    let conf = match deployed(paths) {
        Ok(conf) => conf,
        Err(stop) => {
            terminal.complain(&stop.text);
            return Exit(stop.code);
        }
    };
    match carry_out(command, &conf, terminal) {
        Ok(()) => Exit::OK,
        Err(error) => {
            terminal.complain(format!("{error:#}"));
            Exit::FAILED
        }
    }
}

fn carry_out(command: &LeaseCommand, conf: &HostedEngineConf, terminal: &mut Terminal) -> anyhow::Result<()> {
    let changes = !matches!(command, LeaseCommand::LeaseList(_) | LeaseCommand::LeaseInfo(_));
    if let Some(notice) = moved_notice(conf).filter(|_| changes) {
        // A lease that was made there could protect the VM on the former disk.
        anyhow::bail!(notice);
    }
    match command {
        LeaseCommand::LeaseList(args) => show::list(conf, args.json, terminal),
        LeaseCommand::LeaseInfo(args) => show::one(conf, &args.name, args.json, terminal),
        LeaseCommand::LeaseCreate(args) => change::create(conf, args, terminal),
        LeaseCommand::LeaseRemove(args) => change::remove(conf, args, terminal),
        LeaseCommand::LeaseRebuild(args) => change::rebuild(conf, args, terminal),
        LeaseCommand::LeaseFormat(args) => change::format(conf, args, terminal),
        // Needs no deployed host.
        LeaseCommand::LeaseProfiles => Ok(()),
        LeaseCommand::LeaseUse(args) => use_for_engine::switch(conf, args, terminal),
    }
}
