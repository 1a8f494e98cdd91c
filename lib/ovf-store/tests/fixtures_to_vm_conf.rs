//! Whole OVF files to vm.conf, against recorded texts, and against what a hypervisor adapter reads of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ovf_store::{EngineVm, Note, OvfError};
use proptest::prelude::*;
use uuid::Uuid;

const ENGINE_45: &str = include_str!("fixtures/engine-4.5.ovf");
const ENGINE_40: &str = include_str!("fixtures/engine-4.0.ovf");
const ID: &str = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113";

fn golden(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The OVF as engines before 4.2 wrote it, or one that could not make domain XML.
fn without_xml(ovf: &str) -> String {
    let (start, rest) = ovf.split_once("<EngineXml>").unwrap();
    let (_, end) = rest.split_once("</EngineXml>").unwrap();
    format!("{start}{end}")
}

fn notes(ovf: &str) -> Vec<String> {
    EngineVm::parse(ovf).unwrap().to_vm_conf("vm.conf").notes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_vm_with_domain_xml_loses_nothing() {
    let vm = EngineVm::parse(ENGINE_45).unwrap();
    vm.require_id(Uuid::parse_str(ID).unwrap()).unwrap();
    let made = vm.to_vm_conf("vm.conf");
    assert_eq!(made.notes, []);
    assert_eq!(made.conf.to_string(), golden("engine-4.5.vm.conf"));
    assert_eq!((made.conf.vm_id().unwrap(), made.conf.mem_size().unwrap()), (ID, 8192));
    assert_eq!((made.conf.smp().unwrap(), made.conf.max_vcpus().unwrap()), (8, 32));
}

#[test]
fn without_domain_xml_what_is_lost_is_said() {
    let ovf = without_xml(ENGINE_45);
    let made = EngineVm::parse(&ovf).unwrap().to_vm_conf("vm.conf");
    assert_eq!(made.conf.to_string(), golden("engine-4.5-without-xml.vm.conf"));
    let lost = [
        "the binding of NUMA cells to the host's",
        "the pinning of processors",
        "what custom properties ask of VDSM's hooks",
        "room to plug memory in",
    ];
    assert_eq!(made.notes, lost.map(|what| Note::NeedsXml { what: what.to_owned() }));
}

#[test]
fn an_old_engines_vm_is_read_too() {
    let made = EngineVm::parse(ENGINE_40).unwrap().to_vm_conf("vm.conf");
    assert_eq!(made.conf.to_string(), golden("engine-4.0.vm.conf"));
    let kinds: Vec<String> = made.notes.iter().map(ToString::to_string).collect();
    let expected = ["is no image", "unknown model \"9\"", "has no MAC", "not plugged in"];
    assert!(
        kinds.len() == 4 && kinds.iter().zip(expected).all(|(note, word)| note.contains(word)),
        "{kinds:?}"
    );
}

#[test]
fn domain_xml_that_does_not_protect_the_disk_is_left_out() {
    let unsafe_xml = ENGINE_45.replace("&gt;exclusive&lt;", "&gt;none&lt;");
    assert!(notes(&unsafe_xml)[0].contains("not marked exclusive"), "{:?}", notes(&unsafe_xml));
    let conf = EngineVm::parse(&unsafe_xml).unwrap().to_vm_conf("vm.conf").conf;
    assert_eq!(conf.xml_base64(), None);
    let broken = ENGINE_45.replace("&lt;/domain&gt;", "");
    assert!(notes(&broken)[0].contains("cannot be read"));
    let foreign =
        ENGINE_45.replace(&format!("&lt;uuid&gt;{ID}"), "&lt;uuid&gt;5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be114");
    assert!(notes(&foreign)[0].contains("uuid is not the VM's"));
    let other_lease = ENGINE_45.replace("&lt;key&gt;2a3b", "&lt;key&gt;2a3c");
    assert_eq!(EngineVm::parse(&other_lease).unwrap().to_vm_conf("x").notes, [Note::LeaseOfAnotherVolume]);
}

#[test]
fn nothing_secret_is_carried_or_printed() {
    assert!(ENGINE_45.contains("geheim"));
    let vm = EngineVm::parse(ENGINE_45).unwrap();
    assert!(!vm.to_vm_conf("vm.conf").conf.to_string().contains("geheim"));
    let printed = format!("{vm:?}");
    assert!(printed.contains(ID) && !printed.contains("geheim") && !printed.contains("owner"), "{printed}");
}

#[test]
fn every_firmware_and_display_is_known() {
    let firmwares =
        [("0", None), ("1", None), ("2", Some("uefi")), ("3", Some("uefi-secure-boot")), ("7", None)];
    for (number, firmware) in firmwares {
        let ovf = without_xml(ENGINE_45).replace("<BiosType>3<", &format!("<BiosType>{number}<"));
        let made = EngineVm::parse(&ovf).unwrap().to_vm_conf("vm.conf");
        assert_eq!(made.conf.get("firmware"), firmware, "{number}");
        assert_eq!(notes(&ovf).iter().any(|note| note.contains("\"7\"")), number == "7");
        let old_machine = notes(&ovf.replace("pc-q35-rhel8.6.0", "pc-i440fx-rhel7.6.0"));
        assert_eq!(
            old_machine.iter().any(|note| note.contains("UEFI")),
            firmware.is_some(),
            "{old_machine:?}"
        );
    }
    for (number, display) in [("0", Some("vnc")), ("1", Some("qxl")), ("3", Some("vnc")), ("4", None)] {
        let ovf = ENGINE_45.replace("<DefaultDisplayType>2<", &format!("<DefaultDisplayType>{number}<"));
        assert_eq!(EngineVm::parse(&ovf).unwrap().to_vm_conf("x").conf.display(), display, "{number}");
    }
}

#[test]
fn numa_cells_that_do_not_fit_are_said_to_be_lost() {
    let ovf = without_xml(ENGINE_45);
    let cells = |from: &str, to: &str| {
        let made = EngineVm::parse(&ovf.replacen(from, to, 1)).unwrap().to_vm_conf("vm.conf");
        let is_lost = made.notes.iter().any(|note| note.to_string().starts_with("the NUMA topology is lost"));
        (made.conf.get("numa").map(ToOwned::to_owned), is_lost)
    };
    let good = |text: &str| (Some(text.to_owned()), false);
    assert_eq!(cells("", ""), good("0,1,2,3@4096;4,5,6,7@4096"));
    assert_eq!(cells("<Index>0<", "<Index>2<"), good("4,5,6,7@4096;0,1,2,3@4096"));
    for (from, to) in
        [("4,5,6,7", "3,4"), ("4,5,6,7", "4,32"), ("4,5,6,7", ""), ("<MemTotal>4096", "<MemTotal>4095")]
    {
        assert_eq!(cells(from, to), (None, true), "{from} → {to}");
    }
}

#[test]
fn errors_name_the_element_and_the_value() {
    let refused = |from: &str, to: &str| {
        assert!(ENGINE_45.contains(from), "{from}");
        EngineVm::parse(&ENGINE_45.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, words) in [
        ("OperatingSystemSection_Type", "Other", "OperatingSystemSection_Type"),
        ("ovf:id=\"5b1d", "ovf:id=\"xb1d", "xb1d"),
        (
            "<rasd:VirtualQuantity>8192",
            "<rasd:VirtualQuantity>8 GB",
            "rasd:VirtualQuantity of memory is \"8 GB\"",
        ),
        ("MegaBytes", "GigaBytes", "rasd:AllocationUnits is \"GigaBytes\""),
        ("<rasd:num_of_sockets>2", "<rasd:num_of_sockets>0", "rasd:num_of_sockets is \"0\""),
        ("<rasd:cpu_per_socket>2", "<rasd:cpu_per_socket>2000", "the number of processors is \"8000\""),
        ("<rasd:num_of_sockets>2</rasd:num_of_sockets>", "", "no rasd:num_of_sockets"),
        ("ovf:fileRef=\"1f0e", "ovf:fileRef=\"xf0e", "ovf:fileRef of Disk"),
        ("ovf:disk-interface=\"VirtIO\"", "ovf:disk-interface=\"NVMe\"", "ovf:disk-interface is \"NVMe\""),
        ("ovf:volume-format=\"RAW\"", "ovf:volume-format=\"VMDK\"", "VMDK"),
        ("<MemTotal>4096", "<MemTotal>-1", "MemTotal is \"-1\""),
        ("<cpuIdList>0,1", "<cpuIdList>0,x", "cpuIdList is \"x\""),
        ("<DefaultDisplayType>2", "<DefaultDisplayType>9", "DefaultDisplayType"),
        ("ovf:diskId=\"2a3b", "ovf:diskId=\"2a3c", "no disk"),
        ("<Content ", "<Kontent ", "near byte"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(words), "{from} → {to}: {error}");
    }
    let vm = EngineVm::parse(ENGINE_45).unwrap();
    let error = vm.require_id(Uuid::nil()).unwrap_err();
    assert!(matches!(error, OvfError::OtherVm { .. }), "{error}");
}

proptest! {
    #[test]
    fn a_damaged_ovf_is_refused_or_read(at in 0_usize..ENGINE_45.len(), length in 0_usize..40, with in "[<>/a0&;'\" ]{0,8}") {
        let end = (at + length).min(ENGINE_45.len());
        prop_assume!(ENGINE_45.is_char_boundary(at) && ENGINE_45.is_char_boundary(end));
        let damaged = format!("{}{with}{}", &ENGINE_45[..at], &ENGINE_45[end..]);
        if let Ok(vm) = EngineVm::parse(&damaged) {
            let conf = vm.to_vm_conf("vm.conf").conf;
            // Whatever was read, what is made of it can be read again and says the same.
            let again = ha_config::VmConf::parse("vm.conf", &conf.to_string()).unwrap();
            prop_assert_eq!(again.to_string(), conf.to_string());
            prop_assert_eq!(again.mem_size().unwrap(), vm.memory_mib);
        }
    }
}
