//! Two hosts on this machine: a sanlock daemon and a run directory each, one lease on a shared folder.

#![allow(dead_code, reason = "each of the test programs uses a part")]

pub mod moving;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine_vm::lease::LeaseSpec;
use engine_vm::qemu::machine::{Disk, DiskBus, DiskFormat, DiskSource, Machine, Smbios, Vnc};
use engine_vm::qemu::{Launcher, MachineSource, QemuSettings, QemuVm, QmpRole};
use engine_vm::{EngineVm, LeaseHolding, StartMode, VmActivity, VmError, VmEvent, VmExit, VmStatus};
use ha_config::ha_toml::Accel;
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed, lab_directory};
use ha_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use sanlock_client::{AddOptions, HostState, LockspacePhase, Resource};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(40);
/// Sanlock's, in its own seconds: 0.5 s of ours at tenfold speed.
const IO_TIMEOUT: u32 = 5;

pub struct Lab {
    pub daemons: Vec<Option<SanlockDaemon>>,
    file: LeaseFile,
    pub directory: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let directory = lab_directory().unwrap();
        let daemons: Vec<_> = ["a", "b"]
            .iter()
            .map(|name| SanlockDaemon::start(&directory.path().join(name), name, Speed::Tenfold).unwrap())
            .collect();
        let client = daemons[0].client();
        let path = directory.path().join("leases");
        let file = LeaseFile::create(&client, &path, "space", 1, IO_TIMEOUT).unwrap();
        client.write_resource(&file.resource(1).unwrap(), 0, 0, None).unwrap();
        std::fs::File::create(directory.path().join("disk")).unwrap().set_len(16 << 20).unwrap();
        let lab = Self { daemons: daemons.into_iter().map(Some).collect(), file, directory };
        std::thread::scope(|scope| {
            scope.spawn(|| lab.join(0));
            scope.spawn(|| lab.join(1));
        });
        // Before it has seen the other one renew, sanlock cannot say whether an owner is alive.
        for (seen_by, host) in [(0, 1), (1, 0)] {
            let client = lab.daemon(seen_by).client();
            let lockspace = lab.file.lockspace(host + 1);
            wait::until("the hosts to see each other alive", SOON, || {
                let hosts = client.get_hosts(&lockspace.name, Some(host + 1)).ok()?;
                hosts.iter().any(|host| host.state == HostState::Live).then_some(())
            });
        }
        lab
    }

    pub fn daemon(&self, host: usize) -> &SanlockDaemon {
        self.daemons[host].as_ref().unwrap()
    }

    fn join(&self, host: usize) {
        let client = self.daemon(host).client();
        let lockspace = self.file.lockspace(host as u64 + 1);
        let options = AddOptions { io_timeout: Some(IO_TIMEOUT), is_async: true };
        client.add_lockspace(&lockspace, options).unwrap();
        wait::until("the lockspace to be joined", SOON, || {
            let phase = client.inquire_lockspace(&lockspace).unwrap();
            assert_ne!(phase, LockspacePhase::NotJoined, "the join failed");
            (phase == LockspacePhase::Joined).then_some(())
        });
    }

    pub fn resource(&self) -> Resource {
        self.file.resource(1).unwrap()
    }

    pub fn lease(&self, host: usize) -> LeaseSpec {
        LeaseSpec::Sanlock {
            socket: self.directory.path().join(["a", "b"][host]).join("sanlock.sock"),
            lockspace: "space".to_owned(),
            resource: "lease-1".to_owned(),
            path: self.directory.path().join("leases"),
            offset: 1 << 20,
        }
    }

    pub fn run_dir(&self, host: usize) -> PathBuf {
        self.directory.path().join(["vm-a", "vm-b"][host])
    }

    pub fn vm(&self, host: usize, role: QmpRole) -> QemuVm {
        QemuVm::new(self.settings(host, role))
    }

    pub fn settings(&self, host: usize, role: QmpRole) -> QemuSettings {
        let machine = machine(self.directory.path());
        QemuSettings {
            watchdog: Duration::from_mins(1),
            run_dir: self.run_dir(host),
            program: "qemu-system-x86_64".into(),
            accel: Accel::Tcg,
            user: None,
            extra_args: Vec::new(),
            role,
            lease: self.lease(host),
            machine: MachineSource::new(move || Ok(machine.clone())),
            launcher: Launcher {
                program: env!("CARGO_BIN_EXE_ovirt-ha-vm-launcher").into(),
                with_systemd: false,
            },
        }
    }

    /// Makes every renewal of every host fail, for good.
    pub fn lose_lockspace(&self) {
        let leases = self.directory.path().join("leases");
        std::fs::OpenOptions::new().write(true).open(leases).unwrap().set_len(0).unwrap();
    }

    /// The process of `host`'s VM as the run directory names it.
    pub fn pid(&self, host: usize) -> Option<u32> {
        let text = std::fs::read(self.run_dir(host).join("process.json")).ok()?;
        let record: Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(record["pid"].as_u64()?).ok()
    }

    pub fn kill(&self, host: usize) {
        if let Some(pid) = self.pid(host) {
            // Only if it is this lab's.
            let text = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            if text == self.run_dir(host) {
                let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill(0);
        self.kill(1);
    }
}

pub fn machine(directory: &Path) -> Machine {
    Machine {
        name: "HostedEngine".to_owned(),
        uuid: Uuid::from_u128(0x4d4c_5b5e_0000_4000_8000_1f2e_3d4c_5b6a),
        machine_type: "pc".to_owned(),
        cpu_model: None,
        memory_mib: 64,
        vcpus: 1,
        max_vcpus: 1,
        smbios: Smbios::default(),
        disks: vec![Disk {
            path: directory.join("disk"),
            source: DiskSource::File,
            format: DiskFormat::Raw,
            bus: DiskBus::Virtio,
            is_cdrom: false,
            is_read_only: false,
            serial: None,
            boot_order: Some(1),
        }],
        nics: Vec::new(),
        vnc: Some(Vnc { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 5950 }),
        serial_log: false,
        ends_on_reboot: false,
        direct_boot: None,
    }
}

pub fn is_up(status: &VmStatus) -> bool {
    status.activity == VmActivity::Up && status.lease == LeaseHolding::Held
}

/// Looks until `wanted` is true of the status. QEMU and sanlock tell the adapter in their own time.
pub async fn status_when(vm: &impl EngineVm, what: &str, wanted: impl Fn(&VmStatus) -> bool) -> VmStatus {
    let looked = async {
        loop {
            match vm.status().await {
                Ok(status) if wanted(&status) => return status,
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    };
    if let Ok(status) = tokio::time::timeout(SOON, looked).await {
        return status;
    }
    panic!("waited in vain for {what}; now: {:?}", vm.status().await);
}

/// Starts the VM, whose adapters are `vm(host, role)`: it runs under its lease, each later adapter finds it, and the other
/// host must not start it. Gives the first host's
/// agent and broker, and the other's agent.
pub async fn runs_is_found_again_and_starts_nowhere_else<V: EngineVm>(
    vm: impl Fn(usize, QmpRole) -> V,
) -> (V, V, V) {
    let (here, there) = (vm(0, QmpRole::Agent), vm(1, QmpRole::Agent));
    here.start(StartMode::Run).await.unwrap();
    let status = here.status().await.unwrap();
    assert!(is_up(&status), "{status:?}");
    assert!(matches!(here.start(StartMode::Run).await, Err(VmError::AlreadyExists { .. })));
    drop(here);

    // Another life of the agent, and all roles at once.
    let again = vm(0, QmpRole::Agent);
    let (broker, cli) = (vm(0, QmpRole::Broker), vm(0, QmpRole::Cli));
    for vm in [&again, &broker, &cli] {
        assert_eq!(status_when(vm, "the VM to be found", is_up).await, status);
    }
    assert!(cli.cpu_use().await.unwrap().is_some());

    let refused = there.start(StartMode::Run).await.unwrap_err();
    assert!(matches!(&refused, VmError::LeaseHeld { detail } if detail.contains("host id 1")), "{refused:?}");
    let status = there.status().await.unwrap();
    assert!(
        matches!(status.exit, Some(VmExit::LeaseRefused { .. })) && status.activity == VmActivity::Down,
        "{status:?}"
    );
    (again, broker, there)
}

/// Waits for an event.
pub async fn event_when(events: &mut Receiver<VmEvent>, what: &str, wanted: impl Fn(&VmEvent) -> bool) {
    let heard = async { while !matches!(events.recv().await, Ok(event) if wanted(&event)) {} };
    assert!(tokio::time::timeout(SOON, heard).await.is_ok(), "waited in vain for the event: {what}");
}
