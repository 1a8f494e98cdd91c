//! `hosted-engine setup …`: set-up from the command line, for scripts and for the sandbox.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use clock::{Clock, SystemClock};
use ha_config::{DomainType, Paths};
use metadata_format::HostId;

use super::{
    ClusterSpec, DiskSource, HostSpec, Lines, StorageSpec, VmSpec, configure_host, create_storage,
    find_cluster,
};

/// ha.toml of a new cluster when none is given.
const NEW_CLUSTER_TOML: &str = "# Written by set-up. All keys: see the documentation of ha.toml.\n\n\
                                [score]\nprofile = \"founding\"\n";

/// Set up a cluster step by step: first the storage, then each host.
#[derive(Debug, Args)]
pub struct SetupArgs {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Make a new storage domain with all volumes and leases on storage that is mounted here.
    Storage(Box<StorageArgs>),
    /// Make this host a member of the cluster on a storage domain that is mounted here.
    Host(HostArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Nfs,
    Nfs3,
    Nfs4,
    Glusterfs,
    Posixfs,
}

impl From<Kind> for DomainType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Nfs => Self::Nfs,
            Kind::Nfs3 => Self::Nfs3,
            Kind::Nfs4 => Self::Nfs4,
            Kind::Glusterfs => Self::Glusterfs,
            Kind::Posixfs => Self::Posixfs,
        }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// The storage's connection, for example `server:/path`; it must be mounted already.
    #[arg(long)]
    storage: String,
    /// Kind of storage.
    #[arg(long, value_enum, default_value = "nfs")]
    domain_type: Kind,
}

#[derive(Debug, Args)]
struct StorageArgs {
    #[command(flatten)]
    place: Place,
    /// The storage domain's name.
    #[arg(long, default_value = "hosted_storage")]
    name: String,
    /// The engine's fully qualified domain name.
    #[arg(long)]
    fqdn: String,
    /// The management bridge.
    #[arg(long, default_value = "ovirtmgmt")]
    bridge: String,
    /// Address that the network monitor pings.
    #[arg(long)]
    gateway: Option<String>,
    /// How the network is tested.
    #[arg(long, default_value = "ping", value_parser = ["ping", "dns", "tcp", "none"])]
    network_test: String,
    /// HOST:PORT for --network-test=tcp.
    #[arg(long)]
    tcp_target: Option<String>,
    /// Copy the VM's disk from this raw image.
    #[arg(long)]
    disk_image: Option<PathBuf>,
    /// Size of the VM's disk in GiB; with an image, its least size (default then: the image's own).
    #[arg(long)]
    disk_gib: Option<u64>,
    /// The VM's memory in MB.
    #[arg(long, default_value_t = 4096)]
    memory: u64,
    /// The VM's processors.
    #[arg(long, default_value_t = 2)]
    vcpus: u32,
    /// The VM's MAC address; default: a new one.
    #[arg(long)]
    mac: Option<String>,
    /// The VM's console: vnc or spice.
    #[arg(long, default_value = "vnc")]
    console: String,
    /// The VM's machine type.
    #[arg(long)]
    machine: Option<String>,
    /// The VM's CPU model.
    #[arg(long)]
    cpu: Option<String>,
    /// Boot this kernel without a boot loader; a path that exists on every host.
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Initial RAM disk of --kernel.
    #[arg(long, requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Command line of --kernel.
    #[arg(long, requires = "kernel")]
    kernel_args: Option<String>,
    /// ha.toml for all hosts of the cluster.
    #[arg(long)]
    ha_toml: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HostArgs {
    #[command(flatten)]
    place: Place,
    /// This host's number, 1 to 2000.
    #[arg(long)]
    host_id: HostId,
    /// This host's name; default: the system's.
    #[arg(long)]
    hostname: Option<String>,
}

/// Runs one step.
pub fn run(args: SetupArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    match args.step {
        Step::Storage(args) => storage(*args, paths),
        Step::Host(args) => host(&args, paths),
    }
}

fn storage(args: StorageArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    let bytes =
        args.disk_gib.map(|gib| gib.checked_mul(1 << 30).context("--disk-gib is too large")).transpose()?;
    let disk = match (args.disk_image, bytes) {
        (Some(image), bytes) => DiskSource::Copy(image, bytes.unwrap_or(0)),
        (None, bytes) => DiskSource::Empty(bytes.unwrap_or(25 << 30)),
    };
    let tcp_target = match (args.network_test.as_str(), args.tcp_target) {
        ("tcp", None) => bail!("--network-test=tcp needs --tcp-target=HOST:PORT"),
        (_, None) => None,
        (_, Some(text)) => {
            let (host, port) = text.rsplit_once(':').context("--tcp-target must be HOST:PORT")?;
            let port = port.parse().with_context(|| format!("--tcp-target: {port:?} is no TCP port"))?;
            Some((host.to_owned(), port))
        }
    };
    let ha_toml = match args.ha_toml {
        Some(path) => {
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => NEW_CLUSTER_TOML.to_owned(),
    };
    let fresh = VmSpec::new();
    let vm = VmSpec {
        memory_mb: args.memory,
        vcpus: args.vcpus,
        mac: args.mac.unwrap_or(fresh.mac),
        graphics: args.console,
        machine: args.machine,
        cpu: args.cpu,
        kernel: args.kernel,
        initrd: args.initrd,
        kernel_args: args.kernel_args,
        ..fresh
    };
    let cluster = ClusterSpec {
        fqdn: args.fqdn,
        bridge: args.bridge,
        gateway: args.gateway,
        network_test: args.network_test,
        tcp_target,
        vm,
        ha_toml,
    };
    let storage = StorageSpec {
        domain_type: args.place.domain_type.into(),
        storage: args.place.storage,
        name: args.name,
        disk,
    };
    let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
    create_storage(paths, &storage, &cluster, now, &Lines)?;
    Ok(ExitCode::SUCCESS)
}

fn host(args: &HostArgs, paths: &Paths) -> anyhow::Result<ExitCode> {
    let storage = StorageSpec {
        domain_type: args.place.domain_type.into(),
        storage: args.place.storage.clone(),
        name: String::new(),
        disk: DiskSource::Empty(0),
    };
    let cluster = find_cluster(paths, &storage)?;
    let hostname = args
        .hostname
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    configure_host(paths, &cluster, &HostSpec { host_id: args.host_id, hostname }, &Lines)?;
    Ok(ExitCode::SUCCESS)
}
