use super::*;
use crate::deploy::testing::Recorded;

fn conf(paths: &Paths, more: &str) -> HostedEngineConf {
    let uuid = Uuid::from_u128(7);
    let keys = [
        "sdUUID",
        "vm_disk_id",
        "vm_disk_vol_id",
        "metadata_image_UUID",
        "metadata_volume_UUID",
        "lockspace_image_UUID",
        "lockspace_volume_UUID",
    ];
    let text: String =
        keys.iter().flat_map(|key| [*key, "=", &uuid.to_string(), "\n"].map(ToOwned::to_owned)).collect();
    HostedEngineConf::parse(paths, &(text + more))
}

/// After a boot the sessions come first: without them there is no device to activate anything on.
#[test]
fn a_host_without_a_session_logs_in_by_its_own_record_before_it_activates() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let record = paths.resolve("/var/lib/iscsi/nodes/iqn.t/192.0.2.2,3261,1/default");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(record, "").unwrap();
    let group = Uuid::from_u128(7);
    let activate = format!(
        "lvm lvchange --config 'devices{{hints=\"none\" obtain_device_list_from_udev=0 use_devicesfile=0}} \
         backup{{backup=0 archive=0}}' --activate y {group}/metadata {group}/ids {group}/leases {group}/xleases \
         {group}/{group} {group}/{group} {group}/{group}"
    );
    let tools = Recorded::new(&[
        ("iscsiadm -m session", 21, "", "iscsiadm: No active sessions.\n"),
        ("iscsiadm -m node -T iqn.t -p 192.0.2.2:3261,1 --login", 0, "", ""),
        ("udevadm settle --timeout 30", 0, "", ""),
        (&activate, 5, "", "  Volume group \"x\" not found\n"),
    ]);
    let keys = "domainType=iscsi\nstorage=192.0.2.1,192.0.2.2\nport=3260,3261\niqn=iqn.t\nportal=1\n";
    let error = bring_up(&conf(&paths, keys), &tools).unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
    tools.assert_over();
}

#[test]
fn what_is_not_active_is_not_taken_down() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let tools = Recorded::default();
    assert!(!take_down(&conf(&paths, "domainType=fc\n"), &tools).unwrap());
    tools.assert_over();
}

#[test]
fn old_lvm_is_named_as_the_reason() {
    let said = "vgcreate: unrecognized option '--setautoactivation'".to_owned();
    let error = ToolError::Failed { call: "lvm vgcreate".to_owned(), code: 3, said };
    assert!(old_lvm(error.into()).to_string().contains("2.03.12"));
}
