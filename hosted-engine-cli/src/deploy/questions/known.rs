//! What a question may depend on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ha_config::Paths;
use ha_config::ha_toml::Hypervisor;
use uuid::Uuid;

use super::{YES, keys};
use crate::deploy::vm::image::Proposal;
use crate::deploy::{DeployError, Family, Secrets, Storage};
use crate::setup::ClusterConf;

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway.
    pub address: IpAddr,
    /// The interface that it is behind.
    pub nic: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// It is a bridge.
    pub is_bridge: bool,
    /// A bridge can be made over it: an Ethernet card, bond or VLAN that belongs to nothing else.
    pub can_be_bridged: bool,
}

/// What this host is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Its fully qualified name, or what there is of it.
    pub name: String,
    /// Its default routes, the one that is used first.
    pub gateways: Vec<Gateway>,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// Its addresses but the loopback's.
    pub addresses: Vec<IpAddr>,
    /// Its memory, in MB (2²⁰ bytes); 0 when it does not say.
    pub memory_mb: u64,
    /// Its processors.
    pub cpus: u32,
    /// Its name servers but the loopback's.
    pub name_servers: Vec<IpAddr>,
    /// Its time zone.
    pub time_zone: Option<String>,
    /// What is installed to run VMs.
    pub hypervisor: Hypervisor,
}

/// Looks at this host and its surroundings. A port: tests give a host of their own.
pub trait Lookups {
    /// What this host is like.
    fn facts(&self) -> HostFacts;

    /// The addresses of a name, of this family.
    ///
    /// # Errors
    /// Why there are none.
    fn resolve(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, String>;

    /// How many bytes a file has that can be read.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn file(&self, path: &Path) -> Result<u64, String>;

    /// What a disk image or appliance proposes for the VM. An archive may have to be read to its end for that.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn image(&self, path: &Path) -> Result<Proposal, String>;

    /// The text of a small file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> Result<String, String>;
}

/// Looks at the storage that was answered. A port: the storage backends know how.
pub trait StorageLookups {
    /// The targets that iSCSI portals offer.
    ///
    /// # Errors
    /// Why they cannot be asked.
    fn targets(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Target>, DeployError>;

    /// The devices of block storage, after a login where it needs one. When the storage names a device and this host
    /// has it, it alone: nothing else is looked for.
    ///
    /// # Errors
    /// Why they cannot be listed.
    fn devices(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Device>, DeployError>;

    /// The hosted engines on this storage. Nothing is changed there; what this host has to mount or log in for it is
    /// undone.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    fn clusters(&self, storage: &Storage, secrets: &Secrets) -> Result<Vec<Cluster>, DeployError>;
}

/// An iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `iqn.…`
    pub name: String,
    /// Its target portal group tag.
    pub tpgt: u16,
    /// Where it is reached, address and port.
    pub portals: Vec<(String, u16)>,
}

/// A device of block storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// As in [`crate::deploy::Lun`].
    pub id: String,
    /// Its size.
    pub bytes: u64,
    /// Vendor, model, paths, what is on it; for people.
    pub about: String,
}

/// A hosted engine that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its storage domain.
    pub sd_uuid: Uuid,
    /// Its engine's name.
    pub fqdn: String,
    /// Its management bridge.
    pub bridge: String,
    /// What its hosts ping.
    pub gateway: Option<IpAddr>,
    /// How its hosts test the network.
    pub test: String,
    /// Host and port of the test `tcp`.
    pub tcp_target: Option<(String, u16)>,
    /// The host ids in use, each with its owner.
    pub taken: BTreeMap<u16, String>,
    /// When those that wrote a block did so, by their own clocks and in their words.
    pub last_seen: BTreeMap<u16, String>,
    /// The I/O time-outs N in seconds with which its hosts renew their leases; none where it has no such leases.
    pub io_timeouts: BTreeMap<u16, u16>,
    /// Its configuration.
    pub conf: ClusterConf,
    /// The lowest host id whose block is absent and whose lease is free.
    pub next_id: Option<u16>,
}

/// What was found out on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// By [`super::Look::Targets`].
    pub targets: Vec<Target>,
    /// By [`super::Look::Devices`].
    pub devices: Vec<Device>,
    /// By [`super::Look::Clusters`].
    pub clusters: Vec<Cluster>,
}

/// What is known when a question is asked.
pub struct Known<'a> {
    /// This host's places.
    pub paths: &'a Paths,
    /// What this host is like.
    pub facts: HostFacts,
    /// To look further.
    pub lookups: &'a dyn Lookups,
    /// The storage of `--join`.
    pub join: Option<String>,
    /// A MAC address that nobody has.
    pub mac: String,
    /// `--4`, `--6`.
    pub family: Family,
    /// What was found out.
    pub found: Found,
    /// The answers so far, in their normal form; may be empty texts. No passwords.
    pub given: BTreeMap<&'static str, String>,
    /// The passwords so far.
    pub secrets: BTreeMap<&'static str, ha_config::Secret>,
    /// The images that were looked at, which takes long.
    images: RefCell<BTreeMap<String, Proposal>>,
}

impl<'a> Known<'a> {
    /// Before the first question.
    pub fn begin(paths: &'a Paths, lookups: &'a dyn Lookups, join: Option<String>, family: Family) -> Self {
        Self {
            paths,
            facts: lookups.facts(),
            lookups,
            join,
            mac: super::draw_mac(),
            family,
            found: Found::default(),
            given: BTreeMap::new(),
            secrets: BTreeMap::new(),
            images: RefCell::default(),
        }
    }
}

impl Known<'_> {
    /// An answer that is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.given.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Whether this is the answer.
    pub fn is(&self, key: &str, value: &str) -> bool {
        self.get(key) == Some(value)
    }

    /// Whether the answer is yes.
    pub fn is_yes(&self, key: &str) -> bool {
        self.is(key, YES)
    }

    /// Whether this host becomes a further one.
    pub fn is_join(&self) -> bool {
        self.join.is_some() || self.is_yes(keys::JOIN)
    }

    /// Whether the storage is a device.
    pub fn is_block(&self) -> bool {
        self.is(keys::DOMAIN_TYPE, "iscsi") || self.is(keys::DOMAIN_TYPE, "fc")
    }

    /// The address family that counts.
    pub fn family(&self) -> Family {
        match self.family {
            Family::Auto if self.is_yes(keys::FORCE_IPV4) => Family::V4,
            Family::Auto if self.is_yes(keys::FORCE_IPV6) => Family::V6,
            family => family,
        }
    }

    /// The default route of the family that counts.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.facts.gateways.iter().find(|gateway| self.family().has(gateway.address))
    }

    /// The cluster to join.
    pub fn cluster(&self) -> Option<&Cluster> {
        let wanted = self.get(keys::STORAGE_DOMAIN)?;
        self.found.clusters.iter().find(|cluster| cluster.sd_uuid.to_string() == wanted)
    }

    /// The management bridge: the cluster's, or what was answered.
    pub fn bridge(&self) -> Option<&str> {
        if self.is_join() {
            return self.cluster().map(|cluster| cluster.bridge.as_str());
        }
        self.get(keys::BRIDGE)
    }

    /// What an image at this path proposes.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn image_at(&self, path: &str) -> Result<Proposal, String> {
        if let Some(known) = self.images.borrow().get(path) {
            return Ok(*known);
        }
        let proposal = self.lookups.image(Path::new(path))?;
        self.images.borrow_mut().insert(path.to_owned(), proposal);
        Ok(proposal)
    }

    /// What the image that was answered proposes, if there is one.
    pub fn image(&self) -> Option<Proposal> {
        self.image_at(self.get(keys::IMAGE)?).ok()
    }

    /// Whether an interface of this name is a bridge already.
    pub fn has_bridge(&self, name: &str) -> bool {
        self.facts.nics.iter().any(|nic| nic.is_bridge && nic.name == name)
    }
}
