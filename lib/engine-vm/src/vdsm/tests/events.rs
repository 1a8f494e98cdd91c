//! VDSM's events as the port's.

use tokio::sync::broadcast::Receiver;

use super::*;
use crate::port::{EngineVm, VmActivity, VmEvent, VmExit};

async fn next(events: &mut Receiver<VmEvent>) -> VmEvent {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("an event").unwrap()
}

/// An adapter that follows, whose first look after connecting was told.
async fn following(world: &World) -> (VdsmVm, Receiver<VmEvent>) {
    let vm = world.adapter(QmpRole::Broker);
    let mut events = vm.events();
    assert_eq!(next(&mut events).await, VmEvent::Changed(VmActivity::Up));
    (vm, events)
}

#[tokio::test]
async fn events_become_the_ports() {
    let world = World::new(Some(stats("Up"))).await;
    let (_vm, mut events) = following(&world).await;
    world.vdsm.tell_status(ID, &stats("Powering down"), 10);
    assert_eq!(next(&mut events).await, VmEvent::Changed(VmActivity::PoweringDown));
    let mut paused = stats("Paused");
    paused["pauseCode"] = json!("ENOSPC");
    world.vdsm.tell_status(ID, &paused, 20);
    assert_eq!(next(&mut events).await, VmEvent::IoErrorPause);
    world.vdsm.tell_status(ID, &ended(7, 0, "bye"), 30);
    assert!(matches!(next(&mut events).await, VmEvent::Ended(VmExit::Orderly { .. })));
}

#[tokio::test]
async fn an_event_that_was_overtaken_and_one_of_another_vm_are_passed_over() {
    let world = World::new(Some(stats("Up"))).await;
    let (_vm, mut events) = following(&world).await;
    world.vdsm.tell_status(ID, &stats("Paused"), 100);
    world.vdsm.tell_status(ID, &stats("Up"), 90);
    world.vdsm.tell_status("another", &stats("Down"), 110);
    world.vdsm.tell_status(ID, &stats("Dreaming"), 115);
    world.vdsm.tell_status(ID, &stats("Powering down"), 120);
    assert_eq!(next(&mut events).await, VmEvent::Changed(VmActivity::Paused));
    assert_eq!(next(&mut events).await, VmEvent::Changed(VmActivity::PoweringDown));
}

#[tokio::test]
async fn what_a_lost_connection_missed_is_seen_after_the_next_one() {
    let world = World::new(Some(stats("Up"))).await;
    let (vm, mut events) = following(&world).await;
    world.set(|scene| scene.vm = Some(ended(2, 1, "Lost connection with qemu process")));
    world.vdsm.hang_up();
    // The end of the connection is no event of the VM.
    let VmEvent::Ended(exit) = next(&mut events).await else { panic!("not the VM's end") };
    assert!(matches!(exit, VmExit::Crashed { .. }), "{exit:?}");
    assert_eq!(vm.status().await.unwrap().exit, Some(exit));
}

#[tokio::test]
async fn how_a_vm_ended_outlives_vdsms_memory_of_it() {
    let world = World::new(Some(stats("Up"))).await;
    let (vm, mut events) = following(&world).await;
    world.set(|scene| scene.vm = None);
    world.vdsm.tell_status(ID, &ended(4, 0, "Migration succeeded"), 10);
    assert_eq!(next(&mut events).await, VmEvent::Ended(VmExit::MigratedAway));
    assert_eq!(vm.status().await.unwrap().exit, Some(VmExit::MigratedAway));
}

#[tokio::test]
async fn an_event_that_an_answer_has_overtaken_is_passed_over() {
    let world = World::new(Some(stats("Up"))).await;
    let (vm, mut events) = following(&world).await;
    let mut later = stats("Powering down");
    later["statusTime"] = json!("500");
    world.set(|scene| scene.vm = Some(later));
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::PoweringDown);
    world.vdsm.tell_status(ID, &ended(2, 1, "of an earlier life"), 499);
    world.vdsm.tell_status(ID, &stats("RebootInProgress"), 501);
    assert_eq!(next(&mut events).await, VmEvent::Changed(VmActivity::RebootInProgress));
}
