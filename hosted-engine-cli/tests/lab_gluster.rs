//! A storage domain on a real `GlusterFS` volume, mounted by the product through FUSE, with leases by the real sanlock.
//! Needs root, glusterfs-server, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ha_config::ha_toml::Hypervisor;
use ha_config::{HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use ha_tests::wait::until;
use hosted_engine_cli::cli::OpenVm;
use hosted_engine_cli::deploy::services::{ServiceState, Services};
use hosted_engine_cli::deploy::storage::{
    Connect, MakeDomain, ShareConfiguration, WriteLeases, backend, files,
};
use hosted_engine_cli::deploy::{
    self, Boot, BridgeOrigin, DeployError, Engine, Family, FirstHost, HostIdentity, Ids, Installed, Journal,
    Network, Request, Secrets, Step, Storage, StorageKind, Vm, World,
};
use hosted_engine_cli::setup::{ClusterConf, LOCKSPACE_NAME, Quiet};
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

fn request(volume: &str) -> Request {
    Request::FirstHost(Box::new(FirstHost {
        hypervisor: Hypervisor::Qemu,
        family: Family::Auto,
        storage: Storage {
            kind: StorageKind::Glusterfs,
            connection: format!("{SERVER}:/{volume}"),
            mount_options: String::new(),
            iscsi: None,
            lun: None,
        },
        domain_name: "hosted_storage".to_owned(),
        datacenter: "hosted_datacenter".to_owned(),
        network: Network {
            bridge: "ovirtmgmt".to_owned(),
            origin: BridgeOrigin::Adopted,
            gateway: None,
            test: "none".to_owned(),
            tcp_target: None,
            open_firewall: false,
        },
        vm: Vm {
            boot: Boot::Disk(None),
            disk_gib: 1,
            memory_mb: 128,
            vcpus: 1,
            mac: "00:16:3e:00:00:01".to_owned(),
            console: "vnc".to_owned(),
            machine: None,
            cpu: None,
            kernel: None,
            seed: None,
        },
        engine: Engine { fqdn: "engine.example.com".to_owned(), host_name: "hosted_engine_1".to_owned() },
        host: HostIdentity { id: 1, name: "h1".to_owned() },
        ids: Ids::draw(),
        ha_toml: "[lease]\nio_timeout = 3\n".to_owned(),
        moves: None,
    }))
}

struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }
    fn set(&self, service: &str, _: ServiceState) -> Result<(), DeployError> {
        panic!("{service} is not storage's");
    }
    fn restart(&self, service: &str) -> Result<(), DeployError> {
        panic!("{service} is not storage's");
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
    let (secrets, open_vm): (_, Box<OpenVm>) =
        (Secrets::default(), Box::new(|_| anyhow::bail!("no VM is started here")));
    let world = |request| World {
        paths: &paths,
        tools: &Installed,
        report: &Quiet,
        secrets: &secrets,
        request,
        services: &NoServices,
        open_vm: &*open_vm,
    };
    let steps: Vec<Box<dyn Step>> =
        vec![Box::new(Connect), Box::new(MakeDomain), Box::new(WriteLeases), Box::new(ShareConfiguration)];
    let request = request("he");
    let mount = paths.storage_mounts().join(format!("glusterSD/{SERVER}:_he"));
    let mut journal = Journal::begin(&dir.path().join("journal"), 0, request.clone()).unwrap();

    // A volume that is not started cannot be mounted; once it is, the deployment goes on.
    let error = deploy::run(&steps, world(&request), &mut journal).unwrap_err().to_string();
    assert!(error.contains("gluster volume status he, on 10.99.0.1"), "{error}");
    run("gluster", "--mode=script volume start he");
    deploy::run(&steps, world(&request), &mut journal).unwrap();

    let found = backend(&request).find(&world(&request)).unwrap();
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
    deploy::undo(world(&request), &mut journal).unwrap();
    assert!(!paths.root().join("rhev").exists());
    let left = fs::read_dir(&brick).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != ".glusterfs").collect();
    assert!(left.is_empty(), "{left:?}");
}
