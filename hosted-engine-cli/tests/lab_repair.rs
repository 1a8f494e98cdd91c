//! Repair with the real sanlock daemon: the living are never overridden, the rest is. Needs root, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::process::ExitCode;

use ha_config::{DomainType, HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::delta_lease::DeltaLease;
use hosted_engine_cli::repair::{ReinitializeLockspaceArgs, reinitialize_lockspace};
use hosted_engine_cli::setup::{
    ClusterSpec, DiskSource, HostSpec, LOCKSPACE_NAME, Quiet, StorageSpec, VmSpec, configure_host,
    create_storage,
};
use hosted_engine_cli::shared_file::SharedFile;
use metadata_format::HostId;
use sanlock_client::{AddOptions, Disk, DiskPath, Lockspace, LockspaceName};

#[test]
fn a_living_host_keeps_its_lease_and_a_dead_ones_is_wiped() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path().join("h1"));
    let storage = StorageSpec {
        domain_type: DomainType::Posixfs,
        storage: "shared".to_owned(),
        name: "s".to_owned(),
        disk: DiskSource::Empty(4096),
    };
    fs::create_dir_all(storage.mount_dir(&paths)).unwrap();
    let here = SanlockDaemon::start(&paths.sanlock_run_dir(), "h1", Speed::Tenfold).unwrap();
    let other = SanlockDaemon::start(&dir.path().join("h2"), "h2", Speed::Tenfold).unwrap();
    let cluster = ClusterSpec {
        fqdn: "e".to_owned(),
        bridge: "b".to_owned(),
        gateway: None,
        network_test: "none".to_owned(),
        tcp_target: None,
        vm: VmSpec::new(),
        // The daemons' seconds are a tenth of ours: watching for 3 × 1 s sees 5 renewals.
        ha_toml: "[lease]\nio_timeout = 1\n[timers]\nloop = 0.5\n".to_owned(),
    };
    let made = create_storage(&paths, &storage, &cluster, 0, &Quiet).unwrap();
    let host = HostSpec { host_id: HostId::new(1).unwrap(), hostname: "h1".to_owned() };
    configure_host(&paths, &made, &host, &Quiet).unwrap();
    let conf = HostedEngineConf::load(&paths).unwrap();
    let path = conf.lockspace_path().unwrap();

    let disk = Disk { path: DiskPath::new(&path).unwrap(), offset: 0 };
    let name = LockspaceName::new(LOCKSPACE_NAME).unwrap();
    let joined = |host_id| Lockspace { name: name.clone(), host_id, disk: disk.clone() };
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    other.client().add_lockspace(&joined(2), options).unwrap();
    // Left behind in this host's sanlock by a broker that died.
    here.client().add_lockspace(&joined(1), options).unwrap();

    let lease = |id: u16| {
        let file = SharedFile::open(&path, false).unwrap();
        DeltaLease::read(&file, HostId::new(id).unwrap()).unwrap().unwrap()
    };
    let force = ReinitializeLockspaceArgs { force: true };
    let code = reinitialize_lockspace(&force, &paths).unwrap();
    assert_ne!(code, ExitCode::SUCCESS, "a living host cannot be overridden, even by force");
    assert_eq!((lease(2).is_free(), lease(2).owner.as_str()), (false, "h2"));
    assert!(!paths.backup_dir().exists());

    drop(other);
    let code = reinitialize_lockspace(&force, &paths).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(lease(2).is_free() && lease(1).is_free());
    assert_eq!(fs::read_dir(paths.backup_dir()).unwrap().count(), 1);
    assert_eq!(here.client().get_lockspaces().unwrap().len(), 0);
    here.client().add_lockspace(&joined(2), options).unwrap();
}
