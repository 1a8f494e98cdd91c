//! vm.conf in VDSM's form, and what is refused.

use super::*;
use crate::qemu::command_line::{Accelerator, Launch, arguments};

const CONF: &str =
    "sdUUID=sd\nstorage=/data\ndomainType=posixfs\nbridge=ovirtmgmt\nvm_disk_id=img\nvm_disk_vol_id=vol\n";
const VM: &str = "\
vmId=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a
memSize=4096
smp=2
display=vnc
emulatedMachine=pc-q35-rhel8.6.0
cpuType=model_Westmere
devices={index:2,iface:ide,address:{controller:0,target:0,unit:0,bus:1,type:drive},specParams:{},readonly:true,deviceId:x,path:,device:cdrom,shared:false,type:disk}
devices={index:0,iface:virtio,format:raw,poolID:p,volumeID:vol,imageID:img,specParams:{},readonly:false,domainID:sd,optional:false,deviceId:img,address:{bus:0x00,slot:0x06,domain:0x0000,type:pci,function:0x0},device:disk,shared:exclusive,propagateErrors:off,type:disk,bootOrder:1}
devices={device:scsi,model:virtio-scsi,type:controller}
devices={nicModel:pv,macAddr:00:16:3e:01:02:03,linkActive:true,network:ovirtmgmt,filter:vdsm-no-mac-spoofing,specParams:{},deviceId:y,address:{slot:0x03},device:bridge,type:interface}
devices={device:console,specParams:{},type:console,deviceId:z,alias:console0}
devices={device:vga,alias:video0,type:video}
devices={device:vnc,type:graphics,deviceId:w,address:None}
";

fn machine(vm: &str, toml: &str) -> Result<Machine, VmError> {
    let paths = Paths::new("/sandbox/h1");
    let conf = HostedEngineConf::parse(&paths, CONF);
    let toml = HaToml::parse(&paths, toml).unwrap();
    machine_from_conf(&VmConf::parse("vm.conf", vm).unwrap(), &paths, &conf, &toml)
}

#[test]
fn reads_vdsms_form() {
    let machine = machine(VM, "").unwrap();
    assert_eq!((machine.machine_type.as_str(), machine.cpu_model.as_deref()), ("q35", Some("Westmere")));
    assert_eq!((machine.memory_mib, machine.vcpus, machine.max_vcpus), (4096, 2, 2));
    let [drive, disk] = machine.disks.as_slice() else { panic!("{:?}", machine.disks) };
    assert_eq!((drive.is_cdrom, drive.source, drive.bus), (true, DiskSource::Empty, DiskBus::Ide));
    assert_eq!(disk.path, Path::new("/sandbox/h1/rhev/data-center/mnt/_data/sd/images/img/vol"));
    assert_eq!((disk.bus, disk.boot_order, disk.is_read_only), (DiskBus::Virtio, Some(1), false));
    assert_eq!(machine.nics[0].backend, NicBackend::Bridge("ovirtmgmt".to_owned()));
    assert_eq!(machine.vnc.unwrap().listen, IpAddr::V4(Ipv4Addr::LOCALHOST));
    let launch = Launch {
        accelerator: Accelerator::Tcg,
        is_paused: false,
        is_incoming: false,
        user: None,
        extra_args: Vec::new(),
    };
    arguments(&machine, &launch).unwrap();
}

#[test]
fn ha_toml_wins_and_kernels_are_found_under_the_root() {
    let vm = format!("{VM}kernel=/boot/vmlinuz\ninitrd=/boot/initramfs\nkernelArgs=console=ttyS0\n");
    let machine = machine(&vm, "[qemu]\nmachine = \"pc\"\nbridge = \"br7\"\n").unwrap();
    assert_eq!(machine.machine_type, "pc");
    assert_eq!(machine.nics[0].backend, NicBackend::Bridge("br7".to_owned()));
    let boot = machine.direct_boot.unwrap();
    assert_eq!(boot.kernel, Path::new("/sandbox/h1/boot/vmlinuz"));
    assert_eq!(boot.initrd.unwrap(), Path::new("/sandbox/h1/boot/initramfs"));
}

#[test]
fn a_first_start_has_its_disc_and_its_order() {
    let first = VM
        .replace("path:,device:cdrom", "path:/iso/os.iso,bootOrder:1,device:cdrom")
        .replace("type:disk,bootOrder:1", "type:disk,bootOrder:2");
    let machine = machine(&format!("{first}onReboot=destroy\n"), "").unwrap();
    let [drive, disk] = machine.disks.as_slice() else { panic!("{:?}", machine.disks) };
    assert_eq!((drive.path.as_path(), drive.source), (Path::new("/sandbox/h1/iso/os.iso"), DiskSource::File));
    assert_eq!((drive.boot_order, disk.boot_order), (Some(1), Some(2)));
    assert!(machine.ends_on_reboot);
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let refused = |line: &str| machine(&format!("{VM}{line}\n"), "").unwrap_err().to_string();
    assert!(refused("devices={type:hostdev,device:pci}").contains("hostdev"));
    assert!(refused("devices={type:disk,iface:floppy,path:/x}").contains("iface: must be"));
    assert!(refused("devices={type:disk,device:disk}").contains("imageID"));
    assert!(refused("devices={type:interface,macAddr:01:00:00:00:00:00}").contains("macAddr"));
    assert!(refused("onReboot=preserve").contains("onReboot"));
    assert!(refused("vmId=x").contains("vmId=\"x\" is no uuid"));
    let only_xml = "vmId=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a\nmemSize=1\nxmlBase64=abc\n";
    assert!(machine(only_xml, "").unwrap_err().to_string().contains("xmlBase64"));
}
