//! What a look comes to.

use super::*;
use crate::port::{CpuUse, EngineVm, LeaseHolding, VmActivity, VmError, VmExit};

#[tokio::test]
async fn a_running_vm_that_owns_its_lease_is_so() {
    let world = World::new(Some(stats("Up"))).await;
    let status = world.vm().status().await.unwrap();
    assert_eq!((status.activity, status.lease, status.exit), (VmActivity::Up, LeaseHolding::Held, None));
    let scene = world.scene.lock().unwrap();
    let LeaseSpec::Sanlock { lockspace, resource, path, offset, .. } = &scene.looked_at[0] else { panic!() };
    assert_eq!((lockspace.as_str(), resource.as_str(), *offset), (DOMAIN, VOLUME, 0));
    let file = format!("rhev/data-center/mnt/_data/{DOMAIN}/images/{IMAGE}/{VOLUME}.lease");
    assert_eq!(*path, world.root.path().join(file));
}

#[tokio::test]
async fn on_block_storage_vdsm_tells_where_the_lease_is_and_once_is_enough() {
    let world = World::on("iscsi", Some(stats("Up"))).await;
    let info =
        json!({"lease": {"path": format!("/dev/{DOMAIN}/leases"), "offset": 105_906_176, "version": 1}});
    world.set(|scene| scene.answers.push(("Volume.getInfo", Answer::Result(info))));
    let vm = world.vm();
    for _ in 0..2 {
        assert_eq!(vm.status().await.unwrap().lease, LeaseHolding::Held);
    }
    assert_eq!(world.vdsm.count("Volume.getInfo"), 1);
    assert_eq!(world.only_call("Volume.getInfo")["volumeID"], VOLUME);
    let scene = world.scene.lock().unwrap();
    let LeaseSpec::Sanlock { path, offset, .. } = &scene.looked_at[1] else { panic!() };
    assert!(path.ends_with(format!("dev/{DOMAIN}/leases")), "{path:?}");
    assert_eq!(*offset, 105_906_176);
}

#[tokio::test]
async fn a_lost_lease_is_looked_at_again_before_it_is_called_lost() {
    let world = World::new(Some(stats("Up"))).await;
    world.set(|scene| scene.owner = Ok(other()));
    let status = world.vm().status().await.unwrap();
    assert!(
        matches!(&status.lease, LeaseHolding::Lost { detail } if detail.contains("host id 2")),
        "{status:?}"
    );
    assert_eq!(world.scene.lock().unwrap().looked_at.len(), 3);

    // It ended in between, and VDSM knows now.
    let world = World::new(Some(stats("Up"))).await;
    let mut looks = 0;
    world.set(|scene| scene.owner = Ok(LeaseOwner::Nobody));
    world.vdsm.rescript(move |_, _| {
        looks += 1;
        Answer::Result(json!([if looks == 1 { stats("Up") } else { ended(7, 0, "bye") }]))
    });
    let status = world.vm().status().await.unwrap();
    assert!(matches!(status.exit, Some(VmExit::Orderly { .. })), "{status:?}");
}

#[tokio::test]
async fn without_sanlock_nobody_knows_of_the_lease() {
    let world = World::new(Some(stats("Up"))).await;
    world.set(|scene| scene.owner = Err(LeaseError::Unavailable("no daemon".to_owned())));
    let status = world.vm().status().await.unwrap();
    assert_eq!(status.lease, LeaseHolding::Unknown { detail: "no daemon".to_owned() });
}

#[tokio::test]
async fn a_guest_that_stands_still_has_its_lease_pending() {
    let mut paused = stats("Paused");
    paused["pauseCode"] = json!("EIO");
    let world = World::new(Some(paused)).await;
    world.set(|scene| scene.owner = Ok(LeaseOwner::Nobody));
    let status = world.vm().status().await.unwrap();
    assert_eq!(status.activity, VmActivity::PausedByIoError);
    assert!(matches!(status.lease, LeaseHolding::Pending { .. }), "{status:?}");

    let mut source = stats("Paused");
    source["pauseCode"] = json!("POSTCOPY");
    world.set(|scene| (scene.vm, scene.owner) = (Some(source), Ok(other())));
    let status = world.vm().status().await.unwrap();
    assert_eq!(status.activity, VmActivity::MigrationSource);
    assert!(matches!(status.lease, LeaseHolding::Pending { .. }), "{status:?}");
}

#[tokio::test]
async fn no_vm_is_down_with_the_last_end_that_was_seen() {
    let world = World::new(None).await;
    let vm = world.vm();
    let status = vm.status().await.unwrap();
    assert_eq!((status.activity, status.exit, status.lease), (VmActivity::Down, None, LeaseHolding::NoVm));
    world.set(|scene| scene.vm = Some(ended(4, 0, "Migration succeeded")));
    assert_eq!(vm.status().await.unwrap().exit, Some(VmExit::MigratedAway));
    world.set(|scene| scene.vm = None);
    assert_eq!(vm.status().await.unwrap().exit, Some(VmExit::MigratedAway));
    // The next VM's life makes it history.
    world.set(|scene| scene.vm = Some(stats("Up")));
    vm.status().await.unwrap();
    world.set(|scene| scene.vm = None);
    assert_eq!(vm.status().await.unwrap().exit, None);
}

#[tokio::test]
async fn an_end_is_judged_once() {
    let world = World::new(Some(ended(1, 1, "no such device"))).await;
    let vm = world.vm();
    world.set(|scene| scene.owner = Ok(LeaseOwner::Nobody));
    let exit = vm.status().await.unwrap().exit;
    assert!(matches!(exit, Some(VmExit::StartFailed { .. })), "{exit:?}");
    // That another host takes the lease later was not the reason.
    world.set(|scene| scene.owner = Ok(other()));
    assert_eq!(vm.status().await.unwrap().exit, exit);
}

#[tokio::test]
async fn a_vdsm_that_cannot_be_asked_is_never_a_vm_that_is_down() {
    let world = World::new(Some(stats("Up"))).await;
    let vm = world.vm();
    for answer in [
        Answer::Silence,
        Answer::HangUp,
        Answer::refusal(code::RECOVERING),
        Answer::refusal(code::UNEXPECTED),
        Answer::Result(json!([])),
        Answer::Result(json!([{"status": "Dreaming"}])),
    ] {
        world.set(|scene| scene.answers = vec![("VM.getStats", answer.clone())]);
        let error = vm.status().await.unwrap_err();
        assert!(matches!(error, VmError::Unreachable { .. }), "{answer:?}: {error:?}");
        let error = vm.cpu_use().await.unwrap_err();
        assert!(matches!(error, VmError::Unreachable { .. }), "{answer:?}: {error:?}");
    }
    world.set(|scene| scene.answers.clear());
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::Up);
    world.vdsm.stop();
    let error = vm.status().await.unwrap_err();
    assert!(matches!(error, VmError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn processors_are_counted_only_when_they_were_measured() {
    let world = World::new(None).await;
    let vm = world.vm();
    assert_eq!(vm.cpu_use().await.unwrap(), None);
    let mut measured = stats("Up");
    measured["cpuUser"] = json!("110.00");
    measured["cpuSys"] = json!("40.00");
    measured["cpuActual"] = json!("true");
    world.set(|scene| scene.vm = Some(measured));
    assert_eq!(vm.cpu_use().await.unwrap(), Some(CpuUse::Lately(1.5)));
    let mut made_up = stats("Powering up");
    made_up["cpuUser"] = json!("0.0");
    made_up["cpuSys"] = json!("0.0");
    made_up["cpuActual"] = json!("false");
    world.set(|scene| scene.vm = Some(made_up));
    assert_eq!(vm.cpu_use().await.unwrap(), Some(CpuUse::NotMeasured));
    world.set(|scene| scene.vm = Some(ended(6, 0, "bye")));
    assert_eq!(vm.cpu_use().await.unwrap(), None);
}

#[tokio::test]
async fn the_next_vms_end_is_its_own() {
    let world = World::new(Some(stats("Up"))).await;
    let vm = world.vm();
    let locked = || Some(ended(1, 1, "Failed to acquire lock: error -243"));
    vm.status().await.unwrap();
    world.set(|scene| scene.vm = locked());
    let exit = vm.status().await.unwrap().exit;
    assert!(matches!(exit, Some(VmExit::Crashed { .. })), "{exit:?}");
    // Destroyed, and created again by somebody else: this one never ran, though it ends in the same words.
    world.set(|scene| scene.vm = None);
    assert_eq!(vm.status().await.unwrap().exit, exit);
    world.set(|scene| scene.vm = locked());
    let exit = vm.status().await.unwrap().exit;
    assert!(matches!(exit, Some(VmExit::LeaseRefused { .. })), "{exit:?}");
}
