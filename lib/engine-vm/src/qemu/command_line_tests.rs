//! Golden argument lists and hostile values.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::qemu::machine::{DirectBoot, Mac, Smbios, Vnc};

fn machine() -> Machine {
    Machine {
        name: "HostedEngine".to_owned(),
        uuid: Uuid::from_u128(0x4d4c_5b5e_0000_4000_8000_1f2e_3d4c_5b6a),
        machine_type: "pc".to_owned(),
        cpu_model: Some("Westmere".to_owned()),
        memory_mib: 4096,
        vcpus: 2,
        max_vcpus: 4,
        smbios: Smbios { manufacturer: "oVirt".to_owned(), ..Smbios::default() },
        disks: vec![Disk {
            path: "/images/a/b".into(),
            source: DiskSource::File,
            format: DiskFormat::Raw,
            bus: DiskBus::Virtio,
            is_cdrom: false,
            is_read_only: false,
            serial: Some("a".to_owned()),
            boot_order: Some(1),
        }],
        nics: vec![Nic {
            model: "virtio-net-pci".to_owned(),
            mac: Mac::parse("00:16:3e:01:02:03"),
            backend: NicBackend::Bridge("ovirtmgmt".to_owned()),
            boot_order: None,
        }],
        vnc: Some(Vnc { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 5900 }),
        serial_log: false,
        ends_on_reboot: false,
        direct_boot: None,
    }
}

fn launch() -> Launch {
    Launch {
        accelerator: Accelerator::Kvm,
        is_paused: false,
        is_incoming: false,
        user: None,
        extra_args: Vec::new(),
    }
}

#[test]
fn golden_arguments() {
    let expected = r#"-no-user-config
-nodefaults
-name guest=HostedEngine,debug-threads=on
-uuid 4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a
-machine pc,accel=kvm,usb=off,dump-guest-core=off
-cpu Westmere
-m size=4096M
-smp cpus=2,maxcpus=4
-smbios type=1,uuid=4d4c5b5e-0000-4000-8000-1f2e3d4c5b6a,manufacturer=oVirt
-rtc base=utc
-boot strict=on
-msg timestamp=on
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-chardev socket,id=qmp-broker,path=qmp-broker.sock,server=on,wait=off
-mon chardev=qmp-broker,mode=control
-chardev socket,id=qmp-agent,path=qmp-agent.sock,server=on,wait=off
-mon chardev=qmp-agent,mode=control
-chardev socket,id=qmp-cli,path=qmp-cli.sock,server=on,wait=off
-mon chardev=qmp-cli,mode=control
-chardev file,id=events,path=events.log,input-path=events.in,append=on
-mon chardev=events,mode=control
-chardev socket,id=serial0,path=serial.sock,server=on,wait=off
-device {"driver":"isa-serial","chardev":"serial0"}
-blockdev {"driver":"raw","node-name":"disk0","read-only":false,"cache":{"direct":true,"no-flush":false},"file":{"driver":"file","filename":"/images/a/b","aio":"threads","cache":{"direct":true,"no-flush":false},"discard":"unmap"}}
-device {"driver":"virtio-blk-pci","id":"drive0","drive":"disk0","rerror":"stop","werror":"stop","serial":"a","bootindex":1}
-netdev {"type":"tap","id":"net0","fd":"@tap0@"}
-device {"driver":"virtio-net-pci","id":"net0-card","netdev":"net0","romfile":"","mac":"00:16:3e:01:02:03"}
-vnc 127.0.0.1:0,to=99,password=on
-device {"driver":"VGA","vgamem_mb":16}
-object {"qom-type":"rng-random","id":"rng0","filename":"/dev/urandom"}
-device {"driver":"virtio-rng-pci","rng":"rng0"}"#;
    let joined = arguments(&machine(), &launch()).unwrap().join(" ").replace(" -", "\n-");
    assert_eq!(joined, expected);
}

/// The arguments that follow `name`.
fn values<'a>(args: &'a [String], name: &str) -> Vec<&'a str> {
    args.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].as_str()).collect()
}

#[test]
fn golden_arguments_of_a_guest_that_arrives() {
    let mut machine = machine();
    machine.vnc = None;
    machine.serial_log = true;
    machine.nics[0].backend = NicBackend::User;
    machine.disks[0].bus = DiskBus::Scsi;
    machine.disks[0].source = DiskSource::BlockDevice;
    machine.direct_boot = Some(DirectBoot {
        kernel: "/boot/a,b".into(),
        initrd: Some("/boot/c,d".into()),
        arguments: "console=ttyS0 a=b,c".to_owned(),
    });
    let launch = Launch {
        accelerator: Accelerator::Tcg,
        is_incoming: true,
        user: Some("qemu".to_owned()),
        extra_args: vec!["-d".to_owned(), "guest_errors".to_owned()],
        ..launch()
    };
    let args = arguments(&machine, &launch).unwrap();
    assert_eq!(values(&args, "-cpu"), ["max"]);
    assert_eq!(values(&args, "-display"), ["none"]);
    assert_eq!(values(&args, "-incoming"), ["defer"]);
    assert_eq!(values(&args, "-kernel"), ["/boot/a,b"]);
    assert_eq!(values(&args, "-initrd"), ["/boot/c,,d"]);
    assert_eq!(values(&args, "-append"), ["console=ttyS0 a=b,c"]);
    assert_eq!(values(&args, "-run-with"), ["user=qemu"]);
    assert_eq!(values(&args, "-netdev"), [r#"{"type":"user","id":"net0"}"#]);
    assert!(values(&args, "-blockdev")[0].contains(r#""file":{"driver":"host_device""#));
    assert!(values(&args, "-blockdev")[0].contains(r#""aio":"native""#));
    assert!(
        values(&args, "-device").iter().any(|d| d.contains("scsi-hd") && d.contains(r#""bus":"scsi0.0""#))
    );
    assert!(values(&args, "-chardev").iter().any(|c| c.ends_with("logfile=serial.log,logappend=off")));
    assert_eq!(args[args.len() - 3..], ["-S", "-d", "guest_errors"]);
    assert!(!args.contains(&"-vnc".to_owned()));
}

#[test]
fn an_installation_boots_from_its_disc_and_ends_when_the_guest_restarts() {
    let mut machine = machine();
    machine.ends_on_reboot = true;
    let drive = |path: &str, source, order| Disk {
        path: path.into(),
        source,
        bus: DiskBus::Ide,
        is_cdrom: true,
        is_read_only: true,
        serial: None,
        boot_order: order,
        ..machine.disks[0].clone()
    };
    let (full, empty) = (drive("/os.iso", DiskSource::File, Some(1)), drive("", DiskSource::Empty, None));
    machine.disks = vec![full, empty];
    let args = arguments(&machine, &launch()).unwrap();
    assert_eq!(values(&args, "-action"), ["reboot=shutdown"]);
    assert_eq!(values(&args, "-blockdev").len(), 1, "none for the drive without a disc");
    let drives: Vec<_> = values(&args, "-device").into_iter().filter(|d| d.contains("ide-cd")).collect();
    assert_eq!(
        drives,
        [
            r#"{"driver":"ide-cd","id":"drive0","drive":"disk0","bootindex":1}"#,
            r#"{"driver":"ide-cd","id":"drive1"}"#
        ]
    );
}

#[test]
fn commas_and_quotes_stay_inside_their_value() {
    let mut machine = machine();
    machine.name = "a,process=evil\" 'b".to_owned();
    machine.smbios.serial = "1,uuid=2".to_owned();
    machine.disks[0].path = r#"/x","driver":"null-co/,y"#.into();
    let args = arguments(&machine, &launch()).unwrap();
    assert_eq!(values(&args, "-name"), ["guest=a,,process=evil\" 'b,debug-threads=on"]);
    assert!(values(&args, "-smbios")[0].ends_with(",serial=1,,uuid=2"));
    let disk: Value = serde_json::from_str(values(&args, "-blockdev")[0]).unwrap();
    assert_eq!(disk["file"]["filename"], r#"/x","driver":"null-co/,y"#);
    assert_eq!(disk["file"]["driver"], "file");
}

#[test]
fn what_cannot_be_escaped_is_refused_by_name() {
    let refused = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        arguments(&machine, &launch()).unwrap_err().to_string()
    };
    assert!(
        refused(|m| m.machine_type = "pc,accel=tcg".to_owned()).contains("machine type \"pc,accel=tcg\"")
    );
    assert!(refused(|m| m.cpu_model = Some("-x".to_owned())).contains("cpuType"));
    assert!(refused(|m| m.name = "a\nb".to_owned()).contains("control character"));
    assert!(refused(|m| m.name = String::new()).contains("empty"));
    assert!(refused(|m| m.nics[0].model = "e1000 ".to_owned()).contains("network card model"));
    assert!(refused(|m| m.disks[0].path = "relative".into()).contains("must start with '/'"));
}

proptest! {
    #[test]
    fn no_value_adds_an_argument(name in "\\PC{1,40}", serial in "\\PC{1,40}", args in "\\PC{1,40}") {
        let mut machine = machine();
        let usual = arguments(&machine, &launch()).unwrap().len();
        machine.name = name;
        machine.disks[0].serial = Some(serial);
        machine.direct_boot = Some(DirectBoot { kernel: "/k".into(), initrd: None, arguments: args });
        if let Ok(list) = arguments(&machine, &launch()) {
            prop_assert_eq!(list.len(), usual + 4);
        }
    }
}
