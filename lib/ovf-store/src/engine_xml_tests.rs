use super::*;

const ID: &str = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113";

fn domain(lease: &str, shared: &str, alias: &str) -> String {
    format!(
        "<domain type=\"kvm\" xmlns:ovirt-vm=\"http://ovirt.org/vm/1.0\"><name>a &amp; b</name><uuid>{ID}</uuid>\
         <devices><console type=\"unix\"><alias name=\"ua-11111111-2222-3333-4444-555555555555\"/></console>\
         <console type='pty'><target type=\"virtio\" port=\"0\"></target>{alias}</console>{lease}</devices>\
         <metadata><ovirt-vm:vm><ovirt-vm:device devtype=\"disk\" name=\"sda\"/>\
         <ovirt-vm:device devtype=\"disk\" name=\"vda\"><ovirt-vm:domainID>d</ovirt-vm:domainID>\
         <ovirt-vm:volumeID>v</ovirt-vm:volumeID>{shared}</ovirt-vm:device></ovirt-vm:vm></metadata></domain>"
    )
}

const LEASE: &str = "<lease><key>v</key><lockspace>d</lockspace></lease>";
const EXCLUSIVE: &str = "<ovirt-vm:shared>exclusive</ovirt-vm:shared>";
const ALIAS_TAG: &str = "<alias name=\"ua-c1d2e3f4-a5b6-4788-99aa-bbccddeeff00\"></alias>";

fn check(text: &str) -> Result<EngineXml, Unusable> {
    usable(text, Uuid::parse_str(ID).unwrap())
}

#[test]
fn only_the_serial_alias_changes() {
    let text = domain(LEASE, EXCLUSIVE, ALIAS_TAG);
    let xml = check(&text).unwrap();
    assert!(xml.lease_is_of_disk);
    let expected = text.replace("ua-c1d2e3f4-a5b6-4788-99aa-bbccddeeff00", "ua-c1d2e3f4-a5b6-4788-99");
    assert_eq!(xml.text, format!("{DECLARATION}{expected}"));
    let declared = format!(
        "<?xml version='1.0' encoding=\"UTF-8\"?>\n{}",
        domain(LEASE, EXCLUSIVE, "<alias name='s'/>")
    );
    // Quotes of the one rewritten tag become double ones.
    assert_eq!(check(&declared).unwrap().text, declared.replace("'s'", "\"s\""));
    assert_eq!(check(&expected).unwrap().text, xml.text, "an alias that is short enough stays");
}

#[test]
fn what_does_not_protect_the_disk_is_not_used() {
    assert_eq!(check(&domain("", EXCLUSIVE, "")), Err(Unusable::NoLease));
    assert_eq!(check(&domain(LEASE, "", "")), Err(Unusable::NotExclusive));
    let shared = "<ovirt-vm:shared>none</ovirt-vm:shared>";
    assert_eq!(check(&domain(LEASE, shared, "")), Err(Unusable::NotExclusive));
    let other = domain(LEASE, EXCLUSIVE, "").replace(ID, "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be114");
    assert_eq!(check(&other), Err(Unusable::OtherVm));
    assert!(matches!(check("<domain>"), Err(Unusable::Broken(_))));
    let elsewhere = domain("<lease><key>w</key><lockspace>d</lockspace></lease>", EXCLUSIVE, "");
    assert!(!check(&elsewhere).unwrap().lease_is_of_disk);
}

#[test]
fn the_text_is_not_printed() {
    let xml = check(&domain(LEASE, EXCLUSIVE, "")).unwrap();
    assert!(!format!("{xml:?}").contains("console"));
}
