//! Making the storage domain.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use ha_config::hosted_engine::escape_connection;
use ha_config::{DomainType, HaToml, Paths, conf_archive};
use uuid::Uuid;

use super::find::ClusterConf;
use super::leases::{LOCKSPACE_NAME, Leases, grid_for};
use super::report::Report;
use super::volume::{
    CONFIGURATION, DISK, LOCKSPACE, METADATA, MIB, Owner, VolumeId, copy, directory, write_meta, zeros,
};
use super::{ClusterSpec, SetupError, io};
use crate::shared_file::SharedFile;

/// Bytes of the metadata volume: a block of 4096 bytes for the cluster and for each of 2000 hosts, in whole MiB.
const METADATA_BYTES: u64 = 8 * MIB;
const _: () = assert!(METADATA_BYTES >= metadata_format::FILE_SIZE);

/// Says that a directory is an unfinished set-up of ours.
const MARKER: &str = "hosted-engine-setup-in-progress";

/// Where the VM's disk comes from.
#[derive(Debug, Clone)]
pub enum DiskSource {
    /// A new disk of so many bytes, all zeros, space taken as it is used.
    Empty(u64),
    /// A copy of a raw image, made at least so many bytes long.
    Copy(PathBuf, u64),
}

/// The storage to set up.
#[derive(Debug, Clone)]
pub struct StorageSpec {
    /// A kind of file storage.
    pub domain_type: DomainType,
    /// Its connection, for example `server:/path`. It must be mounted already.
    pub storage: String,
    /// The storage domain's name; usually `hosted_storage`.
    pub name: String,
    /// The VM's disk.
    pub disk: DiskSource,
}

impl StorageSpec {
    /// Where this storage must be mounted on a host.
    pub fn mount_dir(&self, paths: &Paths) -> PathBuf {
        let mounts = paths.storage_mounts();
        let name = escape_connection(&self.storage);
        if self.domain_type == DomainType::Glusterfs {
            mounts.join("glusterSD").join(name)
        } else {
            mounts.join(name)
        }
    }
}

/// Makes a new storage domain with all volumes and leases on storage that is mounted on this host. It is there
/// completely or not at all.
pub fn create_storage(
    paths: &Paths,
    storage: &StorageSpec,
    cluster: &ClusterSpec,
    time: u64,
    report: &dyn Report,
) -> Result<ClusterConf, SetupError> {
    let paths = &super::absolute(paths)?;
    let toml = HaToml::parse(paths, &cluster.ha_toml)?;
    let leases = Leases::new(paths, &toml);
    cluster.vm.check()?;
    leases.check()?;
    let mount = storage.mount_dir(paths);
    let owner = check_mount(storage, &mount)?;
    remove_unfinished(&mount, report)?;

    let sd_uuid = Uuid::new_v4();
    let work = mount.join(format!(".{sd_uuid}.setup"));
    report.info(&format!("Creating Storage Domain {} ({sd_uuid})", storage.name));
    directory(&work, owner)?;
    fs::write(work.join(MARKER), "").map_err(io("write", &work))?;
    let made = fill(paths, &work, sd_uuid, storage, cluster, &leases, time, owner, report);
    let made = made.and_then(|conf| {
        let target = mount.join(sd_uuid.to_string());
        fs::remove_file(work.join(MARKER)).map_err(io("remove the marker in", &work))?;
        fs::rename(&work, &target).map_err(io("rename", &work))?;
        ha_config::atomic::sync_directory_of(&target)?;
        Ok(conf)
    });
    if made.is_err() {
        // The next run does it when this does not work.
        let _ = fs::remove_dir_all(&work);
    }
    let conf = made?;
    report.info("Storage Domain created");
    Ok(conf)
}

fn check_mount(storage: &StorageSpec, mount: &Path) -> Result<Owner, SetupError> {
    if storage.domain_type.is_block() {
        let kind = storage.domain_type.word();
        return Err(SetupError::Refused(format!(
            "storage of the type {kind} needs VDSM to make its volumes; here use nfs, glusterfs or posixfs"
        )));
    }
    let meta = fs::metadata(mount).map_err(io("look at the mounted storage at", mount))?;
    if !meta.is_dir() {
        return Err(SetupError::Refused(format!(
            "{} is not a directory: mount {} there first",
            mount.display(),
            storage.storage
        )));
    }
    for entry in fs::read_dir(mount).map_err(io("read", mount))? {
        let path = entry.map_err(io("read", mount))?.path();
        if path.join("ha_agent").exists() {
            let advice =
                "this storage carries a hosted engine already; add this host to it (hosted-engine setup \
                          host), or give other storage"
                    .to_owned();
            return Err(SetupError::Exists { path, advice });
        }
    }
    Ok(Owner { uid: meta.uid(), gid: meta.gid() })
}

/// Removes what an interrupted set-up left: only directories of our form of name with our marker inside.
fn remove_unfinished(mount: &Path, report: &dyn Report) -> Result<(), SetupError> {
    for entry in fs::read_dir(mount).map_err(io("read", mount))? {
        let entry = entry.map_err(io("read", mount))?;
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(".setup"))
            .is_some_and(|uuid| Uuid::try_parse(uuid).is_ok());
        let path = entry.path();
        if ours && path.join(MARKER).exists() {
            report.warning(&format!("Removing what an interrupted set-up left in {}", path.display()));
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "one call, split off to clean up after it")]
fn fill(
    paths: &Paths,
    work: &Path,
    sd_uuid: Uuid,
    storage: &StorageSpec,
    cluster: &ClusterSpec,
    leases: &Leases,
    time: u64,
    owner: Owner,
    report: &dyn Report,
) -> Result<ClusterConf, SetupError> {
    for name in ["dom_md", "images", "ha_agent"] {
        directory(&work.join(name), owner)?;
    }
    let dom_md = work.join("dom_md");
    zeros(&dom_md.join("inbox"), 16 * MIB, false, owner)?;
    zeros(&dom_md.join("outbox"), 16 * MIB, false, owner)?;
    let ids = dom_md.join("ids");
    zeros(&ids, MIB, true, owner)?;
    let grid = grid_for(SharedFile::open(&ids, false)?.sector_size()?);
    let area = grid.align_bytes();
    if area != MIB {
        fs::remove_file(&ids).map_err(io("remove", &ids))?;
        zeros(&ids, area, true, owner)?;
    }
    zeros(&dom_md.join("leases"), 2 * area, true, owner)?;
    zeros(&dom_md.join("xleases"), 1024 * MIB, false, owner)?;

    let volume = |description: &str, bytes: u64| -> Result<VolumeId, SetupError> {
        report.info(&format!("Creating Image for '{description}' ..."));
        let id = VolumeId::new();
        directory(&work.join("images").join(id.image.to_string()), owner)?;
        let path = id.path(work);
        let bytes = match (&storage.disk, description == DISK) {
            (DiskSource::Empty(_), true) => {
                zeros(&path, bytes, false, owner)?;
                bytes
            }
            (DiskSource::Copy(source, _), true) => copy(source, &path, bytes, owner)?,
            (_, false) => {
                zeros(&path, bytes, true, owner)?;
                bytes
            }
        };
        write_meta(work, sd_uuid, id, description, bytes, time, owner)?;
        Ok(id)
    };
    let metadata = volume(METADATA, METADATA_BYTES)?;
    let lockspace = volume(LOCKSPACE, area)?;
    let configuration = volume(CONFIGURATION, MIB)?;
    let disk = match &storage.disk {
        DiskSource::Empty(bytes) | DiskSource::Copy(_, bytes) => volume(DISK, bytes.next_multiple_of(4096))?,
    };
    for (name, id) in [(METADATA, metadata), (LOCKSPACE, lockspace)] {
        let link = work.join("ha_agent").join(name);
        let target = PathBuf::from("..").join(id.path(Path::new("")));
        symlink(target, &link).map_err(io("create the link", &link))?;
    }

    report.info("Initializing the lockspaces and the VM's lease");
    leases.write_lockspace(LOCKSPACE_NAME, &lockspace.path(work), grid)?;
    leases.write_lockspace(&sd_uuid.to_string(), &ids, grid)?;
    let mut lease = disk.path(work).into_os_string();
    lease.push(".lease");
    let lease = PathBuf::from(lease);
    zeros(&lease, area, true, owner)?;
    leases.write_lease(&sd_uuid.to_string(), &disk.volume.to_string(), &lease, grid)?;

    report.info("Saving the cluster's configuration on the shared storage");
    let vm_conf = cluster.vm.conf(paths.vm_conf(), &cluster.bridge, sd_uuid, disk.image, disk.volume);
    let conf = ClusterConf {
        hosted_engine_conf: hosted_engine_conf(
            storage,
            cluster,
            sd_uuid,
            [disk, metadata, lockspace, configuration],
        ),
        vm_conf: vm_conf.to_string(),
        broker_conf: include_str!("../../../etc/broker.conf").to_owned(),
        ha_toml: cluster.ha_toml.clone(),
        answers: answers(storage, cluster),
    };
    let archive = conf_archive::write(&conf.files(), time)?;
    SharedFile::open(&configuration.path(work), true)?.write(0, &archive)?;
    domain_metadata(&dom_md.join("metadata"), storage, sd_uuid, grid.sector_bytes(), owner)?;
    for directory in ["dom_md", "images", "ha_agent"] {
        let path = work.join(directory);
        File::open(&path).and_then(|dir| dir.sync_all()).map_err(io("sync", &path))?;
    }
    Ok(conf)
}

/// The cluster's hosted-engine.conf; each host adds its `host_id`.
fn hosted_engine_conf(
    storage: &StorageSpec,
    cluster: &ClusterSpec,
    sd_uuid: Uuid,
    [disk, metadata, lockspace, configuration]: [VolumeId; 4],
) -> String {
    let none = || "None".to_owned();
    let (tcp_address, tcp_port) = cluster
        .tcp_target
        .as_ref()
        .map_or_else(|| (none(), none()), |(host, port)| (host.clone(), port.to_string()));
    let values = [
        ("fqdn", cluster.fqdn.clone()),
        ("vm_disk_id", disk.image.to_string()),
        ("vm_disk_vol_id", disk.volume.to_string()),
        ("vmid", cluster.vm.id.to_string()),
        ("storage", storage.storage.clone()),
        ("mnt_options", String::new()),
        ("conf", "/var/run/ovirt-hosted-engine-ha/vm.conf".to_owned()),
        ("host_id", none()),
        ("console", cluster.vm.graphics.clone()),
        ("domainType", storage.domain_type.word().to_owned()),
        ("spUUID", super::volume::BLANK_UUID.to_owned()),
        ("sdUUID", sd_uuid.to_string()),
        ("connectionUUID", Uuid::new_v4().to_string()),
        ("vdsm_use_ssl", "true".to_owned()),
        ("gateway", cluster.gateway.clone().unwrap_or_else(none)),
        ("bridge", cluster.bridge.clone()),
        ("network_test", cluster.network_test.clone()),
        ("tcp_t_address", tcp_address),
        ("tcp_t_port", tcp_port),
        ("metadata_volume_UUID", metadata.volume.to_string()),
        ("metadata_image_UUID", metadata.image.to_string()),
        ("lockspace_volume_UUID", lockspace.volume.to_string()),
        ("lockspace_image_UUID", lockspace.image.to_string()),
        ("conf_volume_UUID", configuration.volume.to_string()),
        ("conf_image_UUID", configuration.image.to_string()),
    ];
    values.iter().flat_map(|(key, value)| [*key, "=", value.as_str(), "\n"]).collect()
}

fn answers(storage: &StorageSpec, cluster: &ClusterSpec) -> String {
    format!(
        "[environment:default]\nOVEHOSTED_STORAGE/domainType=str:{}\nOVEHOSTED_STORAGE/storageDomainConnection=str:{}\n\
         OVEHOSTED_STORAGE/storageDomainName=str:{}\nOVEHOSTED_NETWORK/fqdn=str:{}\nOVEHOSTED_NETWORK/bridgeName=str:{}\n\
         OVEHOSTED_VM/vmMemSizeMB=int:{}\nOVEHOSTED_VM/vmVCpus=str:{}\nOVEHOSTED_VM/vmMACAddr=str:{}\n",
        storage.domain_type.word(),
        storage.storage,
        storage.name,
        cluster.fqdn,
        cluster.bridge,
        cluster.vm.memory_mb,
        cluster.vm.vcpus,
        cluster.vm.mac
    )
}

/// The storage domain's own description, with VDSM's keys. VDSM's checksum over it is left out: a domain made here is
/// not in any engine's database, and an engine that imports it has it written anew.
fn domain_metadata(
    path: &Path,
    storage: &StorageSpec,
    sd_uuid: Uuid,
    sector: u32,
    owner: Owner,
) -> Result<(), SetupError> {
    let kind = match storage.domain_type {
        DomainType::Nfs | DomainType::Nfs3 | DomainType::Nfs4 => "NFS",
        DomainType::Glusterfs => "GLUSTERFS",
        DomainType::Posixfs => "POSIXFS",
        DomainType::Iscsi => "ISCSI",
        DomainType::Fc => "FCP",
    };
    let text = format!(
        "ALIGNMENT={}\nBLOCK_SIZE={sector}\nCLASS=Data\nDESCRIPTION={}\nMASTER_VERSION=0\nPOOL_UUID=\n\
         REMOTE_PATH={}\nROLE=Regular\nSDUUID={sd_uuid}\nTYPE={kind}\nVERSION=5\n",
        grid_for(sector).align_bytes(),
        storage.name,
        storage.storage
    );
    ha_config::atomic::write(path, text.as_bytes(), ha_config::atomic::Mode::KeepOr644)?;
    owner.give(&File::open(path).map_err(io("open", path))?, path)
}
