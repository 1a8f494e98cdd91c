//! What deployment writes, with the real sanlock daemon: it can be joined and acquired, and a number has one owner. Needs
//! root, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod deployed;

use std::fs;
use std::path::Path;

use ha_config::{HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::deploy::Request;
use hosted_engine_cli::setup::LOCKSPACE_NAME;
use sanlock_client::{
    AcquireOptions, AddOptions, Disk, DiskPath, Lockspace, LockspaceName, Registration, RemoveOptions,
    Resource, ResourceName,
};

fn lockspace(name: &str, id: u64, path: &Path) -> Lockspace {
    let disk = Disk { path: DiskPath::new(path).unwrap(), offset: 0 };
    Lockspace { name: LockspaceName::new(name).unwrap(), host_id: id, disk }
}

#[test]
fn both_lockspaces_can_be_joined_and_the_vms_lease_acquired() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("h1");
    let sanlock = SanlockDaemon::start(&Paths::new(&root).sanlock_run_dir(), "h1", Speed::Tenfold).unwrap();
    let (paths, first) = deployed::alone(&root, "[lease]\nio_timeout = 3\n");

    let conf = HostedEngineConf::load(&paths).unwrap();
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

    // The number is taken now, for another host.
    let join = |name: &str, id: u16| {
        let paths = Paths::new(dir.path().join(name));
        if !paths.resolve("/storage").exists() {
            fs::create_dir_all(paths.root()).unwrap();
            std::os::unix::fs::symlink(root.join("storage"), paths.resolve("/storage")).unwrap();
        }
        let further = deployed::further_host(&first, id, name);
        let joined = deployed::deploy(&paths, &Request::FurtherHost(Box::new(further)));
        assert_eq!(paths.hosted_engine_conf().exists(), joined.is_ok());
        joined.map_err(|error| error.to_string())
    };
    let error = join("h2", 1).unwrap_err();
    assert!(error.contains("host id 1 belongs to the host \"h1\""), "{error}");
    join("h2", 2).unwrap();

    // Given up in order, it is free.
    registration.release_all().unwrap();
    client.remove_lockspace(&blocks, RemoveOptions::default()).unwrap();
    join("h3", 1).unwrap();
}
