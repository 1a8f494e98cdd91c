use super::*;
use proptest::prelude::*;

#[test]
fn tar_itself_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("conf.tar");
    let archive = write(&[("version", b"1.0"), ("vm.conf", b"vmId=x\n")], 1_700_000_000).unwrap();
    assert_eq!(archive.len(), RECORD);
    std::fs::write(&path, &archive).unwrap();
    let output = std::process::Command::new("tar").arg("-xOf").arg(&path).arg("vm.conf").output().unwrap();
    assert_eq!(output.stdout, b"vmId=x\n");
}

#[test]
fn reads_what_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hosted-engine.conf"), "host_id=1\n").unwrap();
    let output = std::process::Command::new("tar")
        .args(["--record-size=20480", "-cf", "-", "-C"])
        .arg(dir.path())
        .arg("hosted-engine.conf")
        .output()
        .unwrap();
    assert_eq!(read(&output.stdout).unwrap()["hosted-engine.conf"], b"host_id=1\n");
}

#[test]
fn empty_and_damaged_volumes_are_told_apart() {
    assert_eq!(read(&[0; 4096]), Err(ArchiveError::Empty));
    let mut archive = write(&[("a", b"b")], 0).unwrap();
    archive[0] ^= 1;
    assert!(matches!(read(&archive), Err(ArchiveError::Damaged { offset: 0, .. })));
}

/// What the existing tools write, with a file of ours and one of nobody's.
fn complete() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("version", b"2.5.1".as_slice()),
        ("fhanswers.conf", b"[environment:default]\nA=str:b\n"),
        ("hosted-engine.conf", b"# he\nhost_id=1\ngateway=192.0.2.1\n"),
        ("broker.conf", b"[email]\nsmtp-port=25\n"),
        ("vm.conf", b"vmId=x\n"),
        ("ha.toml", b""),
        ("nobodys", b"\xff\x00"),
    ]
}

#[test]
fn one_file_changes_and_every_other_byte_stays() {
    let bytes = write(&complete(), 7).unwrap();
    let old = Archive::parse(&bytes).unwrap();
    assert_eq!(old.encode().unwrap(), bytes);
    old.check_complete().unwrap();
    let new = old.with_content("hosted-engine.conf", b"# he\nhost_id=1\ngateway=192.0.2.9\n").unwrap();
    let differs: Vec<usize> = std::iter::zip(new.encode().unwrap(), &bytes)
        .enumerate()
        .filter_map(|(at, (new, old))| (new != *old).then_some(at))
        .collect();
    // fhanswers.conf takes two blocks, version two: the third file's content begins in the sixth block.
    assert_eq!(differs, [5 * BLOCK + b"# he\nhost_id=1\ngateway=192.0.2.".len()]);
    assert!(!new.same_files(&old));
    let longer = old.with_content("hosted-engine.conf", &[b'x'; 3000]).unwrap();
    let longer = Archive::parse(&longer.encode().unwrap()).unwrap();
    assert_eq!(longer.content("hosted-engine.conf").unwrap().len(), 3000);
    for (name, content) in complete() {
        assert!(name == "hosted-engine.conf" || longer.content(name) == Some(content), "{name}");
    }
}

#[test]
fn it_grows_by_whole_records_and_leaves_nothing_behind_when_it_shrinks() {
    let old = Archive::parse(&write(&complete(), 7).unwrap()).unwrap();
    let long = old.with_content("broker.conf", &vec![b'#'; RECORD]).unwrap().encode().unwrap();
    assert_eq!(long.len(), 2 * RECORD);
    let short = Archive::parse(&long).unwrap().with_content("broker.conf", b"").unwrap();
    let bytes = short.encode().unwrap();
    assert_eq!(bytes.len(), 2 * RECORD);
    assert!(bytes[RECORD..].iter().all(|byte| *byte == 0));
    let too_long = old.with_content("broker.conf", &vec![b'#'; MAX_BYTES]).unwrap();
    assert_eq!(too_long.encode(), Err(ArchiveError::TooLong("the archive".into())));
}

#[test]
fn what_is_missing_is_named() {
    let archive = Archive::parse(&write(&complete()[..3], 7).unwrap()).unwrap();
    let error = archive.check_complete().unwrap_err();
    assert_eq!(error, ArchiveError::Incomplete("broker.conf, vm.conf".into()));
    assert!(archive.with_content("vm.conf", b"").unwrap_err().to_string().contains("vm.conf is not in it"));
    assert!(!format!("{archive:?}").contains("192.0.2.1"));
}

/// Python's tarfile, which the existing tools write with, reads what was changed here; and what it wrote can be
/// changed here.
#[test]
fn python_writes_it_and_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    // An empty archive of one record, then appended to, as the existing tools do.
    let script = r#"
import io, sys, tarfile
open(sys.argv[1], "wb").write(bytes(20480))
tar = tarfile.open(name=sys.argv[1], mode="a")
for name in ("version", "fhanswers.conf", "hosted-engine.conf", "broker.conf", "vm.conf"):
    data = b"key=" + name.encode() + b"\n"
    info = tarfile.TarInfo(name=name)
    info.size = len(data)
    tar.addfile(tarinfo=info, fileobj=io.BytesIO(data))
tar.close()
"#;
    let python = |script: &str| {
        let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    python(script);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), RECORD);
    let archive = Archive::parse(&bytes).unwrap();
    archive.check_complete().unwrap();
    assert_eq!(archive.encode().unwrap(), bytes);
    std::fs::write(&path, archive.with_content("broker.conf", b"new=1\n").unwrap().encode().unwrap())
        .unwrap();
    let read = python(
        "import sys, tarfile\ntar = tarfile.open(sys.argv[1])\n\
         print([(m.name, tar.extractfile(m).read().decode()) for m in tar.getmembers()])",
    );
    let wanted = "[('version', 'key=version\\n'), ('fhanswers.conf', 'key=fhanswers.conf\\n'), \
                  ('hosted-engine.conf', 'key=hosted-engine.conf\\n'), ('broker.conf', 'new=1\\n'), \
                  ('vm.conf', 'key=vm.conf\\n')]";
    assert_eq!(read.trim(), wanted);
}

proptest! {
    #[test]
    fn writing_then_reading_is_identity(content in prop::collection::vec(any::<u8>(), 0..2000)) {
        let archive = write(&[("a.conf", &content), ("b", b"")], 7).unwrap();
        let files = read(&archive).unwrap();
        prop_assert_eq!(&files["a.conf"], &content);
        prop_assert_eq!(files.len(), 2);
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1600), at in 0_usize..1500, byte: u8) {
        let _ = read(&bytes);
        let mut archive = write(&[("a.conf", b"0123456789")], 7).unwrap();
        archive[at] = byte;
        let _ = read(&archive);
    }
}
