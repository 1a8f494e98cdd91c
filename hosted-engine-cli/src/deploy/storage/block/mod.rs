//! Block storage without VDSM: a volume group of LVM on one LUN, which iSCSI, Fibre Channel or anything else brings to
//! every host.
//!
//! Only the first host ever changes the volume group, while it deploys. The others activate volumes, which writes
//! nothing: the same linear mapping on many hosts, kept apart by the leases that are in it. No host activates the group by
//! itself at boot (it is made with `--setautoactivation n`): [`bring_up`] does.
//!
//! ```text
//! LUN ── device::find ── check_vacant ── pvcreate ── vgcreate (UNREADY) ── lvcreate … ── tags: complete
//!  ▲                                        │             │                    │             │
//!  iscsi, luns                        uuid drawn     deploy's tag         in that group   taken away again
//!                                     before         from the first moment
//! ```

mod device;
pub mod iscsi;
mod layout;
mod links;
mod luns;
mod lvm;
mod made;

use std::path::PathBuf;

use clock::{Clock as _, SystemClock};
use ha_config::shared_file::SharedFile;
use ha_config::{DomainType, HostedEngineConf, Paths};
use uuid::Uuid;

use super::{Backend, FoundDomain, LeasePlace, Role};
use crate::deploy::tools::{ToolError, Tools};
use crate::deploy::{DeployError, FirstHost, Ids, Job, Lun, Request, Storage, StorageKind, VolumeIds, World};
use crate::setup::SetupError;
use crate::setup::volume::MIB;
use device::Device;
use layout::DomainTags;
pub use luns::{FoundLun, luns, rescan_fibre_channel};
use lvm::{Lvm, Physical, Range, volume_device};
pub use made::{Activated, MadeDomainTags, MadeGroup, MadeLogical, MadePhysical};

/// The VM's disk is the only volume that is larger: writing its zeros is worth a line.
const LONG: u64 = 4 << 30;

/// Block storage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Block;

/// A volume that was found in a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    role: Role,
    ids: VolumeIds,
    slot: u64,
}

fn storage<'w>(world: &World<'w>) -> &'w Storage {
    match world.request {
        Request::FirstHost(first) => &first.storage,
        Request::FurtherHost(further) => &further.storage,
    }
}

fn first<'w>(world: &World<'w>) -> Result<(&'w FirstHost, &'w Lun), DeployError> {
    let Request::FirstHost(first) = world.request else {
        return Err(DeployError::Refused("only the first host makes a storage domain".to_owned()));
    };
    let lun = first.storage.lun.as_ref().ok_or_else(|| {
        DeployError::Refused("block storage needs a LUN: its WWID, or the path of its device".to_owned())
    })?;
    Ok((first, lun))
}

const fn ids_of(ids: &Ids, role: Role) -> VolumeIds {
    match role {
        Role::Metadata => ids.metadata,
        Role::Lockspace => ids.lockspace,
        Role::Configuration => ids.configuration,
        Role::Disk => ids.disk,
    }
}

const ROLES: [Role; 4] = [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk];

fn sd(world: &World<'_>) -> Uuid {
    match world.request {
        Request::FirstHost(first) => first.ids.sd,
        Request::FurtherHost(further) => further.sd_uuid,
    }
}

fn group_of(first: &FirstHost, lun: &Lun) -> MadeGroup {
    MadeGroup {
        lun: lun.clone(),
        name: layout::group(first.ids.sd),
        tag: layout::deploy_tag(first.ids.deploy),
    }
}

/// The storage domains' physical volumes: on the LUN, or on any device of this host.
fn domains(paths: &Paths, tools: &dyn Tools, lun: Option<&Lun>) -> Result<Vec<Physical>, DeployError> {
    let device = lun.map(|lun| device::find(paths, lun)).transpose()?;
    let lvm = match &device {
        Some(device) => Lvm::on(tools, &device.path),
        None => Lvm::anywhere(tools),
    };
    let mut all = lvm.physicals()?;
    all.retain(|physical| physical.has_tag(layout::DOMAIN_TAG));
    Ok(all)
}

/// The hosted engine's volumes in a domain, by what is written about them. Nothing needs to be active.
fn inventory(tools: &dyn Tools, physical: &Physical) -> Result<Vec<Found>, DeployError> {
    let volumes = Lvm::on(tools, &physical.device).volumes(&physical.group)?;
    let metadata = volumes.iter().find(|volume| volume.name == "metadata");
    // In a group of several devices it is on one of them.
    let Some(place) = metadata.and_then(|metadata| physical.ranges(metadata).first().copied()) else {
        return Ok(Vec::new());
    };
    let file = SharedFile::open(&physical.device, false).map_err(SetupError::from)?;
    let mut found = Vec::new();
    for volume in &volumes {
        let slot = volume.tag(layout::SLOT_TAG).and_then(|slot| slot.parse::<u64>().ok());
        let image = volume.tag(layout::IMAGE_TAG).and_then(|image| image.parse().ok());
        let (Some(slot), Some(image), Ok(id)) = (slot, image, volume.name.parse()) else { continue };
        let offset = layout::slot_offset(slot);
        if offset >= place.length {
            continue;
        }
        let text = file.read(place.offset + offset, layout::SLOT_USED).map_err(SetupError::from)?;
        if let Some(role) = layout::slot_description(&text).and_then(|text| layout::role_of(&text)) {
            found.push(Found { role, ids: VolumeIds { image, volume: id }, slot });
        }
    }
    Ok(found)
}

/// The volumes of the request's domain.
fn volumes(world: &World<'_>) -> Result<Vec<Found>, DeployError> {
    if let Request::FirstHost(first) = world.request {
        let found = |role| Found { role, ids: ids_of(&first.ids, role), slot: layout::slot(role) };
        return Ok(ROLES.map(found).to_vec());
    }
    let group = layout::group(sd(world));
    for physical in domains(world.paths, world.tools, storage(world).lun.as_ref())? {
        if physical.group == group {
            let found = inventory(world.tools, &physical)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Err(DeployError::Refused(format!(
        "there is no hosted engine in the storage domain {group}, or this host does not see the domain's LUN"
    )))
}

impl Block {
    fn zero_volume(world: &World<'_>, group: &str, name: &str, bytes: u64) -> Result<(), DeployError> {
        let device = volume_device(world.paths, group, name);
        if bytes > LONG {
            world.report.info(&format!("Writing zeros to the VM's disk ({} GiB)", bytes >> 30));
        }
        lvm::zero(world.tools, &device, Range { offset: 0, length: bytes })
    }

    /// Activates what is not, and makes the links.
    fn activate(world: &World<'_>, found: &[Found], maker: links::Maker<'_>) -> Result<(), DeployError> {
        let sd = sd(world);
        let lun = storage(world).lun.as_ref();
        let group = layout::group(sd);
        let names: Vec<String> = found.iter().map(|found| found.ids.volume.to_string()).collect();
        let inactive = inactive(world.paths, &group, &names);
        if !inactive.is_empty() {
            let device = lun.map(|lun| device::find(world.paths, lun)).transpose()?;
            maker(Activated { lun: lun.cloned(), group: group.clone() }.into(), &mut || match &device {
                Some(device) => Lvm::on(world.tools, &device.path).activate(&group, &inactive),
                None => Lvm::anywhere(world.tools).activate(&group, &inactive),
            })?;
        }
        let volumes: Vec<_> = found.iter().map(|found| (found.role, found.ids)).collect();
        links::make(world.paths, sd, &volumes, maker)
    }
}

/// Those of the volumes, and of the domain's own that this product uses, that have no device on this host.
fn inactive<'n>(paths: &Paths, group: &str, names: &'n [String]) -> Vec<&'n str> {
    let all = layout::USED.into_iter().chain(names.iter().map(String::as_str));
    all.filter(|name| !volume_device(paths, group, name).exists()).collect()
}

impl Backend for Block {
    fn connect(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let storage = storage(&job.world);
        match storage.kind {
            StorageKind::Iscsi => iscsi::connect(job, storage)?,
            StorageKind::Fc => {
                // A path is the operator's word that the device is there.
                if !storage.lun.as_ref().is_some_and(|lun| lun.id.starts_with('/')) {
                    rescan_fibre_channel(job.world.paths)?;
                }
            }
            StorageKind::Nfs
            | StorageKind::Nfs3
            | StorageKind::Nfs4
            | StorageKind::Glusterfs
            | StorageKind::Directory => {
                return Err(DeployError::Refused(format!("{:?} is no block storage", storage.kind)));
            }
        }
        luns::settle(job.world.tools);
        if let Some(lun) = &storage.lun {
            device::find(job.world.paths, lun)?;
        }
        Ok(())
    }

    fn find(&self, world: &World<'_>) -> Result<Vec<FoundDomain>, DeployError> {
        let mut all = Vec::new();
        for physical in domains(world.paths, world.tools, storage(world).lun.as_ref())? {
            let Ok(sd_uuid) = physical.group.parse() else { continue };
            let volumes = inventory(world.tools, &physical)?;
            let Some(found) = volumes.iter().find(|found| found.role == Role::Configuration) else {
                continue;
            };
            let name = found.ids.volume.to_string();
            let configuration = volume_device(world.paths, &physical.group, &name);
            if !configuration.exists() {
                // It is only read; what is made usable for good is in the journal, and taken back with it.
                Lvm::on(world.tools, &physical.device).activate(&physical.group, &[&name])?;
            }
            all.push(FoundDomain { sd_uuid, configuration });
        }
        Ok(all)
    }

    fn make_domain(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (first, lun) = first(&job.world)?;
        let device = device::find(job.world.paths, lun)?;
        let group = group_of(first, lun);
        let needed = layout::overhead(device.grid) + layout::in_extents(first.vm.disk_gib << 30);
        device::check_vacant(job.world.tools, &device, needed)?;
        let physical = MadePhysical { lun: lun.clone(), uuid: layout::physical_uuid(first.ids.deploy) };
        let uuid = physical.uuid.clone();
        job.make(physical, |world| {
            let lvm = Lvm::on(world.tools, &device.path);
            lvm.create_physical(&device.path, &uuid, layout::LVM_METADATA_MIB).map_err(old_lvm)
        })?;
        job.make(group.clone(), |world| {
            let tags = [layout::UNREADY_TAG, group.tag.as_str()];
            let lvm = Lvm::on(world.tools, &device.path);
            lvm.create_group(&device.path, &group.name, layout::EXTENT_MIB, &tags).map_err(old_lvm)
        })?;
        for (name, mib) in layout::own_volumes(device.grid) {
            job.make(MadeLogical { group: group.clone(), name: name.to_owned() }, |world| {
                Lvm::on(world.tools, &device.path).create_volume(&group.name, name, mib, &[])?;
                if name == "master" {
                    // VDSM's alone, which makes a file system in it.
                    return Ok(());
                }
                Self::zero_volume(world, &group.name, name, layout::in_extents(mib * MIB))
            })?;
        }
        let world = job.world;
        links::make(world.paths, first.ids.sd, &[], &mut |made, act| job.make(made, |_| act()))
    }

    fn make_volume(&self, job: &mut Job<'_>, role: Role, bytes: u64) -> Result<(), DeployError> {
        let (first, lun) = first(&job.world)?;
        let device = device::find(job.world.paths, lun)?;
        let group = group_of(first, lun);
        let ids = ids_of(&first.ids, role);
        let (slot, name) = (layout::slot(role), ids.volume.to_string());
        let bytes = layout::in_extents(bytes);
        let free = domain_on(job.world.tools, &device, &group.name)?.free_bytes();
        if free < bytes {
            return Err(DeployError::Refused(format!(
                "{} has {} MiB left, and the volume {} needs {} MiB",
                device.path.display(),
                free / MIB,
                layout::description(role),
                bytes / MIB
            )));
        }
        job.make(MadeLogical { group: group.clone(), name: name.clone() }, |world| {
            let tags = layout::volume_tags(ids.image, slot);
            let lvm = Lvm::on(world.tools, &device.path);
            lvm.create_volume(&group.name, &name, bytes / MIB, &tags)?;
            Self::zero_volume(world, &group.name, &name, bytes)?;
            let text = layout::volume_text(first.ids.sd, ids, role, bytes, SystemClock.wall().0);
            let metadata = volume_device(world.paths, &group.name, "metadata");
            let write =
                || SharedFile::open(&metadata, true)?.write(layout::slot_offset(slot), text.as_bytes());
            Ok(write().map_err(SetupError::from)?)
        })
    }

    fn prepare(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = job.world;
        let found = volumes(&world)?;
        Self::activate(&world, &found, &mut |made, act| job.make(made, |_| act()))
    }

    fn volume(&self, world: &World<'_>, role: Role) -> PathBuf {
        match world.request {
            Request::FirstHost(first) => links::volume(world.paths, first.ids.sd, ids_of(&first.ids, role)),
            // Their names are in the domain. What cannot be found has a path that says what is missing.
            Request::FurtherHost(further) => {
                let all = volumes(world).unwrap_or_default();
                let found = all.into_iter().find(|found| found.role == role);
                found.map_or_else(
                    || {
                        let domain = links::domain_directory(world.paths, further.sd_uuid);
                        domain.join("ha_agent").join(layout::description(role))
                    },
                    |found| links::volume(world.paths, further.sd_uuid, found.ids),
                )
            }
        }
    }

    fn ids(&self, world: &World<'_>) -> LeasePlace {
        LeasePlace { path: links::domain_directory(world.paths, sd(world)).join("dom_md/ids"), offset: 0 }
    }

    fn vm_lease(&self, world: &World<'_>) -> Result<LeasePlace, DeployError> {
        let found = volumes(world)?;
        let disk = found.iter().find(|found| found.role == Role::Disk).ok_or_else(|| {
            DeployError::Refused(format!("the storage domain {} has no disk of an engine VM", sd(world)))
        })?;
        let path = links::domain_directory(world.paths, sd(world)).join("dom_md/leases");
        let file = SharedFile::open(&path, false).map_err(SetupError::from)?;
        let grid = crate::setup::grid_for(file.sector_size().map_err(SetupError::from)?);
        Ok(LeasePlace { path, offset: layout::lease_offset(disk.slot, grid) })
    }

    fn complete(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let (first, lun) = first(&job.world)?;
        let device = device::find(job.world.paths, lun)?;
        let group = group_of(first, lun);
        let physical = domain_on(job.world.tools, &device, &group.name)?;
        if physical.has_tag(layout::DOMAIN_TAG) {
            return Ok(());
        }
        let added = DomainTags {
            sd: first.ids.sd,
            name: &first.domain_name,
            kind: if first.storage.kind == StorageKind::Iscsi { "ISCSI" } else { "FCP" },
            grid: device.grid,
            group_uuid: &physical.group_uuid,
            physical: (&device.guid(), &physical.uuid, physical.extents()),
        };
        let added = added.tags();
        let made = MadeDomainTags {
            group: group.clone(),
            added: added.clone(),
            removed: layout::UNREADY_TAG.to_owned(),
        };
        job.make(made, |world| {
            let lvm = Lvm::on(world.tools, &device.path);
            lvm.change_tags(&group.name, &[layout::UNREADY_TAG], &added)
        })
    }
}

/// The physical volume of the group that this deployment has made.
fn domain_on(tools: &dyn Tools, device: &Device, group: &str) -> Result<Physical, DeployError> {
    let found = Lvm::on(tools, &device.path).physicals()?;
    found.into_iter().find(|physical| physical.group == group).ok_or_else(|| {
        DeployError::Refused(format!("the volume group {group} is not on {} any more", device.path.display()))
    })
}

/// Options that old releases do not know are the likeliest reason for a refusal of their command line.
fn old_lvm(error: DeployError) -> DeployError {
    match error {
        DeployError::Tool(ToolError::Failed { said, call, .. }) if said.contains("nrecognized option") => {
            DeployError::Refused(format!("`{call}` failed: {said}; LVM of 2.03.12 or later is needed"))
        }
        other => other,
    }
}

/// Makes the storage of a deployed host usable: logs in to iSCSI where that is missing, activates the volumes, makes the
/// links; false when all of that is so already. Needed after each boot of a host without VDSM.
///
/// # Errors
/// What stands in the way.
pub fn bring_up(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    let paths = conf.paths();
    if conf.domain_type()? == DomainType::Iscsi {
        iscsi::log_in_again(paths, tools, &iscsi_of(conf)?)?;
    }
    luns::settle(tools);
    let uuid = |key: &str, text: &str| {
        text.parse::<Uuid>().map_err(|error| {
            DeployError::Refused(format!(
                "{}: {key}={text} is no uuid: {error}",
                conf.file().path().display()
            ))
        })
    };
    let sd = uuid("sdUUID", conf.sd_uuid()?)?;
    let mut volumes = vec![
        (
            Role::Metadata,
            VolumeIds {
                image: uuid("metadata_image_UUID", conf.metadata_image()?)?,
                volume: uuid("metadata_volume_UUID", conf.metadata_volume()?)?,
            },
        ),
        (
            Role::Lockspace,
            VolumeIds {
                image: uuid("lockspace_image_UUID", conf.lockspace_image()?)?,
                volume: uuid("lockspace_volume_UUID", conf.lockspace_volume()?)?,
            },
        ),
        (
            Role::Disk,
            VolumeIds {
                image: uuid("vm_disk_id", conf.vm_disk_id()?)?,
                volume: uuid("vm_disk_vol_id", conf.vm_disk_vol_id()?)?,
            },
        ),
    ];
    if let (Some(image), Some(volume)) = (conf.conf_image(), conf.conf_volume()) {
        let ids =
            VolumeIds { image: uuid("conf_image_UUID", image)?, volume: uuid("conf_volume_UUID", volume)? };
        volumes.push((Role::Configuration, ids));
    }
    let group = layout::group(sd);
    let names: Vec<String> = volumes.iter().map(|(_, ids)| ids.volume.to_string()).collect();
    let inactive = inactive(paths, &group, &names);
    if !inactive.is_empty() {
        Lvm::anywhere(tools).activate(&group, &inactive)?;
    }
    let mut is_new = !inactive.is_empty();
    links::make(paths, sd, &volumes, &mut |_, act| {
        is_new = true;
        act()
    })?;
    Ok(is_new)
}

/// Logs in again, and activates what was made so far.
///
/// # Errors
/// What stands in the way.
pub fn must_be_connected(world: &World<'_>) -> Result<(), DeployError> {
    let storage = storage(world);
    if let Some(iscsi) = &storage.iscsi {
        let portals = iscsi::portals(&storage.connection, iscsi)?;
        iscsi::log_in_again(world.paths, world.tools, &portals)?;
    }
    luns::settle(world.tools);
    let group = layout::group(sd(world));
    for physical in domains(world.paths, world.tools, storage.lun.as_ref())? {
        if physical.group != group {
            continue;
        }
        let lvm = Lvm::on(world.tools, &physical.device);
        let names: Vec<String> = lvm.volumes(&group)?.into_iter().map(|volume| volume.name).collect();
        let inactive = inactive(world.paths, &group, &names);
        if !inactive.is_empty() {
            lvm.activate(&group, &inactive)?;
        }
    }
    Ok(())
}

/// Takes the volumes away from this host; false when none is active. Sessions stay: the host may use the target for more.
///
/// # Errors
/// What stands in the way: something uses a volume.
pub fn take_down(conf: &HostedEngineConf, tools: &dyn Tools) -> Result<bool, DeployError> {
    let group = conf.sd_uuid()?;
    if !volume_device(conf.paths(), group, "ids").exists() {
        return Ok(false);
    }
    Lvm::anywhere(tools).deactivate_group(group)?;
    Ok(true)
}

/// The ways to the target of a deployed host: `storage` and `port` are lists side by side, `portal` is the group.
fn iscsi_of(conf: &HostedEngineConf) -> Result<Vec<iscsi::Portal>, DeployError> {
    let target = conf.file().require("iqn", "the name of the iSCSI target")?.to_owned();
    let ports = conf.file().get("port").unwrap_or_default();
    let ports = ports.split(',').filter_map(|port| port.trim().parse().ok()).collect();
    let tpgt = conf.portal().and_then(|group| group.parse().ok()).unwrap_or(1);
    iscsi::portals(conf.storage()?, &crate::deploy::Iscsi { target, tpgt, ports, user: None })
}

#[cfg(test)]
mod tests;
