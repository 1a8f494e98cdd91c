//! The engine VM's adapter with real QEMU guests under real sanlock leases, through VDSM's dialect. Needs what `lab_guests`
//! needs.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::fs;
use std::time::Duration;

use engine_vm::qemu::QmpRole;
use engine_vm::vdsm::VdsmVm;
use engine_vm::{
    EngineVm, LeaseHolding, MigrationProgress, MigrationTarget, StartMode, VmActivity, VmError, VmEvent,
    VmExit, VmStatus,
};
use ha_config::ha_toml::LeaseTable;
use ha_config::{HostedEngineConf, Paths};
use support::SOON;
use support::lab::{IMAGE, Lab, SD, VM, VOLUME, start, until};

/// The adapter of a host's agent, and what it is configured with.
fn adapter(lab: &Lab, host: usize) -> VdsmVm {
    let paths = Paths::new(&lab.hosts[host].stand_in.root);
    fs::create_dir_all(paths.run_dir()).unwrap();
    let vm_conf = format!(
        "vmId={VM}\nmemSize=64\ndevices={{index:0,iface:virtio,format:raw,volumeID:{VOLUME},imageID:{IMAGE},domainID:{SD},\
         device:disk,shared:exclusive,type:disk}}\n"
    );
    fs::write(paths.vm_conf(), vm_conf).unwrap();
    let conf = format!(
        "vmid={VM}\nsdUUID={SD}\nstorage=lab:/storage\ndomainType=nfs\nbridge=ovirtmgmt\nvm_disk_id={IMAGE}\n\
         vm_disk_vol_id={VOLUME}\n"
    );
    let conf = HostedEngineConf::parse(&paths, &conf);
    VdsmVm::new(lab.hosts[host].client.clone(), &conf, &LeaseTable::default(), QmpRole::Agent).unwrap()
}

async fn status_when(vm: &VdsmVm, what: &str, is_it: impl Fn(&VmStatus) -> bool) -> VmStatus {
    let mut last = None;
    until(what, async || {
        last = vm.status().await.ok();
        last.as_ref().is_some_and(&is_it)
    })
    .await;
    last.unwrap()
}

fn is_up(status: &VmStatus) -> bool {
    status.activity == VmActivity::Up && status.lease == LeaseHolding::Held
}

/// The VM moves from one host to that other one.
async fn moves(from: &VdsmVm, to: &VdsmVm, lab: &Lab, host: usize) {
    let target = MigrationTarget { uri: lab.hosts[host].stand_in.address.to_string() };
    let target = to.prepare_incoming(&target).await.unwrap();
    from.migrate(&target).await.unwrap();
    until("the migration to be over", async || {
        matches!(from.migration_progress().await, Ok(MigrationProgress::Completed))
    })
    .await;
    assert_eq!(from.status().await.unwrap().exit, Some(VmExit::MigratedAway));
    status_when(to, "the VM to be up on the other host", is_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_starts_protects_moves_and_ends_the_vm() {
    let mut lab = Lab::new().await;
    let (here, there) = (adapter(&lab, 0), adapter(&lab, 1));
    let mut events = there.events();
    here.start(StartMode::Run).await.unwrap();
    status_when(&here, "the VM to be up under its lease", is_up).await;
    let exists = here.start(StartMode::Run).await.unwrap_err();
    assert!(matches!(exists, VmError::AlreadyExists { .. }), "{exists:?}");

    // The other host is refused, by sanlock's word, and is told so by an event.
    let refused = there.start(StartMode::Run).await.unwrap_err();
    assert!(matches!(&refused, VmError::LeaseHeld { detail } if detail.contains("host id 1")), "{refused:?}");
    let status = there.status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::LeaseRefused { .. })), "{status:?}");
    let told = async {
        loop {
            if let Ok(VmEvent::Ended(VmExit::LeaseRefused { .. })) = events.recv().await {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, told).await.expect("an event tells of the refusal");

    here.pause().await.unwrap();
    status_when(&here, "the guest to stand still", |status| status.activity == VmActivity::Paused).await;
    here.resume().await.unwrap();
    status_when(&here, "the guest to go on", is_up).await;

    // VDSM is away: nobody knows, and the VM does not notice.
    lab.hosts[0].stand_in.kill();
    let away = here.status().await.unwrap_err();
    assert!(matches!(away, VmError::Unreachable { .. }), "{away:?}");
    let root = lab.hosts[0].stand_in.root.clone();
    lab.hosts[0].stand_in = start(&root);
    lab.hosts[0].client = lab.hosts[0].stand_in.client();
    let here = adapter(&lab, 0);
    status_when(&here, "the VM to be found again", is_up).await;

    // What is left there of the refused start must go before the VM can come.
    there.destroy().await.unwrap();
    moves(&here, &there, &lab, 1).await;
    // Nothing is left of it where it was, so that it can come back, and leave again.
    moves(&there, &here, &lab, 0).await;
    moves(&here, &there, &lab, 1).await;

    there.shutdown(Duration::ZERO, "bye").await.unwrap();
    status_when(&there, "the guest to power down", |status| status.activity == VmActivity::PoweringDown)
        .await;
    there.destroy().await.unwrap();
    assert!(matches!(there.destroy().await, Err(VmError::NotRunning)));
    assert_eq!(there.status().await.unwrap().activity, VmActivity::Down);

    // Stale remains are cleared, and it starts here again.
    here.start(StartMode::Paused).await.unwrap();
    status_when(&here, "the guest to wait for its operator", |status| status.activity == VmActivity::Paused)
        .await;
    here.destroy().await.unwrap();
}
