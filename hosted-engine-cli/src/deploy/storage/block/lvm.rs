//! LVM's commands as this program uses them, and what they say.
//!
//! Where the device is known every command is told it (`--devices`): other storage of the host, which may hang, is neither
//! scanned nor touched, and neither the host's devices file nor a filter hides the device. Elsewhere all devices are
//! looked at, those that are not in the devices file too. Hints and copies of the metadata below `/etc/lvm` are left out:
//! other hosts use the volume group too, and would make them wrong.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::deploy::DeployError;
use crate::deploy::tools::{Call, ToolError, Tools};

/// Settings for each command, over those of the host.
const CONFIG: &str = "devices{hints=\"none\" obtain_device_list_from_udev=0} backup{backup=0 archive=0}";

/// [`CONFIG`] for all devices of the host.
const CONFIG_ANYWHERE: &str = "devices{hints=\"none\" obtain_device_list_from_udev=0 use_devicesfile=0} \
                               backup{backup=0 archive=0}";

/// LVM on one device, or on all of the host.
#[derive(Clone, Copy)]
pub(super) struct Lvm<'a> {
    tools: &'a dyn Tools,
    device: Option<&'a Path>,
}

/// A physical volume, with its volume group where it is in one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Physical {
    /// Its device.
    #[serde(rename = "pv_name")]
    pub device: PathBuf,
    /// `012345-6789-…`
    #[serde(rename = "pv_uuid")]
    pub uuid: String,
    /// Name of its volume group; empty when it is in none.
    #[serde(rename = "vg_name")]
    pub group: String,
    /// Uuid of that.
    #[serde(rename = "vg_uuid")]
    pub group_uuid: String,
    #[serde(rename = "vg_tags")]
    tags: String,
    #[serde(deserialize_with = "number")]
    pe_start: u64,
    #[serde(rename = "vg_extent_size", deserialize_with = "number")]
    extent: u64,
    #[serde(rename = "pv_pe_count", deserialize_with = "number")]
    extents: u64,
    #[serde(rename = "vg_free_count", deserialize_with = "number")]
    free: u64,
}

/// The fields of [`Physical`].
const PHYSICAL: &str =
    "pv_name,pv_uuid,vg_name,vg_uuid,vg_tags,pe_start,vg_extent_size,pv_pe_count,vg_free_count";

/// A part of a device in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// From the device's start.
    pub offset: u64,
    /// How long.
    pub length: u64,
}

impl Physical {
    /// Tags of the volume group.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.split(',').filter(|tag| !tag.is_empty())
    }

    /// Whether the volume group has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|one| one == tag)
    }

    /// Bytes of one extent; 0 outside of a volume group.
    pub fn extent_bytes(&self) -> u64 {
        self.extent
    }

    /// Extents of the device.
    pub fn extents(&self) -> u64 {
        self.extents
    }

    /// Bytes that are not given to any volume yet.
    pub fn free_bytes(&self) -> u64 {
        self.free.saturating_mul(self.extent)
    }

    /// Where those extents of a volume lie that are on this device, in their order.
    pub fn ranges(&self, volume: &Logical) -> Vec<Range> {
        let here = volume.extents.iter().filter(|extents| extents.device == self.device);
        here.map(|extents| Range {
            offset: self.pe_start + extents.first * self.extent,
            length: (extents.last + 1 - extents.first) * self.extent,
        })
        .collect()
    }
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes.
    pub bytes: u64,
    extents: Vec<Extents>,
}

/// A run of a device's extents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extents {
    device: PathBuf,
    first: u64,
    last: u64,
}

impl Logical {
    /// What follows `prefix` in the tag that has it.
    pub fn tag(&self, prefix: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
    }
}

#[derive(Deserialize)]
struct Segment {
    lv_name: String,
    lv_tags: String,
    #[serde(deserialize_with = "number")]
    lv_size: u64,
    seg_pe_ranges: String,
}

/// LVM writes numbers as texts.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.trim().parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is no number of bytes")))
}

impl<'a> Lvm<'a> {
    /// LVM on the device at this path.
    pub fn on(tools: &'a dyn Tools, device: &'a Path) -> Self {
        Self { tools, device: Some(device) }
    }

    /// LVM on all devices of the host.
    pub fn anywhere(tools: &'a dyn Tools) -> Self {
        Self { tools, device: None }
    }

    fn call(&self, verb: &str) -> Call {
        let call = Call::new("lvm").arg(verb);
        match self.device {
            Some(device) => call.args(["--config", CONFIG]).arg("--devices").arg(device),
            None => call.args(["--config", CONFIG_ANYWHERE]),
        }
    }

    fn run(&self, call: &Call) -> Result<(), DeployError> {
        Ok(self.tools.run(call).map(drop)?)
    }

    fn report<T: DeserializeOwned>(&self, call: Call, section: &str) -> Result<Vec<T>, DeployError> {
        let call = call.args(["--reportformat", "json", "--units", "b", "--nosuffix"]);
        let said = self.tools.run(&call)?;
        let strange = |why: String| {
            DeployError::Refused(format!(
                "what `{call}` said cannot be read: {why}; is this LVM of 2.03.12 or later?"
            ))
        };
        let mut all: serde_json::Value =
            serde_json::from_str(&said.out).map_err(|error| strange(error.to_string()))?;
        let rows = all.pointer_mut(&format!("/report/0/{section}")).map(serde_json::Value::take);
        let rows = rows.ok_or_else(|| strange(format!("it has no {section:?}")))?;
        serde_json::from_value(rows).map_err(|error| strange(error.to_string()))
    }

    /// The physical volumes: of one device at most one.
    pub fn physicals(&self) -> Result<Vec<Physical>, DeployError> {
        self.report(self.call("pvs").args(["--options", PHYSICAL]), "pv")
    }

    /// The volumes of a group.
    pub fn volumes(&self, group: &str) -> Result<Vec<Logical>, DeployError> {
        let fields = "lv_name,lv_tags,lv_size,seg_pe_ranges";
        let rows: Vec<Segment> = self.report(self.call("lvs").args(["--options", fields, group]), "lv")?;
        let mut all: Vec<Logical> = Vec::new();
        for row in rows {
            let extents = row.seg_pe_ranges.split_whitespace().filter_map(extents);
            if let Some(known) = all.iter_mut().find(|known| known.name == row.lv_name) {
                known.extents.extend(extents);
                continue;
            }
            all.push(Logical {
                extents: extents.collect(),
                name: row.lv_name,
                tags: row.lv_tags.split(',').filter(|tag| !tag.is_empty()).map(ToOwned::to_owned).collect(),
                bytes: row.lv_size,
            });
        }
        Ok(all)
    }

    /// Makes the device a physical volume with this uuid, with two areas of metadata, as VDSM has them.
    pub fn create_physical(&self, device: &Path, uuid: &str, metadata_mib: u64) -> Result<(), DeployError> {
        let create = self.call("pvcreate").args(["--uuid", uuid, "--norestorefile"]);
        let create = create.args(["--metadatasize", &format!("{metadata_mib}m"), "--metadatacopies", "2"]);
        self.run(&create.args(["--metadataignore", "y"]).arg(device))?;
        self.run(&self.call("pvchange").args(["--metadataignore", "n"]).arg(device))
    }

    /// Makes a volume group that no host activates by itself.
    pub fn create_group(
        &self,
        device: &Path,
        name: &str,
        extent_mib: u64,
        tags: &[&str],
    ) -> Result<(), DeployError> {
        let call = self.call("vgcreate").args(["--setautoactivation", "n"]);
        let call = call.args(["--physicalextentsize", &format!("{extent_mib}m")]);
        let call = tags.iter().fold(call, |call, tag| call.args(["--addtag", tag]));
        self.run(&call.arg(name).arg(device))
    }

    /// Makes a volume and activates it here.
    pub fn create_volume(
        &self,
        group: &str,
        name: &str,
        mib: u64,
        tags: &[String],
    ) -> Result<(), DeployError> {
        let call = self.call("lvcreate").args(["--yes", "--wipesignatures", "n", "--contiguous", "n"]);
        let call = call.args(["--size", &format!("{mib}m")]);
        let call = tags.iter().fold(call, |call, tag| call.args(["--addtag", tag]));
        self.run(&call.args(["--name", name, group]))
    }

    /// Changes tags of the group in one write.
    pub fn change_tags(&self, group: &str, remove: &[&str], add: &[String]) -> Result<(), DeployError> {
        let call = remove.iter().fold(self.call("vgchange"), |call, tag| call.args(["--deltag", tag]));
        let call = add.iter().fold(call, |call, tag| call.args(["--addtag", tag]));
        self.run(&call.arg(group))
    }

    /// Makes volumes usable on this host.
    pub fn activate(&self, group: &str, names: &[&str]) -> Result<(), DeployError> {
        let call = self.call("lvchange").args(["--activate", "y"]);
        self.run(&names.iter().fold(call, |call, name| call.arg(format!("{group}/{name}"))))
    }

    /// Takes all of a group's volumes away from this host. Fails while something has one of them open.
    pub fn deactivate_group(&self, group: &str) -> Result<(), DeployError> {
        let call = self.call("vgchange").args(["--activate", "n", group]);
        self.tools.run(&call).map(drop).map_err(in_use)
    }

    /// Takes a volume away from this host.
    pub fn deactivate(&self, group: &str, name: &str) -> Result<(), DeployError> {
        let call = self.call("lvchange").args(["--activate", "n"]).arg(format!("{group}/{name}"));
        self.tools.run(&call).map(drop).map_err(in_use)
    }

    /// Removes a volume that is not active here.
    pub fn remove_volume(&self, group: &str, name: &str) -> Result<(), DeployError> {
        self.run(&self.call("lvremove").arg("--force").arg(format!("{group}/{name}")))
    }

    /// Removes a group with all of its volumes.
    pub fn remove_group(&self, group: &str) -> Result<(), DeployError> {
        self.run(&self.call("vgremove").args(["--force", group]))
    }
}

/// Says who may have a volume open.
fn in_use(error: ToolError) -> DeployError {
    match error {
        ToolError::Failed { said, .. } if said.contains("in use") || said.contains("is used") => {
            DeployError::Refused(format!(
                "a volume is in use on this host ({said}): stop what uses it (the engine VM, ovirt-ha-agent, \
                 ovirt-ha-broker; sanlock client status shows leases) and try again"
            ))
        }
        other => other.into(),
    }
}

/// `/dev/sdb:1-16`.
fn extents(text: &str) -> Option<Extents> {
    let (device, range) = text.rsplit_once(':')?;
    let (first, last) = range.split_once('-')?;
    Some(Extents { device: device.into(), first: first.parse().ok()?, last: last.parse().ok()? })
}

/// Bytes that are written with zeros in one go: the report goes on in between, and no deadline is too short.
const CHUNK: u64 = 1 << 30;

/// Writes zeros to a part of a device. Storage that can do that by itself is asked to.
pub(super) fn zero(tools: &dyn Tools, device: &Path, range: Range) -> Result<(), DeployError> {
    let end = range.offset.saturating_add(range.length);
    let mut at = range.offset;
    while at < end {
        let length = CHUNK.min(end - at);
        let call = Call::new("blkdiscard").args(["--force", "--zeroout", "--offset", &at.to_string()]);
        let call = call.args(["--length", &length.to_string()]).arg(device);
        // 1 GiB at 3 MB/s.
        tools.run(&call.within(std::time::Duration::from_mins(6)))?;
        at += length;
    }
    Ok(())
}

/// Where LVM and udev put a volume's device.
pub(super) fn volume_device(paths: &ha_config::Paths, group: &str, name: &str) -> PathBuf {
    paths.resolve("/dev").join(group).join(name)
}

#[cfg(test)]
#[path = "lvm_tests.rs"]
mod tests;
