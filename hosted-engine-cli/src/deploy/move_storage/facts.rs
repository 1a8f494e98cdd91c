//! What must be so before a cluster moves, all of it looked at before anything is done.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use broker_api::BrokerClient;
use engine_vm::lease::LeaseOwner;
use ha_config::ha_toml::{Hypervisor, LeaseAdapter};
use ha_config::hosted_engine::normal_connection;
use ha_config::{HaToml, HostedEngineConf, Paths, VmConf, atomic};
use metadata_format::HostId;
use uuid::Uuid;

use super::cluster::{check_vm, without_password};
use super::{lease, note};
use crate::deploy::dialogue::NewStorage;
use crate::deploy::services_steps::asked;
use crate::deploy::storage::find::Hosts;
use crate::deploy::{
    Boot, BridgeOrigin, DeployError, Engine, Family, FirstHost, Former, FurtherHost, HostIdentity, Ids,
    Network, Request, Storage, StorageKind, Vm, VolumeIds,
};
use crate::deployed::{self, NOT_DEPLOYED};
use crate::setup::ClusterConf;
use crate::shared_file::{SharedFile, UNIT};
use crate::status::View;

/// How long a read of shared storage may take before it counts as hanging.
const READ: Duration = Duration::from_secs(10);

/// Reads storage. A read that hangs does not come back: it is left behind.
fn soon<T: Send + 'static>(
    what: &str,
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody may listen any more.
        let _ = tell.send(read());
    });
    told.recv_timeout(READ)
        .unwrap_or_else(|_| Err(format!("it does not answer within {} s", READ.as_secs())))
        .map_err(|why| format!("{what} cannot be read: {why}"))
}

/// This host as a member of the cluster that moves.
#[derive(Debug)]
pub(super) struct Member {
    pub conf: HostedEngineConf,
    pub id: HostId,
    pub toml: HaToml,
    ha_toml: String,
}

impl Member {
    /// Of a host that is deployed without VDSM.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(paths: &Paths) -> anyhow::Result<Self> {
        let Some(conf) = deployed::configuration(paths)? else { anyhow::bail!(NOT_DEPLOYED) };
        let (id, toml) = (conf.require_host_id()?, HaToml::load(paths)?);
        anyhow::ensure!(
            toml.vm.hypervisor != Hypervisor::Vdsm,
            "VDSM manages this host, and the engine knows the storage domain by its own records: only the engine can move it. \
             Make a backup in the engine (engine-backup), deploy anew on the new storage, and restore it there"
        );
        let ha_toml = match atomic::read_text(&paths.ha_toml()) {
            Err(error) if error.is_not_found() => String::new(),
            other => other?,
        };
        Ok(Self { conf, id, toml, ha_toml })
    }

    /// What a request has of the storage that is left.
    pub fn former(&self) -> Former {
        Former { hosted_engine_conf: without_password(&self.conf) }
    }

    fn network(&self) -> Network {
        Network {
            bridge: self.conf.bridge().unwrap_or_default().to_owned(),
            origin: BridgeOrigin::Adopted,
            gateway: self.conf.file().get("gateway").and_then(|text| text.parse().ok()),
            test: "none".to_owned(),
            tcp_target: None,
            open_firewall: false,
        }
    }

    /// The move as this host begins it. The VM and its disk keep their uuids.
    pub fn first(&self, new: &NewStorage, seen: &Seen, name: String) -> anyhow::Result<Request> {
        let (cluster, bytes) = match (&seen.cluster, &seen.disk) {
            (Ok(cluster), Ok(bytes)) => (cluster, *bytes),
            _ => anyhow::bail!("the former storage cannot be read"),
        };
        let uuid = |text: &str| Uuid::try_parse(text);
        let vm = VmConf::parse("vm.conf", &cluster.vm_conf)?;
        let disk =
            VolumeIds { image: uuid(self.conf.vm_disk_id()?)?, volume: uuid(self.conf.vm_disk_vol_id()?)? };
        Ok(Request::FirstHost(Box::new(FirstHost {
            hypervisor: self.toml.vm.hypervisor,
            family: Family::Auto,
            storage: new.storage.clone(),
            domain_name: new.domain_name.clone(),
            datacenter: String::new(),
            network: self.network(),
            vm: Vm {
                boot: Boot::Disk(None),
                disk_gib: bytes.div_ceil(1 << 30),
                memory_mb: vm.mem_size().unwrap_or_default(),
                vcpus: vm.smp().unwrap_or_default(),
                mac: String::new(),
                console: self.conf.console().unwrap_or("vnc").to_owned(),
                machine: None,
                cpu: None,
                kernel: None,
                seed: None,
            },
            engine: Engine { fqdn: self.conf.fqdn()?.to_owned(), host_name: String::new() },
            host: HostIdentity { id: self.id.get(), name },
            ids: Ids { vm: uuid(self.conf.vmid()?)?, disk, ..Ids::draw() },
            ha_toml: self.ha_toml.clone(),
            moves: Some(self.former()),
        })))
    }

    /// Following, as this host does it.
    ///
    /// # Errors
    /// Why what was found is not where this host's cluster moved.
    pub fn further(&self, new: &NewStorage, name: String) -> Result<Request, String> {
        let cluster = new.cluster.as_ref().ok_or("there is no hosted engine on that storage")?;
        let conf = cluster.conf.parsed(self.conf.paths());
        let (vm, theirs) = (self.conf.vmid().unwrap_or_default(), conf.vmid().unwrap_or_default());
        if vm != theirs {
            return Err(format!(
                "the hosted engine there is another one: its VM is {theirs}, this host's is {vm}"
            ));
        }
        if self.conf.sd_uuid().is_ok_and(|sd| sd == cluster.sd_uuid.to_string()) {
            return Err("this host uses that storage domain already".to_owned());
        }
        if let Some(owner) = cluster.taken.get(&self.id.get()).filter(|owner| !is_name(owner, &name)) {
            return Err(format!(
                "this host's number {} is {owner:?}'s there: take this host out (hosted-engine --undeploy) and add it under \
                 another (--deploy --join)",
                self.id
            ));
        }
        let storage = crate::deploy::storage::files::storage_of_conf(&conf).ok().flatten();
        Ok(Request::FurtherHost(Box::new(FurtherHost {
            hypervisor: self.toml.vm.hypervisor,
            storage: storage.unwrap_or_else(|| new.storage.clone()),
            network: self.network(),
            host: HostIdentity { id: self.id.get(), name },
            sd_uuid: cluster.sd_uuid,
            moves: Some(self.former()),
        })))
    }
}

/// Without a name of its own sanlock calls itself `<random uuid>.<host name>`; a block has the name alone.
fn is_name(owner: &str, own: &str) -> bool {
    owner == own || owner.split_once('.').is_some_and(|(_, name)| name == own)
}

/// The cluster on its former storage.
#[derive(Debug)]
pub(super) struct Seen {
    pub adapter: LeaseAdapter,
    /// `[lease] vm`.
    pub lease_vm: Option<String>,
    /// Whether global maintenance is set, as the broker knows; why it does not.
    pub global_maintenance: Result<Option<bool>, String>,
    /// Live hosts on which the VM is up.
    pub up_on: Vec<String>,
    /// Whose the VM's lease is.
    pub lease: Result<LeaseOwner, String>,
    /// Bytes of the VM's disk.
    pub disk: Result<u64, String>,
    pub cluster: Result<ClusterConf, String>,
    /// Where it moved before.
    pub moved: Option<String>,
    /// The other hosts by their names.
    pub others: Result<Option<String>, String>,
}

impl Seen {
    /// Looks.
    ///
    /// # Errors
    /// When the operating system gives no poll.
    pub fn look(member: &Member) -> Result<Self, DeployError> {
        let (conf, toml) = (&member.conf, &member.toml);
        let broker = BrokerClient::new(conf.paths().broker_socket());
        let view = asked(View::fetch(&broker))?.map_err(|error| error.to_string());
        let (id, text) = (member.id, |error: ha_config::ConfigError| error.to_string());
        let disk = conf.vm_disk_path().map_err(text).and_then(|path| {
            soon(&path.display().to_string(), move || {
                let file = SharedFile::open(&path, false).map_err(|error| error.to_string())?;
                file.read(0, UNIT).and_then(|_| file.size()).map_err(|error| error.to_string())
            })
        });
        let cluster = conf.conf_volume_path().map_err(text).and_then(|path| {
            let path = path.ok_or("this cluster has no configuration volume on shared storage")?;
            soon(&path.display().to_string(), move || {
                ClusterConf::read(&path).map_err(|error| error.to_string())
            })
        });
        let of_note = conf.clone();
        let moved =
            soon("the note of a move", move || note::read(&of_note).map_err(|error| error.to_string()));
        let others = conf.metadata_path().and_then(|metadata| Ok((metadata, conf.lockspace_path()?)));
        let others = others.map_err(text).and_then(|(metadata, lockspace)| {
            soon(&metadata.display().to_string(), move || {
                let hosts = Hosts::read(&metadata, &lockspace).map_err(|error| error.to_string())?;
                Ok(hosts.others(Some(id)))
            })
        });
        let spec = lease::spec(conf, toml).map_err(|error| error.to_string());
        Ok(Self {
            adapter: toml.lease.adapter,
            lease_vm: toml.lease.vm.clone(),
            up_on: view.as_ref().map_or_else(|_| Vec::new(), |view| view.live_hosts_with_vm(None)),
            global_maintenance: view.map(|view| view.global_maintenance),
            lease: spec.and_then(|spec| spec.owner().map_err(|error| error.to_string())),
            disk,
            cluster,
            moved: moved.ok().flatten().map(|to| to.sd_uuid().unwrap_or("unknown").to_owned()),
            others,
        })
    }

    /// Everything that stands in the way, each with what to do.
    pub fn objections(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(to) = &self.moved {
            // The rest tells of what is left there.
            return vec![format!(
                "the cluster moved already, to the storage domain {to}: follow it with hosted-engine --move-storage --follow"
            )];
        }
        if self.adapter == LeaseAdapter::File {
            all.push("the leases are file locks ([lease] adapter = \"file\"), which cannot be closed to other hosts: a \
                      cluster of that kind is restored from a backup on new storage"
                .to_owned());
        }
        if let Some(name) = &self.lease_vm {
            all.push(format!(
                "the VM runs under the lease {name:?} of the storage domain's own, which stays behind: give it its disk's \
                 lease first (hosted-engine --lease-use --disk), and remove vm from [lease] of ha.toml on all hosts"
            ));
        }
        match &self.global_maintenance {
            Ok(Some(true)) => {}
            Ok(Some(false)) => all.push(
                "the cluster is not in global maintenance: hosted-engine --set-maintenance --mode=global".to_owned(),
            ),
            Ok(None) => all.push(
                "whether the cluster is in global maintenance is not known: wait until the broker has read shared storage"
                    .to_owned(),
            ),
            Err(why) => all.push(format!("the broker does not answer: {why}: start ovirt-ha-broker")),
        }
        let shut_down = "shut it down there first: hosted-engine --vm-shutdown";
        if !self.up_on.is_empty() {
            all.push(format!("the engine VM is up on {}: {shut_down}", self.up_on.join(", ")));
        }
        match &self.lease {
            Ok(LeaseOwner::Nobody) => {}
            // A row that says so has said more.
            Ok(_) if !self.up_on.is_empty() => {}
            Ok(LeaseOwner::ThisHost) => {
                all.push(format!(
                    "the engine VM's lease is held on this host, where the VM may run: {shut_down}"
                ));
            }
            Ok(LeaseOwner::Other { detail }) => {
                all.push(format!("the engine VM's lease is held, and the VM may run there: {detail}"));
            }
            Err(why) => all.push(format!("whose the engine VM's lease is is not known: {why}")),
        }
        let connect = "is the storage connected (hosted-engine --connect-storage)?";
        all.extend(self.disk.as_ref().err().map(|why| format!("the VM's disk: {why}; {connect}")));
        match &self.cluster {
            Ok(cluster) => all.extend(check_vm(&cluster.vm_conf).err().map(|error| error.to_string())),
            Err(why) => all.push(format!("the cluster's configuration: {why}; {connect}")),
        }
        all.extend(self.others.as_ref().err().map(|why| format!("the other hosts: {why}; {connect}")));
        all
    }
}

/// Why this storage cannot be the new one; `None` when it can.
pub(super) fn same_storage(conf: &HostedEngineConf, new: &Storage) -> Option<String> {
    let is_block = |kind| matches!(kind, StorageKind::Iscsi | StorageKind::Fc);
    let old = conf.storage().ok()?;
    if is_block(new.kind) || conf.domain_type().is_ok_and(ha_config::DomainType::is_block) {
        // A device that is in use is refused by what is on it.
        return None;
    }
    let is_same = normal_connection(old) == normal_connection(&new.connection)
        || same_directory(conf.paths(), old, &new.connection);
    is_same.then(|| format!("{} is the storage that the cluster uses already: name another", new.connection))
}

fn same_directory(paths: &Paths, old: &str, new: &str) -> bool {
    let real = |text: &str| {
        let path = Path::new(text);
        path.is_absolute().then(|| std::fs::canonicalize(paths.resolve(path)).ok()).flatten()
    };
    real(old).is_some() && real(old) == real(new)
}
