//! What is where in a block storage domain. Pure. The layout is VDSM's, version 5 of its storage domains (its
//! `blockSD.py`, `blockVolume.py`, `volumemetadata.py`), so that an engine can import the domain.
//!
//! ```text
//! volume group  <uuid of the domain>         tags: see `domain_tags`; extents of 128 MiB
//!   metadata    1 MiB + 8 KiB × slot         512 bytes of text about the volume with the tag MD_<slot>
//!   ids         0                            the domain's lockspace
//!   leases      (100 + slot) × alignment     the lease of the volume with the tag MD_<slot>
//!   xleases     0                            VM leases and their index
//!   inbox, outbox, master                    VDSM's alone
//!   <uuid>      tags IU_<image> PU_<parent> MD_<slot>: the volumes of images
//! ```
//!
//! The alignment is 1 MiB where sectors have 512 bytes, 8 MiB where they have 4096; VDSM itself knows 512 only.

use std::fmt::Write as _;

use sanlock_client::GridSize;
use uuid::Uuid;

use super::super::Role;
use crate::deploy::VolumeIds;
use crate::setup::volume::{BLANK_UUID, CONFIGURATION, DISK, LOCKSPACE, METADATA, MIB};

/// MiB of an extent.
pub(super) const EXTENT_MIB: u64 = 128;
/// MiB of each of LVM's two areas of metadata.
pub(super) const LVM_METADATA_MIB: u64 = 128;
/// Marks a storage domain's volume group.
pub(super) const DOMAIN_TAG: &str = "RHAT_storage_domain";
/// Marks one that is not complete.
pub(super) const UNREADY_TAG: &str = "RHAT_storage_domain_UNREADY";
/// Begins the tag of a volume's image.
pub(super) const IMAGE_TAG: &str = "IU_";
/// Begins the tag of a volume's parent.
const PARENT_TAG: &str = "PU_";
/// Begins the tag of a volume's slot.
pub(super) const SLOT_TAG: &str = "MD_";
/// Leases at the start of `leases` that belong to no volume.
const RESERVED_LEASES: u64 = 100;
/// Where the slots begin in `metadata`; before them lie those of older versions.
const SLOTS: u64 = MIB;
/// Bytes from slot to slot.
const SLOT: u64 = 8 << 10;
/// Bytes of a slot that are used: a sector.
pub(super) const SLOT_USED: usize = 512;

/// The volume group's name.
pub(super) fn group(sd: Uuid) -> String {
    sd.to_string()
}

/// Marks what one deployment made.
pub(super) fn deploy_tag(deploy: Uuid) -> String {
    format!("OVIRT_HA_DEPLOY_{deploy}")
}

/// The physical volume's uuid in LVM's form, from the deployment's: known before it is made.
pub(super) fn physical_uuid(deploy: Uuid) -> String {
    let hex = deploy.simple().to_string();
    [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32].map(|part| &hex[part]).join("-")
}

/// The domain's own volumes with their MiB. `metadata` comes first: VDSM wants it in the first extent.
pub(super) fn own_volumes(grid: GridSize) -> [(&'static str, u64); 7] {
    let align = grid.align_bytes() / MIB;
    [
        ("metadata", 128),
        ("inbox", 16),
        ("outbox", 16),
        ("ids", 8),
        ("leases", 2048 * align),
        ("xleases", 1024 * align),
        ("master", 1024),
    ]
}

/// Those that this product uses on every host.
pub(super) const USED: [&str; 4] = ["metadata", "ids", "leases", "xleases"];

/// Whole extents for so many bytes, in bytes.
pub(super) const fn in_extents(bytes: u64) -> u64 {
    bytes.next_multiple_of(EXTENT_MIB * MIB)
}

/// Bytes that a domain takes beside the VM's disk, with LVM's metadata.
pub(super) fn overhead(grid: GridSize) -> u64 {
    let own: u64 = own_volumes(grid).iter().map(|(_, mib)| in_extents(mib * MIB)).sum();
    own + 3 * in_extents(1) + 2 * LVM_METADATA_MIB * MIB + 2 * MIB
}

/// A volume's slot: its place in `metadata` and in `leases`. Slot 0 is VDSM's.
pub(super) const fn slot(role: Role) -> u64 {
    match role {
        Role::Metadata => 1,
        Role::Lockspace => 2,
        Role::Configuration => 3,
        Role::Disk => 4,
    }
}

/// What a volume's description says that it is.
pub(super) fn role_of(description: &str) -> Option<Role> {
    [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk]
        .into_iter()
        .find(|role| self::description(*role) == description)
}

/// A volume's description.
pub(super) const fn description(role: Role) -> &'static str {
    match role {
        Role::Metadata => METADATA,
        Role::Lockspace => LOCKSPACE,
        Role::Configuration => CONFIGURATION,
        Role::Disk => DISK,
    }
}

/// Tags of a volume.
pub(super) fn volume_tags(image: Uuid, slot: u64) -> Vec<String> {
    vec![format!("{IMAGE_TAG}{image}"), format!("{PARENT_TAG}{BLANK_UUID}"), format!("{SLOT_TAG}{slot}")]
}

/// Where a slot begins in `metadata`, in bytes.
pub(super) const fn slot_offset(slot: u64) -> u64 {
    SLOTS + slot * SLOT
}

/// Where the lease of a slot's volume begins in `leases`, in bytes.
pub(super) const fn lease_offset(slot: u64, grid: GridSize) -> u64 {
    (RESERVED_LEASES + slot) * grid.align_bytes()
}

/// The text in a volume's slot.
pub(super) fn volume_text(sd: Uuid, ids: VolumeIds, role: Role, bytes: u64, time: i64) -> String {
    format!(
        "CAP={bytes}\nCTIME={time}\nDESCRIPTION={}\nDISKTYPE=DATA\nDOMAIN={sd}\nFORMAT=RAW\nGEN=0\nIMAGE={}\n\
         LEGALITY=LEGAL\nPUUID={BLANK_UUID}\nSEQ=0\nTYPE=PREALLOCATED\nVOLTYPE=LEAF\nEOF\n",
        description(role),
        ids.image
    )
}

/// The description in a slot's text; `None` when it is not one.
pub(super) fn slot_description(slot: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(slot);
    let text = text.split_once("\nEOF\n")?.0;
    text.lines().find_map(|line| line.strip_prefix("DESCRIPTION=")).map(ToOwned::to_owned)
}

/// What a complete domain's tags say.
pub(super) struct DomainTags<'a> {
    /// The domain.
    pub sd: Uuid,
    /// Its name.
    pub name: &'a str,
    /// `ISCSI` or `FCP`.
    pub kind: &'static str,
    /// Layout of its leases.
    pub grid: GridSize,
    /// The volume group's uuid.
    pub group_uuid: &'a str,
    /// The physical volume: its name below `/dev/mapper`, its uuid, its extents.
    pub physical: (&'a str, &'a str, u64),
}

impl DomainTags<'_> {
    /// The domain's description as tags of the volume group. VDSM's checksum over it is left out: VDSM takes one that has
    /// none as it is.
    pub fn tags(&self) -> Vec<String> {
        let (guid, uuid, extents) = self.physical;
        let values = [
            ("ALIGNMENT", self.grid.align_bytes().to_string()),
            ("BLOCK_SIZE", self.grid.sector_bytes().to_string()),
            ("CLASS", "Data".to_owned()),
            ("DESCRIPTION", self.name.to_owned()),
            ("IOOPTIMEOUTSEC", "10".to_owned()),
            ("LEASERETRIES", "3".to_owned()),
            ("LEASETIMESEC", "60".to_owned()),
            ("LOCKPOLICY", String::new()),
            ("LOCKRENEWALINTERVALSEC", "5".to_owned()),
            ("POOL_UUID", String::new()),
            ("PV0", format!("pv:{guid},uuid:{uuid},pestart:0,pecount:{extents},mapoffset:0")),
            ("ROLE", "Regular".to_owned()),
            ("SDUUID", self.sd.to_string()),
            ("TYPE", self.kind.to_owned()),
            ("VERSION", "5".to_owned()),
            ("VGUUID", self.group_uuid.to_owned()),
        ];
        let own = values.iter().map(|(key, value)| format!("MDT_{}", tag_text(&format!("{key}={value}"))));
        own.chain([DOMAIN_TAG.to_owned()]).collect()
    }
}

/// A text as a tag may hold it: other characters become `&code&`.
fn tag_text(text: &str) -> String {
    let mut all = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || "_+.-/=!:#".contains(c) {
            all.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(all, "&{}&", u32::from(c));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD: Uuid = Uuid::from_u128(0x11);

    #[test]
    fn a_volumes_text_is_read_back_and_fits_its_sector() {
        let ids = VolumeIds { image: Uuid::max(), volume: Uuid::max() };
        for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
            let text = volume_text(SD, ids, role, u64::MAX, i64::MAX);
            assert!(text.len() <= SLOT_USED, "{text}");
            assert_eq!(slot_description(text.as_bytes()).and_then(|text| role_of(&text)), Some(role));
        }
        assert_eq!(slot_description(&[0; SLOT_USED]), None);
        assert_eq!(slot_description(b"DESCRIPTION=HostedEngine\n"), None, "cut short");
    }

    #[test]
    fn places_are_those_of_vdsm() {
        assert_eq!(slot_offset(4), (1 << 20) + (32 << 10));
        assert_eq!(lease_offset(slot(Role::Disk), GridSize::Sector512Align1M), 104 << 20);
        assert_eq!(lease_offset(slot(Role::Disk), GridSize::Sector4kAlign8M), 832 << 20);
        assert_eq!(volume_tags(Uuid::nil(), 4)[2], "MD_4");
        assert_eq!(physical_uuid(Uuid::from_u128(1)), "000000-0000-0000-0000-0000-0000-000001");
        assert_eq!(overhead(GridSize::Sector512Align1M), (128 * (4 + 16 + 8 + 8 + 3) + 256 + 2) << 20);
    }

    #[test]
    fn tags_hold_what_lvm_lets_them() {
        let tags = DomainTags {
            sd: SD,
            name: "hosted storage, é",
            kind: "ISCSI",
            grid: GridSize::Sector512Align1M,
            group_uuid: "g",
            physical: ("3600", "p", 93),
        };
        let tags = tags.tags();
        assert!(tags.contains(&"MDT_DESCRIPTION=hosted&32&storage&44&&32&&233&".to_owned()), "{tags:?}");
        let physical = "MDT_PV0=pv:3600&44&uuid:p&44&pestart:0&44&pecount:93&44&mapoffset:0";
        assert!(tags.contains(&physical.to_owned()), "{tags:?}");
        assert!(tags.contains(&DOMAIN_TAG.to_owned()));
    }
}
