//! Two hosts on this machine, each with a stand-in and a sanlock daemon of its own, and one storage domain.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_tests::sanlock::{SanlockDaemon, Speed, lab_directory};
use sanlock_client::{
    Disk, DiskPath, Lockspace, LockspaceName, Resource, ResourceName, WriteLockspaceOptions,
};
use tempfile::TempDir;
use vdsm_client::{Client, VmParams, VmStats, code};

use super::{SOON, StandIn};

pub const SD: &str = "ce880525-a44b-4248-8b63-d9e11b2f123a";
pub const IMAGE: &str = "11111111-1111-4111-8111-111111111101";
pub const VOLUME: &str = "11111111-1111-4111-8111-111111111102";
pub const VM: &str = "eccb9cb6-affd-4806-8200-708370581227";
/// sanlock's, in its own seconds: 0.5 s of ours at tenfold speed.
const IO_TIMEOUT: u32 = 5;

/// Two hosts with one storage domain.
pub struct Lab {
    pub hosts: Vec<Host>,
    _directory: TempDir,
}

pub struct Host {
    pub stand_in: StandIn,
    pub client: Client,
    _daemon: SanlockDaemon,
}

fn domain(directory: &Path) -> PathBuf {
    directory.join("storage").join(SD)
}

impl Lab {
    pub async fn new() -> Self {
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

    pub fn xml() -> String {
        format!(
            "<domain type='kvm'><name>HostedEngine</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory>\
             <os><type>hvm</type></os><devices><disk type='file' device='disk'><driver type='raw'/>\
             <source file='/rhev/data-center/mnt/lab:_storage/{SD}/images/{IMAGE}/{VOLUME}'/>\
             <target dev='vda' bus='virtio'/></disk><graphics type='vnc' port='5970'/><lease><key>{VOLUME}</key>\
             <lockspace>{SD}</lockspace><target path='LEASE-PATH:{VOLUME}:{SD}' offset='LEASE-OFFSET:{VOLUME}:{SD}'/>\
             </lease></devices></domain>"
        )
    }

    pub async fn create(&self, host: usize) -> VmStats {
        self.hosts[host].client.vm_create(VM, VmParams::Xml(Self::xml())).await.unwrap()
    }

    pub async fn status(&self, host: usize, wanted: &str) -> VmStats {
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

    pub async fn destroy(&self, host: usize) {
        self.hosts[host].client.vm_destroy(VM).await.unwrap();
        let gone = self.hosts[host].client.vm_stats(VM).await.unwrap_err();
        assert_eq!(gone.code(), Some(code::NO_SUCH_VM));
    }
}

pub fn start(root: &Path) -> StandIn {
    let io_timeout = IO_TIMEOUT.to_string();
    let more = ["--plain", "--accel", "tcg", "--monitor-interval", "1", "--io-timeout", &io_timeout];
    StandIn::start(root, &more)
}

/// Asks until it holds: the other side tells some of it by no event.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
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
