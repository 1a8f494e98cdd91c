//! The whiteboard's real adapter on block devices with 512 and 4096-byte sectors. Needs root and losetup.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ha_broker::whiteboard::commit::{Payload, commit};
use ha_broker::whiteboard::direct_io::{DirectIo, SectorSize};
use ha_broker::whiteboard::{BlockRange, PutError, Whiteboard, zero_block};

/// A loop device, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path, sector: u32) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size", &sector.to_string()])
            .arg(file)
            .output()
            .expect("losetup must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

async fn write_and_read_back(sector: u32, expected: SectorSize) {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("disk");
    File::create(&backing).unwrap().set_len(2001 * 4096).unwrap();
    let device = Loop::attach(&backing, sector);
    let board = DirectIo::new(device.0.clone());
    let mut bytes = zero_block();
    bytes[..6].copy_from_slice(b"1|1|42");
    bytes[4095] = 7;
    let payload = Payload::Host(Box::new(bytes));
    assert_eq!(*commit(&board, 5, &payload, &|| Ok(())).await.unwrap(), bytes);
    assert_eq!(board.sector_size(), Some(expected));
    let reading = board.read(&[BlockRange::all()]).await.unwrap();
    assert_eq!(reading.file_blocks, 2001);
    assert_eq!(reading.present, [(5, Box::new(bytes))]);
    let mut raw = zero_block();
    File::open(&backing).unwrap().read_exact_at(&mut raw, 5 * 4096).unwrap();
    assert_eq!(raw, bytes, "it is on stable storage, not in a cache");
}

#[tokio::test]
async fn sectors_of_512_bytes() {
    write_and_read_back(512, SectorSize::B512).await;
}

#[tokio::test]
async fn sectors_of_4096_bytes() {
    write_and_read_back(4096, SectorSize::B4096).await;
}

#[tokio::test]
async fn a_file_system_on_4096_byte_sectors_is_found_out_by_trying() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("disk");
    File::create(&backing).unwrap().set_len(64 << 20).unwrap();
    let device = Loop::attach(&backing, 4096);
    let made = Command::new("mkfs.ext4").args(["-q", "-b", "4096"]).arg(&device.0).status().unwrap();
    assert!(made.success());
    let mount = dir.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    assert!(Command::new("mount").arg(&device.0).arg(&mount).status().unwrap().success());
    let _mounted = Mounted(mount.clone());
    let path = mount.join("hosted-engine.metadata");
    File::create(&path).unwrap().write_all_at(&vec![0; 100 * 4096], 0).unwrap();
    let board = DirectIo::new(path);
    let mut bytes = zero_block();
    bytes[0] = b'1';
    assert_eq!(*commit(&board, 5, &Payload::Host(Box::new(bytes)), &|| Ok(())).await.unwrap(), bytes);
    assert_eq!(board.sector_size(), Some(SectorSize::B4096));
}

/// The backing file loses its end under a running device: blocks there fail, the others do not.
#[tokio::test]
async fn blocks_that_cannot_be_read_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("disk");
    File::create(&backing).unwrap().set_len(40 * 4096).unwrap();
    let device = Loop::attach(&backing, 512);
    let board = DirectIo::new(device.0.clone());
    let mut bytes = zero_block();
    bytes[0] = b'1';
    board.write(1, &bytes, &|| Ok(())).await.unwrap();
    OpenOptions::new().write(true).open(&backing).unwrap().set_len(20 * 4096).unwrap();
    match board.read(&[BlockRange { first: 0, count: 30 }]).await {
        Ok(reading) => {
            assert_eq!(reading.present, [(1, Box::new(bytes))]);
            assert!(reading.unreadable.iter().all(|(block, _)| *block >= 20), "{:?}", reading.unreadable);
        }
        Err(error) => panic!("the readable blocks were lost with the others: {error}"),
    }
    let error = board.write(25, &bytes, &|| Err(PutError::Abandoned)).await.unwrap_err();
    assert_eq!(error, PutError::Abandoned);
}
