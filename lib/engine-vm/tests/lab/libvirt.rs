//! The two hosts of [`super::lab::Lab`] with a libvirt daemon each.

use std::fs;
use std::path::{Path, PathBuf};

use engine_vm::libvirt::{LibvirtSettings, LibvirtVm};
use engine_vm::qemu::QmpRole;
use ha_config::ha_toml::Accel;
use ha_config::{HaToml, HostedEngineConf, Paths};
use ha_tests::libvirtd::{LibvirtSetup, Libvirtd};

use super::lab::Lab;

const CONF: &str = "vmid=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a\nsdUUID=sd\nstorage=/data\ndomainType=posixfs\n\
                    bridge=ovirtmgmt\nvm_disk_id=img\nvm_disk_vol_id=vol\n";
/// Firmware alone: up within a second, deaf to the power button.
pub const VM: &str = "vmId=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a\nvmName=HostedEngine\nmemSize=64\nsmp=1\n\
    devices={device:disk,type:disk,iface:virtio,format:raw,imageID:img,volumeID:vol,shared:exclusive}\n\
    devices={device:vnc,type:graphics}\n";
/// Debian's kernel and a busybox, as `etc/sandbox/build-guest` makes them.
const GUEST: &str = "/var/cache/ovirt-ha-sandbox";

pub struct LibvirtLab {
    /// Dropped first: QEMU must end before sanlock does.
    pub daemons: Vec<Libvirtd>,
    pub lab: Lab,
}

impl LibvirtLab {
    pub fn new() -> Self {
        Self::with("sanlock")
    }

    /// With this lock manager behind both daemons.
    pub fn with(lock_manager: &'static str) -> Self {
        let lab = Lab::new();
        let daemons = [1, 2].map(|id| Libvirtd::start(setup(&lab, id, lock_manager)).unwrap()).into();
        let this = Self { daemons, lab };
        let image = this.path("rhev/data-center/mnt/_data/sd/images/img");
        fs::create_dir_all(&image).unwrap();
        fs::File::create(image.join("vol")).unwrap().set_len(16 << 20).unwrap();
        this.describe(VM);
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.lab.directory.path().join(name)
    }

    /// Writes vm.conf.
    pub fn describe(&self, text: &str) {
        let path = Paths::new(self.lab.directory.path()).vm_conf();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A guest that hears the power button.
    pub fn describe_guest(&self) {
        let boot = self.path("boot");
        fs::create_dir_all(&boot).unwrap();
        for name in ["vmlinuz", "initramfs"] {
            let file = Path::new(GUEST).join(name);
            fs::copy(&file, boot.join(name)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        let guest = VM.replace("memSize=64", "memSize=128");
        self.describe(&format!("{guest}kernel=/boot/vmlinuz\ninitrd=/boot/initramfs\nkernelArgs=quiet\n"));
    }

    pub fn settings(&self, host: usize, role: QmpRole) -> LibvirtSettings {
        let paths = Paths::new(self.lab.directory.path());
        let conf = HostedEngineConf::parse(&paths, CONF);
        let made = LibvirtSettings::from_config(&conf, &HaToml::default(), role).unwrap();
        LibvirtSettings {
            uri: self.daemons[host].uri(),
            accel: Accel::Tcg,
            qemu_conf: self.daemons[host].qemu_conf(),
            lease: self.lab.lease(host),
            notes_dir: self.path(["notes-a", "notes-b"][host]),
            ..made
        }
    }

    pub fn vm(&self, host: usize, role: QmpRole) -> LibvirtVm {
        LibvirtVm::new(self.settings(host, role))
    }
}

fn setup(lab: &Lab, host_id: u8, lock_manager: &'static str) -> LibvirtSetup {
    let sanlock = lab.daemon(usize::from(host_id) - 1).run_dir().to_owned();
    let directory = lab.directory.path().join(format!("v{host_id}"));
    LibvirtSetup { directory, host_id, sanlock, lock_manager }
}
