//! Images of every kind, good and bad.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::deploy::testing::Recorded;

const OVF: &str = include_str!("../../../../../lib/ovf-store/tests/fixtures/engine-4.5.ovf");
const DISK: &str = "images/1f0e2d3c-4b5a-4697-8887-766554433221/2a3b4c5d-6e7f-4081-92a3-b4c5d6e7f809";
const MIB: usize = 1 << 20;

/// What qemu-img 10.0.2 says of a good image, of one with a backing file.
const GOOD: &str = r#"{"children": [{"name": "file", "info": {"children": [], "virtual-size": 3473408,
    "filename": "a.qcow2", "format": "file", "actual-size": 3411968, "format-specific": {"type": "file", "data": {}},
    "dirty-flag": false}}], "virtual-size": 16777216, "filename": "a.qcow2", "cluster-size": 65536, "format": "qcow2",
    "actual-size": 3411968, "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "compression-type": "zlib",
    "lazy-refcounts": false, "refcount-bits": 16, "corrupt": false, "extended-l2": false}}, "dirty-flag": false}"#;
const CHECKED: &str = r#"{"image-end-offset": 3473408, "total-clusters": 256, "check-errors": 0}"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn refusal(path: &Path) -> String {
    inspect(path, &Recorded::new(&[])).unwrap_err().to_string()
}

/// A raw disk of 2 MiB with a boot sector and something at the end.
fn raw_disk() -> Vec<u8> {
    let mut disk = vec![0; 2 * MIB];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[2 * MIB - 1] = 9;
    disk
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_raw_image_is_as_large_as_it_is() {
    let folder = Folder::new();
    let image = inspect(&folder.file("disk", &raw_disk()), &Recorded::new(&[])).unwrap();
    assert_eq!((image.form, image.virtual_bytes, image.looks_bootable), (Form::Raw, 2 << 20, true));
    assert_eq!(image.proposal, Proposal { memory_mb: None, vcpus: None, disk_gib: 1 });
    assert!(refusal(&folder.file("cut", &raw_disk()[..=MIB])).contains("1048577 bytes are no whole number"));
    assert!(refusal(&folder.file("empty", b"")).contains("it is empty"));
    assert!(refusal(folder.0.path()).contains("is a directory"));
    assert!(refusal(Path::new("/nonexistent/x")).contains("/nonexistent/x"));
}

#[test]
fn what_cannot_be_used_is_named_with_its_way_out() {
    let folder = Folder::new();
    for (name, mark, part) in [
        ("a", &b"KDMV\x01\0"[..], "qemu-img convert -f vmdk"),
        ("b", b"PK\x03\x04", "zip archive"),
        ("c", b"conectix", "-f vpc"),
        ("d", b"\xfd7zXZ\0", "xz -dk"),
        ("e", b"\x28\xb5\x2f\xfd", "zstd -d"),
        ("f", b"\xed\xab\xee\xdb", "RPM package"),
    ] {
        let mut bytes = raw_disk();
        bytes[..mark.len()].copy_from_slice(mark);
        let refusal = refusal(&folder.file(name, &bytes));
        assert!(refusal.contains(part) && refusal.contains(&format!("/{name}: ")), "{refusal}");
    }
    let mut cd = vec![0; MIB];
    cd[32769..32774].copy_from_slice(b"CD001");
    assert!(refusal(&folder.file("cd", &cd)).contains("boot the VM from cdrom"));
    assert!(refusal(&folder.file("text.gz", &gzip(&[7; 4096]))).contains("gunzip"));
    assert!(refusal(&folder.file("cut.gz", &gzip(&[7; 100])[..10])).contains("damaged or was cut"));
}

#[test]
fn a_qcow2_is_looked_at_by_name_of_its_format() {
    let folder = Folder::new();
    let path = folder.file("a.qcow2", b"QFI\xfb and more");
    let shown = path.display();
    let (info, check) = (
        format!("qemu-img info --output=json -f qcow2 {shown}"),
        format!("qemu-img check --output=json -f qcow2 {shown}"),
    );
    let tools = Recorded::new(&[(&info, 0, GOOD, ""), (&check, 0, CHECKED, "")]);
    let image = inspect(&path, &tools).unwrap();
    tools.assert_over();
    assert_eq!((image.form, image.virtual_bytes, image.proposal.disk_gib), (Form::Qcow2, 16 << 20, 1));

    let backing = GOOD.replace(r#""cluster-size""#, r#""backing-filename": "/etc/shadow", "cluster-size""#);
    let data = GOOD.replace(r#""corrupt": false"#, r#""corrupt": false, "data-file": "d.raw""#);
    let secret = GOOD.replace(r#""format": "qcow2""#, r#""format": "qcow2", "encrypted": true"#);
    let corrupt = GOOD.replace(r#""corrupt": false"#, r#""corrupt": true"#);
    for (said, part) in [
        (backing.as_str(), "\"/etc/shadow\""),
        (&data, "\"d.raw\""),
        (&secret, "encrypted"),
        (&corrupt, "marked as corrupt"),
        ("[]", "cannot be understood"),
    ] {
        let error = inspect(&path, &Recorded::new(&[(&info, 0, said, "")])).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // Cut: it opens, and only the check finds out.
    let words = "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset \
                 0x100000 size 0x10000\nERROR: and more";
    let tools = Recorded::new(&[(&info, 0, GOOD, ""), (&check, 2, r#"{"corruptions": 37}"#, words)]);
    let error = inspect(&path, &tools).unwrap_err().to_string();
    assert!(error.contains("damaged or cut (ERROR: counting") && !error.contains("and more"), "{error}");
    let tools =
        Recorded::new(&[(&info, 1, "", "qemu-img: Could not open 's.qcow2': qcow2 header too short")]);
    assert!(inspect(&path, &tools).unwrap_err().to_string().contains("header too short"));
}

#[test]
fn an_appliance_is_found_in_its_archive_packed_or_not() {
    let folder = Folder::new();
    let disk = raw_disk();
    // As oVirt's appliances have it, and with the description behind the disk.
    let files: [(&str, &[u8]); 3] =
        [("master/vms/5b1d/5b1d.ovf", OVF.as_bytes()), (DISK, &disk), ("x.meta", b"")];
    for swap in [false, true] {
        let mut files = files;
        if swap {
            files.swap(0, 1);
        }
        let bytes = tar(&files);
        for (name, bytes) in [("a.ova", bytes.clone()), ("b.ova", gzip(&bytes))] {
            let path = folder.file(name, &bytes);
            let image = inspect(&path, &Recorded::new(&[])).unwrap();
            assert_eq!(image.virtual_bytes, 2 << 20);
            assert_eq!(image.proposal, Proposal { memory_mb: Some(8192), vcpus: Some(8), disk_gib: 1 });
            let Form::Appliance(archive) = image.form else { panic!("{image:?}") };
            assert_eq!((archive.disk.is_qcow2, archive.disk.name.as_str()), (false, DISK));
            if let Some(at) = archive.disk.offset {
                assert!(bytes[usize::try_from(at).unwrap()..].starts_with(&disk));
            }
            assert_eq!(archive.disk.offset.is_some(), name == "a.ova");
            let read = archive.with_disk(&path, |content| {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).unwrap();
                Ok(bytes)
            });
            assert!(read.unwrap() == disk);
            assert_eq!(archive.verify(&path, &mut |_| ()).unwrap(), None);
        }
    }
}

#[test]
fn an_archive_is_held_against_its_manifest_and_its_end() {
    let folder = Folder::new();
    let disk = raw_disk();
    let mut sum = checksum::Sum::named("SHA256").unwrap();
    sum.add(&disk);
    let manifest = format!("SHA256({DISK})= {}\n", sum.hex());
    let made = |name: &str, manifest: &str| {
        let bytes = tar(&[("vm.ovf", OVF.as_bytes()), (DISK, &disk), ("vm.mf", manifest.as_bytes())]);
        folder.file(name, &bytes)
    };
    let verify = |path: &Path| Archive::read(path, Packing::Plain).unwrap().verify(path, &mut |_| ());
    assert_eq!(verify(&made("good", &manifest)).unwrap().as_deref(), Some("vm.mf"));
    for (name, manifest, part) in [
        ("other", manifest.replace("= ", "= 0"), "another checksum than its own"),
        ("more", format!("{manifest}SHA1(no.such)= 00\n"), "not in the archive"),
        ("md5", format!("MD5({DISK})= 00\n"), "unknown kind"),
        ("what", "what\n".to_owned(), "no known form"),
    ] {
        let error = verify(&made(name, &manifest)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("vm.mf"), "{error}");
    }
    let whole = tar(&[("vm.ovf", OVF.as_bytes()), (DISK, &disk)]);
    let cut = folder.file("cut", &whole[..whole.len() - MIB]);
    assert!(verify(&cut).unwrap_err().to_string().contains("damaged or was cut"));
    let packed = gzip(&whole);
    let cut = folder.file("cut.gz", &packed[..packed.len() - 20]);
    let error = Archive::read(&cut, Packing::Gzip).and_then(|archive| archive.verify(&cut, &mut |_| ()));
    assert!(error.unwrap_err().to_string().contains("damaged or was cut"));
}

#[test]
fn an_archive_without_a_usable_disk_is_refused() {
    let folder = Folder::new();
    let disk = raw_disk();
    let mut vmdk = disk.clone();
    vmdk[..4].copy_from_slice(b"KDMV");
    let second = OVF.replace("<Disk ", "<Disk ovf:fileRef=\"x\"></Disk><Disk ");
    for (name, files, part) in [
        ("no-ovf", vec![(DISK, disk.as_slice())], "no description"),
        ("no-disk", vec![("vm.ovf", OVF.as_bytes())], "which is not in the archive"),
        ("broken", vec![("vm.ovf", &b"<a"[..]), (DISK, &disk)], "cannot be read"),
        ("vmdk", vec![("vm.ovf", OVF.as_bytes()), (DISK, &vmdk)], "is a VMDK image"),
        ("two", vec![("vm.ovf", second.as_bytes()), (DISK, &disk)], "it has 2 disks"),
        ("odd", vec![("vm.ovf", OVF.as_bytes()), (DISK, &disk[..MIB + 3])], "no whole number"),
    ] {
        let refusal = refusal(&folder.file(name, &tar(&files)));
        assert!(refusal.contains(part), "{name}: {refusal}");
    }
}
