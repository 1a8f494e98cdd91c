//! The adapter with real libvirt daemons, real QEMU and real sanlock leases. Needs root, libvirt-daemon-system,
//! libvirt-sanlock, QEMU, sanlock, libfaketime and the sandbox's guest.

#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod lab;
#[path = "lab/libvirt.rs"]
mod libvirt;

use std::process::Command;
use std::time::Duration;

use engine_vm::libvirt::{LibvirtSettings, LibvirtVm};
use engine_vm::qemu::QmpRole;
use engine_vm::{
    ConsoleKind, EngineVm, LeaseHolding, MigrationProgress, MigrationTarget, Receiver, StartMode, VmActivity,
    VmError, VmEvent, VmExit, VmStatus,
};
use rustix::process::{Pid, Signal, kill_process};

use lab::moving::progress_when;
use lab::{SOON, event_when, is_up, runs_is_found_again_and_starts_nowhere_else, status_when};
use libvirt::{LibvirtLab, VM};

fn has_ended(status: &VmStatus) -> bool {
    status.activity == VmActivity::Down && status.exit.is_some()
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_runs_under_its_lease_is_found_again_and_starts_nowhere_else() {
    let lab = LibvirtLab::new();
    let (again, broker, there) =
        runs_is_found_again_and_starts_nowhere_else(|host, role| lab.vm(host, role)).await;
    let pid = again.status().await.unwrap().pid.unwrap();
    assert_eq!(lab.lab.lease(0).holding(pid), LeaseHolding::Held);
    assert!(lab.daemons[1].qemus().is_empty());

    // Killed: it crashed, everybody is told, and the other host may start it.
    let mut events = broker.events();
    kill(lab.daemons[0].qemus()[0], Signal::KILL);
    event_when(&mut events, "a crash", |event| matches!(event, VmEvent::Ended(VmExit::Crashed { .. }))).await;
    let status = again.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::Crashed { .. })), "{status:?}");
    there.start(StartMode::Run).await.unwrap();
    assert!(is_up(&there.status().await.unwrap()));

    // A signal, as sanlock sends it.
    kill(lab.daemons[1].qemus()[0], Signal::TERM);
    let status = status_when(&there, "QEMU to end", has_ended).await;
    assert!(
        matches!(&status.exit, Some(VmExit::Crashed { detail }) if detail.contains("signal")),
        "{status:?}"
    );

    // By command, which is an orderly end for everybody who watches.
    there.start(StartMode::Run).await.unwrap();
    let watching = lab.vm(1, QmpRole::Broker);
    status_when(&watching, "the VM to be seen", is_up).await;
    lab.vm(1, QmpRole::Cli).destroy().await.unwrap();
    for vm in [&there, &watching] {
        let status = status_when(vm, "it to end", has_ended).await;
        assert!(matches!(status.exit, Some(VmExit::Orderly { .. })), "{status:?}");
    }
    assert!(matches!(there.destroy().await, Err(VmError::NotRunning)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_on_only_with_its_lease() {
    let lab = LibvirtLab::new();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Paused).await.unwrap();
    let status = vm.status().await.unwrap();
    assert_eq!(status.activity, VmActivity::Paused);
    assert!(matches!(status.lease, LeaseHolding::Pending { .. }), "{status:?}");
    vm.resume().await.unwrap();
    status_when(&vm, "the guest to run", is_up).await;

    let mut events = vm.events();
    vm.pause().await.unwrap();
    event_when(&mut events, "a pause", |event| *event == VmEvent::Changed(VmActivity::Paused)).await;
    vm.resume().await.unwrap();
    status_when(&vm, "the guest to run again", is_up).await;

    // While it stands still libvirt gives the lease back. Another host takes it: the first one's must never go on.
    vm.pause().await.unwrap();
    let taken = lab.lab.lease(1).take().unwrap();
    let status = vm.status().await.unwrap();
    assert_eq!(status.activity, VmActivity::Paused);
    assert!(matches!(status.lease, LeaseHolding::Lost { .. }), "{status:?}");
    assert!(matches!(vm.resume().await, Err(VmError::NoLease { .. })));
    vm.destroy().await.unwrap();
    drop(taken);

    // The console.
    let there = lab.vm(1, QmpRole::Agent);
    there.start(StartMode::Run).await.unwrap();
    let console = there.console(ConsoleKind::Graphical).await.unwrap();
    assert!(console.kind == "vnc" && console.address.starts_with("127.0.0.1:59"), "{console:?}");
    there.set_console_password("s3c<&\"t", Duration::from_mins(1)).await.unwrap();
    let error = there.set_console_password("too long for VNC", Duration::from_mins(1)).await.unwrap_err();
    assert!(!error.to_string().contains("too long for VNC"), "{error}");
    let log = std::fs::read_to_string(lab.path("v2/daemon.log")).unwrap();
    assert!(!log.contains("s3c<"));
    let serial = there.console(ConsoleKind::Serial).await.unwrap_err().to_string();
    assert!(serial.contains("virsh -c"), "{serial}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_asked_to_power_down_ends_in_order() {
    let lab = LibvirtLab::new();
    lab.describe_guest();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Run).await.unwrap();
    // The button is heard once the guest has booted.
    let begun = async {
        loop {
            match vm.shutdown(Duration::ZERO, "").await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(VmError::NotRunning) => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(SOON, begun).await.unwrap();
    let status = vm.status().await.unwrap();
    let powered_off =
        |exit: &VmExit| matches!(exit, VmExit::Orderly { detail } if detail.contains("powered itself off"));
    assert!(status.exit.as_ref().is_some_and(powered_off), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vm_outlives_its_daemon_and_a_daemon_that_hangs_blocks_nobody() {
    let mut lab = LibvirtLab::new();
    let vm = lab.vm(0, QmpRole::Agent);
    vm.start(StartMode::Run).await.unwrap();
    let before = vm.status().await.unwrap();
    lab.daemons[0].crash();
    let error = vm.status().await.unwrap_err().to_string();
    assert!(error.contains(&lab.daemons[0].uri()) && error.contains("Is it running?"), "{error}");
    lab.daemons[0].restart().unwrap();
    assert_eq!(status_when(&vm, "the VM to be found again", is_up).await, before);

    // Events come over the new connection.
    let mut events = vm.events();
    vm.pause().await.unwrap();
    event_when(&mut events, "a pause", |event| *event == VmEvent::Changed(VmActivity::Paused)).await;
    vm.resume().await.unwrap();

    lab.daemons[0].freeze().unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(9), vm.status()).await.expect("an answer in time");
    assert!(matches!(asked, Err(VmError::Unreachable { .. })), "{asked:?}");
    lab.daemons[0].thaw().unwrap();
    status_when(&vm, "the VM to be seen after a hang", is_up).await;

    // It ends while nobody can tell.
    lab.daemons[0].crash();
    kill(before.pid.unwrap(), Signal::KILL);
    lab.daemons[0].restart().unwrap();
    let status = status_when(&vm, "the end to be known", has_ended).await;
    assert!(matches!(status.exit, Some(VmExit::Crashed { .. })), "{status:?}");

    // A VM that has to end does so without its daemon.
    vm.start(StartMode::Run).await.unwrap();
    lab.daemons[0].crash();
    vm.destroy().await.unwrap();
    assert!(lab.daemons[0].qemus().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_under_a_lock_manager_that_is_not_sanlock() {
    let lab = LibvirtLab::with("");
    let vm = lab.vm(0, QmpRole::Agent);
    let error = vm.start(StartMode::Run).await.unwrap_err();
    assert!(
        matches!(&error, VmError::NoLease { detail } if detail.contains("lock_manager") && detail.contains("restart libvirtd")),
        "{error:?}"
    );

    // Its file says sanlock, and the daemon was not restarted: sanlock itself tells, before any guest code runs.
    let qemu_conf = lab.path("other.conf");
    std::fs::write(&qemu_conf, "lock_manager = \"sanlock\"\n").unwrap();
    let lying = LibvirtVm::new(LibvirtSettings { qemu_conf, ..lab.settings(0, QmpRole::Agent) });
    let mut events = lying.events();
    let error = lying.start(StartMode::Run).await.unwrap_err();
    assert!(
        matches!(&error, VmError::NoLease { detail } if detail.contains("before the guest ran")),
        "{error:?}"
    );
    assert!(matches!(lying.status().await.unwrap().exit, Some(VmExit::StartFailed { .. })));
    assert!(lab.daemons[0].qemus().is_empty());
    while let Ok(event) = events.try_recv() {
        assert_ne!(event, VmEvent::Changed(VmActivity::Up));
    }

    // The operator insists: it runs, and nobody says that it is protected.
    let insisting = LibvirtSettings { allow_unprotected: true, ..lab.settings(0, QmpRole::Agent) };
    let unprotected = LibvirtVm::new(insisting);
    unprotected.start(StartMode::Run).await.unwrap();
    let status = unprotected.status().await.unwrap();
    assert!(
        matches!(&status.lease, LeaseHolding::Unknown { detail } if detail.contains("allow_unprotected")),
        "{status:?}"
    );
    // To anybody else it is a VM without its lease.
    assert!(matches!(vm.status().await.unwrap().lease, LeaseHolding::Lost { .. }));
    unprotected.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_moves_with_its_lease_and_leaves_nothing_behind() {
    let lab = LibvirtLab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    assert!(matches!(source.receiver(), Receiver::Arranged { uri } if uri == "qemu+tls://{host}/system"));
    source.start(StartMode::Run).await.unwrap();
    assert_eq!(source.migration_progress().await.unwrap(), MigrationProgress::None);
    let version = lab.lab.lease(0).version().unwrap();

    // Nobody there: the guest goes on here.
    let nobody = MigrationTarget { uri: "qemu+tcp://127.0.0.1:16699/system".to_owned() };
    let error = source.migrate(&nobody).await.unwrap_err();
    assert!(
        matches!(&error, VmError::Failed { detail, .. } if detail.contains("127.0.0.1:16699")),
        "{error}"
    );
    assert!(matches!(source.migration_progress().await.unwrap(), MigrationProgress::Failed { .. }));
    assert!(is_up(&source.status().await.unwrap()));

    let target = MigrationTarget { uri: lab.daemons[1].tcp_uri() };
    assert_eq!(destination.prepare_incoming(&target).await.unwrap(), target);
    source.migrate(&target).await.unwrap();
    progress_when(&source, |progress| *progress == MigrationProgress::Completed).await;
    let arrived = status_when(&destination, "the guest to run at the destination", is_up).await;
    let left = status_when(&source, "the source to end", has_ended).await;
    assert_eq!(left.exit, Some(VmExit::MigratedAway));
    assert_eq!(lab.lab.lease(1).held_version(arrived.pid.unwrap()), Ok(Some(version + 1)));
    assert!(lab.daemons[0].qemus().is_empty());
    let uri = lab.daemons[0].uri();
    let listed = Command::new("virsh").args(["-c", &uri, "list", "--all", "--uuid"]).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), "");

    // And back, to where it ended before: what is noted of that end is of no interest any more.
    destination.migrate(&MigrationTarget { uri: lab.daemons[0].tcp_uri() }).await.unwrap();
    status_when(&source, "the guest to be back", is_up).await;
    let left = status_when(&destination, "the other to end", has_ended).await;
    assert_eq!(left.exit, Some(VmExit::MigratedAway));
    kill(lab.daemons[0].qemus()[0], Signal::KILL);
    let gone = status_when(&source, "the VM to be gone", has_ended).await;
    assert!(matches!(gone.exit, Some(VmExit::Crashed { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_storage_pool_and_the_operators_own_xml_are_run() {
    let lab = LibvirtLab::new();
    let (vm, uri) = (lab.vm(0, QmpRole::Agent), lab.daemons[0].uri());
    let pool = lab.path("pool");
    std::fs::create_dir_all(&pool).unwrap();
    std::fs::File::create(pool.join("data.img")).unwrap().set_len(1 << 20).unwrap();
    let target = pool.display().to_string();
    let virsh = |arguments: &[&str]| {
        let ran = Command::new("virsh").args(["-c", &uri]).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    };
    virsh(&["pool-define-as", "data", "dir", "--target", &target]);
    lab.describe(&format!(
        "{VM}devices={{device:disk,type:disk,iface:virtio,index:1,format:raw,pool:data,volume:data.img}}\n"
    ));
    vm.start(StartMode::Run).await.unwrap();
    assert!(is_up(&vm.status().await.unwrap()));
    let xml = virsh(&["dumpxml", "HostedEngine"]);
    assert!(xml.contains("<source pool='data' volume='data.img'"), "{xml}");
    vm.destroy().await.unwrap();

    // The same as the operator's own, without the lease: it is added.
    let start = xml.find("<lease>").unwrap();
    let end = xml.find("</lease>").unwrap() + "</lease>".len();
    let own = lab.path("own.xml");
    std::fs::write(&own, format!("{}{}", &xml[..start], &xml[end..])).unwrap();
    let settings = LibvirtSettings { domain: Some(own), ..lab.settings(0, QmpRole::Agent) };
    let vm = LibvirtVm::new(settings);
    vm.start(StartMode::Run).await.unwrap();
    assert!(is_up(&vm.status().await.unwrap()));
}
