//! What VDSM was asked to make, and how it is taken back.
//!
//! A storage domain is removed only when it is this deployment's: its uuid is the one that was drawn, all images in it are
//! those that were drawn, it is in no pool but the deployment's, and the deployment's uuid stands in its name, or once it
//! has its own name in the description of the VM's disk. Another host's block or lease in it keeps it, too.

use std::fs;
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_config::HaToml;
use ha_config::ha_toml::LeaseAdapter;
use metadata_format::HostId;
use serde::{Deserialize, Serialize};
use storage_domain::StorageDomain;
use uuid::Uuid;
use vdsm_client::{BLANK_UUID, Client, DomainInfo, SpmRole};

use super::{attach, conf, is_connected, is_missing};
use crate::deploy::storage::conf::domain_type;
use crate::deploy::storage::find::Hosts;
use crate::deploy::vdsm::{ask, finish, while_};
use crate::deploy::{DeployError, FirstHost, Request, Storage, Undo, Undone, VolumeIds, World};
use crate::setup::volume::Owner;

/// How long VDSM and the lock manager may need to leave a lockspace.
const LEAVING: Duration = Duration::from_mins(2);
/// Between two looks whether it is left.
const LOOK: Duration = Duration::from_millis(200);

/// The storage server, connected by VDSM for this deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedByVdsm {
    /// Server and path, or portals and target.
    pub what: String,
}

/// A volume group for a storage domain of block storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// Its name, the storage domain's uuid.
    pub name: Uuid,
    /// The LUN that it is on.
    pub lun: String,
}

/// A storage domain that VDSM made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeByVdsm {
    /// Its uuid.
    pub sd: Uuid,
    /// The deployment that makes it.
    pub deploy: Uuid,
    /// Volumes of the hosts' blocks, the lockspace, the configuration, the VM's disk.
    pub volumes: [VolumeIds; 4],
    /// The host that makes it: others' signs of life in it keep it.
    pub host: u16,
}

/// The storage pool that VDSM wants around a domain while volumes are made in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemporaryPool {
    /// Its uuid, the deployment's.
    pub pool: Uuid,
    /// Its domain.
    pub sd: Uuid,
    /// The host id in it.
    pub host_id: u16,
}

/// Volumes that VDSM has made usable on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedByVdsm {
    /// The storage domain.
    pub sd: Uuid,
    /// The volumes.
    pub volumes: Vec<VolumeIds>,
}

/// The domain's name while it is made.
pub(super) fn mark(deploy: Uuid) -> String {
    format!("deploy-{deploy}")
}

/// Whether a domain's name is one that some deployment gives it while it is made.
pub(super) fn is_mark(name: &str) -> bool {
    name.strip_prefix("deploy-").is_some_and(|uuid| Uuid::try_parse(uuid).is_ok())
}

/// Description of the VM's disk: the engine shows its parts as alias and description.
pub(super) fn disk_description(deploy: Uuid) -> String {
    format!(r#"{{"DiskAlias":"HostedEngine","DiskDescription":"Hosted engine, deployment {deploy}"}}"#)
}

/// What storage it is, for people.
pub(super) fn label(storage: &Storage) -> String {
    match &storage.iscsi {
        Some(target) => format!("{} at {}", target.target, storage.connection),
        None if storage.connection.is_empty() => "the Fibre Channel storage".to_owned(),
        None => storage.connection.clone(),
    }
}

/// Waits until this host has left a domain's lockspace: a lockspace whose storage vanishes ends with the watchdog.
pub(super) fn await_lockspace_left(world: &World<'_>, sd: &str) -> Result<(), DeployError> {
    let toml = match world.request {
        Request::FirstHost(first) => HaToml::parse(world.paths, &first.ha_toml)?,
        Request::FurtherHost(_) => HaToml::load(world.paths)?,
    };
    if toml.lease.adapter == LeaseAdapter::File {
        return Ok(());
    }
    let sanlock = sanlock_client::Client::new(world.paths.sanlock_socket());
    let end = SystemClock.monotonic().plus(LEAVING);
    crate::deploy::services_steps::asked(async {
        loop {
            // No lock manager, no lockspace.
            let all = sanlock.get_lockspaces().unwrap_or_default();
            if !all.iter().any(|record| record.lockspace.name.as_str() == sd) {
                return Ok(());
            }
            if SystemClock.monotonic() >= end {
                return Err(DeployError::Refused(format!(
                    "this host is still in the lockspace {sd} after {} s, and taking its storage away would end with a \
                     reset of the host: sanlock client status tells who holds a lease in it",
                    LEAVING.as_secs()
                )));
            }
            // Neither VDSM nor sanlock tells of it.
            tokio::time::sleep(LOOK).await;
        }
    })?
}

impl MadeByVdsm {
    /// That of a first host.
    pub fn of(first: &FirstHost) -> Self {
        let ids = &first.ids;
        let volumes = [ids.metadata, ids.lockspace, ids.configuration, ids.disk];
        Self { sd: ids.sd, deploy: ids.deploy, volumes, host: first.host.id }
    }

    /// Why the domain is not to be touched; `None` when it is this deployment's and nobody uses it.
    async fn objection(
        &self,
        vdsm: &Client,
        world: &World<'_>,
        info: &DomainInfo,
    ) -> Result<Option<String>, DeployError> {
        const LOOKING: &str = "looking at the storage domain";
        let (sd, deploy) = (self.sd.to_string(), self.deploy.to_string());
        if let Some(pool) = info.pools.iter().find(|pool| **pool != deploy) {
            return Ok(Some(format!("it is in the storage pool {pool} of an engine")));
        }
        let images = vdsm.images(&sd).await.map_err(while_(LOOKING))?;
        let is_own = |image: &String| self.volumes.iter().any(|ids| ids.image.to_string() == *image);
        if let Some(foreign) = images.iter().find(|image| !is_own(image)) {
            return Ok(Some(format!("the image {foreign} is in it, which this deployment did not make")));
        }
        if info.name == Some(mark(self.deploy)) {
            // It is being made: nobody can have found it.
            return Ok(None);
        }
        let [metadata, lockspace, _, disk] = &self.volumes;
        let (image, volume) = (disk.image.to_string(), disk.volume.to_string());
        let described = vdsm.volume_info(BLANK_UUID, &sd, &image, &volume).await;
        if described.ok().and_then(|info| info.description) != Some(disk_description(self.deploy)) {
            return Ok(Some("nothing in it says that this deployment made it".to_owned()));
        }
        let mut paths = Vec::new();
        for ids in [metadata, lockspace] {
            let (image, volume) = (ids.image.to_string(), ids.volume.to_string());
            let prepared =
                vdsm.image_prepare(BLANK_UUID, &sd, &image, &volume).await.map_err(while_(LOOKING))?;
            paths.push(world.paths.resolve(prepared.path));
        }
        let hosts = Hosts::read(&paths[0], &paths[1]);
        teardown(vdsm, world, self.sd, &[*metadata, *lockspace]).await;
        let others = hosts?.others(HostId::new(self.host).ok());
        Ok(others.map(|others| format!("{others} uses it")))
    }

    /// A directory that VDSM began and never described is no domain to it.
    fn remove_rest(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let Request::FirstHost(first) = world.request else { return Ok(Undone::Absent) };
        if domain_type(first.storage.kind).is_block() {
            return Ok(Undone::Absent);
        }
        let mount = conf(world).mount_dir()?;
        let place = mount.join(self.sd.to_string());
        if !place.is_dir() || place.join("dom_md/metadata").exists() {
            return Ok(Undone::Absent);
        }
        let owner = Owner::of(&mount, world.paths).map_err(DeployError::io("look at", &mount))?;
        owner.act(|| fs::remove_dir_all(&place)).map_err(DeployError::io("remove", &place))?;
        Ok(Undone::TakenBack)
    }
}

/// Has VDSM let go of volumes, and of their domain's place among them.
pub(super) async fn let_go(vdsm: &Client, world: &World<'_>, sd: Uuid, volumes: &[VolumeIds]) {
    teardown(vdsm, world, sd, volumes).await;
    forget_prepared(world, sd);
}

/// Has VDSM let go of volumes. One that is not there needs none of it.
async fn teardown(vdsm: &Client, world: &World<'_>, sd: Uuid, volumes: &[VolumeIds]) {
    for ids in volumes {
        let (image, volume) = (ids.image.to_string(), ids.volume.to_string());
        if let Err(error) = vdsm.image_teardown(BLANK_UUID, &sd.to_string(), &image, &volume).await {
            world.report.warning(&format!("VDSM does not let go of the image {image}: {error}"));
        }
    }
}

/// VDSM leaves a domain's own directory among the prepared volumes. With something else in it, it stays.
fn forget_prepared(world: &World<'_>, sd: Uuid) {
    match fs::remove_dir(world.paths.prepared_volumes().join(sd.to_string())) {
        Ok(()) | Err(_) => {}
    }
}

impl Undo for ConnectedByVdsm {
    fn describe(&self) -> String {
        format!("VDSM's connection to {}", self.what)
    }

    fn describe_undo(&self) -> String {
        "ended, unless an engine has this host in a storage pool".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        if !is_connected(world)? {
            return Ok(Undone::Absent);
        }
        ask(world, async |vdsm| {
            let pools = vdsm.connected_storage_pools().await.map_err(while_("looking for storage pools"))?;
            if let Some(pool) = pools.first() {
                return Ok(Undone::LeftAlone(format!("an engine has this host in the storage pool {pool}")));
            }
            let domain = StorageDomain::new(vdsm.clone(), conf(world));
            let done = domain.disconnect(&|_: &storage_domain::Step| {}).await;
            done.map(|()| Undone::TakenBack).map_err(|error| DeployError::Refused(error.to_string()))
        })
    }
}

impl Undo for VolumeGroup {
    fn describe(&self) -> String {
        format!("volume group {} on the LUN {}", self.name, self.lun)
    }

    fn describe_undo(&self) -> String {
        "removed when no storage domain is on it".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        attach(world)?;
        let name = self.name.to_string();
        ask(world, async |vdsm| {
            const REMOVING: &str = "removing the volume group";
            let groups = vdsm.volume_groups().await.map_err(while_(REMOVING))?;
            let Some(uuid) = groups.get(&name) else { return Ok(Undone::Absent) };
            match vdsm.domain_info(&name).await {
                Ok(_) => return Ok(Undone::LeftAlone("there is a storage domain on it".to_owned())),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(while_(REMOVING)(error)),
            }
            let removed = vdsm.volume_group_remove(uuid).await;
            removed.map(|()| Undone::TakenBack).map_err(while_(REMOVING))
        })
    }
}

impl Undo for MadeByVdsm {
    fn describe(&self) -> String {
        format!("storage domain {}", self.sd)
    }

    fn describe_undo(&self) -> String {
        "removed by VDSM with its volumes when nothing else is in it, no other host uses it, and it is in no pool".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        attach(world)?;
        let sd = self.sd.to_string();
        let undone = ask(world, async |vdsm| {
            let info = match vdsm.domain_info(&sd).await {
                Ok(info) => info,
                Err(error) if is_missing(&error) => return Ok(Some(Undone::Absent)),
                Err(error) => return Err(while_("looking at the storage domain")(error)),
            };
            if let Some(objection) = self.objection(vdsm, world, &info).await? {
                return Ok(Some(Undone::LeftAlone(objection)));
            }
            let stopped = vdsm.stop_monitoring_domain(&sd).await;
            stopped.map_err(while_("leaving the storage domain's lockspace"))?;
            Ok(None)
        })?;
        match undone {
            Some(Undone::Absent) => return self.remove_rest(world),
            Some(other) => return Ok(other),
            None => {}
        }
        await_lockspace_left(world, &sd)?;
        ask(world, async |vdsm| {
            // It may be in the deployment's pool, which this host is not in any more.
            let formatted = vdsm.domain_format(&sd, true).await;
            formatted.map_err(while_("removing the storage domain"))
        })?;
        self.remove_rest(world)?;
        forget_prepared(world, self.sd);
        Ok(Undone::TakenBack)
    }
}

impl Undo for TemporaryPool {
    fn describe(&self) -> String {
        format!("storage pool {} around the domain", self.pool)
    }

    fn describe_undo(&self) -> String {
        "left; the domain stays".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let pool = self.pool.to_string();
        let undone = ask(world, async |vdsm| {
            const ENDING: &str = "ending the storage pool around the domain";
            let connected = vdsm.connected_storage_pools().await.map_err(while_(ENDING))?;
            if !connected.contains(&pool) {
                return Ok(Undone::Absent);
            }
            // What was begun comes to its end first: VDSM must not be disturbed at it.
            if let Ok(tasks) = vdsm.all_tasks_statuses().await {
                for task in tasks.keys() {
                    // How it ended does not matter: what it made goes.
                    let _ = finish(vdsm, task, ENDING).await;
                }
            }
            match vdsm.spm_role(&pool).await.map_err(while_(ENDING))? {
                SpmRole::Spm => vdsm.pool_destroy(&pool, self.host_id).await.map_err(while_(ENDING))?,
                SpmRole::Free => vdsm.pool_disconnect(&pool, self.host_id).await.map_err(while_(ENDING))?,
                SpmRole::Contend => {
                    return Err(DeployError::Refused(format!(
                        "{ENDING}: VDSM is about to manage it; try again in a minute"
                    )));
                }
            }
            Ok(Undone::TakenBack)
        })?;
        await_lockspace_left(world, &self.sd.to_string())?;
        Ok(undone)
    }
}

impl Undo for PreparedByVdsm {
    fn describe(&self) -> String {
        format!("{} volumes of the storage domain {}, usable on this host", self.volumes.len(), self.sd)
    }

    fn describe_undo(&self) -> String {
        "let go of, unless the VM runs here".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let place = world.paths.prepared_volumes().join(self.sd.to_string());
        let is_prepared = |ids: &VolumeIds| place.join(ids.image.to_string()).symlink_metadata().is_ok();
        if !self.volumes.iter().any(is_prepared) {
            return Ok(Undone::Absent);
        }
        ask(world, async |vdsm| {
            let_go(vdsm, world, self.sd, &self.volumes).await;
            Ok(())
        })?;
        Ok(Undone::TakenBack)
    }
}
