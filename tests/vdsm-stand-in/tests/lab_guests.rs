//! Real QEMU guests under real sanlock leases, through VDSM's dialect: two hosts on this machine. Needs root, QEMU,
//! sanlock and libfaketime, and the program ovirt-ha-vm-launcher beside vdsm-stand-in.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_tests::sanlock::{SanlockDaemon, Speed, lab_directory};
use sanlock_client::{
    Disk, DiskPath, Lockspace, LockspaceName, Resource, ResourceName, WriteLockspaceOptions,
};
use support::{SOON, StandIn};
use tempfile::TempDir;
use vdsm_client::{Client, MigrateParams, VmParams, VmStats, code};

const SD: &str = "ce880525-a44b-4248-8b63-d9e11b2f123a";
const IMAGE: &str = "11111111-1111-4111-8111-111111111101";
const VOLUME: &str = "11111111-1111-4111-8111-111111111102";
const VM: &str = "eccb9cb6-affd-4806-8200-708370581227";
/// sanlock's, in its own seconds: 0.5 s of ours at tenfold speed.
const IO_TIMEOUT: u32 = 5;

/// Two hosts with one storage domain.
struct Lab {
    hosts: Vec<Host>,
    _directory: TempDir,
}

struct Host {
    stand_in: StandIn,
    client: Client,
    _daemon: SanlockDaemon,
}

fn domain(directory: &Path) -> PathBuf {
    directory.join("storage").join(SD)
}

impl Lab {
    async fn new() -> Self {
        let directory = lab_directory().unwrap();
        let path = directory.path();
        let domain = domain(path);
        let image = domain.join("images").join(IMAGE);
        fs::create_dir_all(domain.join("dom_md")).unwrap();
        fs::create_dir_all(&image).unwrap();
        let metadata = format!("SDUUID={SD}\nTYPE=NFS\nVERSION=5\n{}", "#".repeat(4096));
        fs::write(domain.join("dom_md/metadata"), metadata).unwrap();
        fs::write(image.join(VOLUME).with_extension("meta"), "CAP=16777216\nLEGALITY=LEGAL\n").unwrap();
        for (file, size) in [
            (domain.join("dom_md/ids"), 1 << 20),
            (image.join(VOLUME), 16 << 20),
            (image.join(VOLUME).with_extension("lease"), 1 << 20),
        ] {
            fs::File::create(file).unwrap().set_len(size).unwrap();
        }
        let daemons = ["a", "b"].map(|name| {
            let run = path.join(name).join("run/sanlock");
            SanlockDaemon::start(&run, name, Speed::Tenfold).unwrap()
        });
        let client = daemons[0].client();
        let name = LockspaceName::new(SD).unwrap();
        let disk = |file: PathBuf| Disk { path: DiskPath::new(file).unwrap(), offset: 0 };
        let lockspace = Lockspace { name: name.clone(), host_id: 0, disk: disk(domain.join("dom_md/ids")) };
        let options = WriteLockspaceOptions { io_timeout: Some(IO_TIMEOUT), ..Default::default() };
        client.write_lockspace(&lockspace, 0, options).unwrap();
        let lease = image.join(VOLUME).with_extension("lease");
        let resource =
            Resource { lockspace: name, name: ResourceName::new(VOLUME).unwrap(), disks: vec![disk(lease)] };
        client.write_resource(&resource, 0, 0, None).unwrap();

        let mut hosts = Vec::new();
        for daemon in daemons {
            let root = daemon.run_dir().parent().and_then(Path::parent).unwrap().to_owned();
            let mounts = root.join("rhev/data-center/mnt");
            fs::create_dir_all(&mounts).unwrap();
            std::os::unix::fs::symlink(path.join("storage"), mounts.join("lab:_storage")).unwrap();
            let stand_in = start(&root);
            hosts.push(Host { client: stand_in.client(), stand_in, _daemon: daemon });
        }
        let lab = Self { hosts, _directory: directory };
        for (place, host) in lab.hosts.iter().enumerate() {
            let host_id = u16::try_from(place + 1).unwrap();
            host.client.start_monitoring_domain(SD, host_id).await.unwrap();
        }
        for host in &lab.hosts {
            until("the lockspace to be joined", async || {
                let stats = host.client.storage_repo_stats(&[SD]).await.unwrap();
                stats[SD].acquired == Some(true) && stats[SD].valid && stats[SD].actual == Some(true)
            })
            .await;
        }
        lab
    }

    fn xml() -> String {
        format!(
            "<domain type='kvm'><name>HostedEngine</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory>\
             <os><type>hvm</type></os><devices><disk type='file' device='disk'><driver type='raw'/>\
             <source file='/rhev/data-center/mnt/lab:_storage/{SD}/images/{IMAGE}/{VOLUME}'/>\
             <target dev='vda' bus='virtio'/></disk><graphics type='vnc' port='5970'/><lease><key>{VOLUME}</key>\
             <lockspace>{SD}</lockspace><target path='LEASE-PATH:{VOLUME}:{SD}' offset='LEASE-OFFSET:{VOLUME}:{SD}'/>\
             </lease></devices></domain>"
        )
    }

    async fn create(&self, host: usize) -> VmStats {
        self.hosts[host].client.vm_create(VM, VmParams::Xml(Self::xml())).await.unwrap()
    }

    async fn status(&self, host: usize, wanted: &str) -> VmStats {
        let mut last = None;
        until(&format!("the VM to be {wanted} on host {host}"), async || {
            let stats = self.hosts[host].client.vm_stats(VM).await.unwrap();
            let is_there = stats.status.as_deref() == Some(wanted);
            last = Some(stats);
            is_there
        })
        .await;
        last.unwrap()
    }

    async fn destroy(&self, host: usize) {
        self.hosts[host].client.vm_destroy(VM).await.unwrap();
        let gone = self.hosts[host].client.vm_stats(VM).await.unwrap_err();
        assert_eq!(gone.code(), Some(code::NO_SUCH_VM));
    }
}

fn start(root: &Path) -> StandIn {
    let io_timeout = IO_TIMEOUT.to_string();
    let more = ["--plain", "--accel", "tcg", "--monitor-interval", "1", "--io-timeout", &io_timeout];
    StandIn::start(root, &more)
}

/// Asks until it holds: the other side tells some of it by no event.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, asked).await.is_ok(), "waited in vain for {what}");
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            // Guests outlive their stand-in: here they must not.
            let directory = host.stand_in.root.join("run/vdsm/stand-in").join(VM);
            let Ok(text) = fs::read(directory.join("process.json")) else { continue };
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let pid = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
            if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_runs_on_one_host_at_a_time_and_moves() {
    let mut lab = Lab::new().await;
    let mut events = lab.hosts[0].client.events();
    let created = lab.create(0).await;
    assert_eq!(created.status.as_deref(), Some("WaitForLaunch"));
    let up = lab.status(0, "Up").await;
    assert_eq!(up.display_info.len(), 1, "{up:?}");
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let event = event.vm_status().unwrap();
        assert!(event.notify_time <= up.status_time.unwrap(), "{event:?}");
        told.push(event.status.status.unwrap());
    }
    assert_eq!(told, ["Powering up", "Up"]);
    let again = lab.hosts[0].client.vm_create(VM, VmParams::Xml(Lab::xml())).await.unwrap_err();
    assert_eq!(again.code(), Some(code::VM_EXISTS));

    // Its lease is taken: the other host is refused, and says so until the VM is forgotten.
    lab.create(1).await;
    let down = lab.status(1, "Down").await;
    assert_eq!((down.exit_code, down.exit_reason), (Some(1), Some(1)), "{down:?}");
    assert!(down.exit_message.is_some_and(|text| text.contains("Failed to acquire lock")));
    let exists = lab.hosts[1].client.vm_create(VM, VmParams::Xml(Lab::xml())).await.unwrap_err();
    assert_eq!(exists.code(), Some(code::VM_EXISTS));
    lab.destroy(1).await;

    // Paused, and on.
    lab.hosts[0].client.vm_pause(VM).await.unwrap();
    lab.status(0, "Paused").await;
    lab.hosts[0].client.vm_cont(VM).await.unwrap();
    lab.status(0, "Up").await;
    let kind = vdsm_client::ConsoleKind::Vnc;
    lab.hosts[0].client.vm_set_ticket(VM, kind, "secret", Duration::from_mins(1)).await.unwrap();

    // Killed, the stand-in finds its guest again.
    let root = lab.hosts[0].stand_in.root.clone();
    lab.hosts[0].stand_in.kill();
    lab.hosts[0].stand_in = start(&root);
    lab.hosts[0].client = lab.hosts[0].stand_in.client();
    lab.status(0, "Up").await;
    assert_eq!(lab.hosts[0].client.vm_list().await.unwrap(), [VM]);

    // Live, to the other host.
    let there = lab.hosts[1].stand_in.address.to_string();
    lab.hosts[0].client.vm_migrate(VM, &MigrateParams::to(there)).await.unwrap();
    let left = lab.status(0, "Down").await;
    assert_eq!((left.exit_code, left.exit_reason), (Some(0), Some(4)), "{left:?}");
    lab.status(1, "Up").await;
    let moved = lab.hosts[0].client.vm_migration_status(VM).await.unwrap();
    assert_eq!((moved.code, moved.progress), (Some(0), Some(100)), "{moved:?}");
    lab.destroy(0).await;

    // Destroyed there, it can start here.
    lab.destroy(1).await;
    lab.create(0).await;
    lab.status(0, "Up").await;
    lab.hosts[0].client.vm_shutdown(VM, Duration::ZERO, "bye").await.unwrap();
    lab.status(0, "Powering down").await;
    lab.destroy(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_lockspace_nothing_starts() {
    let lab = Lab::new().await;
    lab.hosts[0].client.stop_monitoring_domain(SD).await.unwrap();
    let stats = lab.hosts[0].client.storage_repo_stats(&[SD]).await.unwrap();
    assert!(stats.is_empty());
    until("the start to be refused", async || {
        lab.create(0).await;
        let mut message = None;
        until("the start to end", async || {
            let stats = lab.hosts[0].client.vm_stats(VM).await.unwrap();
            message = stats.exit_message;
            stats.status.as_deref() != Some("WaitForLaunch")
        })
        .await;
        lab.destroy(0).await;
        message.is_some_and(|text| text == "Failed to acquire lock: No space left on device")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_with_its_lease() {
    let lab = Lab::new().await;
    let client = &lab.hosts[0].client;
    let (image, volume) = ("22222222-2222-4222-8222-222222222201", "22222222-2222-4222-8222-222222222202");
    let new = vdsm_client::NewVolume {
        pool: vdsm_client::BLANK_UUID.to_owned(),
        domain: SD.to_owned(),
        image: image.to_owned(),
        volume: volume.to_owned(),
        size: 1 << 20,
        description: "hosted-engine.metadata".to_owned(),
        disk_type: "HEMD".to_owned(),
    };
    let task = client.volume_create(&new).await.unwrap();
    assert!(client.task_status(&task).await.unwrap().is_success());
    client.task_clear(&task).await.unwrap();
    let info = client.volume_info(vdsm_client::BLANK_UUID, SD, image, volume).await.unwrap();
    assert_eq!((info.description.as_deref(), info.capacity), (Some("hosted-engine.metadata"), Some(1 << 20)));
    let again = client.volume_create(&new).await.unwrap_err();
    assert_eq!(again.code(), Some(code::VOLUME_EXISTS));
}
