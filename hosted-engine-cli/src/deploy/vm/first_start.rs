//! How the VM starts before the engine answers: from installation media, or from its disk with the seed in its CD drive.
//!
//! A description of its own says so, in a directory of the run directory, and the hypervisor is opened with it. This host's
//! vm.conf and the one on shared storage never name media or a seed.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine_vm::EngineVm;
use ha_config::ha_toml::Hypervisor;
use ha_config::{Device, HaToml, HostedEngineConf, Paths, VmConf};
use uuid::Uuid;

use super::seed;
use crate::deploy::{Boot, Call, DeployError, FirstHost, World};

/// The description in the directory.
const DESCRIPTION: &str = "vm.conf";
/// The seed in the directory.
const SEED: &str = "seed.iso";

/// What the VM starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Installation media; it ends when the guest restarts.
    Media,
    /// Its disk.
    Disk,
}

/// The directory of a first start: `first-start-<deployment>` in the run directory.
pub(super) fn directory(paths: &Paths, deploy: Uuid) -> PathBuf {
    paths.run_dir().join(format!("first-start-{deploy}"))
}

/// Opens the hypervisor with the first start's description, or this host's own when there is none.
pub(super) fn open(world: &World<'_>, directory: &Path) -> Result<Arc<dyn EngineVm>, DeployError> {
    let mut conf = HostedEngineConf::load(world.paths)?;
    let description = directory.join(DESCRIPTION);
    if description.exists() {
        let mut file = conf.file().clone();
        file.set("conf", &description.to_string_lossy());
        conf = HostedEngineConf::parse(world.paths, &file.text());
    }
    (world.open_vm)(&conf)
        .map_err(|error| DeployError::Refused(format!("cannot reach the hypervisor: {error:#}")))
}

/// For which stage a description was written, if any.
pub(super) fn stage(directory: &Path) -> Result<Option<Stage>, DeployError> {
    match VmConf::load(directory.join(DESCRIPTION)) {
        Ok(conf) => Ok(Some(if conf.ends_on_reboot()? { Stage::Media } else { Stage::Disk })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes the description for a stage, and the seed where it is needed.
pub(super) fn write(
    world: &World<'_>,
    first: &FirstHost,
    directory: &Path,
    stage: Stage,
) -> Result<(), DeployError> {
    let toml = HaToml::load(world.paths)?;
    if let Some(path) = &toml.libvirt.domain
        && (stage == Stage::Media || first.vm.seed.is_some())
    {
        return Err(DeployError::Refused(format!(
            "[libvirt] domain of ha.toml describes the VM ({}), and neither media nor a seed can be added to it; remove \
             the key until the engine answers, or put them into that file",
            path.display()
        )));
    }
    let made = fs::DirBuilder::new().mode(0o755).recursive(true).create(directory);
    made.map_err(DeployError::io("create the directory", directory))?;
    let conf = HostedEngineConf::load(world.paths)?;
    let usual = VmConf::load(conf.vm_conf_path())?;
    let path = directory.join(DESCRIPTION);
    let disc = match (stage, &first.vm.boot, &first.vm.seed) {
        (Stage::Media, Boot::Cdrom(media), _) => Some(media.clone()),
        (Stage::Disk, _, Some(seed)) => {
            let image = directory.join(SEED);
            let content = seed::make(first, seed, world.secrets.vm_root.as_ref())?;
            write_secret(&image, &content, owner(world, &toml)?)?;
            Some(image)
        }
        _ => None,
    };
    description(&usual, path, stage, disc.as_deref())?.write().map_err(DeployError::from)
}

/// Removes all that [`write`] made.
pub(super) fn remove(directory: &Path) -> Result<bool, DeployError> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DeployError::io("remove", directory)(error)),
    }
}

/// The usual description with another boot order and a disc in the CD drive.
fn description(
    usual: &VmConf,
    path: PathBuf,
    stage: Stage,
    disc: Option<&Path>,
) -> Result<VmConf, DeployError> {
    let mut conf = VmConf::new(path);
    for (key, value) in usual.entries() {
        conf.set(key, value);
    }
    let mut has_disc = disc.is_none();
    for device in usual.devices() {
        let order = match (stage, device.kind(), device.device()) {
            (Stage::Media, Some("disk"), Some("cdrom")) => disc.map(|_| "1"),
            (Stage::Media, Some("disk"), _) => Some("2"),
            (Stage::Media, Some("interface"), _) => disc.is_none().then_some("1"),
            _ => device.text("bootOrder"),
        };
        let is_drive = device.device() == Some("cdrom");
        let mut changed = without(device, &["bootOrder"]);
        if let (true, Some(disc)) = (is_drive && !has_disc, disc) {
            has_disc = true;
            changed = without(&changed, &["path"]).with("path", &disc_path(disc)?);
        }
        if let Some(order) = order {
            changed = changed.with("bootOrder", order);
        }
        conf.push_device(changed);
    }
    if !has_disc {
        return Err(DeployError::Refused(format!(
            "{}: the VM has no CD drive (device:cdrom), which its first start needs",
            usual.path().display()
        )));
    }
    if stage == Stage::Media {
        conf.set("onReboot", "destroy");
        // The kernel of a VM without a boot loader would start instead of the media.
        for key in ["kernel", "initrd", "kernelArgs"] {
            conf.set(key, "");
        }
    }
    Ok(conf)
}

fn without(device: &Device, names: &[&str]) -> Device {
    device.entries().filter(|(name, _)| !names.contains(name)).fold(
        Device::default(),
        |device, (name, value)| match value {
            ha_config::DeviceValue::Text(text) => device.with(name, text),
            ha_config::DeviceValue::Map(map) => device.with_map(name, map.clone()),
        },
    )
}

/// A path that vm.conf can carry.
fn disc_path(path: &Path) -> Result<String, DeployError> {
    let text = path.to_str().filter(|text| {
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || ",{}#".contains(c);
        text.starts_with('/') && !text.contains(is_bad)
    });
    text.map(ToOwned::to_owned).ok_or_else(|| {
        DeployError::Refused(format!(
            "{}: a disc's path must begin with '/' and have no spaces, commas, braces or '#'; give it another name",
            path.display()
        ))
    })
}

/// The user that the hypervisor opens files as, where it is not root.
fn owner(world: &World<'_>, toml: &HaToml) -> Result<Option<u32>, DeployError> {
    let names: Vec<&str> = match toml.vm.hypervisor {
        Hypervisor::Qemu => toml.qemu.user.iter().map(String::as_str).collect(),
        Hypervisor::Libvirt | Hypervisor::Vdsm => vec!["qemu", "libvirt-qemu"],
    };
    for name in names {
        let said = world.tools.ask(&Call::new("id").args(["-u", name]))?;
        if let (0, Ok(uid)) = (said.code, said.out.trim().parse()) {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// A file for its owner alone.
fn write_secret(path: &Path, content: &[u8], owner: Option<u32>) -> Result<(), DeployError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(DeployError::io("replace", path)(error)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(DeployError::io("create", path))?;
    file.write_all(content).map_err(DeployError::io("write", path))?;
    match owner {
        Some(uid) => fchown(&file, Some(uid), None).map_err(DeployError::io("set the owner of", path)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "first_start_tests.rs"]
mod tests;
