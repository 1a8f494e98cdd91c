//! Disk images that an engine VM can start from: what a file is, how large its disk, what it proposes.
//!
//! | file | how its disk is read |
//! | --- | --- |
//! | raw | as it is |
//! | qcow2 | by `qemu-img`, which is always told the format |
//! | OVA or appliance: a tar archive, also gzipped, with an OVF and one raw or qcow2 disk | from its place in the archive |
//!
//! Images are foreign bytes. No program guesses a format here: an image that names another file (a backing file, a data
//! file) could make this host read whatever it names, and is refused.

mod checksum;
mod content;
mod copy;
mod ova;
mod qemu_img;

use std::fs::File;
use std::path::{Path, PathBuf};

pub(super) use checksum::verify;
pub(in crate::deploy) use copy::Target;
pub(super) use ova::Member;
use ova::{Archive, Packing};
pub(super) use qemu_img::{Source, check, convert, spec_in_archive};

use super::super::{DeployError, Tools};
use content::{Content, head_of};

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

/// What an image's disk is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The disk itself.
    Raw,
    /// QEMU's format.
    Qcow2,
    /// An archive with a disk in it.
    Appliance(Box<Archive>),
}

/// A disk image that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of the disk as the VM sees it.
    pub virtual_bytes: u64,
    /// What suits it.
    pub proposal: Proposal,
    pub(super) form: Form,
    /// Its first sector ends as that of a disk with a boot loader or a partition table does.
    pub(super) looks_bootable: bool,
}

/// What an image proposes for the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proposal {
    /// Memory in MB, where its OVF names it.
    pub memory_mb: Option<u64>,
    /// Processors, where its OVF names them.
    pub vcpus: Option<u32>,
    /// The least size of the disk, in GiB.
    pub disk_gib: u64,
}

fn refused(path: &Path, why: &str) -> DeployError {
    DeployError::Refused(format!("the disk image {}: {why}", path.display()))
}

/// Looks at an image without changing anything. An archive that has its OVF behind its disk is read as far.
///
/// # Errors
/// It is not there, cannot be used, or is not what it says; with what to do.
pub fn inspect(path: &Path, tools: &dyn Tools) -> Result<Image, DeployError> {
    // A relative name could read as an address of one of qemu-img's protocols.
    let path = &std::path::absolute(path).map_err(DeployError::io("find the place of", path))?;
    let metadata = std::fs::metadata(path).map_err(DeployError::io("look at the disk image", path))?;
    if metadata.is_dir() {
        return Err(refused(path, "it is a directory; name the image in it"));
    }
    let file = File::open(path).map_err(DeployError::io("open the disk image", path))?;
    let head = head_of(&file, path)?;
    let (form, virtual_bytes, looks_bootable) = match content::of(&head) {
        Content::Raw { looks_bootable } => (Form::Raw, content::raw_size(&file, path)?, looks_bootable),
        Content::Qcow2 => (Form::Qcow2, qemu_img::check(Source::File(path), path, tools)?, true),
        Content::Tar => return appliance(path, Packing::Plain),
        Content::Gzip => return appliance(path, Packing::Gzip),
        Content::Unusable { what, advice } => {
            return Err(refused(path, &format!("it is {what}, which cannot be used as it is; {advice}")));
        }
    };
    let proposal = Proposal { disk_gib: virtual_bytes.div_ceil(GIB), ..Proposal::default() };
    Ok(Image { path: path.to_owned(), virtual_bytes, proposal, form, looks_bootable })
}

fn appliance(path: &Path, packing: Packing) -> Result<Image, DeployError> {
    let archive = Archive::read(path, packing)?;
    let virtual_bytes = archive.disk.virtual_bytes;
    let proposal = Proposal { disk_gib: virtual_bytes.div_ceil(GIB), ..archive.proposal };
    Ok(Image {
        path: path.to_owned(),
        virtual_bytes,
        proposal,
        form: Form::Appliance(Box::new(archive)),
        looks_bootable: true,
    })
}

#[cfg(test)]
mod tests;
