//! What a deployment is to do, complete and checked: every question is answered, every uuid is drawn. It stands in the
//! journal's first line, so that a deployment goes on as it began. Secrets are not in it: see [`super::Secrets`].

use std::net::IpAddr;
use std::path::PathBuf;

use ha_config::ha_toml::Hypervisor;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Make the storage domain and the engine VM; this host becomes number 1, or the number asked for.
    FirstHost(Box<FirstHost>),
    /// Make this host a member of what is there.
    FurtherHost(Box<FurtherHost>),
}

impl Request {
    /// The storage that the cluster leaves for the one of this request; `None` of a deployment.
    pub fn moves(&self) -> Option<&Former> {
        match self {
            Self::FirstHost(first) => first.moves.as_ref(),
            Self::FurtherHost(further) => further.moves.as_ref(),
        }
    }

    /// Who runs the VM.
    pub fn hypervisor(&self) -> Hypervisor {
        match self {
            Self::FirstHost(first) => first.hypervisor,
            Self::FurtherHost(further) => further.hypervisor,
        }
    }
}

/// The first host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstHost {
    /// Who runs the VM.
    pub hypervisor: Hypervisor,
    /// Address family of names that have both.
    pub family: Family,
    /// Where the storage domain is made.
    pub storage: Storage,
    /// The storage domain's name.
    pub domain_name: String,
    /// The data centre's name in the engine.
    pub datacenter: String,
    /// The host's network.
    pub network: Network,
    /// The engine VM.
    pub vm: Vm,
    /// The engine in it.
    pub engine: Engine,
    /// This host.
    pub host: HostIdentity,
    /// The uuids that are drawn once.
    pub ids: Ids,
    /// ha.toml of all hosts; empty for the defaults.
    pub ha_toml: String,
    /// The cluster is there already, on this other storage, and moves: what is made is filled with what was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Former>,
}

/// A further host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherHost {
    /// Who runs the VM, as on the cluster's other hosts.
    #[serde(default)]
    pub hypervisor: Hypervisor,
    /// Where the cluster's storage domain is.
    pub storage: Storage,
    /// The host's network. `bridge`, `gateway` and the test come from the cluster's configuration.
    pub network: Network,
    /// This host.
    pub host: HostIdentity,
    /// The storage domain that was found.
    pub sd_uuid: Uuid,
    /// This host belongs to the cluster already, which has moved here from this other storage: the host follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Former>,
}

/// The storage that a cluster leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// This host's hosted-engine.conf before, without its password: where everything was.
    pub hosted_engine_conf: String,
}

impl Former {
    /// As [`HostedEngineConf::load`](ha_config::HostedEngineConf::load) gave it before.
    pub fn conf(&self, paths: &ha_config::Paths) -> ha_config::HostedEngineConf {
        ha_config::HostedEngineConf::parse(paths, &self.hosted_engine_conf)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Whichever a name has; IPv4 when both.
    #[default]
    Auto,
    /// `--4`
    V4,
    /// `--6`
    V6,
}

impl Family {
    /// Whether an address is of it.
    pub const fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Auto => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Kind of shared storage, as the operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StorageKind {
    /// NFS, the version found by trying.
    Nfs,
    /// NFS version 3.
    Nfs3,
    /// NFS version 4.
    Nfs4,
    /// `GlusterFS`.
    Glusterfs,
    /// iSCSI.
    Iscsi,
    /// Fibre Channel.
    Fc,
    /// A directory of this host, or one that somebody else has mounted. `posixfs` in hosted-engine.conf.
    Directory,
}

/// Shared storage and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Its kind.
    pub kind: StorageKind,
    /// `server:/path`, a directory, or portals of iSCSI (`10.0.0.1,10.0.0.2`); empty for Fibre Channel.
    pub connection: String,
    /// Options of the mount; may be empty.
    pub mount_options: String,
    /// iSCSI's target.
    pub iscsi: Option<Iscsi>,
    /// The device of block storage.
    pub lun: Option<Lun>,
}

/// An iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iscsi {
    /// Its name, `iqn.…`.
    pub target: String,
    /// Target portal group.
    pub tpgt: u16,
    /// TCP port of its portals, in their order.
    pub ports: Vec<u16>,
    /// CHAP user; its password is a secret.
    pub user: Option<String>,
    /// CHAP user for discovery, which may be another one; its password is a secret too.
    #[serde(default)]
    pub discovery_user: Option<String>,
}

/// A device of block storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lun {
    /// Its identity on every host: the WWID (`3600…`), or the path of a device (`/dev/…`) that is the same everywhere.
    pub id: String,
    /// Bytes.
    pub bytes: u64,
}

/// The host's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The management bridge, `ovirtmgmt`.
    pub bridge: String,
    /// Where it comes from.
    pub origin: BridgeOrigin,
    /// Address that the network monitor pings.
    pub gateway: Option<IpAddr>,
    /// `ping`, `dns`, `tcp` or `none`.
    pub test: String,
    /// Host and port of the test `tcp`.
    pub tcp_target: Option<(String, u16)>,
    /// Whether the host's firewall is opened where one is managed.
    pub open_firewall: bool,
}

/// Where the management bridge comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeOrigin {
    /// It is there already.
    Adopted,
    /// It is made over this network card, whose addresses and routes it takes.
    Over(String),
}

/// The engine VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// What it boots from at first.
    pub boot: Boot,
    /// Its disk, in GiB; at least the image's own size.
    pub disk_gib: u64,
    /// Memory in MB.
    pub memory_mb: u64,
    /// Processors.
    pub vcpus: u32,
    /// MAC address of its network card.
    pub mac: String,
    /// `vnc` or `spice`.
    pub console: String,
    /// Machine type; `None` for the hypervisor's own.
    pub machine: Option<String>,
    /// CPU model; `None` for the hypervisor's own.
    pub cpu: Option<String>,
    /// Boots this kernel without a boot loader: kernel, initial RAM disk, command line. Paths exist on every host.
    pub kernel: Option<(PathBuf, Option<PathBuf>, String)>,
    /// What the VM is told at its first start.
    pub seed: Option<Seed>,
}

/// What the engine VM boots from at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// From installation media; afterwards from its disk.
    Cdrom(PathBuf),
    /// From the network; afterwards from its disk.
    Pxe,
    /// From its disk: a copy of this image or appliance (raw, qcow2, OVA), or an empty one with a kernel of its own.
    Disk(Option<PathBuf>),
}

/// Cloud-init's seed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seed {
    /// The VM's name; default the engine's.
    pub hostname: Option<String>,
    /// SSH keys of root.
    pub ssh_keys: Vec<String>,
    /// `10.0.0.5/24`; default DHCP.
    pub address: Option<String>,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    /// `Europe/Prague`.
    pub timezone: Option<String>,
}

/// The engine in the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its fully qualified domain name.
    pub fqdn: String,
    /// This host's name in the engine.
    pub host_name: String,
}

/// This host in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// Its number, 1 to 2000.
    pub id: u16,
    /// Its name, as it stands in its block.
    pub name: String,
}

/// A volume's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeIds {
    /// Its image.
    pub image: Uuid,
    /// The volume.
    pub volume: Uuid,
}

/// The uuids of a new cluster, drawn once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The deployment itself; marks what it makes.
    pub deploy: Uuid,
    /// The storage domain.
    pub sd: Uuid,
    /// The storage connection.
    pub connection: Uuid,
    /// The VM.
    pub vm: Uuid,
    /// Volume of the hosts' blocks.
    pub metadata: VolumeIds,
    /// Volume of the lockspace.
    pub lockspace: VolumeIds,
    /// Volume of the configuration.
    pub configuration: VolumeIds,
    /// The VM's disk.
    pub disk: VolumeIds,
}

impl VolumeIds {
    fn draw() -> Self {
        Self { image: Uuid::new_v4(), volume: Uuid::new_v4() }
    }
}

impl Ids {
    /// New ones.
    pub fn draw() -> Self {
        Self {
            deploy: Uuid::new_v4(),
            sd: Uuid::new_v4(),
            connection: Uuid::new_v4(),
            vm: Uuid::new_v4(),
            metadata: VolumeIds::draw(),
            lockspace: VolumeIds::draw(),
            configuration: VolumeIds::draw(),
            disk: VolumeIds::draw(),
        }
    }
}
