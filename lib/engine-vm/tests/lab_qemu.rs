//! The adapter with real QEMU under real sanlock leases. Needs root, QEMU, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod lab;

use std::path::PathBuf;
use std::time::Duration;

use engine_vm::qemu::machine::{Disk, DiskBus, DiskSource};
use engine_vm::qemu::{MachineSource, QemuVm, QmpRole};
use engine_vm::{EngineVm, LeaseHolding, StartMode, VmActivity, VmError, VmEvent, VmExit};

use lab::{Lab, SOON, event_when, is_up, runs_is_found_again_and_starts_nowhere_else, status_when};

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_runs_under_its_lease_is_found_again_and_starts_nowhere_else() {
    let lab = Lab::new();
    let (again, broker, there) =
        runs_is_found_again_and_starts_nowhere_else(|host, role| lab.vm(host, role)).await;

    // Killed: it crashed, everybody is told, and the other host may start it.
    let mut events = broker.events();
    lab.kill(0);
    event_when(&mut events, "a crash", |event| matches!(event, VmEvent::Ended(VmExit::Crashed { .. }))).await;
    let status = again.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::Crashed { .. })), "{status:?}");
    assert_eq!((status.activity, status.lease), (VmActivity::Down, LeaseHolding::NoVm));
    let started = async { while there.start(StartMode::Run).await.is_err() {} };
    tokio::time::timeout(SOON, started).await.unwrap();
    assert!(is_up(&there.status().await.unwrap()));
    there.destroy().await.unwrap();
    let status = there.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::Orderly { .. })), "{status:?}");
    assert!(matches!(there.destroy().await, Err(VmError::NotRunning)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_on_only_with_its_lease_and_a_lost_one_is_seen() {
    let lab = Lab::new();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Paused).await.unwrap();
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::Paused);
    vm.resume().await.unwrap();
    status_when(&vm, "the guest to run", is_up).await;
    vm.set_console_password("a secret", Duration::from_mins(1)).await.unwrap();
    let console = vm.console(engine_vm::ConsoleKind::Graphical).await.unwrap();
    assert!(console.kind == "vnc" && console.address.starts_with("127.0.0.1:59"), "{console:?}");
    vm.pause().await.unwrap();
    let status = vm.status().await.unwrap();
    assert_eq!((status.activity, status.lease), (VmActivity::Paused, LeaseHolding::Held));

    let pid = status.pid.unwrap();
    lab.daemon(0).client().release_for_pid(pid, &[lab.resource()]).unwrap();
    let status = vm.status().await.unwrap();
    assert!(matches!(status.lease, LeaseHolding::Lost { .. }), "{status:?}");
    assert!(matches!(vm.resume().await, Err(VmError::NoLease { .. })));
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::Paused);
    vm.destroy().await.unwrap();
    let status = vm.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::Orderly { .. })), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sanlock_nothing_is_known_of_the_lease_and_nothing_starts() {
    let mut lab = Lab::new();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Run).await.unwrap();
    lab.daemons[0] = None;
    let status = vm.status().await.unwrap();
    assert_eq!(status.activity, VmActivity::Up);
    assert!(matches!(status.lease, LeaseHolding::Unknown { .. }), "{status:?}");
    vm.pause().await.unwrap();
    assert!(matches!(vm.resume().await, Err(VmError::NoLease { .. })));
    vm.destroy().await.unwrap();
    assert!(matches!(vm.start(StartMode::Run).await, Err(VmError::NoLease { .. })));
    let status = vm.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::StartFailed { .. })), "{status:?}");
}

/// Has QEMU reset its guest.
fn reset(lab: &Lab) {
    use std::io::{BufRead, BufReader, Write};
    let path = lab.run_dir(0).join(QmpRole::Broker.socket());
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("QMP"));
    for command in ["qmp_capabilities", "system_reset"] {
        writeln!(stream, "{{\"execute\": \"{command}\"}}").unwrap();
        assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains("\"return\"")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_starts_with_its_disc_and_ends_when_its_guest_restarts() {
    let lab = Lab::new();
    let disc = lab.directory.path().join("seed.iso");
    std::fs::write(&disc, vec![0; 64 << 10]).unwrap();
    let mut machine = lab::machine(lab.directory.path());
    let drive = |path: PathBuf, source, order| Disk {
        path,
        source,
        bus: DiskBus::Ide,
        is_cdrom: true,
        is_read_only: true,
        boot_order: order,
        ..machine.disks[0].clone()
    };
    let drives = [drive(disc, DiskSource::File, Some(2)), drive(PathBuf::new(), DiskSource::Empty, None)];
    machine.disks.extend(drives);
    machine.ends_on_reboot = true;
    let mut settings = lab.settings(0, QmpRole::Agent);
    settings.machine = MachineSource::new(move || Ok(machine.clone()));
    let vm = QemuVm::new(settings);
    vm.start(StartMode::Run).await.unwrap();
    status_when(&vm, "the VM to run", is_up).await;
    reset(&lab);
    let status = status_when(&vm, "the VM to end", |status| !status.exists()).await;
    assert!(matches!(status.exit, Some(VmExit::Orderly { .. })), "{status:?}");
}
