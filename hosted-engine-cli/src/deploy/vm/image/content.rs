//! What a file is, by its first bytes: formats are known by their marks, never by the file's name.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::refused;
use crate::deploy::DeployError;

/// So much of a file is looked at: a CD's mark is the last, at 32769.
pub(super) const HEAD_BYTES: usize = 36 << 10;

/// Disks consist of sectors of so many bytes.
const SECTOR: u64 = 512;

/// Kinds of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// No known mark: a disk as it is.
    Raw {
        /// Its first sector has the mark of a boot record (also that of a protective one in front of a GPT).
        looks_bootable: bool,
    },
    /// `QFI\xfb`.
    Qcow2,
    /// A tar archive.
    Tar,
    /// Something gzipped.
    Gzip,
    /// Something that is no disk here.
    Unusable {
        /// What.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
}

/// Marks of what cannot be used: where, which bytes, what it is, what to do.
const MARKS: [(usize, &[u8], &str, &str); 12] = [
    (0, b"KDMV", "a VMDK image", "convert it with: qemu-img convert -f vmdk -O qcow2 IMAGE NEW.qcow2"),
    (0, b"COWD", "a VMDK image", "convert it with: qemu-img convert -f vmdk -O qcow2 IMAGE NEW.qcow2"),
    (
        0,
        b"# Disk DescriptorFile",
        "the description of a VMDK image",
        "convert it with: qemu-img convert -f vmdk -O qcow2 IMAGE NEW.qcow2",
    ),
    (0, b"conectix", "a VHD image", "convert it with: qemu-img convert -f vpc -O qcow2 IMAGE NEW.qcow2"),
    (0, b"vhdxfile", "a VHDX image", "convert it with: qemu-img convert -f vhdx -O qcow2 IMAGE NEW.qcow2"),
    (
        64,
        b"\x7f\x10\xda\xbe",
        "a VDI image",
        "convert it with: qemu-img convert -f vdi -O qcow2 IMAGE NEW.qcow2",
    ),
    (0, b"PK\x03\x04", "a zip archive", "unpack it with unzip and name the image in it"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "unpack it with: xz -dk IMAGE"),
    (0, b"BZh", "compressed with bzip2", "unpack it with: bzip2 -dk IMAGE"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with: zstd -d IMAGE"),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "install it and name the appliance that it brings (*.ova)"),
    (
        32769,
        b"CD001",
        "an image of a CD",
        "to install from it, boot the VM from cdrom and name it as the media",
    ),
];

/// What a file with this beginning is.
pub(super) fn of(head: &[u8]) -> Content {
    let has = |at: usize, mark: &[u8]| head.get(at..at + mark.len()) == Some(mark);
    let looks_bootable = has(510, &[0x55, 0xaa]);
    if has(0, b"QFI\xfb") {
        return Content::Qcow2;
    }
    if has(0, &[0x1f, 0x8b]) {
        return Content::Gzip;
    }
    if has(257, b"ustar") {
        return Content::Tar;
    }
    let hybrid = |at: usize| at == 32769 && looks_bootable;
    match MARKS.iter().find(|(at, mark, ..)| has(*at, mark) && !hybrid(*at)) {
        Some((_, _, what, advice)) => Content::Unusable { what, advice },
        None => Content::Raw { looks_bootable },
    }
}

/// The beginning of a file, up to [`HEAD_BYTES`]. An empty file is refused.
pub(super) fn head_of(file: &File, path: &Path) -> Result<Vec<u8>, DeployError> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(DeployError::io("read the disk image", path))?;
    if head.is_empty() {
        return Err(refused(path, "it is empty; copy it here again"));
    }
    Ok(head)
}

/// Bytes of a raw disk in a file or device.
pub(super) fn raw_size(mut file: &File, path: &Path) -> Result<u64, DeployError> {
    let bytes = file.seek(SeekFrom::End(0)).map_err(DeployError::io("find the size of", path))?;
    whole_sectors(bytes).ok_or_else(|| {
        refused(
            path,
            &format!(
                "its {bytes} bytes are no whole number of sectors of {SECTOR} bytes, as a disk has: it was cut, or is no \
                 disk image; copy it here again"
            ),
        )
    })
}

/// The size itself when it can be a disk's.
pub(super) fn whole_sectors(bytes: u64) -> Option<u64> {
    (bytes > 0 && bytes.is_multiple_of(SECTOR)).then_some(bytes)
}
