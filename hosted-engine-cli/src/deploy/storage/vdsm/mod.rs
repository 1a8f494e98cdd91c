//! A storage domain on a host that VDSM manages: VDSM mounts, logs in, makes the domain and its volumes.
//!
//! ```text
//!  connectStorageServer ─▶ [LVMVolumeGroup.create] ─▶ StorageDomain.create ─▶ the domain, with this deployment's mark for a name
//!                                                                                 │
//!  a pool around it: StoragePool.create, connect, spmStart ◀──────────────────────┘
//!        │
//!        ├─▶ Volume.create, four times, each a task that is waited for
//!        ├─▶ StorageDomain.setDescription: its own name
//!        └─▶ StoragePool.destroy ─▶ Image.prepare of each volume, links in ha_agent/
//! ```
//!
//! VDSM makes volumes only for the host that manages a storage pool, and there is no engine yet that could make one. So
//! the new domain is for some seconds the master of a pool of its own, whose uuid is the deployment's; afterwards it is in
//! no pool, as the engine wants to find it. The domain's lockspace and the leases of its volumes are VDSM's work, too.

#[cfg(test)]
mod block_tests;
mod find;
mod made;
#[cfg(test)]
pub(in crate::deploy) mod tests;

use std::path::{Path, PathBuf};

use ha_config::HostedEngineConf;
use storage_domain::{Step as Doing, StorageDomain};
use uuid::Uuid;
use vdsm_client::{Allocation, BLANK_UUID, NewDomain, NewVolume, code};

use super::conf::{domain_type, hosted_engine_conf};
use super::files::mounted_at;
use super::{Backend, FoundDomain, LeasePlace, Role};
use crate::deploy::vdsm::{ask, finish, while_};
use crate::deploy::{DeployError, FirstHost, Job, Request, Storage, StorageKind, VolumeIds, World};
use crate::setup::volume::{CONFIGURATION, LOCKSPACE, METADATA, MIB};
use crate::setup::{ClusterConf, SetupError};
use crate::shared_file::{SharedFile, SharedFileError};

pub use made::{ConnectedByVdsm, MadeByVdsm, PreparedByVdsm, TemporaryPool, VolumeGroup};

/// The backend.
#[derive(Debug, Clone, Copy)]
pub struct Vdsm;

fn storage_of<'a>(world: &World<'a>) -> &'a Storage {
    match world.request {
        Request::FirstHost(first) => &first.storage,
        Request::FurtherHost(further) => &further.storage,
    }
}

fn first<'a>(world: &World<'a>) -> Result<&'a FirstHost, DeployError> {
    match world.request {
        Request::FirstHost(first) => Ok(first),
        Request::FurtherHost(_) => {
            Err(DeployError::Refused("a further host makes no storage domain: it joins one".to_owned()))
        }
    }
}

/// Word and description for VDSM of what a volume is for.
fn purpose(first: &FirstHost, role: Role) -> (VolumeIds, &'static str, String) {
    match role {
        Role::Metadata => (first.ids.metadata, "HEMD", METADATA.to_owned()),
        Role::Lockspace => (first.ids.lockspace, "HESD", LOCKSPACE.to_owned()),
        Role::Configuration => (first.ids.configuration, "HECI", CONFIGURATION.to_owned()),
        Role::Disk => (first.ids.disk, "HEVD", made::disk_description(first.ids.deploy)),
    }
}

/// What the programs that ask VDSM need to know of the storage; with the password, never to be written down.
fn conf(world: &World<'_>) -> HostedEngineConf {
    let mut text = match world.request {
        Request::FirstHost(first) => hosted_engine_conf(first, None),
        Request::FurtherHost(further) => {
            let storage = &further.storage;
            let version = match storage.kind {
                StorageKind::Nfs3 => "nfs_version=v3\n",
                StorageKind::Nfs4 => "nfs_version=v4\n",
                StorageKind::Nfs
                | StorageKind::Glusterfs
                | StorageKind::Iscsi
                | StorageKind::Fc
                | StorageKind::Directory => "",
            };
            let target = storage.iscsi.as_ref().map_or_else(String::new, |target| {
                let ports: Vec<String> = target.ports.iter().map(u16::to_string).collect();
                let user = target.user.clone().unwrap_or_default();
                format!(
                    "iqn={}\nportal={}\nuser={user}\nport={}\n",
                    target.target,
                    target.tpgt,
                    ports.join(",")
                )
            });
            // VDSM answers with the connection's uuid and forgets it.
            format!(
                "sdUUID={}\nstorage={}\ndomainType={}\nmnt_options={}\nconnectionUUID={}\n{version}{target}",
                further.sd_uuid,
                storage.connection,
                domain_type(storage.kind).word(),
                storage.mount_options,
                Uuid::new_v4(),
            )
        }
    };
    with_password(world, &mut text);
    HostedEngineConf::parse(world.paths, &text)
}

fn with_password(world: &World<'_>, conf: &mut String) {
    if let Some(password) = &world.secrets.iscsi {
        conf.extend(["password=", password.reveal(), "\n"]);
    }
}

/// Whether somebody has connected the storage server already.
fn is_connected(world: &World<'_>) -> Result<bool, DeployError> {
    let storage = storage_of(world);
    if let Some(target) = &storage.iscsi {
        return has_session(&world.paths.resolve("/sys/class/iscsi_session"), &target.target);
    }
    if domain_type(storage.kind).is_block() {
        return Ok(true);
    }
    let mount = conf(world).mount_dir()?;
    Ok(mount.is_symlink() || mounted_at(world.tools, &mount)?.is_some())
}

/// Whether this host is logged in to an iSCSI target, as the kernel says.
fn has_session(sessions: &Path, target: &str) -> Result<bool, DeployError> {
    let entries = match std::fs::read_dir(sessions) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(DeployError::io("read", sessions))?,
    };
    let mut names =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("targetname")).ok());
    Ok(names.any(|name| name.trim() == target))
}

/// Has VDSM connect the storage server and look at what is there; fine when that is done already.
///
/// # Errors
/// What stands in the way.
pub fn attach(world: &World<'_>) -> Result<(), DeployError> {
    let connected = ask(world, async |vdsm| {
        let domain = StorageDomain::new(vdsm.clone(), conf(world));
        domain.connect(&|_: &Doing| {}).await.map_err(|error| DeployError::Refused(error.to_string()))
    })?;
    for warning in connected.warnings {
        world.report.warning(&warning);
    }
    Ok(())
}

fn refuse(text: String) -> Result<(), DeployError> {
    Err(DeployError::Refused(text))
}

impl Backend for Vdsm {
    fn connect(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let storage = storage_of(&job.world);
        if storage.kind == StorageKind::Directory {
            return refuse(format!(
                "VDSM cannot use {} of this host as shared storage: give what a server exports (nfs, glusterfs), iscsi \
                 or fc",
                storage.connection
            ));
        }
        if let Request::FirstHost(first) = job.world.request {
            if first.domain_name.is_empty() || first.domain_name.len() > 50 {
                return refuse(format!(
                    "the storage domain's name {:?} cannot be used: VDSM takes 1 to 50 characters",
                    first.domain_name
                ));
            }
            ask(&job.world, async |vdsm| {
                let pools =
                    vdsm.connected_storage_pools().await.map_err(while_("looking for storage pools"))?;
                match pools.first() {
                    None => Ok(()),
                    Some(pool) => refuse(format!(
                        "this host is in the storage pool {pool} of an engine: put it into maintenance and remove it \
                         there before a hosted engine is deployed on it"
                    )),
                }
            })?;
        }
        if is_connected(&job.world)? {
            attach(&job.world)?;
        } else {
            let made = ConnectedByVdsm { what: made::label(storage) };
            job.make(made, attach)?;
        }
        match job.world.request {
            Request::FirstHost(first) => find::refuse_occupied(&job.world, first),
            Request::FurtherHost(_) => Ok(()),
        }
    }

    fn find(&self, world: &World<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        Ok(find::domains(world)?.into_iter().map(|(found, _)| found).collect())
    }

    fn look(&self, job: &mut Job<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        let mut all = Vec::new();
        for (found, configuration) in find::domains(&job.world)? {
            let conf = ClusterConf::read(&found.configuration)?.parsed(job.world.paths);
            let sd = found.sd_uuid;
            let volumes = [configuration].into_iter().chain(hosts_volumes(&conf)?).collect();
            job.make(PreparedByVdsm { sd, volumes }, |world| {
                ask(world, async |vdsm| {
                    for ids in hosts_volumes(&conf)? {
                        let (image, volume) = (ids.image.to_string(), ids.volume.to_string());
                        let prepared = vdsm.image_prepare(BLANK_UUID, &sd.to_string(), &image, &volume).await;
                        prepared.map_err(while_("preparing the volumes of the hosts' blocks and leases"))?;
                    }
                    Ok(())
                })
            })?;
            all.push(found);
        }
        Ok(all)
    }

    fn of_hosts(&self, conf: &HostedEngineConf) -> Result<[PathBuf; 2], DeployError> {
        let place = conf.paths().prepared_volumes().join(conf.sd_uuid()?);
        let [metadata, lockspace] = hosts_volumes(conf)?;
        Ok([metadata, lockspace].map(|ids| place.join(ids.image.to_string()).join(ids.volume.to_string())))
    }

    fn make_domain(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let first = first(&job.world)?;
        let (ids, kind) = (&first.ids, domain_type(first.storage.kind));
        let sd = ids.sd.to_string();
        let mut arguments = ha_config::hosted_engine::normal_connection(&first.storage.connection);
        if kind.is_block() {
            let lun =
                first.storage.lun.as_ref().map(|lun| lun.id.clone()).ok_or_else(|| {
                    DeployError::Refused("no LUN was chosen for the storage domain".to_owned())
                })?;
            arguments = job.make(VolumeGroup { name: ids.sd, lun: lun.clone() }, |world| {
                ask(world, async |vdsm| {
                    vdsm.volume_group_create(&sd, &lun).await.map_err(while_("making the volume group"))
                })
            })?;
        }
        job.make(MadeByVdsm::of(first), |world| {
            let new = NewDomain {
                domain: sd.clone(),
                domain_type: kind.vdsm_number(),
                arguments,
                name: made::mark(ids.deploy),
                block_size: if kind.is_block() { 512 } else { 0 },
            };
            ask(world, async |vdsm| {
                vdsm.domain_create(&new).await.map_err(while_("making the storage domain"))
            })
        })?;
        let host_id = first.host.id;
        let pool = ids.deploy.to_string();
        job.make(TemporaryPool { pool: ids.deploy, sd: ids.sd, host_id }, |world| {
            ask(world, async |vdsm| {
                const MAKING: &str = "making the storage pool around the domain";
                const MANAGING: &str = "becoming the manager of the storage pool";
                vdsm.pool_create(&pool, &made::mark(ids.deploy), &sd).await.map_err(while_(MAKING))?;
                vdsm.pool_connect(&pool, host_id, &sd).await.map_err(while_("joining the storage pool"))?;
                let task = vdsm.spm_start(&pool).await.map_err(while_(MANAGING))?;
                finish(vdsm, &task, MANAGING).await
            })
        })
    }

    fn make_volume(&self, job: &mut Job<'_>, role: Role, bytes: u64) -> Result<(), DeployError> {
        let first = first(&job.world)?;
        let (ids, disk_type, description) = purpose(first, role);
        let is_sparse = role == Role::Disk && !domain_type(first.storage.kind).is_block();
        let what = format!("making the volume {description}");
        let new = NewVolume {
            pool: first.ids.deploy.to_string(),
            domain: first.ids.sd.to_string(),
            image: ids.image.to_string(),
            volume: ids.volume.to_string(),
            size: bytes,
            description,
            allocation: if is_sparse { Allocation::Sparse } else { Allocation::Preallocated },
            disk_type: disk_type.to_owned(),
        };
        ask(&job.world, async |vdsm| {
            let task = vdsm.volume_create(&new).await.map_err(while_(&what))?;
            finish(vdsm, &task, &what).await
        })
    }

    fn prepare(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (conf, volumes) = match job.world.request {
            Request::FirstHost(first) => {
                end_pool(&job.world, first)?;
                let ids = &first.ids;
                let volumes = vec![ids.metadata, ids.lockspace, ids.configuration, ids.disk];
                (conf(&job.world), volumes)
            }
            Request::FurtherHost(_) => {
                let mut text =
                    ClusterConf::read(&self.volume(&job.world, Role::Configuration))?.hosted_engine_conf;
                with_password(&job.world, &mut text);
                let conf = HostedEngineConf::parse(job.world.paths, &text);
                let volumes = volumes_of(&conf)?;
                (conf, volumes)
            }
        };
        let sd = job.world.request.sd_uuid();
        let disk = volumes.last().copied();
        job.make(PreparedByVdsm { sd, volumes }, |world| {
            ask(world, async |vdsm| {
                let domain = StorageDomain::new(vdsm.clone(), conf);
                let ready = domain.bring_up(&|_: &Doing| {}).await;
                ready.map_err(|error| DeployError::Refused(error.to_string()))?;
                let Some(disk) = disk else { return Ok(()) };
                let (image, volume) = (disk.image.to_string(), disk.volume.to_string());
                let prepared = vdsm.image_prepare(BLANK_UUID, &sd.to_string(), &image, &volume).await;
                prepared.map(drop).map_err(while_("preparing the VM's disk"))
            })
        })?;
        if let Request::FirstHost(_) = job.world.request {
            // Block storage comes with what was on it before.
            for role in [Role::Metadata, Role::Configuration] {
                zero(&self.volume(&job.world, role))?;
            }
        }
        Ok(())
    }

    fn volume(&self, world: &World<'_>, role: Role) -> PathBuf {
        let place = world.paths.prepared_volumes().join(world.request.sd_uuid().to_string());
        match world.request {
            Request::FirstHost(first) => {
                let (ids, ..) = purpose(first, role);
                place.join(ids.image.to_string()).join(ids.volume.to_string())
            }
            Request::FurtherHost(_) => find::volume(world, role).unwrap_or_else(|| place.join("not-found")),
        }
    }

    fn ids(&self, world: &World<'_>) -> LeasePlace {
        let domain = conf(world).ids_path();
        let path = domain.unwrap_or_else(|_| world.paths.storage_mounts().join("not-found"));
        LeasePlace { path, offset: 0 }
    }

    fn vm_lease(&self, world: &World<'_>) -> Result<LeasePlace, DeployError> {
        let first = first(world)?;
        let (sd, ids) = (first.ids.sd.to_string(), first.ids.disk);
        let (image, volume) = (ids.image.to_string(), ids.volume.to_string());
        let info = ask(world, async |vdsm| {
            let info = vdsm.volume_info(BLANK_UUID, &sd, &image, &volume).await;
            info.map_err(while_("looking for the lease of the VM's disk"))
        })?;
        let (path, offset) = info.lease.ok_or_else(|| {
            DeployError::Refused(format!("VDSM knows no lease of the VM's disk (volume {volume})"))
        })?;
        Ok(LeasePlace { path: world.paths.resolve(path), offset })
    }

    fn writes_domain_leases(&self) -> bool {
        true
    }

    /// Its configuration volume has content by now: that is what others look for.
    fn complete(&self, _: &mut Job<'_>) -> Result<(), DeployError> {
        Ok(())
    }
}

/// Gives the domain its own name, and ends the pool around it; the domain stays.
fn end_pool(world: &World<'_>, first: &FirstHost) -> Result<(), DeployError> {
    let (sd, pool) = (first.ids.sd.to_string(), first.ids.deploy.to_string());
    ask(world, async |vdsm| {
        let named = vdsm.domain_set_name(&sd, &first.domain_name).await;
        named.map_err(while_("naming the storage domain"))?;
        let destroyed = vdsm.pool_destroy(&pool, first.host.id).await;
        destroyed.map_err(while_("ending the storage pool around the domain"))
    })?;
    made::await_lockspace_left(world, &sd)
}

/// A volume as the cluster's configuration names it.
fn named(image: &str, volume: &str) -> Result<VolumeIds, DeployError> {
    let parsed = |key: &str, text: &str| {
        Uuid::try_parse(text).map_err(|_| {
            DeployError::Refused(format!("the cluster's configuration: {key}={text} is no uuid"))
        })
    };
    Ok(VolumeIds { image: parsed("image", image)?, volume: parsed("volume", volume)? })
}

/// The volumes of the hosts' blocks and of the lockspace that protects them, by the cluster's configuration.
fn hosts_volumes(conf: &HostedEngineConf) -> Result<[VolumeIds; 2], DeployError> {
    Ok([
        named(conf.metadata_image()?, conf.metadata_volume()?)?,
        named(conf.lockspace_image()?, conf.lockspace_volume()?)?,
    ])
}

/// The cluster's volumes by its configuration, the disk last.
fn volumes_of(conf: &HostedEngineConf) -> Result<Vec<VolumeIds>, DeployError> {
    let mut all = hosts_volumes(conf)?.to_vec();
    if let (Some(image), Some(volume)) = (conf.conf_image(), conf.conf_volume()) {
        all.push(named(image, volume)?);
    }
    all.push(named(conf.vm_disk_id()?, conf.vm_disk_vol_id()?)?);
    Ok(all)
}

/// Writes zeros over a small volume.
fn zero(path: &Path) -> Result<(), DeployError> {
    let write = || -> Result<(), SharedFileError> {
        let volume = SharedFile::open(path, true)?;
        let (size, part) = (volume.size()?, MIB);
        let zeros = vec![0; usize::try_from(part).unwrap_or(1 << 20)];
        for offset in (0..size / part).map(|number| number * part) {
            volume.write(offset, &zeros)?;
        }
        Ok(())
    };
    write().map_err(|error| SetupError::from(error).into())
}

/// Whether VDSM says that there is no such domain.
fn is_missing(error: &vdsm_client::CallError) -> bool {
    error.code() == Some(code::NO_SUCH_DOMAIN)
}
