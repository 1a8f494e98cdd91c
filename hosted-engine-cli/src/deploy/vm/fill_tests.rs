//! Copying images, with `qemu-img` as recorded.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::deploy::Journal;
use crate::deploy::made::Undo as _;
use crate::deploy::testing::Recorded;
use crate::deploy::vm::testing::{Bench, OneVolume};

const OVF: &str = include_str!("../../../../lib/ovf-store/tests/fixtures/engine-4.5.ovf");
const DISK: &str = "1f0e2d3c-4b5a-4697-8887-766554433221/2a3b4c5d-6e7f-4081-92a3-b4c5d6e7f809";
const MIB: usize = 1 << 20;
const INFO: &str =
    r#"{"virtual-size": 2097152, "format": "qcow2", "format-specific": {"type": "qcow2", "data": {}}}"#;

fn no_vm(_: &ha_config::HostedEngineConf) -> anyhow::Result<std::sync::Arc<dyn engine_vm::EngineVm>> {
    panic!("nobody may open the VM")
}

/// A bench whose VM boots from an image with this content, and whose disk has so many MiB.
fn bench(image: &[u8], mib: usize) -> (Bench, FillDisk) {
    let mut bench = Bench::new(Boot::Pxe);
    let path = bench.path("image");
    std::fs::write(&path, image).unwrap();
    bench.first().vm.boot = Boot::Disk(Some(path));
    // What an earlier try left.
    std::fs::write(bench.path("volume"), vec![5; mib * MIB]).unwrap();
    let step = FillDisk(Box::new(OneVolume(bench.path("volume"))));
    (bench, step)
}

fn raw() -> Vec<u8> {
    let mut disk = vec![0; 2 * MIB];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[MIB] = 3;
    disk
}

fn archive(disk: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [("vm.ovf", OVF.as_bytes()), (DISK, disk)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The beginning of a qcow2 of 2 MiB, as large as the archive's reader takes for a disk.
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; MIB];
    image[..4].copy_from_slice(b"QFI\xfb");
    image[24..32].copy_from_slice(&(2_u64 << 20).to_be_bytes());
    image[MIB / 2] = 1;
    image
}

fn volume_after(bench: &Bench) -> Vec<u8> {
    std::fs::read(bench.path("volume")).unwrap()
}

#[test]
fn a_raw_disk_is_copied_from_a_file_and_from_archives_over_what_was_there() {
    let mut expected = raw();
    expected.resize(3 * MIB, 0);
    for image in [raw(), archive(&raw()), gzip(&archive(&raw()))] {
        let (bench, step) = bench(&image, 3);
        bench.run(Box::new(step), &Recorded::new(&[]), &no_vm).unwrap();
        assert!(volume_after(&bench) == expected);
    }
}

#[test]
fn a_qcow2_is_converted_by_qemu_img_wherever_it_is() {
    let (bench, step) = bench(b"QFI\xfb", 2);
    let (image, volume) = (bench.path("image"), bench.path("volume"));
    let convert = "qemu-img convert -p -n --target-is-zero -t none -O raw";
    let calls = |name: &str| {
        let verbs =
            ["info --output=json", "check --output=json"].map(|verb| format!("qemu-img {verb} {name}"));
        let convert = format!("{convert} {name} {}", volume.display());
        [verbs[0].clone(), verbs[1].clone(), convert]
    };
    let progress = "    (0.00/100%)\r    (66.67/100%)\r    (100.00/100%)\r\n";
    let [info, check, copy] = calls(&format!("-f qcow2 {}", image.display()));
    let tools = Recorded::new(&[(&info, 0, INFO, ""), (&check, 0, "{}", ""), (&copy, 0, progress, "")]);
    bench.run(Box::new(step), &tools, &no_vm).unwrap();
    tools.assert_over();

    // In a plain archive: in its place there.
    std::fs::write(&image, archive(&qcow2())).unwrap();
    let step = FillDisk(Box::new(OneVolume(volume.clone())));
    let image::Form::Appliance(found) = image::inspect(&image, &tools).unwrap().form else { panic!() };
    let spec = image::spec_in_archive(&image, found.disk.offset.unwrap(), MIB as u64);
    let [info, check, copy] = calls(&format!("'{spec}'"));
    let tools = Recorded::new(&[(&info, 0, INFO, ""), (&check, 0, "{}", ""), (&copy, 0, progress, "")]);
    bench.run(Box::new(step), &tools, &no_vm).unwrap();
    tools.assert_over();

    // In a gzipped one: unpacked, which is in the journal and is gone afterwards, even when it was of no use.
    std::fs::write(&image, gzip(&archive(&qcow2()))).unwrap();
    std::fs::create_dir_all(bench.path("var/tmp")).unwrap();
    let Request::FirstHost(first) = &bench.request else { panic!() };
    let unpacked = bench.path("var/tmp").join(format!("hosted-engine-{}.qcow2", first.ids.deploy));
    let [info, check, copy] = calls(&format!("-f qcow2 {}", unpacked.display()));
    for said in [("", 1), ("{}", 0)] {
        let mut recorded = vec![(info.as_str(), 0, INFO, ""), (&check, said.1, said.0, "ERROR: it is bad")];
        recorded.extend((said.1 == 0).then_some((copy.as_str(), 0, progress, "")));
        let tools = Recorded::new(&recorded);
        let step = FillDisk(Box::new(OneVolume(volume.clone())));
        assert_eq!(bench.run(Box::new(step), &tools, &no_vm).is_ok(), said.1 == 0);
        tools.assert_over();
        assert!(!unpacked.exists());
        let story = Journal::read(&bench.journal()).unwrap().unwrap();
        assert!(story.items[0].made.describe().contains("var/tmp/hosted-engine-"));
    }
}

#[test]
fn what_does_not_fit_or_is_not_as_its_checksum_says_leaves_the_disk_alone() {
    let (bench, step) = bench(&raw(), 1);
    let before = volume_after(&bench);
    let error = bench.run(Box::new(step), &Recorded::new(&[]), &no_vm).unwrap_err().to_string();
    assert!(error.contains("2097152 bytes") && error.contains("at least 1 GiB"), "{error}");
    assert!(volume_after(&bench) == before);

    let (bench, step) = super::tests::bench(&raw(), 2);
    std::fs::write(bench.path("image.sha256"), format!("{}  image\n", "0".repeat(64))).unwrap();
    let error = bench.run(Box::new(step), &Recorded::new(&[]), &no_vm).unwrap_err().to_string();
    assert!(error.contains("image.sha256 says 000"), "{error}");
    assert!(volume_after(&bench)[0] == 5);
}

#[test]
fn nothing_is_done_for_a_vm_that_is_installed() {
    for boot in [Boot::Pxe, Boot::Cdrom("/os.iso".into()), Boot::Disk(None)] {
        let (mut bench, step) = bench(b"", 1);
        bench.first().vm.boot = boot;
        bench.run(Box::new(step), &Recorded::new(&[]), &no_vm).unwrap();
        assert!(volume_after(&bench)[0] == 5);
    }
}

#[test]
fn a_disk_without_a_boot_record_is_warned_of() {
    let mut disk = raw();
    disk[510] = 0;
    let (bench, step) = bench(&disk, 2);
    bench.run(Box::new(step), &Recorded::new(&[]), &no_vm).unwrap();
    assert!(bench.report.all().iter().any(|line| line.starts_with("! ") && line.contains("no boot record")));
}
