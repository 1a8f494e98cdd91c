//! The shared storage as a LUN that all hosts have: one loop device over a file of the sandbox, with LVM on it.
//!
//! ```text
//! DIR/lun                 the "array's" file: sparse, one physical volume on it
//! DIR/bin/lvm             activation is played, for each host its own, whether the kernel has a device mapper or not
//! DIR/hN/dev/sandbox-lun  the LUN on host N: a link to the loop device
//! DIR/hN/dev/GROUP/NAME   an active volume on host N: a link to a loop device over its part of the LUN
//! ```
//!
//! A host's active volumes are loop devices of the machine's kernel, which do not end with the host's processes: what a
//! loss of power takes is taken here. Nothing but loop devices over this sandbox's own file is ever touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::layout::{HostNumber, Layout};
use super::shell::run;

/// The LUN on every host, in the words of a deployment.
pub const DEVICE: &str = "/dev/sandbox-lun";
/// What kind of storage it is, in the words of a deployment: a device that is there without a login.
pub const KIND: &str = "fc";
/// What the sandbox needs for it: programs, and their packages.
pub(super) const PROGRAMS: [(&str, &str); 4] =
    [("lvm", "lvm2"), ("losetup", "mount"), ("blkdiscard", "util-linux"), ("fuser", "psmisc")];

/// A storage domain with a disk of 1 GiB, and what LVM keeps. What a deployment zeroes is reserved: 5 GB of it.
const BYTES: u64 = 8 << 30;
/// Plays activation. It is written into the sandbox, so that installed programs have it, too.
const STAND_IN: &str = include_str!("../../../etc/sandbox/lvm-without-device-mapper");

/// A place on the shared storage, outside of all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Bytes before it in the file.
    pub offset: u64,
}

/// Makes the LUN and the stand-in for `lvm`.
pub fn create(layout: &Layout) -> anyhow::Result<()> {
    let file = layout.lun();
    File::create(&file)
        .and_then(|created| created.set_len(BYTES))
        .with_context(|| format!("cannot make {}", file.display()))?;
    run("losetup", ["--find", "--direct-io=on", "--sector-size=512", &file.display().to_string()])?;
    fs::create_dir_all(layout.programs())?;
    let lvm = layout.programs().join("lvm");
    fs::write(&lvm, STAND_IN)
        .and_then(|()| fs::set_permissions(&lvm, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", lvm.display()))
}

/// A host boots: it has the LUN, and nothing on it is active. Its LVM looks at no other device and locks against nobody
/// else's, as on a machine of its own.
pub fn prepare_host(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    deactivate(layout, number)?;
    let device = device(layout)?.context(
        "the sandbox's LUN is gone, as after a restart of the machine; make the sandbox anew: hosted-engine sandbox up",
    )?;
    let link = layout.host(number).resolve(DEVICE);
    let dev = link.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dev).with_context(|| format!("cannot make {}", dev.display()))?;
    symlink(&device, &link).with_context(|| format!("cannot make {}", link.display()))?;
    let conf = layout.host(number).resolve("/etc/lvm");
    fs::create_dir_all(&conf).with_context(|| format!("cannot make {}", conf.display()))?;
    let text = format!(
        "# Written by `hosted-engine sandbox`.\ndevices {{ filter = [ \"a|^{}$|\", \"r|.*|\" ] }}\n\
         global {{ locking_dir = \"{}\" }}\n",
        device.display(),
        layout.inside().resolve("/run/lock/lvm").display()
    );
    fs::write(conf.join("lvm.conf"), text).with_context(|| format!("cannot write {}", conf.display()))
}

/// A host without power has no device.
pub fn deactivate(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    let dev = layout.host(number).resolve("/dev");
    if !dev.exists() {
        return Ok(());
    }
    let ours = match device(layout)? {
        Some(device) => over(&device)?,
        None => BTreeSet::new(),
    };
    for volume in volumes(&dev) {
        // After a restart of the machine the number may be somebody else's.
        if let Some(device) = fs::read_link(&volume).ok().filter(|device| ours.contains(device)) {
            detach(&device)?;
        }
    }
    fs::remove_dir_all(&dev).with_context(|| format!("cannot remove {}", dev.display()))
}

/// Takes everything away, when no host runs any more.
pub fn remove(layout: &Layout) -> anyhow::Result<()> {
    if !layout.lun().exists() {
        return Ok(());
    }
    for device in over(&layout.lun())? {
        for volume in over(&device)? {
            detach(&volume)?;
        }
        detach(&device)?;
    }
    Ok(())
}

/// Where a volume lies that a host has at this path: `None` when it is not active there.
pub fn place(layout: &Layout, number: HostNumber, group: &str, volume: &str) -> Option<Place> {
    let link = layout.host(number).resolve("/dev").join(group).join(volume);
    let device = fs::read_link(link).ok()?;
    let offset = Path::new("/sys/block").join(device.file_name()?).join("loop/offset");
    let offset = fs::read_to_string(offset).ok()?.trim().parse().ok()?;
    Some(Place { file: layout.lun(), offset })
}

/// The LUN's device on this machine.
fn device(layout: &Layout) -> anyhow::Result<Option<PathBuf>> {
    Ok(if layout.lun().exists() { over(&layout.lun())?.pop_first() } else { None })
}

/// Loop devices over a file or device.
fn over(file: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let file = file.display().to_string();
    let said = run("losetup", ["--noheadings", "--output", "NAME", "--associated", &file])?;
    Ok(said.lines().map(|line| PathBuf::from(line.trim())).collect())
}

/// One that is still open goes with its last user.
fn detach(device: &Path) -> anyhow::Result<()> {
    run("losetup", [Path::new("--detach"), device]).map(drop)
}

/// The links in a host's directories of volume groups.
fn volumes(dev: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let groups = entries(dev).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.flat_map(|group| entries(&group.path())).map(|entry| entry.path()).collect()
}
