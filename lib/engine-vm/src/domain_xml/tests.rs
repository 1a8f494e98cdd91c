//! The description of a typical VM, and that no vm.conf makes a broken one.

use ha_config::Paths;
use proptest::prelude::*;

use super::*;

const CONF: &str = "sdUUID=2164faa8-b18b-4036-b686-5a6eec95081b\nstorage=/data\ndomainType=posixfs\nbridge=ovirtmgmt\n\
    vm_disk_id=f270b541-a113-4815-b72e-b0ec3e1ed6b6\nvm_disk_vol_id=19cc3c17-5c81-4750-b807-09db88a67ad5\n";

/// As set-up of a cluster writes it.
const VM: &str = "\
vmId=82a24281-8a25-4772-b9c9-45971e811cb3
memSize=4096
display=vnc
devices={index:2,iface:ide,address:{ controller:0, target:0,unit:0, bus:1, type:drive},specParams:{},readonly:true,deviceId:55aab7ab-7ad7-4b8b-be58-a17295d00782,path:,device:cdrom,shared:false,type:disk}
devices={index:0,iface:virtio,format:raw,poolID:00000000-0000-0000-0000-000000000000,volumeID:19cc3c17-5c81-4750-b807-09db88a67ad5,imageID:f270b541-a113-4815-b72e-b0ec3e1ed6b6,specParams:{},readonly:false,domainID:2164faa8-b18b-4036-b686-5a6eec95081b,optional:false,deviceId:f270b541-a113-4815-b72e-b0ec3e1ed6b6,address:{bus:0x00, slot:0x06, domain:0x0000, type:pci, function:0x0},device:disk,shared:exclusive,propagateErrors:off,type:disk,bootOrder:1}
devices={device:scsi,model:virtio-scsi,type:controller}
devices={nicModel:pv,macAddr:00:16:3e:35:83:68,linkActive:true,network:ovirtmgmt,specParams:{},deviceId:7dceb6c4-f555-4da0-a0b5-26ce9ef66c73,address:{bus:0x00, slot:0x03, domain:0x0000, type:pci, function:0x0},device:bridge,type:interface}
devices={device:console,specParams:{},type:console,deviceId:64170743-d86f-4c32-810b-5ff9e540eed0,alias:console0}
devices={device:vga,alias:video0,type:video}
devices={device:vnc,type:graphics}
vmName=HostedEngine
smp=4
maxVCpus=16
cpuType=Haswell-noTSX,+spec-ctrl,-pcid
emulatedMachine=pc
devices={device:virtio,specParams:{source:random},model:virtio,type:rng}
";

fn conf() -> HostedEngineConf {
    HostedEngineConf::parse(&Paths::default(), CONF)
}

fn made(vm: &str, dialect: Dialect) -> Result<String, VmError> {
    let conf = conf();
    let vm = VmConf::parse("vm.conf", vm).unwrap();
    from_vm_conf(&vm, &Place { conf: &conf, dialect, starts_paused: false, is_emulated: false, lease: None })
}

fn refused(vm: &str) -> String {
    made(vm, Dialect::Vdsm).unwrap_err().to_string()
}

/// One element for each line.
fn lines(xml: &str) -> String {
    xml.replace("><", ">\n<") + "\n"
}

#[test]
fn a_typical_vm_for_vdsm_is_as_it_was() {
    let golden = include_str!("../../tests/domain_xml/vdsm.xml");
    let xml = lines(&made(VM, Dialect::Vdsm).unwrap());
    assert_eq!(xml, golden, "{xml}");
}

/// The typical VM on q35, with more lines.
fn modern(more: &str) -> String {
    format!("{VM}emulatedMachine=pc-q35-rhel8.6.0\n{more}\n")
}

#[test]
fn uefi_tpm_and_numa_are_as_the_engine_writes_them() {
    let xml = made(&modern("firmware=uefi-secure-boot\ntpm=true\nnuma=0-1,4@1024;2-3@3072"), Dialect::Vdsm)
        .unwrap();
    for part in [
        "<features><acpi/><smm state=\"on\"/></features>",
        "<loader readonly=\"yes\" secure=\"yes\" type=\"pflash\">/usr/share/OVMF/OVMF_CODE.secboot.fd</loader>",
        "<nvram template=\"/usr/share/OVMF/OVMF_VARS.secboot.fd\">\
         /var/lib/libvirt/qemu/nvram/82a24281-8a25-4772-b9c9-45971e811cb3.fd</nvram>",
        "<tpm model=\"tpm-crb\"><backend type=\"emulator\" version=\"2.0\"/></tpm>",
        "<numa><cell id=\"0\" cpus=\"0-1,4\" memory=\"1048576\"/><cell id=\"1\" cpus=\"2-3\" memory=\"3145728\"/></numa>",
    ] {
        assert!(xml.contains(part), "{part}\n{xml}");
    }
    let plain = made(&modern("firmware=uefi\ntpm=false"), Dialect::Vdsm).unwrap();
    assert!(plain.contains("secure=\"no\"") && !plain.contains("<smm") && !plain.contains("<tpm"), "{plain}");
}

#[test]
fn a_first_start_boots_from_its_disc_and_ends_when_the_guest_restarts() {
    let first = VM.replace("path:,device:cdrom", "path:/iso/os.iso,bootOrder:1,device:cdrom");
    for dialect in [Dialect::Vdsm, Dialect::Libvirt] {
        let xml = made(&format!("{first}onReboot=destroy\n"), dialect).unwrap();
        assert!(xml.contains("<on_reboot>destroy</on_reboot>"), "{xml}");
        let drive = xml.split("<disk ").find(|disk| disk.contains("device=\"cdrom\"")).unwrap();
        assert!(drive.contains("<source file=\"/iso/os.iso\""), "{drive}");
        assert!(drive.contains("<boot order=\"1\"/>") && drive.contains("<readonly/>"), "{drive}");
    }
    let error = refused(&format!("{VM}onReboot=x\n"));
    assert!(error.contains("onReboot") && error.contains("restart or destroy"), "{error}");
}

#[test]
fn wrong_firmware_tpm_and_numa_are_refused_by_name() {
    for line in ["firmware=bios", "tpm=maybe", "numa=0-3", "numa=0-3@x", "numa=3-0@4096", "numa=0-16@4096"] {
        let error = refused(&modern(line));
        let (key, value) = line.split_once('=').unwrap();
        assert!(error.contains(&format!("{key}={value:?} must be")), "{line}: {error}");
    }
    for numa in ["0-1@2048;1-2@2048", "0-1@2048;2-3@1024", "0@4096;"] {
        assert!(refused(&modern(&format!("numa={numa}"))).contains("numa="), "{numa}");
    }
    assert!(refused(&format!("{VM}firmware=uefi\n")).contains("q35"));
}

#[test]
fn a_typical_vm_for_libvirt_is_as_it_was() {
    let golden = include_str!("../../tests/domain_xml/libvirt.xml");
    let xml = lines(&made(VM, Dialect::Libvirt).unwrap());
    assert_eq!(xml, golden, "{xml}");
}

#[test]
fn the_vms_disk_and_lease_are_found_again() {
    let found = describe(&made(VM, Dialect::Vdsm).unwrap()).unwrap();
    assert_eq!(found.id.as_deref(), Some("82a24281-8a25-4772-b9c9-45971e811cb3"));
    let [lease] = found.leases.as_slice() else { panic!("{found:?}") };
    assert_eq!(lease.key, "19cc3c17-5c81-4750-b807-09db88a67ad5");
    assert_eq!(lease.lockspace, "2164faa8-b18b-4036-b686-5a6eec95081b");
    assert_eq!(lease.target, LeaseTarget::FoundByVdsm);
    let [disk] = found.disks.as_slice() else { panic!("{found:?}") };
    assert_eq!((disk.volume.as_str(), disk.is_exclusive), (lease.key.as_str(), true));

    let found = describe(&made(VM, Dialect::Libvirt).unwrap()).unwrap();
    let LeaseTarget::At { path, offset } = &found.leases[0].target else { panic!("{found:?}") };
    assert!(path.ends_with("19cc3c17-5c81-4750-b807-09db88a67ad5.lease"), "{path:?}");
    assert_eq!(*offset, 0);
}

#[test]
fn block_storage_is_told_to_libvirt_as_such() {
    let block = CONF.replace("posixfs", "fc");
    let conf = HostedEngineConf::parse(&Paths::default(), &block);
    let vm = VmConf::parse("vm.conf", VM).unwrap();
    let place =
        Place { conf: &conf, dialect: Dialect::Vdsm, starts_paused: true, is_emulated: false, lease: None };
    let xml = from_vm_conf(&vm, &place).unwrap();
    assert!(xml.contains(r#"<disk type="block" device="disk""#), "{xml}");
    assert!(xml.contains(r#"io="native""#) && xml.contains(r#"<source dev="/rhev/data-center/"#), "{xml}");
    assert!(xml.contains("<ovirt-vm:launchPaused>true</ovirt-vm:launchPaused>"), "{xml}");
}

#[test]
fn a_machine_without_ide_gets_its_cd_drive_on_sata() {
    let xml =
        made(&VM.replace("emulatedMachine=pc", "emulatedMachine=pc-q35-rhel8.6.0"), Dialect::Vdsm).unwrap();
    assert!(xml.contains(r#"<target dev="sdc" bus="sata"/>"#), "{xml}");
    assert!(!xml.contains(r#"type="drive""#), "{xml}");
}

#[test]
fn a_vm_whose_own_disk_is_missing_is_refused() {
    let other = VM.replace("imageID:f270b541", "imageID:00000000");
    assert!(refused(&other).contains("no disk has imageID:f270b541-a113-4815-b72e-b0ec3e1ed6b6"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let with = |line: &str| refused(&format!("{VM}{line}\n"));
    assert!(with("devices={type:hostdev}").contains("type hostdev is not known here"));
    assert!(with("devices={type:disk,iface:floppy,path:/x}").contains("iface: must be"));
    assert!(with("devices={type:disk,path:/x,shared:transient}").contains("shared: must be"));
    assert!(with("devices={type:interface,macAddr:01:00:00:00:00:00}").contains("macAddr"));
    assert!(with("devices={type:interface,address:{type:pci,slot:six}}").contains("slot:six is no number"));
    assert!(with("smpCoresPerSocket=3").contains("no multiple of smpCoresPerSocket=3"));
    assert!(with("vmId=x").contains("vmId=\"x\" is no uuid"));
    assert!(with("vmName=a\u{1}b").contains("'\\u{1}' cannot be given to libvirt"));
}

#[test]
fn a_lease_is_added_once_and_nothing_else_is_touched() {
    let lease = Lease {
        key: "volume".to_owned(),
        lockspace: "domain".to_owned(),
        target: LeaseTarget::At { path: "/a&b".into(), offset: 7 },
    };
    let bare = "<?xml version='1.0'?><domain a=\"&lt;1>\"><!-- c --><devices><disk>&amp;&#65;</disk></devices></domain>";
    let leased = with_lease(bare, &lease).unwrap();
    assert_eq!(
        leased,
        "<?xml version='1.0'?><domain a=\"&lt;1>\"><!-- c --><devices><disk>&amp;&#65;</disk><lease><key>volume</key>\
         <lockspace>domain</lockspace><target offset=\"7\" path=\"/a&amp;b\"/></lease></devices></domain>"
    );
    assert_eq!(describe(&leased).unwrap().leases, std::slice::from_ref(&lease));
    assert_eq!(with_lease(&leased, &lease).unwrap(), leased);
    let other = Lease { key: "other".to_owned(), ..lease.clone() };
    assert_eq!(describe(&with_lease(&leased, &other).unwrap()).unwrap().leases.len(), 2);
    let empty = with_lease("<domain><devices/></domain>", &other).unwrap();
    assert!(empty.contains("<key>other</key>") && empty.ends_with("</devices></domain>"), "{empty}");
    assert!(with_lease("<domain/>", &lease).unwrap_err().to_string().contains("no <devices>"));
    assert!(with_lease("<domain><devices>", &lease).unwrap_err().to_string().contains("too early"));
    assert!(with_lease("", &lease).is_err());
}

#[test]
fn a_paused_start_is_asked_for_once() {
    let xml = "<domain xmlns:ovirt-vm=\"http://ovirt.org/vm/1.0\"><metadata><ovirt-vm:vm><launchPaused>false</launchPaused>\
               <ovirt-vm:launchPaused>false</ovirt-vm:launchPaused><x/></ovirt-vm:vm></metadata></domain>";
    let paused = with_launch_paused(xml).unwrap();
    assert_eq!(paused.matches("launchPaused>true").count(), 1, "{paused}");
    assert!(!paused.contains("false") && paused.contains("<x/>"), "{paused}");
    assert!(with_launch_paused("<domain/>").unwrap_err().to_string().contains("paused start"));
}

proptest! {
    #[test]
    fn any_vm_conf_gives_well_formed_xml_or_an_error(
        name in "\\PC{0,12}", cpu in "[ -~]{0,20}", machine in "[ -~]{0,12}", arguments in "\\PC{0,20}",
        device in "\\{type:(disk|interface|controller|video|rng|graphics),[ -~]{0,40}\\}",
    ) {
        let text = format!("{VM}vmName={name}\ncpuType={cpu}\nemulatedMachine={machine}\nkernel=/k\nkernelArgs={arguments}\n");
        let conf = conf();
        for text in [text.clone(), format!("{text}devices={device}\n")] {
            let Ok(vm) = VmConf::parse("vm.conf", &text) else { continue };
            for dialect in [Dialect::Vdsm, Dialect::Libvirt] {
                if let Ok(xml) = from_vm_conf(&vm, &Place { conf: &conf, dialect, starts_paused: true, is_emulated: false, lease: None }) {
                    let found = describe(&xml).unwrap();
                    prop_assert_eq!(found.leases.len(), 1);
                    prop_assert_eq!(with_lease(&xml, &found.leases[0]).unwrap(), xml);
                }
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_keeps_its_meaning(text in "(<(domain|devices|lease|key|a b='c'|/domain|/devices|/lease|/key)/?>|x|&amp;|&#x41;|<!--c-->){0,12}") {
        let lease = Lease { key: "k".to_owned(), lockspace: "l".to_owned(), target: LeaseTarget::FoundByVdsm };
        if let Ok(leased) = with_lease(&text, &lease) {
            let (before, after) = (describe(&text).unwrap(), describe(&leased).unwrap());
            prop_assert!(after.leases.iter().any(|found| found.key == "k" && found.lockspace == "l"));
            prop_assert!(after.leases.len() - before.leases.len() <= 1);
        }
    }
}
