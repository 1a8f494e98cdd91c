//! The hosted engine's volumes, found by what is written in the storage domains: their tags, and the volume `metadata`.

use ha_config::Paths;
use ha_config::shared_file::SharedFile;
use uuid::Uuid;

use super::super::{FoundDomain, Role};
use super::lvm::{Lvm, Physical};
use super::{ROLES, device, ids_of, layout, links, sd, storage};
use crate::deploy::tools::Tools;
use crate::deploy::{DeployError, Lun, Request, VolumeIds, World};
use crate::setup::SetupError;

/// A volume that was found in a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// What it is for.
    pub role: Role,
    /// Its image and its name.
    pub ids: VolumeIds,
    /// Its place in the volumes `metadata` and `leases`.
    pub slot: u64,
}

/// The storage domains' physical volumes: on the LUN, or on any device of this host.
pub(super) fn domains(
    paths: &Paths,
    tools: &dyn Tools,
    lun: Option<&Lun>,
) -> Result<Vec<Physical>, DeployError> {
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

/// The storage domains of the request's storage, each with the hosted engine's volumes in it.
pub(super) fn carriers(world: &World<'_>) -> Result<Vec<(Uuid, Vec<Found>)>, DeployError> {
    let mut all = Vec::new();
    for physical in domains(world.paths, world.tools, storage(world).lun.as_ref())? {
        if let Ok(sd) = physical.group.parse() {
            all.push((sd, inventory(world.tools, &physical)?));
        }
    }
    Ok(all)
}

/// A domain that carries a hosted engine.
pub(super) fn carrier(paths: &Paths, sd_uuid: Uuid, volumes: &[Found]) -> Option<FoundDomain> {
    let found = volumes.iter().find(|found| found.role == Role::Configuration)?;
    Some(FoundDomain { sd_uuid, configuration: links::volume(paths, sd_uuid, found.ids) })
}

/// The volumes of the request's domain.
pub(super) fn volumes(world: &World<'_>) -> Result<Vec<Found>, DeployError> {
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
