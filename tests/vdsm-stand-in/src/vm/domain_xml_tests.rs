use super::*;

const XML: &str = r#"<?xml version="1.0"?>
<domain type="kvm" xmlns:ovirt-vm="http://ovirt.org/vm/1.0">
  <name>HostedEngine</name>
  <uuid>eccb9cb6-affd-4806-8200-708370581227</uuid>
  <memory unit="MiB">128</memory>
  <vcpu current="2">16</vcpu>
  <sysinfo type="smbios"><system>
    <entry name="manufacturer">oVirt</entry><entry name="serial">HOST-SERIAL:</entry>
  </system></sysinfo>
  <os><type machine="pc-q35-rhel8.6.0">hvm</type><kernel>/g/vmlinuz</kernel><initrd>/g/initramfs</initrd>
    <cmdline>console=ttyS0 a&amp;b</cmdline></os>
  <cpu mode="host-passthrough"><model>x</model></cpu>
  <devices>
    <disk type="file" device="cdrom"><target dev="sdc" bus="sata"/></disk>
    <disk type="file" device="disk"><driver name="qemu" type="raw"/>
      <source file="/rhev/data-center/mnt/x/sd/images/img/vol"/><target dev="vda" bus="virtio"/>
      <serial>img</serial><boot order="1"/></disk>
    <interface type="bridge"><mac address="00:16:3e:01:02:03"/><model type="virtio"/>
      <source bridge="ovirtmgmt"/></interface>
    <graphics type="vnc" port="-1" autoport="yes"/>
    <lease><key>vol</key><lockspace>sd</lockspace>
      <target path="LEASE-PATH:vol:sd" offset="LEASE-OFFSET:vol:sd"/></lease>
    <video/><controller/>
  </devices>
</domain>"#;

#[test]
fn a_hosted_engines_domain_is_understood() {
    let under = |path: &Path| Path::new("/box").join(path.strip_prefix("/").unwrap());
    let Described { machine, lease, starts_paused } = read(XML, &under).unwrap();
    assert_eq!(machine.uuid.to_string(), uuid(XML).unwrap());
    assert_eq!((machine.memory_mib, machine.vcpus, machine.max_vcpus), (128, 2, 16));
    assert_eq!((machine.machine_type.as_str(), machine.cpu_model), ("q35", None));
    assert_eq!((machine.smbios.manufacturer.as_str(), machine.smbios.serial.as_str()), ("oVirt", ""));
    let boot = machine.direct_boot.unwrap();
    assert_eq!(
        (boot.kernel.as_path(), boot.arguments.as_str()),
        (Path::new("/box/g/vmlinuz"), "console=ttyS0 a&b")
    );
    assert_eq!(machine.disks.len(), 1, "no disc, no drive");
    assert_eq!(machine.disks[0].path, Path::new("/box/rhev/data-center/mnt/x/sd/images/img/vol"));
    assert_eq!(machine.nics[0].backend, NicBackend::Bridge("ovirtmgmt".to_owned()));
    assert_eq!(machine.vnc.map(|vnc| vnc.port), Some(5900));
    let wanted = WantedLease { lockspace: "sd".to_owned(), key: "vol".to_owned(), path: None, offset: None };
    assert_eq!((lease, starts_paused), (Some(wanted), false));
    let paused = "<metadata><ovirt-vm:vm><ovirt-vm:launchPaused>true</ovirt-vm:launchPaused></ovirt-vm:vm></metadata></domain>";
    assert!(read(&XML.replace("</domain>", paused), &under).unwrap().starts_paused);
}

#[test]
fn what_our_own_adapter_writes_is_understood() {
    let xml = include_str!("../../../../lib/engine-vm/tests/domain_xml/vdsm.xml");
    let Described { machine, lease, .. } = read(xml, &Path::to_owned).unwrap();
    assert_eq!((machine.memory_mib, machine.vcpus, machine.max_vcpus), (4096, 4, 16));
    assert_eq!((machine.smbios.product.as_str(), machine.disks.len(), machine.nics.len()), ("", 1, 1));
    assert!(lease.is_some_and(|lease| lease.path.is_none() && lease.offset.is_none()));
}

#[test]
fn a_lease_may_say_where_it_is() {
    let xml = XML.replace("LEASE-PATH:vol:sd", "/l/x").replace("LEASE-OFFSET:vol:sd", "1048576");
    let lease = read(&xml, &Path::to_owned).unwrap().lease.unwrap();
    assert_eq!((lease.path.as_deref(), lease.offset), (Some(Path::new("/l/x")), Some(1 << 20)));
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, part) in [
        ("<memory unit=\"MiB\">128", "<memory unit=\"PiB\">128", "PiB"),
        ("<memory unit=\"MiB\">128", "<memory unit=\"MiB\">0", "16 TiB"),
        ("current=\"2\"", "current=\"x\"", "4096"),
        ("00:16:3e:01:02:03", "01:16:3e:01:02:03", "hardware address"),
        ("bus=\"virtio\"", "bus=\"xen\"", "xen"),
        ("<interface type=\"bridge\">", "<interface type=\"ethernet\">", "ethernet"),
        ("<key>vol</key>", "", "<key>"),
        ("<domain ", "<host ", "not XML"),
    ] {
        let error = read(&XML.replace(from, to), &Path::to_owned).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
