//! What protects the VM when the agent does nothing, and who can be asked when one client blocks. Needs root, QEMU,
//! sanlock, libfaketime, iproute2 and util-linux.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod lab;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use engine_vm::lease::LeaseSpec;
use engine_vm::qemu::accel::{self, Probed};
use engine_vm::qemu::command_line::Accelerator;
use engine_vm::qemu::machine::{Mac, Nic, NicBackend};
use engine_vm::qemu::qmp::Qmp;
use engine_vm::qemu::run_dir::RunDir;
use engine_vm::qemu::{MachineSource, QemuVm, QmpRole};
use engine_vm::{EngineVm, LeaseHolding, StartMode, VmActivity, VmError, VmExit};

use lab::{Lab, machine, status_when};

#[tokio::test(flavor = "multi_thread")]
async fn sanlock_itself_ends_a_vm_whose_lockspace_is_lost() {
    let lab = Lab::new();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Run).await.unwrap();
    lab.lose_lockspace();
    // Nobody of ours does anything: the command only looks.
    let cli = lab.vm(0, QmpRole::Cli);
    let status = status_when(&cli, "sanlock to end the VM", |s| s.activity == VmActivity::Down).await;
    assert!(matches!(status.exit, Some(VmExit::Crashed { .. })), "{status:?}");
    assert!(matches!(vm.start(StartMode::Run).await, Err(VmError::NoLease { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_blocks_one_monitor_blocks_no_other_role_and_no_destroy() {
    let lab = Lab::new();
    lab.vm(0, QmpRole::Cli).start(StartMode::Run).await.unwrap();
    let wait = Duration::from_secs(5);
    let blocker = Qmp::connect(&RunDir::new(lab.run_dir(0)), QmpRole::Agent, wait).await.unwrap();

    let (agent, broker) = (lab.vm(0, QmpRole::Agent), lab.vm(0, QmpRole::Broker));
    // The VM is there, and that is all that is known through this monitor: no guess.
    let error = agent.status().await.unwrap_err();
    assert!(
        matches!(&error, VmError::Unreachable { detail } if detail.contains("agent monitor")),
        "{error:?}"
    );
    let status = broker.status().await.unwrap();
    assert_eq!((status.activity, status.lease), (VmActivity::Up, LeaseHolding::Held));
    agent.destroy().await.unwrap();
    assert_eq!(broker.status().await.unwrap().activity, VmActivity::Down);
    assert!(matches!(agent.status().await.unwrap().exit, Some(VmExit::Orderly { .. })));
    drop(blocker);
}

/// The highest address that the host's own card can have.
const CARD: &str = "fe:ff:ff:ff:ff:fe";

/// A launcher in a network namespace of its own with the bridge `br-lab`, on which the host's card is. QEMU stays in it,
/// and the kernel removes it with QEMU.
fn launcher_with_bridge(lab: &Lab) -> PathBuf {
    let script = lab.directory.path().join("launcher");
    let text = format!(
        "#!/bin/sh\nexec unshare --net sh -ec 'ip link add br-lab type bridge; ip link set br-lab up; \
         ip link add card0 address {CARD} type veth peer name cable0; ip link set card0 master br-lab up; exec \"$0\" \"$@\"' {} \"$@\"\n",
        env!("CARGO_BIN_EXE_ovirt-ha-vm-launcher")
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    script
}

fn vm_on_bridge(lab: &Lab, bridge: &str, mac: Option<Mac>) -> QemuVm {
    let mut machine = machine(lab.directory.path());
    machine.nics.push(Nic {
        model: "virtio-net-pci".to_owned(),
        mac,
        backend: NicBackend::Bridge(bridge.to_owned()),
        boot_order: None,
    });
    let mut settings = lab.settings(0, QmpRole::Cli);
    settings.machine = MachineSource::new(move || Ok(machine.clone()));
    settings.launcher.program = launcher_with_bridge(lab);
    QemuVm::new(settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vm_is_put_on_the_bridge_and_without_one_it_takes_no_lease() {
    let lab = Lab::new();
    let error = vm_on_bridge(&lab, "br-missing", None).start(StartMode::Run).await.unwrap_err();
    assert!(
        matches!(&error, VmError::Failed { detail, .. } if detail.contains("br-missing") && detail.contains("no such bridge")),
        "{error:?}"
    );
    let owners = lab.daemon(0).client().read_resource_owners(&lab.resource()).unwrap();
    assert!(owners.owners.is_empty() && owners.lver == 0, "the lease was touched: {owners:?}");

    for mac in [Mac::parse("00:16:3e:01:02:03"), None] {
        let vm = vm_on_bridge(&lab, "br-lab", mac);
        vm.start(StartMode::Run).await.unwrap();
        let pid = vm.status().await.unwrap().pid.unwrap();
        let links = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["ip", "-o", "link", "show"])
            .output()
            .unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        let link = |name: &str| links.lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(link(" he-vm0: ").contains(" master br-lab "), "{links}");
        // The host can be reached as before.
        assert!(link(" br-lab: ").contains(CARD), "{links}");
        vm.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_protects_on_one_machine() {
    let lab = Lab::new();
    let vm = |host: usize| {
        let mut settings = lab.settings(host, QmpRole::Cli);
        settings.lease = LeaseSpec::File { path: lab.directory.path().join("lease.lock") };
        QemuVm::new(settings)
    };
    let (first, second) = (vm(0), vm(1));
    first.start(StartMode::Run).await.unwrap();
    assert_eq!(first.status().await.unwrap().lease, LeaseHolding::Held);
    assert!(matches!(second.start(StartMode::Run).await, Err(VmError::LeaseHeld { .. })));
    first.destroy().await.unwrap();
    second.start(StartMode::Run).await.unwrap();
    assert_eq!(second.status().await.unwrap().lease, LeaseHolding::Held);
    second.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_asked_to_power_down_and_that_is_seen_by_all() {
    let lab = Lab::new();
    let mut settings = lab.settings(0, QmpRole::Agent);
    settings.user = Some("nobody".to_owned());
    let vm = QemuVm::new(settings);
    let cli = lab.vm(0, QmpRole::Cli);
    assert!(matches!(cli.shutdown(Duration::ZERO, "").await, Err(VmError::NotRunning)));
    vm.start(StartMode::Run).await.unwrap();

    // Sanlock and we still know a VM that has become another user.
    let status = vm.status().await.unwrap();
    assert_eq!((status.activity, status.lease), (VmActivity::Up, LeaseHolding::Held));
    let rights = std::fs::read_to_string(format!("/proc/{}/status", status.pid.unwrap())).unwrap();
    assert!(
        rights.lines().any(|line| line.starts_with("CapEff:") && line.ends_with("0000000000000000")),
        "{rights}"
    );

    vm.pause().await.unwrap();
    let error = cli.shutdown(Duration::ZERO, "").await.unwrap_err().to_string();
    assert!(error.contains("its processors are stopped"), "{error}");
    vm.resume().await.unwrap();
    // A firmware without a disk to boot from does not listen to the button.
    cli.shutdown(Duration::ZERO, "").await.unwrap();
    status_when(&vm, "the button to be seen", |s| s.activity == VmActivity::PoweringDown).await;
    drop(vm);
    assert_eq!(cli.status().await.unwrap().activity, VmActivity::PoweringDown);
    cli.destroy().await.unwrap();
}

#[tokio::test]
async fn the_probe_of_kvm_runs_to_its_end_where_guest_code_is_carried() {
    let directory = tempfile::tempdir().unwrap();
    let dir = RunDir::new(directory.path());
    let program = PathBuf::from("qemu-system-x86_64");
    // Emulation always works, so this shows that the probe itself does.
    assert_eq!(accel::probe(&dir, &program, Accelerator::Tcg).await.unwrap(), Probed::Works);
    let best = accel::best(&dir, &program).await.unwrap();
    let kvm = accel::probe(&dir, &program, Accelerator::Kvm).await.unwrap();
    assert_eq!(best == Accelerator::Kvm, kvm == Probed::Works);
}
