//! Block storage without VDSM on real LVM, real sanlock and a loop device. Needs root, lvm2, sanlock, libfaketime, psmisc.
//!
//! Where the kernel has no device mapper, activation is played: see etc/sandbox/lvm-without-device-mapper.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ha_broker::whiteboard::{DirectIo, SectorSize, Whiteboard as _};
use ha_config::ha_toml::Hypervisor;
use ha_config::{HostedEngineConf, Paths};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use hosted_engine_cli::cli::OpenVm;
use hosted_engine_cli::deploy::services::{ServiceState, Services};
use hosted_engine_cli::deploy::storage::block::{Block, bring_up};
use hosted_engine_cli::deploy::storage::{Backend as _, Role};
use hosted_engine_cli::deploy::{
    Boot, BridgeOrigin, Call, DeployError, Engine, Family, FirstHost, FurtherHost, HostIdentity, Ids,
    Installed, Job, Journal, Lun, Network, Request, Said, Secrets, Step, StepId, Storage, StorageKind,
    ToolError, Tools, Vm, World, run, undo,
};
use hosted_engine_cli::setup::Quiet;
use sanlock_client::{
    AcquireOptions, AddOptions, Disk, DiskPath, GridSize, Lockspace, LockspaceName, Registration, Resource,
    ResourceName, WriteLockspaceOptions,
};

const MIB: u64 = 1 << 20;

/// A loop device over a sparse file, as the LUN that every host sees.
struct LoopDevice {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl LoopDevice {
    fn new(bytes: u64, sector: &str) -> Self {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(bytes).unwrap();
        let out = Command::new("losetup")
            .args(["--show", "--find", "--direct-io=on", "--sector-size", sector])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let path = PathBuf::from(String::from_utf8(out.stdout).unwrap().trim());
        Self { path, file }
    }

    /// Whether it is as it was found: no signature, and nothing but holes and zeros in the file.
    fn assert_empty(&self) {
        let out = Command::new("wipefs").arg("--no-act").arg(&self.path).output().unwrap();
        assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
        assert!(Command::new("sync").arg(self.file.path()).status().unwrap().success());
        let zeros = Command::new("cmp")
            .args(["-n", &(512 * MIB).to_string(), "/dev/zero"])
            .arg(self.file.path())
            .status()
            .unwrap();
        assert!(zeros.success(), "bytes are left on the device");
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Those of volumes that a failing test left lie on it.
        let script = "for one in $(losetup --noheadings --output NAME --associated $0); do losetup -d $one; done; \
                      losetup -d $0";
        let _ = Command::new("sh").args(["-c", script]).arg(&self.path).status();
    }
}

/// The programs of this machine, with the stand-in for lvm; they end at a given call, before or after its work.
struct Machine {
    root: PathBuf,
    calls: AtomicUsize,
    cut: Option<(usize, bool)>,
}

impl Machine {
    fn new(root: &Path, cut: Option<(usize, bool)>) -> Self {
        Self { root: root.to_owned(), calls: AtomicUsize::new(0), cut }
    }
}

impl Tools for Machine {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let cut = ToolError::TooSlow { call: call.to_string(), seconds: 0 };
        let ends = self.cut.filter(|(at, _)| *at == number);
        if ends == Some((number, false)) {
            return Err(cut);
        }
        let said = if call.program == "lvm" && !Path::new("/dev/mapper/control").exists() {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../etc/sandbox/lvm-without-device-mapper");
            let mut root = std::ffi::OsString::from("OVIRT_HA_ROOT=");
            root.push(&self.root);
            let played = Call::new("env").arg(root).arg(script).args(&call.args).within(Duration::from_mins(1));
            Installed.ask(&played)
        } else {
            Installed.ask(call)
        };
        if ends.is_some() { Err(cut) } else { said }
    }
}

struct NoServices;

impl Services for NoServices {
    fn state(&self, _: &str) -> Result<Option<ServiceState>, DeployError> {
        Ok(None)
    }
    fn set(&self, _: &str, _: ServiceState) -> Result<(), DeployError> {
        Ok(())
    }
    fn restart(&self, _: &str) -> Result<(), DeployError> {
        Ok(())
    }
}

/// What a deployment does with storage, in its order.
struct Whole(StepId);

impl Step for Whole {
    fn id(&self) -> StepId {
        self.0
    }
    fn title(&self) -> String {
        format!("{:?}", self.0)
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        match self.0 {
            StepId::StorageConnection => Block.connect(job),
            StepId::StorageDomain => {
                Block.make_domain(job)?;
                for (role, mib) in [
                    (Role::Metadata, 8),
                    (Role::Lockspace, 8),
                    (Role::Configuration, 1),
                    (Role::Disk, 1024),
                ] {
                    Block.make_volume(job, role, mib * MIB)?;
                }
                Block.prepare(job)
            }
            _ => Block.complete(job),
        }
    }
}

fn steps(ids: &[StepId]) -> Vec<Box<dyn Step>> {
    ids.iter().map(|id| Box::new(Whole(*id)) as Box<dyn Step>).collect()
}

const FIRST: [StepId; 3] = [StepId::StorageConnection, StepId::StorageDomain, StepId::SharedConfiguration];

struct Prepare;

impl Step for Prepare {
    fn id(&self) -> StepId {
        StepId::StorageDomain
    }
    fn title(&self) -> String {
        "prepare".to_owned()
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        Block.prepare(job)
    }
}

fn storage(device: &Path) -> Storage {
    Storage {
        kind: StorageKind::Fc,
        connection: String::new(),
        mount_options: String::new(),
        iscsi: None,
        lun: Some(Lun { id: device.display().to_string(), bytes: 0 }),
    }
}

fn network() -> Network {
    Network {
        bridge: "ovirtmgmt".to_owned(),
        origin: BridgeOrigin::Adopted,
        gateway: None,
        test: "none".to_owned(),
        tcp_target: None,
        open_firewall: false,
    }
}

fn first_host(device: &Path) -> Request {
    Request::FirstHost(Box::new(FirstHost {
        hypervisor: Hypervisor::Qemu,
        family: Family::Auto,
        storage: storage(device),
        domain_name: "hosted storage".to_owned(),
        datacenter: "dc".to_owned(),
        network: network(),
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
        engine: Engine { fqdn: "engine.example.com".to_owned(), host_name: "h1".to_owned() },
        host: HostIdentity { id: 1, name: "h1".to_owned() },
        ids: Ids::draw(),
        ha_toml: String::new(),
    }))
}

fn ids(request: &Request) -> Ids {
    match request {
        Request::FirstHost(first) => first.ids,
        Request::FurtherHost(_) => unreachable!("made above as the first host's"),
    }
}

/// Does something with the world of one host.
fn on_host<T>(root: &Path, request: &Request, tools: &Machine, work: impl FnOnce(World<'_>) -> T) -> T {
    let paths = Paths::new(root);
    let open_vm: &OpenVm = &|_| unreachable!("no VM is looked at");
    let secrets = Secrets::default();
    work(World {
        paths: &paths,
        tools,
        report: &Quiet,
        secrets: &secrets,
        request,
        services: &NoServices,
        open_vm,
    })
}

fn host(dir: &Path, name: &str) -> PathBuf {
    let root = dir.join(name);
    fs::create_dir_all(root.join("run")).unwrap();
    root
}

/// Each command is cut, before it does anything and after it did everything; then all is undone, or the deployment goes on.
/// `pick` says which cuts: all of them take minutes.
fn walk(pick: impl Fn(usize, usize) -> bool) {
    let device = LoopDevice::new(8 << 30, "512");
    let dir = tempfile::tempdir().unwrap();
    let root = host(dir.path(), "h");
    let request = first_host(&device.path);
    let count = {
        let tools = Machine::new(&root, None);
        on_host(&root, &request, &tools, |world| {
            let mut journal = Journal::begin(&dir.path().join("whole"), 0, request.clone()).unwrap();
            run(&steps(&FIRST), world, &mut journal).unwrap();
            let calls = tools.calls.load(Ordering::Relaxed);
            undo(world, &mut journal).unwrap();
            calls
        })
    };
    device.assert_empty();
    for number in (0..count).filter(|number| pick(*number, count)) {
        for is_after in [false, true] {
            let request = first_host(&device.path);
            let path = dir.path().join(format!("{number}-{is_after}"));
            let mut journal = Journal::begin(&path, 0, request.clone()).unwrap();
            let tools = Machine::new(&root, Some((number, is_after)));
            let cut = on_host(&root, &request, &tools, |world| run(&steps(&FIRST), world, &mut journal));
            // What only looks, or waits for udev, may fail without harm.
            drop(journal);
            let mut journal = Journal::open(&path).unwrap().unwrap();
            let tools = Machine::new(&root, None);
            on_host(&root, &request, &tools, |world| {
                if is_after && cut.is_err() {
                    run(&steps(&FIRST), world, &mut journal).unwrap();
                }
                undo(world, &mut journal).unwrap_or_else(|error| panic!("cut {number} {is_after}: {error}"));
            });
            device.assert_empty();
            assert!(!root.join("dev").join(ids(&request).sd.to_string()).exists(), "cut {number} {is_after}");
        }
    }
}

#[test]
fn a_deployment_that_is_cut_goes_on_or_leaves_nothing() {
    walk(|number, count| number == count / 3 || number == 2 * count / 3);
}

#[test]
#[ignore = "takes minutes: for changes of the order of steps"]
fn a_deployment_that_is_cut_anywhere_goes_on_or_leaves_nothing() {
    walk(|_, _| true);
}

fn lockspace(name: &str, id: u64, path: &Path) -> Lockspace {
    let disk = Disk { path: DiskPath::new(path).unwrap(), offset: 0 };
    Lockspace { name: LockspaceName::new(name).unwrap(), host_id: id, disk }
}

/// A domain on a device with sectors of this size: real leases in it, the broker's blocks, a further host, a boot.
fn serves_two_hosts(sector: &str, bytes: u64, grid: GridSize, expected: SectorSize) {
    let device = LoopDevice::new(bytes, sector);
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (host(dir.path(), "h1"), host(dir.path(), "h2"));
    let request = first_host(&device.path);
    let ids = ids(&request);
    let tools = Machine::new(&one, None);
    let mut journal = Journal::begin(&dir.path().join("first"), 0, request.clone()).unwrap();
    on_host(&one, &request, &tools, |world| run(&steps(&FIRST), world, &mut journal)).unwrap();

    // Taken: a second deployment is refused, and says what is there.
    let other = first_host(&device.path);
    let mut second = Journal::begin(&dir.path().join("second"), 0, other.clone()).unwrap();
    let error = on_host(&one, &other, &tools, |world| run(&steps(&FIRST), world, &mut second)).unwrap_err();
    assert!(error.to_string().contains("it is a physical volume of LVM"), "{error}");

    // Leases, where the daemons look for them.
    let conf_text = format!(
        "domainType=fc\nsdUUID={sd}\nvm_disk_id={}\nvm_disk_vol_id={}\nmetadata_image_UUID={}\nmetadata_volume_UUID={}\n\
         lockspace_image_UUID={}\nlockspace_volume_UUID={}\nconf_image_UUID={}\nconf_volume_UUID={}\nhost_id=1\n",
        ids.disk.image,
        ids.disk.volume,
        ids.metadata.image,
        ids.metadata.volume,
        ids.lockspace.image,
        ids.lockspace.volume,
        ids.configuration.image,
        ids.configuration.volume,
        sd = ids.sd,
    );
    let conf = HostedEngineConf::parse(&Paths::new(&one), &conf_text);
    let sanlock = SanlockDaemon::start(&dir.path().join("s1"), "h1", Speed::Tenfold).unwrap();
    let client = sanlock.client();
    let lease = on_host(&one, &request, &tools, |world| Block.vm_lease(&world)).unwrap();
    assert_eq!(lease.path, conf.storage_domain_dir().unwrap().join("dom_md/leases"));
    assert_eq!(lease.offset, 104 * grid.align_bytes());
    let space = lockspace(&ids.sd.to_string(), 1, &conf.ids_path().unwrap());
    let blocks = lockspace("hosted-engine", 1, &conf.lockspace_path().unwrap());
    let options = WriteLockspaceOptions { io_timeout: Some(3), grid: Some(grid) };
    for space in [&space, &blocks] {
        client.write_lockspace(space, grid.max_hosts(), options).unwrap();
        client.add_lockspace(space, AddOptions { io_timeout: Some(3), is_async: false }).unwrap();
    }
    let resource = Resource {
        lockspace: space.name.clone(),
        name: ResourceName::new(ids.disk.volume.to_string()).unwrap(),
        disks: vec![Disk { path: DiskPath::new(&lease.path).unwrap(), offset: lease.offset }],
    };
    client.write_resource(&resource, grid.max_hosts(), 0, Some(grid)).unwrap();
    let mut registration = Registration::register_self(&client).unwrap();
    registration.acquire(std::slice::from_ref(&resource), &AcquireOptions::default()).unwrap();
    assert_eq!(client.read_resource_owners(&resource).unwrap().owners[0].host_id, 1);

    // A further host finds it, prepares it, and reads what the first wrote in its block.
    let whiteboard = |conf: &HostedEngineConf| DirectIo::new(conf.metadata_path().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let board = whiteboard(&conf);
    runtime.block_on(board.write_block(1, &[b'x'; 4096])).unwrap();
    assert_eq!(board.sector_size(), Some(expected));
    let further = Request::FurtherHost(Box::new(FurtherHost {
        storage: storage(&device.path),
        network: network(),
        host: HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: ids.sd,
    }));
    let tools_of_two = Machine::new(&two, None);
    let mut joining = Journal::begin(&dir.path().join("join"), 0, further.clone()).unwrap();
    on_host(&two, &further, &tools_of_two, |world| {
        let found = Block.find(&world).unwrap();
        assert_eq!(found.iter().map(|found| found.sd_uuid).collect::<Vec<_>>(), [ids.sd]);
        assert!(found[0].configuration.exists());
        run(&[Box::new(Prepare) as Box<dyn Step>], world, &mut joining).unwrap();
        assert_eq!(Block.vm_lease(&world).unwrap().offset, lease.offset);
    });
    let conf_of_two = HostedEngineConf::parse(&Paths::new(&two), &conf_text);
    let read = runtime.block_on(whiteboard(&conf_of_two).read_blocks(0, 2)).unwrap();
    assert_eq!(read[4096..8192], [b'x'; 4096]);
    assert!(conf_of_two.vm_disk_path().unwrap().exists() && conf_of_two.conf_volume_path().unwrap().unwrap().exists());

    // What is in use here stays as it is.
    let error = on_host(&one, &request, &tools, |world| undo(world, &mut journal)).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    registration.release_all().unwrap();
    for space in [&space, &blocks] {
        client.remove_lockspace(space, sanlock_client::RemoveOptions::default()).unwrap();
    }

    // A boot: nothing is active, /run is empty.
    on_host(&two, &further, &tools_of_two, |world| undo(world, &mut joining)).unwrap();
    assert!(!conf_of_two.metadata_path().unwrap().exists());
    bring_up(&Paths::new(&two), &tools_of_two, &conf_of_two).unwrap();
    bring_up(&Paths::new(&two), &tools_of_two, &conf_of_two).unwrap();
    assert!(conf_of_two.metadata_path().unwrap().exists() && conf_of_two.ids_path().unwrap().exists());

    // While another host holds its id the domain stays, and goes when it has left.
    let sanlock_of_two = SanlockDaemon::start(&dir.path().join("s2"), "h2", Speed::Tenfold).unwrap();
    let of_two = lockspace(&ids.sd.to_string(), 2, &conf_of_two.ids_path().unwrap());
    let client_of_two = sanlock_of_two.client();
    client_of_two.add_lockspace(&of_two, AddOptions { io_timeout: Some(3), is_async: false }).unwrap();
    on_host(&one, &request, &tools, |world| undo(world, &mut journal)).unwrap();
    let out = Command::new("wipefs").arg("--no-act").arg(&device.path).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("LVM2_member"), "{out:?}");
    client_of_two.remove_lockspace(&of_two, sanlock_client::RemoveOptions::default()).unwrap();
}

#[test]
fn a_domain_serves_two_hosts() {
    serves_two_hosts("512", 8 << 30, GridSize::Sector512Align1M, SectorSize::B512);
}

#[test]
fn a_domain_on_sectors_of_4096_bytes_serves_two_hosts() {
    serves_two_hosts("4096", 40 << 30, GridSize::Sector4kAlign8M, SectorSize::B4096);
}
