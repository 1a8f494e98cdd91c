//! The step that copies a disk image to the VM's disk.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::image::{self, Form, Image, Member, Source, Target};
use crate::deploy::made::MadeFile;
use crate::deploy::storage::{Backend, Role};
use crate::deploy::{Boot, DeployError, FirstHost, Job, Request, Step, StepId, World};

/// Fills the VM's disk with the image that the VM boots from, if it does. The disk is a volume that is there and all
/// zeros, or half filled by a former try. To undo: nothing beyond the volume's own.
pub struct FillDisk(pub Box<dyn Backend>);

/// What a look at the image is called, where it takes long.
const CHECKING: &str = "Checking the disk image";
const COPYING: &str = "Copying the disk image";

impl Step for FillDisk {
    fn id(&self) -> StepId {
        StepId::Disk
    }

    fn title(&self) -> String {
        "Preparing the VM's disk".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let Request::FirstHost(first) = job.world.request else { return Ok(()) };
        match &first.vm.boot {
            Boot::Disk(Some(path)) => self.copy(job, first, path),
            Boot::Disk(None) | Boot::Cdrom(_) | Boot::Pxe => Ok(()),
        }
    }
}

impl FillDisk {
    fn copy(&self, job: &mut Job<'_>, first: &FirstHost, path: &Path) -> Result<(), DeployError> {
        let World { report, tools, .. } = job.world;
        let image = image::inspect(path, tools)?;
        let path = image.path.as_path();
        if !image.looks_bootable && first.vm.kernel.is_none() {
            report.warning(&format!(
                "{} has no boot record in its first sector: the VM may find nothing to boot there",
                path.display()
            ));
        }
        let target = Target::open(&self.0.volume(&job.world, Role::Disk))?;
        if image.virtual_bytes > target.bytes() {
            return Err(DeployError::Refused(format!(
                "the disk image {} is a disk of {} bytes, and the VM's disk has {}: give it at least {} GiB",
                path.display(),
                image.virtual_bytes,
                target.bytes(),
                image.proposal.disk_gib
            )));
        }
        check(&job.world, &image)?;
        target.wipe(|done, total| report.progress("Emptying the VM's disk", done, total))?;
        report.info(&format!("Copying {} to the VM's disk", path.display()));
        match &image.form {
            Form::Raw => {
                let mut file = File::open(path).map_err(DeployError::io("open the disk image", path))?;
                fill(&job.world, &target, &mut file, &image)?;
            }
            Form::Qcow2 => self.convert(&job.world, Source::File(path), &image)?,
            Form::Appliance(archive) if !archive.disk.is_qcow2 => {
                archive.with_disk(path, |content| fill(&job.world, &target, content, &image))?;
            }
            Form::Appliance(archive) => match archive.disk.offset {
                Some(offset) => {
                    let spec = image::spec_in_archive(path, offset, archive.disk.bytes);
                    image::check(Source::Spec(&spec), path, tools)?;
                    self.convert(&job.world, Source::Spec(&spec), &image)?;
                }
                None => {
                    archive.with_disk(path, |content| {
                        self.unpacked(job, first, &archive.disk, content, &image)
                    })?;
                }
            },
        }
        target.finish()
    }

    fn convert(&self, world: &World<'_>, source: Source<'_>, image: &Image) -> Result<(), DeployError> {
        let mut progress = |share: u64| {
            let done = u128::from(image.virtual_bytes) * u128::from(share) / 10_000;
            let done = u64::try_from(done).unwrap_or(image.virtual_bytes);
            world.report.progress(COPYING, done, image.virtual_bytes);
        };
        image::convert(source, &self.0.volume(world, Role::Disk), world.tools, &mut progress)
    }

    /// A qcow2 that cannot be read in its archive is unpacked beside the system's other large temporary files.
    fn unpacked(
        &self,
        job: &mut Job<'_>,
        first: &FirstHost,
        disk: &Member,
        content: &mut dyn Read,
        image: &Image,
    ) -> Result<(), DeployError> {
        let directory = job.world.paths.resolve("/var/tmp");
        let path = directory.join(format!("hosted-engine-{}.qcow2", first.ids.deploy));
        let room = rustix::fs::statvfs(&directory)
            .map_err(|error| DeployError::io("look at", &directory)(error.into()))?;
        if room.f_bavail.saturating_mul(room.f_frsize) < disk.bytes {
            return Err(DeployError::Refused(format!(
                "{} has no room for the {} bytes of the disk in {}; make room, or unpack the archive elsewhere with tar \
                 and name the disk image in it",
                directory.display(),
                disk.bytes,
                image.path.display()
            )));
        }
        let made = MadeFile { path: path.clone(), content: None };
        job.make(made, |world| {
            unpack(&path, content, disk.bytes, |done| world.report.progress("Unpacking", done, disk.bytes))
        })?;
        let copied = image::check(Source::File(&path), &image.path, job.world.tools)
            .and_then(|_| self.convert(&job.world, Source::File(&path), image));
        std::fs::remove_file(&path).map_err(DeployError::io("remove", &path))?;
        copied
    }
}

/// Holds the image against every checksum that there is, before anything is written.
fn check(world: &World<'_>, image: &Image) -> Result<(), DeployError> {
    let path = &image.path;
    let against = |list: &str| world.report.info(&format!("{} has the checksum of {list}", path.display()));
    let beside = image::verify(path, |done, total| world.report.progress(CHECKING, done, total))?;
    if let Some(list) = beside {
        against(&list.display().to_string());
    }
    if let Form::Appliance(archive) = &image.form {
        let total = archive.disk.bytes;
        if let Some(list) = archive.verify(path, &mut |done| world.report.progress(CHECKING, done, total))? {
            against(&format!("the manifest {list} in it"));
        }
    }
    Ok(())
}

fn fill(
    world: &World<'_>,
    target: &Target,
    content: &mut dyn Read,
    image: &Image,
) -> Result<(), DeployError> {
    let total = image.virtual_bytes;
    let copied = target.fill(content, &image.path, |done| world.report.progress(COPYING, done, total))?;
    if copied == total {
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "the disk image {} gave {copied} bytes instead of {total}: it changed while it was copied; begin again",
        image.path.display()
    )))
}

fn unpack(
    path: &PathBuf,
    content: &mut dyn Read,
    bytes: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), DeployError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(DeployError::io("create", path))?;
    let mut chunk = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let got = content.read(&mut chunk).map_err(DeployError::io("read the disk for", path))?;
        if got == 0 {
            break;
        }
        if chunk[..got].iter().all(|byte| *byte == 0) {
            let skip = i64::try_from(got).unwrap_or(i64::MAX);
            file.seek(SeekFrom::Current(skip)).map_err(DeployError::io("write", path))?;
        } else {
            file.write_all(&chunk[..got]).map_err(DeployError::io("write", path))?;
        }
        done += got as u64;
        progress(done);
    }
    file.set_len(bytes).map_err(DeployError::io("set the size of", path))
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
