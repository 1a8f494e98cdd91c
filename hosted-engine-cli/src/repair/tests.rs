//! What repair refuses and what it does, on a directory, without a lock manager or a broker.

use std::fs;
use std::time::Duration;

use ha_config::{HostedEngineConf, Paths};
use metadata_format::{HostBlock, HostId};

use super::clean::{self, CleanMetadataArgs};
use super::liveness::Snapshot;
use super::lockspace::{self, ReinitializeLockspaceArgs};
use super::*;
use crate::deploy::storage::testing::{Site, first_host};
use crate::deploy::{self, FirstHost, Installed, Journal, Request, StepId, StorageKind};
use crate::setup::Quiet;
use crate::shared_file::SharedFile;

const TOML: &str =
    "[lease]\nadapter = \"file\"\nio_timeout = 1\n[timers]\nloop = 0.1\nstorage_deadline = 5\n";

pub(crate) struct Host {
    pub paths: Paths,
    pub conf: HostedEngineConf,
    _dir: tempfile::TempDir,
}

/// What of a deployment is done here.
const STEPS: [StepId; 7] = [
    StepId::Directories,
    StepId::StorageConnection,
    StepId::StorageDomain,
    StepId::Leases,
    StepId::SharedConfiguration,
    StepId::HostConfiguration,
    StepId::MainConfiguration,
];

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

/// A block as an agent writes it, with its checksum.
pub(crate) fn block(number: u16, timestamp: u64, stopped: bool) -> Vec<u8> {
    let stopped = u8::from(stopped);
    let status =
        r#"{"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"}"#;
    let record =
        |crc: &str| format!("1|1|{timestamp}|{number}|3400|{status}|h{number}|0|{stopped}|{crc}|0|7");
    let crc = crc32(record("00000000").as_bytes());
    let mut block = record(&format!("{crc:08x}")).into_bytes();
    block.resize(4096, 0);
    assert!(HostBlock::parse(id(number), &block).unwrap().is_some());
    block
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

impl Host {
    /// Host 1, deployed as far as files and storage go.
    pub fn new() -> Self {
        let site = Site::new();
        let request = Request::FirstHost(Box::new(FirstHost {
            ha_toml: TOML.to_owned(),
            ..first_host(StorageKind::Directory, "/srv/he")
        }));
        let mut steps = deploy::steps(&request);
        steps.retain(|step| STEPS.contains(&step.id()));
        let mut journal = Journal::begin(&site.dir.path().join("journal"), 0, request.clone()).unwrap();
        deploy::run(&steps, site.world(&request, &Installed, &Quiet), &mut journal).unwrap();
        let conf = HostedEngineConf::load(&site.paths).unwrap();
        let Site { dir, paths, .. } = site;
        Self { paths, conf, _dir: dir }
    }

    pub fn put(&self, number: u16, bytes: &[u8]) {
        let path = self.conf.metadata_path().unwrap();
        SharedFile::open(&path, true).unwrap().write(u64::from(number) * 4096, bytes).unwrap();
    }

    pub fn has_block(&self, number: u16) -> bool {
        Snapshot::read(&self.conf).unwrap().blocks.contains_key(&id(number))
    }

    async fn clean(&self, host: u16, force_cleanup: bool) -> Result<(), Stop> {
        clean::clean(&CleanMetadataArgs { force_cleanup, host_id: Some(id(host)) }, &self.paths, &Quiet).await
    }

    async fn reinitialize(&self, force: bool) -> Result<(), Stop> {
        let args = ReinitializeLockspaceArgs { force, all: true, ..ReinitializeLockspaceArgs::default() };
        lockspace::reinitialize(&args, &self.paths, &Quiet).await
    }

    pub fn backups(&self) -> usize {
        fs::read_dir(self.paths.backup_dir()).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn a_stopped_host_is_forgotten_with_a_copy_kept() {
    let host = Host::new();
    host.put(3, &block(3, 100, true));
    host.put(4, &block(4, 100, true));
    host.clean(3, false).await.unwrap();
    assert!(!host.has_block(3) && host.has_block(4));
    assert_eq!(host.backups(), 1);
    host.clean(3, false).await.unwrap();
    assert_eq!(host.backups(), 1, "nothing to do, nothing kept");
}

#[tokio::test]
async fn a_host_that_did_not_stop_needs_force() {
    let host = Host::new();
    host.put(3, &block(3, 100, false));
    let stop = host.clean(3, false).await.unwrap_err();
    assert!(stop.text.contains("host 3 (h3) did not stop in order"), "{}", stop.text);
    assert!(host.has_block(3) && host.backups() == 0);
    host.put(4, &[b'x'; 600]);
    let stop = host.clean(4, false).await.unwrap_err();
    assert!(stop.text.contains("--force-cleanup") && stop.code == exit::REFUSED, "{}", stop.text);
}

#[tokio::test]
async fn force_forgets_the_silent_and_never_the_living() {
    let host = Host::new();
    host.put(3, &[b'x'; 600]);
    host.clean(3, true).await.unwrap();
    assert!(!host.has_block(3));

    host.put(3, &block(3, 100, false));
    let (stop, ()) = tokio::join!(host.clean(3, true), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        host.put(3, &block(3, 101, false));
    });
    let stop = stop.unwrap_err();
    assert!(stop.text.contains("host 3 (h3) is alive: it writes its block"), "{}", stop.text);
    assert!(host.has_block(3));
}

#[tokio::test]
async fn the_lockspace_needs_maintenance_and_stopped_agents() {
    let host = Host::new();
    host.put(2, &block(2, 100, true));
    let stop = host.reinitialize(false).await.unwrap_err();
    assert!(stop.text.contains("global maintenance only"), "{}", stop.text);
    host.put(0, b"maintenance=1\n");
    host.put(3, &block(3, 100, false));
    let stop = host.reinitialize(false).await.unwrap_err();
    assert!(stop.text.contains("host 3 (h3) did not stop in order"), "{}", stop.text);
    host.put(3, &block(3, 101, true));
    host.reinitialize(false).await.unwrap();
    assert_eq!(host.backups(), 1);
    host.put(3, &[b'x'; 600]);
    assert!(host.reinitialize(false).await.unwrap_err().text.contains("cannot be read"));
    let mended = lockspace::reinitialize(&ReinitializeLockspaceArgs::default(), &host.paths, &Quiet).await;
    assert!(mended.unwrap_err().text.contains("use file locks"));
    assert_eq!(host.backups(), 1);
}

#[tokio::test]
async fn hosts_that_are_not_deployed_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    let stop = clean::clean(&CleanMetadataArgs::default(), &paths, &Quiet).await.unwrap_err();
    assert_eq!((stop.code, stop.text.as_str()), (1, "You must run deploy first"));
    fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
    fs::write(paths.hosted_engine_conf(), "vmid=x\nhost_id=1\nconfigured=False\n").unwrap();
    let stop = clean::clean(&CleanMetadataArgs::default(), &paths, &Quiet).await.unwrap_err();
    assert_eq!(stop.code, exit::NOT_CONFIGURED);
}

#[derive(clap::Parser)]
enum Program {
    CleanMetadata(CleanMetadataArgs),
    ReinitializeLockspace(ReinitializeLockspaceArgs),
}

#[test]
fn the_switches_are_those_of_the_existing_tool() {
    use clap::Parser;
    let parse = |line: &str| Program::try_parse_from(line.split(' '));
    match parse("x clean-metadata --force-cleanup --host-id=3").unwrap() {
        Program::CleanMetadata(args) => assert_eq!((args.force_cleanup, args.host_id), (true, Some(id(3)))),
        Program::ReinitializeLockspace(_) => panic!("another command was read"),
    }
    match parse("x reinitialize-lockspace --force").unwrap() {
        Program::ReinitializeLockspace(args) => assert!(args.force),
        Program::CleanMetadata(_) => panic!("another command was read"),
    }
    assert!(parse("x clean-metadata --host-id=0").is_err());
    assert!(parse("x reinitialize-lockspace --force --all").is_ok());
    assert!(parse("x reinitialize-lockspace --unused --force").is_err());
}
