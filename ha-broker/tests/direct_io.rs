//! The whiteboard's real adapter on real files, with `O_DIRECT`. The temporary directory must be on a file system that
//! supports it (most do).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ha_broker::whiteboard::commit::{Payload, commit};
use ha_broker::whiteboard::direct_io::{DirectIo, SectorSize};
use ha_broker::whiteboard::{Block, BlockRange, PutError, StorageError, Whiteboard, zero_block};
use rustix::io::Errno;

fn file(dir: &Path, blocks: u64) -> std::path::PathBuf {
    let path = dir.join("hosted-engine.metadata");
    File::create(&path).unwrap().set_len(blocks * 4096).unwrap();
    path
}

fn block(text: &str) -> Block {
    let mut block = zero_block();
    block[..text.len()].copy_from_slice(text.as_bytes());
    block[4000..4005].copy_from_slice(b"tail!");
    block
}

#[tokio::test]
async fn what_was_written_is_in_the_file_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 2001);
    let board = DirectIo::new(path.clone());
    let payload = Payload::Host(Box::new(block("1|1|42")));
    assert_eq!(*commit(&board, 2000, &payload, &|| Ok(())).await.unwrap(), block("1|1|42"));
    assert_eq!(board.sector_size(), Some(SectorSize::B512));
    let mut raw = zero_block();
    File::open(&path).unwrap().read_exact_at(&mut raw, 2000 * 4096).unwrap();
    assert_eq!(raw, block("1|1|42"));
    let reading = board.read(&[BlockRange::all()]).await.unwrap();
    assert_eq!(reading.present.len(), 1);
    assert_eq!((reading.present[0].0, reading.file_blocks, reading.bytes), (2000, 2001, 2001 * 4096));
    let reading = board.read(&[BlockRange { first: 1999, count: 2 }]).await.unwrap();
    assert_eq!((reading.present.len(), reading.bytes), (1, 8192));
}

#[tokio::test]
async fn a_short_file_is_never_made_longer_and_reads_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 3);
    let board = DirectIo::new(path.clone());
    let error = board.write(3, &block("x"), &|| Ok(())).await.unwrap_err();
    assert!(
        matches!(
            &error,
            PutError::Storage(StorageError::TooShort { block: 3, len: 12_288, end: 16_384, .. })
        ),
        "{error}"
    );
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(path.metadata().unwrap().len(), 12_288);
    board.write(2, &block("y"), &|| Ok(())).await.unwrap();
    // A part of a block at the end is no block.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(2 * 4096 + 100).unwrap();
    let reading = board.read(&[BlockRange::all()]).await.unwrap();
    assert_eq!((reading.file_blocks, reading.present.len()), (2, 0));
    File::create(&path).unwrap();
    assert_eq!(board.read(&[BlockRange::all()]).await.unwrap().file_blocks, 0);
}

#[tokio::test]
async fn a_missing_replaced_or_strange_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosted-engine.metadata");
    let board = DirectIo::new(path.clone());
    let error = board.read(&[BlockRange::all()]).await.unwrap_err();
    assert_eq!(error, StorageError::Missing { file: path.clone() });
    assert!(error.to_string().contains("mounted"), "{error}");
    file(dir.path(), 10);
    let first = board.read(&[BlockRange::all()]).await.unwrap().identity;
    let other = dir.path().join("other");
    File::create(&other).unwrap().set_len(10 * 4096).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_ne!(board.read(&[BlockRange::all()]).await.unwrap().identity, first, "opened anew each time");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = board.read(&[BlockRange::all()]).await.unwrap_err();
    assert!(matches!(error, StorageError::WrongKind { .. }), "{error}");
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("hosted-engine.metadata", &path).unwrap();
    let error = board.read(&[BlockRange::all()]).await.unwrap_err();
    assert!(matches!(&error, StorageError::Os { errno: Errno::LOOP, .. }), "{error}");
}

#[tokio::test]
async fn the_lease_is_asked_for_before_each_write_and_the_record_goes_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 10);
    let board = DirectIo::new(path.clone());
    let asked = std::sync::atomic::AtomicU32::new(0);
    let lost_between = || {
        if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1 {
            Err(PutError::NotHeld("lost".to_owned()))
        } else {
            Ok(())
        }
    };
    let error = board.write(1, &block("record"), &lost_between).await.unwrap_err();
    assert_eq!(error, PutError::NotHeld("lost".to_owned()));
    let mut raw = zero_block();
    File::open(&path).unwrap().read_exact_at(&mut raw, 4096).unwrap();
    assert_eq!(&raw[..6], &[0; 6], "no record without its lease");
    assert_eq!(&raw[4000..4005], b"tail!");
}
