//! What a first start's description says, and who may read its seed.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::deploy::request::Seed;
use crate::deploy::testing::Recorded;
use crate::deploy::vm::scripted::Script;
use crate::deploy::vm::testing::Bench;

fn written(bench: &Bench, stage: Stage, tools: &Recorded) -> Result<VmConf, DeployError> {
    let opener = Script::default().opener();
    let crate::deploy::Request::FirstHost(first) = &bench.request else { panic!() };
    let directory = directory(&bench.paths, first.ids.deploy);
    write(&bench.world(tools, &opener), first, &directory, stage)?;
    Ok(VmConf::load(directory.join(DESCRIPTION))?)
}

/// Boot orders of the disk, the CD drive and the network card, and the drive's disc.
fn orders(conf: &VmConf) -> ([Option<u32>; 3], Option<String>) {
    let of = |kind: &str, name: Option<&str>| {
        conf.devices().find(|device| {
            device.kind() == Some(kind) && name.is_none_or(|name| device.device() == Some(name))
        })
    };
    let drive = of("disk", Some("cdrom")).unwrap();
    let devices = [of("disk", Some("disk")).unwrap(), drive, of("interface", None).unwrap()];
    (devices.map(Device::boot_order), drive.text("path").map(ToOwned::to_owned))
}

#[test]
fn media_come_first_and_a_restart_ends_the_vm() {
    let none = Recorded::new(&[]);
    let bench = Bench::new(Boot::Cdrom("/iso/os.iso".into()));
    bench.configure();
    let conf = written(&bench, Stage::Media, &none).unwrap();
    assert_eq!(orders(&conf), ([Some(2), Some(1), None], Some("/iso/os.iso".to_owned())));
    assert!(conf.ends_on_reboot().unwrap());
    let conf = written(&bench, Stage::Disk, &none).unwrap();
    assert_eq!(orders(&conf), ([Some(1), None, None], None));
    assert!(!conf.ends_on_reboot().unwrap());
    let usual = VmConf::load(bench.paths.vm_conf()).unwrap();
    assert_eq!(orders(&usual), ([Some(1), None, None], None));

    let bench = Bench::new(Boot::Pxe);
    bench.configure();
    let conf = written(&bench, Stage::Media, &none).unwrap();
    assert_eq!(orders(&conf), ([Some(2), None, Some(1)], None));
}

#[test]
fn a_path_that_vm_conf_cannot_carry_is_refused() {
    for path in ["/a b.iso", "/a,b.iso", "/a#b.iso", "os.iso"] {
        let bench = Bench::new(Boot::Cdrom(path.into()));
        bench.configure();
        let error = written(&bench, Stage::Media, &Recorded::new(&[])).unwrap_err().to_string();
        assert!(error.starts_with(path) && error.contains("another name"), "{error}");
    }
}

#[test]
fn a_seed_is_for_its_owner_alone_and_goes_with_the_directory() {
    let mut bench = Bench::new(Boot::Disk(None));
    bench.first().vm.seed = Some(Seed::default());
    bench.secrets.vm_root = Some(ha_config::Secret::new("hunter2hunter2"));
    bench.configure();
    // The user of libvirt's QEMU, as this distribution calls it. Root's own id stands in for it.
    std::fs::write(bench.paths.ha_toml(), "[vm]\nhypervisor = \"libvirt\"\n").unwrap();
    let uid = rustix::process::getuid().as_raw().to_string();
    let tools = Recorded::new(&[
        ("id -u qemu", 1, "", "id: 'qemu': no such user"),
        ("id -u libvirt-qemu", 0, &uid, ""),
    ]);
    let conf = written(&bench, Stage::Disk, &tools).unwrap();
    tools.assert_over();
    let (_, disc) = orders(&conf);
    let path = PathBuf::from(disc.unwrap());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.len() % 2048), (0o600, 0));
    assert!(!String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("hunter2"));
    let directory = path.parent().unwrap();
    assert_eq!(stage(directory).unwrap(), Some(Stage::Disk));
    assert!(remove(directory).unwrap() && !remove(directory).unwrap() && !directory.exists());
    assert_eq!(stage(directory).unwrap(), None);
}

#[test]
fn an_operators_own_domain_takes_no_media() {
    let bench = Bench::new(Boot::Pxe);
    bench.configure();
    let toml = "[vm]\nhypervisor = \"libvirt\"\n\n[libvirt]\ndomain = \"/etc/engine.xml\"\n";
    std::fs::write(bench.paths.ha_toml(), toml).unwrap();
    let error = written(&bench, Stage::Media, &Recorded::new(&[])).unwrap_err().to_string();
    assert!(error.contains("/etc/engine.xml"), "{error}");
    written(&bench, Stage::Disk, &Recorded::new(&[])).unwrap();
}
