//! Set-up with the real sanlock daemon: what it writes can be joined and acquired. Needs root, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::path::Path;

use ha_config::{DomainType, HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::setup::{
    ClusterSpec, DiskSource, HostSpec, LOCKSPACE_NAME, Quiet, StorageSpec, VmSpec, configure_host,
    create_storage, find_cluster,
};
use metadata_format::HostId;
use sanlock_client::{
    AcquireOptions, AddOptions, Disk, DiskPath, Lockspace, LockspaceName, Registration, RemoveOptions,
    Resource, ResourceName,
};

fn storage() -> StorageSpec {
    StorageSpec {
        domain_type: DomainType::Posixfs,
        storage: "shared:/e".to_owned(),
        name: "hosted_storage".to_owned(),
        disk: DiskSource::Empty(1 << 20),
    }
}

fn host(root: &Path, shared: &Path) -> (Paths, SanlockDaemon) {
    let paths = Paths::new(root);
    let mount = storage().mount_dir(&paths);
    fs::create_dir_all(mount.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(shared, mount).unwrap();
    let name = root.file_name().unwrap().to_str().unwrap();
    let daemon = SanlockDaemon::start(&paths.sanlock_run_dir(), name, Speed::Tenfold).unwrap();
    (paths, daemon)
}

fn lockspace(name: &str, id: u64, path: &Path) -> Lockspace {
    let disk = Disk { path: DiskPath::new(path).unwrap(), offset: 0 };
    Lockspace { name: LockspaceName::new(name).unwrap(), host_id: id, disk }
}

#[test]
fn both_lockspaces_can_be_joined_and_the_vms_lease_acquired() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let (first, sanlock) = host(&dir.path().join("h1"), &shared);
    let (second, _other) = host(&dir.path().join("h2"), &shared);
    let cluster = ClusterSpec {
        fqdn: "engine.example.com".to_owned(),
        bridge: "ovirtmgmt".to_owned(),
        gateway: None,
        network_test: "none".to_owned(),
        tcp_target: None,
        vm: VmSpec::new(),
        ha_toml: "[lease]\nio_timeout = 3\n".to_owned(),
    };
    let made = create_storage(&first, &storage(), &cluster, 0, &Quiet).unwrap();
    let spec = |id, name: &str| HostSpec { host_id: HostId::new(id).unwrap(), hostname: name.to_owned() };
    configure_host(&first, &made, &spec(1, "h1"), &Quiet).unwrap();

    let conf = HostedEngineConf::load(&first).unwrap();
    let client = sanlock.client();
    let blocks = lockspace(LOCKSPACE_NAME, 1, &conf.lockspace_path().unwrap());
    let domain = lockspace(conf.sd_uuid().unwrap(), 1, &conf.ids_path().unwrap());
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    client.add_lockspace(&blocks, options).unwrap();
    client.add_lockspace(&domain, options).unwrap();
    let lease = Resource {
        lockspace: domain.name.clone(),
        name: ResourceName::new(conf.vm_lease_name().unwrap()).unwrap(),
        disks: vec![Disk { path: DiskPath::new(conf.vm_lease_path().unwrap()).unwrap(), offset: 0 }],
    };
    let mut registration = Registration::register_self(&client).unwrap();
    registration.acquire(std::slice::from_ref(&lease), &AcquireOptions::default()).unwrap();
    assert_eq!(client.read_resource_owners(&lease).unwrap().owners[0].host_id, 1);

    // The id is taken now, for another host; the same host may be set up again.
    let found = find_cluster(&second, &storage()).unwrap();
    let error = configure_host(&second, &found, &spec(1, "h2"), &Quiet).unwrap_err().to_string();
    assert!(error.contains("host id 1 belongs to the host \"h1\""), "{error}");
    assert!(!second.hosted_engine_conf().exists());
    configure_host(&first, &made, &spec(1, "h1"), &Quiet).unwrap();
    configure_host(&second, &found, &spec(2, "h2"), &Quiet).unwrap();

    // Given up in order, it is free.
    registration.release_all().unwrap();
    client.remove_lockspace(&blocks, RemoveOptions::default()).unwrap();
    fs::remove_file(second.hosted_engine_conf()).unwrap();
    configure_host(&second, &found, &spec(1, "h2"), &Quiet).unwrap();
}
