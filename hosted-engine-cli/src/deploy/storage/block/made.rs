//! What is made on a block device, and how it is taken back: only where the uuid or the tag of this deployment proves
//! that it is what was made.
//!
//! What is removed is overwritten with zeros before, so that the device is as empty as it was found: LVM's metadata, and
//! the volumes. Of a volume larger than 4 GiB, the VM's disk, only the first and the last extent: the rest is data that
//! no signature leads to.

use std::path::Path;

use ha_config::Paths;
use ha_config::shared_file::{SharedFile, UNIT};
use metadata_format::MAX_HOST_ID;
use sanlock_client::DeltaRecord;
use serde::{Deserialize, Serialize};

use super::device::{self, Device};
use super::lvm::{self, Logical, Lvm, Physical, Range};
use crate::deploy::made::{Undo, Undone};
use crate::deploy::{DeployError, Lun, World};
use crate::setup::SetupError;

/// Volumes up to this size are overwritten as a whole.
const WHOLE: u64 = 4 << 30;

/// LVM's label of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadePhysical {
    /// The device.
    pub lun: Lun,
    /// Its uuid, drawn before it is made.
    pub uuid: String,
}

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeGroup {
    /// The device.
    pub lun: Lun,
    /// Its name.
    pub name: String,
    /// The tag that it has from its first moment on.
    pub tag: String,
}

/// A logical volume in a group that this deployment made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeLogical {
    /// Its group.
    pub group: MadeGroup,
    /// Its name.
    pub name: String,
}

/// The tags by which others find a storage domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeDomainTags {
    /// The volume group.
    pub group: MadeGroup,
    /// The tags that are added.
    pub added: Vec<String>,
    /// The tag that is taken away.
    pub removed: String,
}

/// Volumes that were made usable on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// The device; `None`: on any.
    pub lun: Option<Lun>,
    /// The volume group.
    pub group: String,
}

/// What is on the device now.
enum Present {
    /// The group, with the tag.
    Ours(Box<Physical>),
    Absent,
    Foreign(String),
}

impl MadeGroup {
    fn look(
        &self,
        paths: &Paths,
        tools: &dyn crate::deploy::Tools,
    ) -> Result<(Device, Present), DeployError> {
        let device = device::find(paths, &self.lun)?;
        let physical = Lvm::on(tools, &device.path).physicals()?.into_iter().next();
        let present = match physical {
            None => Present::Absent,
            Some(physical) if physical.group.is_empty() => Present::Absent,
            Some(physical) if physical.group == self.name && physical.has_tag(&self.tag) => {
                Present::Ours(Box::new(physical))
            }
            Some(physical) => Present::Foreign(format!(
                "the volume group on {} is {} without the tag {}: somebody else made it",
                device.path.display(),
                physical.group,
                self.tag
            )),
        };
        Ok((device, present))
    }
}

impl Undo for MadePhysical {
    fn describe(&self) -> String {
        format!("LVM's label on {}", self.lun.id)
    }

    fn describe_undo(&self) -> String {
        format!("overwritten with zeros when it has the uuid {} and is in no volume group", self.uuid)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let device = device::find(world.paths, &self.lun)?;
        let label = Label::read(&device.path)?;
        match label {
            Label::None => return Ok(Undone::Absent),
            Label::Uuid(uuid) if uuid != self.uuid.replace('-', "") => {
                return Ok(Undone::LeftAlone(format!(
                    "the label on {} has the uuid {uuid}",
                    device.path.display()
                )));
            }
            Label::Uuid(_) | Label::Unfinished => {}
        }
        // Metadata that were overwritten by an undoing that was cut cannot be read: then there is no group either.
        let physical =
            Lvm::on(world.tools, &device.path).physicals().ok().and_then(|all| all.into_iter().next());
        if let Some(group) = physical.as_ref().map(|physical| &physical.group).filter(|name| !name.is_empty())
        {
            return Ok(Undone::LeftAlone(format!("the volume group {group} is on it")));
        }
        let area = super::layout::LVM_METADATA_MIB << 20;
        // Where the areas are follows from the sizes that were asked for; the label goes last, for it proves the rest.
        let tail = (device.bytes.saturating_sub(area + (2 << 20))) / UNIT as u64 * UNIT as u64;
        let head = UNIT as u64;
        for range in [
            Range { offset: tail, length: device.bytes - tail },
            Range { offset: head, length: area + (2 << 20) - head },
            Range { offset: 0, length: head },
        ] {
            lvm::zero(world.tools, &device.path, range)?;
        }
        Ok(Undone::TakenBack)
    }
}

/// What the second sector says: LVM's own layout, `LABELONE`, then at byte 32 the uuid.
#[derive(Debug, PartialEq, Eq)]
enum Label {
    None,
    /// Metadata areas without a label: LVM was cut while it made them.
    Unfinished,
    /// Without dashes.
    Uuid(String),
}

impl Label {
    fn read(path: &Path) -> Result<Self, DeployError> {
        let file = SharedFile::open(path, false).map_err(SetupError::from)?;
        let bytes = file.read(0, 2 * UNIT).map_err(SetupError::from)?;
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        const AREA: &[u8] = b" LVM2 x[5A%r0N*>";
        let label = bytes.get(512..512 + 64).unwrap_or_default();
        if label.starts_with(b"LABELONE") && &label[24..32] == b"LVM2 001" {
            return Self::Uuid(String::from_utf8_lossy(&label[32..64]).into_owned());
        }
        let area = bytes.get(4096 + 4..4096 + 4 + AREA.len());
        if area == Some(AREA) { Self::Unfinished } else { Self::None }
    }
}

impl Undo for MadeGroup {
    fn describe(&self) -> String {
        format!("volume group {} on {}", self.name, self.lun.id)
    }

    fn describe_undo(&self) -> String {
        format!("removed when it has the tag {} and no other host uses it", self.tag)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let (device, present) = self.look(world.paths, world.tools)?;
        let physical = match present {
            Present::Absent => return Ok(Undone::Absent),
            Present::Foreign(why) => return Ok(Undone::LeftAlone(why)),
            Present::Ours(physical) => physical,
        };
        let lvm = Lvm::on(world.tools, &device.path);
        let volumes = lvm.volumes(&self.name)?;
        if let Some(why) = used_elsewhere(world, &device.path, &physical, &volumes)? {
            return Ok(Undone::LeftAlone(why));
        }
        lvm.deactivate_group(&self.name)?;
        for volume in &volumes {
            overwrite(world, &device.path, &physical, volume)?;
        }
        lvm.remove_group(&self.name)?;
        Ok(Undone::TakenBack)
    }
}

/// Another host that holds, or held until it died, its id in the domain's lockspace.
fn used_elsewhere(
    world: &World<'_>,
    device: &Path,
    physical: &Physical,
    volumes: &[Logical],
) -> Result<Option<String>, DeployError> {
    let Some(ids) = volumes.iter().find(|volume| volume.name == "ids") else { return Ok(None) };
    let Some(place) = physical.ranges(ids).first().copied() else { return Ok(None) };
    let file = SharedFile::open(device, false).map_err(SetupError::from)?;
    let own = match world.request {
        crate::deploy::Request::FirstHost(first) => first.host.id,
        crate::deploy::Request::FurtherHost(further) => further.host.id,
    };
    let first = file.read(place.offset, UNIT).map_err(SetupError::from)?;
    let Some(first) = DeltaRecord::parse(&first) else { return Ok(None) };
    let sector = u64::from(first.sector_size.max(512));
    let bytes = file.read(place.offset, usize::try_from(sector * u64::from(MAX_HOST_ID)).unwrap_or(0));
    let bytes = bytes.map_err(SetupError::from)?;
    let records = bytes.chunks(usize::try_from(sector).unwrap_or(512)).filter_map(DeltaRecord::parse);
    let other = records.into_iter().find(|record| record.is_taken() && record.host_id != u64::from(own));
    Ok(other.map(|record| {
        format!(
            "the host {} (id {}) has not given its id in the storage domain up: undeploy it first",
            record.owner, record.host_id
        )
    }))
}

/// Zeros over a volume, on the device itself: the volume need not be active.
fn overwrite(
    world: &World<'_>,
    device: &Path,
    physical: &Physical,
    volume: &Logical,
) -> Result<(), DeployError> {
    let ranges = physical.ranges(volume);
    let extent = physical.extent_bytes();
    for range in &ranges {
        if volume.bytes <= WHOLE {
            lvm::zero(world.tools, device, *range)?;
            continue;
        }
        let last = range.offset + range.length - extent;
        lvm::zero(world.tools, device, Range { offset: range.offset, length: extent })?;
        lvm::zero(world.tools, device, Range { offset: last, length: extent })?;
    }
    Ok(())
}

impl Undo for MadeLogical {
    fn describe(&self) -> String {
        format!("logical volume {}/{}", self.group.name, self.name)
    }

    fn describe_undo(&self) -> String {
        format!("removed when its volume group has the tag {} and no other host uses it", self.group.tag)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let (device, present) = self.group.look(world.paths, world.tools)?;
        let physical = match present {
            Present::Absent => return Ok(Undone::Absent),
            Present::Foreign(why) => return Ok(Undone::LeftAlone(why)),
            Present::Ours(physical) => physical,
        };
        let lvm = Lvm::on(world.tools, &device.path);
        let volumes = lvm.volumes(&self.group.name)?;
        let Some(volume) = volumes.iter().find(|volume| volume.name == self.name) else {
            return Ok(Undone::Absent);
        };
        if let Some(why) = used_elsewhere(world, &device.path, &physical, &volumes)? {
            return Ok(Undone::LeftAlone(why));
        }
        lvm.deactivate(&self.group.name, &self.name)?;
        overwrite(world, &device.path, &physical, volume)?;
        lvm.remove_volume(&self.group.name, &self.name)?;
        Ok(Undone::TakenBack)
    }
}

impl Undo for MadeDomainTags {
    fn describe(&self) -> String {
        format!("the tags by which others find the storage domain {}", self.group.name)
    }

    fn describe_undo(&self) -> String {
        format!("taken away when the volume group has the tag {} and no other host uses it", self.group.tag)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let (device, present) = self.group.look(world.paths, world.tools)?;
        let physical = match present {
            Present::Absent => return Ok(Undone::Absent),
            Present::Foreign(why) => return Ok(Undone::LeftAlone(why)),
            Present::Ours(physical) => physical,
        };
        let there: Vec<&str> =
            self.added.iter().map(String::as_str).filter(|tag| physical.has_tag(tag)).collect();
        if there.is_empty() {
            return Ok(Undone::Absent);
        }
        let lvm = Lvm::on(world.tools, &device.path);
        if let Some(why) = used_elsewhere(world, &device.path, &physical, &lvm.volumes(&self.group.name)?)? {
            return Ok(Undone::LeftAlone(why));
        }
        lvm.change_tags(&self.group.name, &there, std::slice::from_ref(&self.removed))?;
        Ok(Undone::TakenBack)
    }
}

impl Undo for Activated {
    fn describe(&self) -> String {
        format!("the active volumes of {}", self.group)
    }

    fn describe_undo(&self) -> String {
        "deactivated on this host".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let device = self.lun.as_ref().map(|lun| device::find(world.paths, lun)).transpose()?;
        let lvm = match &device {
            Some(device) => Lvm::on(world.tools, &device.path),
            None => Lvm::anywhere(world.tools),
        };
        if !lvm.physicals()?.iter().any(|physical| physical.group == self.group) {
            return Ok(Undone::Absent);
        }
        lvm.deactivate_group(&self.group)?;
        Ok(Undone::TakenBack)
    }
}

#[cfg(test)]
#[path = "made_tests.rs"]
mod tests;
