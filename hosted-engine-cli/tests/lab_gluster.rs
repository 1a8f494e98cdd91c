//! A storage domain on a real `GlusterFS` volume, mounted by the product through FUSE, with leases by the real sanlock.
//! Needs root, glusterfs-server, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod deployed;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use deployed::{first_host, on_host};
use ha_config::{HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use ha_tests::wait::until;
use hosted_engine_cli::deploy::storage::{
    Connect, MakeDomain, ShareConfiguration, WriteLeases, backend, files,
};
use hosted_engine_cli::deploy::{self, Installed, Journal, Request, Step, StorageKind};
use hosted_engine_cli::setup::{ClusterConf, LOCKSPACE_NAME};
use sanlock_client::{AddOptions, Disk, DiskPath, Lockspace, LockspaceName};

/// Says to this program that it runs inside.
const INSIDE: &str = "LAB_GLUSTER_INSIDE";
/// The server: `GlusterFS` takes no loopback address.
const SERVER: &str = "10.99.0.1";

/// The daemons, mounts and addresses are in namespaces of their own, and end with them.
#[test]
fn a_domain_on_glusterfs_is_made_mounted_again_and_taken_back() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_domain_on_glusterfs_is_made_mounted_again_and_taken_back", "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn run(program: &str, args: &str) {
    let output = Command::new(program).args(args.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn serve(brick: &Path) {
    run("ip", "link set lo up");
    run("ip", &format!("addr add {SERVER}/32 dev lo"));
    for directory in ["/var/lib/glusterd", "/var/log/glusterfs", "/run"] {
        run("mount", &format!("-t tmpfs tmpfs {directory}"));
    }
    run("glusterd", "--log-level=WARNING");
    until("glusterd answers", Duration::from_secs(20), || {
        let asked = Command::new("gluster").args(["--mode=script", "volume", "list"]).output().unwrap();
        asked.status.success().then_some(())
    });
    run("gluster", &format!("--mode=script volume create he {SERVER}:{} force", brick.display()));
    for option in ["storage.owner-uid 36", "storage.owner-gid 36", "performance.strict-o-direct on"] {
        run("gluster", &format!("--mode=script volume set he {option}"));
    }
}

fn inside() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, brick) = (Paths::new(dir.path().join("h1")), dir.path().join("brick"));
    for directory in [paths.root(), &brick] {
        fs::create_dir(directory).unwrap();
    }
    serve(&brick);
    let sanlock = SanlockDaemon::start(&paths.sanlock_run_dir(), "h1", Speed::Tenfold).unwrap();
    let steps: Vec<Box<dyn Step>> =
        vec![Box::new(Connect), Box::new(MakeDomain), Box::new(WriteLeases), Box::new(ShareConfiguration)];
    let first = first_host(StorageKind::Glusterfs, &format!("{SERVER}:/he"), "[lease]\nio_timeout = 3\n");
    let request = Request::FirstHost(Box::new(first));
    let mount = paths.storage_mounts().join(format!("glusterSD/{SERVER}:_he"));
    let mut journal = Journal::begin(&dir.path().join("journal"), 0, request.clone()).unwrap();

    // A volume that is not started cannot be mounted; once it is, the deployment goes on.
    let mut run_steps = || on_host(&paths, &request, |world| deploy::run(&steps, world, &mut journal));
    let error = run_steps().unwrap_err().to_string();
    assert!(error.contains("gluster volume status he, on 10.99.0.1"), "{error}");
    run("gluster", "--mode=script volume start he");
    run_steps().unwrap();

    let found = on_host(&paths, &request, |world| backend(&request).find(&world)).unwrap();
    let cluster = ClusterConf::read(&found[0].configuration).unwrap();
    let conf: HostedEngineConf = cluster.parsed(&paths);
    assert_eq!(conf.mount_dir().unwrap(), mount);
    for path in [conf.metadata_path(), conf.vm_disk_path(), conf.ids_path()] {
        let meta = fs::metadata(path.unwrap()).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (36, 36));
    }

    // After a boot nothing is mounted.
    run("umount", &mount.display().to_string());
    assert!(!conf.metadata_path().unwrap().exists());
    assert!(files::attach(&conf, &Installed).unwrap());
    assert!(!files::attach(&conf, &Installed).unwrap(), "it is mounted already");

    // The lock manager can use what it wrote there.
    let blocks = Lockspace {
        name: LockspaceName::new(LOCKSPACE_NAME).unwrap(),
        host_id: 1,
        disk: Disk { path: DiskPath::new(conf.lockspace_path().unwrap()).unwrap(), offset: 0 },
    };
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    sanlock.client().add_lockspace(&blocks, options).unwrap();
    let left = sanlock.client().remove_lockspace(&blocks, sanlock_client::RemoveOptions::default());
    left.unwrap();

    // A host that was restarted in the middle has to mount it to take it back.
    assert!(files::detach(&conf, &Installed).unwrap());
    on_host(&paths, &request, |world| deploy::undo(world, &mut journal)).unwrap();
    assert!(!paths.root().join("rhev").exists());
    let left = fs::read_dir(&brick).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != ".glusterfs").collect();
    assert!(left.is_empty(), "{left:?}");
}
