use super::*;
use crate::deploy::testing::Recorded;

fn device(path: &Path) -> Device {
    Device { path: path.to_owned(), bytes: 1 << 30, grid: GridSize::Sector512Align1M }
}

/// What util-linux 2.38 said of devices in use.
#[test]
fn everything_that_is_on_a_device_is_said_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path();
    let lsblk = r#"{"blockdevices": [{"name":"sdb","type":"disk","ro":true,"mountpoints":["/srv",null],"children":[
        {"name":"sdb1","type":"part","ro":false,"mountpoints":[null]},
        {"name":"mpatha","type":"mpath","ro":false,"mountpoints":[null]},
        {"name":"vg-root","type":"lvm","ro":false,"mountpoints":["/"]}]}]}"#;
    let wipefs = r#"{"signatures": [
        {"device":"sdb","offset":"0x218","type":"LVM2_member","uuid":"u","label":null},
        {"device":"sdb","offset":"0x438","type":"ext4","uuid":"u","label":null}]}"#;
    let tools = Recorded::new(&[
        (&format!("lsblk --json --output NAME,TYPE,RO,MOUNTPOINTS {}", path.display()), 0, lsblk, ""),
        (&format!("wipefs --no-act --json {}", path.display()), 0, wipefs, ""),
    ]);
    let error = check_vacant(&tools, &device(path), 6 << 30).unwrap_err().to_string();
    tools.assert_over();
    for part in [
        "it has 1.0 GiB and 6.0 GiB are needed",
        "it is read-only",
        "it is mounted at /srv",
        "it has the partition sdb1",
        "one path of the multipath device mpatha",
        "the device vg-root (lvm) is on it",
        "it is a physical volume of LVM",
        "the signature of ext4 at 0x438",
        "it is no block device",
        "Nothing was changed",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn data_without_a_signature_are_found_at_both_ends() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let size = 100 * MIB;
    for (at, found) in [(5 * MIB + 77, true), (size - 1, true), (50 * MIB, false)] {
        file.as_file().set_len(0).unwrap();
        file.as_file().set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &[1], at).unwrap();
        let device = Device { bytes: size, ..device(file.path()) };
        let expected = found.then(|| format!("there are data at byte {at}"));
        assert_eq!(edges(&device).unwrap(), expected);
    }
}

#[test]
fn a_wwid_is_the_multipath_device_before_the_disk() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let wwid = "36001405a0b1c2d3e4f5061728394a5b6";
    let lun = Lun { id: wwid.to_owned(), bytes: 0 };
    let error = find(&paths, &lun).unwrap_err().to_string();
    assert!(error.contains(wwid) && error.contains("mapped to this host"), "{error}");
    let place = |name: &str| {
        let path = paths.resolve("/dev").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    fs::write(place("sdb"), [0; 8192]).unwrap();
    std::os::unix::fs::symlink("../../sdb", place("disk/by-id/wwn-0x6001405a0b1c2d3e4f5061728394a5b6"))
        .unwrap();
    let found = find(&paths, &lun).unwrap();
    assert_eq!((found.path.file_name().unwrap().to_str(), found.bytes), (Some("sdb"), 8192));
    fs::write(place(&format!("mapper/{wwid}")), [0; 4096]).unwrap();
    let found = find(&paths, &lun).unwrap();
    assert_eq!((found.guid().as_str(), found.bytes), (wwid, 4096));
}
