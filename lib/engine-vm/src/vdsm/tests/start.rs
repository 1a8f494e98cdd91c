//! Starting the VM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::domain_xml::{LeaseTarget, describe};
use crate::port::{EngineVm, StartMode, VmActivity, VmError};

fn write_xml(world: &World, id: &str, lease: &str) {
    let xml = format!(
        "<domain xmlns:ovirt-vm=\"http://ovirt.org/vm/1.0\"><uuid>{id}</uuid><devices>{lease}</devices><metadata><ovirt-vm:vm>\
         <ovirt-vm:device devtype=\"disk\" name=\"vda\"><ovirt-vm:imageID>{IMAGE}</ovirt-vm:imageID><ovirt-vm:domainID>\
         {DOMAIN}</ovirt-vm:domainID><ovirt-vm:volumeID>{VOLUME}</ovirt-vm:volumeID></ovirt-vm:device>\
         <launchPaused>false</launchPaused></ovirt-vm:vm></metadata></domain>"
    );
    let text = format!("vmId={ID}\nxmlBase64={}\n", STANDARD.encode(xml));
    std::fs::write(world.conf.vm_conf_path(), text).unwrap();
}

fn sent_xml(world: &World) -> String {
    let params = world.only_call("VM.create");
    assert_eq!(params["vmID"], ID);
    params["vmParams"]["xml"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_start_waits_until_the_vm_runs() {
    let world = World::new(None).await;
    let vm = world.vm();
    let start = async { vm.start(StartMode::Run).await };
    let boot = async {
        while world.vdsm.count("VM.create") == 0 {
            tokio::task::yield_now().await;
        }
        world.set(|scene| scene.vm = Some(stats("Powering up")));
        world.vdsm.tell_status(ID, &stats("Powering up"), 2000);
    };
    let (started, ()) = tokio::join!(start, boot);
    started.unwrap();
    let found = describe(&sent_xml(&world)).unwrap();
    assert_eq!((found.leases.len(), found.leases[0].key.as_str()), (1, VOLUME));
}

#[tokio::test]
async fn a_lease_of_another_host_is_a_refusal() {
    let world = World::new(None).await;
    world.set(|scene| {
        scene.created = ended(1, 1, "resource busy: Failed to acquire lock");
        scene.owner = Ok(other());
    });
    let error = world.vm().start(StartMode::Run).await.unwrap_err();
    assert!(matches!(&error, VmError::LeaseHeld { detail } if detail.contains("host id 2")), "{error:?}");

    // Nobody's any more when it is looked at: the text tells.
    let world = World::new(None).await;
    world.set(|scene| {
        scene.created = ended(1, 1, "Failed to acquire lock: error -243");
        scene.owner = Ok(LeaseOwner::Nobody);
    });
    let error = world.vm().start(StartMode::Run).await.unwrap_err();
    assert!(matches!(error, VmError::LeaseHeld { .. }), "{error:?}");
}

#[tokio::test]
async fn another_failure_is_told_in_vdsms_words() {
    let world = World::new(None).await;
    world.set(|scene| {
        scene.created = ended(1, 1, "unsupported machine type pc-i440fx-7.3");
        scene.owner = Ok(LeaseOwner::Nobody);
    });
    let error = world.vm().start(StartMode::Run).await.unwrap_err().to_string();
    assert!(error.contains("start the engine VM") && error.contains("unsupported machine type"), "{error}");

    let world = World::new(None).await;
    let refusal = Answer::Error(code::CANNOT_CREATE_VM, "VNC is not secure".to_owned());
    world.set(|scene| scene.answers.push(("VM.create", refusal)));
    let error = world.vm().start(StartMode::Run).await.unwrap_err();
    assert!(matches!(&error, VmError::Failed { detail, .. } if detail.contains("not secure")), "{error:?}");
}

#[tokio::test]
async fn what_is_left_of_an_earlier_vm_is_cleared_first() {
    let world = World::new(Some(ended(2, 1, "Lost connection with qemu process"))).await;
    world.set(|scene| scene.created = stats("Up"));
    world.vm().start(StartMode::Run).await.unwrap();
    let verbs: Vec<_> = world.vdsm.calls().into_iter().map(|(verb, _)| verb).collect();
    let at = |verb: &str| verbs.iter().position(|called| called == verb).unwrap();
    assert!(at("VM.destroy") < at("VM.create"), "{verbs:?}");
}

#[tokio::test]
async fn a_vm_that_exists_is_left_alone() {
    for status in ["Up", "Paused", "WaitForLaunch", "Migration Destination"] {
        let world = World::new(Some(stats(status))).await;
        let error = world.vm().start(StartMode::Run).await.unwrap_err();
        assert!(matches!(error, VmError::AlreadyExists { pid: None }), "{status}: {error:?}");
        assert_eq!(world.vdsm.count("VM.create") + world.vdsm.count("VM.destroy"), 0, "{status}");
    }
    // Somebody else was quicker.
    let world = World::new(None).await;
    world.set(|scene| scene.answers.push(("VM.create", Answer::refusal(code::VM_EXISTS))));
    let error = world.vm().start(StartMode::Run).await.unwrap_err();
    assert!(matches!(error, VmError::AlreadyExists { .. }), "{error:?}");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_decided_by_looking() {
    for lost in [Answer::HangUp, Answer::Silence, Answer::Result(json!("what?"))] {
        // VDSM did it.
        let world = World::new(None).await;
        let (scene, answer) = (Arc::clone(&world.scene), lost.clone());
        world.vdsm.rescript(move |method, _| {
            let mut scene = scene.lock().unwrap();
            let usual = scene.answer(method);
            if method == "VM.create" {
                scene.vm = Some(stats("Up"));
                return answer.clone();
            }
            usual
        });
        world.vm().start(StartMode::Run).await.unwrap();
        assert_eq!(world.vdsm.count("VM.create"), 1, "{lost:?}");

        // VDSM did not.
        let world = World::new(None).await;
        world.set(|scene| scene.answers.push(("VM.create", lost.clone())));
        let error = world.vm().start(StartMode::Run).await.unwrap_err();
        assert!(
            matches!(&error, VmError::Failed { detail, .. } if detail.contains("VDSM has no such VM")),
            "{lost:?}: {error:?}"
        );
        assert_eq!(world.vdsm.count("VM.create"), 1, "{lost:?}");
    }
}

#[tokio::test]
async fn a_vm_that_libvirt_started_without_its_lease_is_ended() {
    let world = World::new(None).await;
    world.set(|scene| (scene.created, scene.owner) = (stats("Up"), Ok(LeaseOwner::Nobody)));
    let error = world.vm().start(StartMode::Run).await.unwrap_err();
    assert!(matches!(&error, VmError::NoLease { detail } if detail.contains("lock_manager")), "{error:?}");
    assert_eq!(world.vdsm.count("VM.destroy"), 1);
}

#[tokio::test]
async fn a_vm_that_is_destroyed_while_it_starts_has_failed() {
    let world = World::new(None).await;
    let vm = world.vm();
    let start = async { vm.start(StartMode::Run).await };
    let destroy = async {
        while world.vdsm.count("VM.create") == 0 {
            tokio::task::yield_now().await;
        }
        world.set(|scene| scene.vm = None);
    };
    let (started, ()) = tokio::join!(start, destroy);
    let error = started.unwrap_err().to_string();
    assert!(error.contains("destroyed before it ran"), "{error}");
}

#[tokio::test]
async fn the_engines_own_description_is_sent_with_the_lease_added() {
    let world = World::new(None).await;
    write_xml(&world, ID, "");
    world.set(|scene| scene.created = stats("Up"));
    world.vm().start(StartMode::Run).await.unwrap();
    let xml = sent_xml(&world);
    let found = describe(&xml).unwrap();
    assert_eq!((found.leases[0].key.as_str(), found.leases[0].lockspace.as_str()), (VOLUME, DOMAIN));
    assert_eq!(found.leases[0].target, LeaseTarget::FoundByVdsm);
    assert!(xml.contains(&format!("LEASE-PATH:{VOLUME}:{DOMAIN}")), "{xml}");
    assert!(xml.contains("launchPaused>false"), "{xml}");
}

#[tokio::test]
async fn a_paused_start_is_asked_for_in_the_description() {
    let world = World::new(None).await;
    let lease = format!(
        "<lease><key>{VOLUME}</key><lockspace>{DOMAIN}</lockspace><target path='/l' offset='9'/></lease>"
    );
    write_xml(&world, ID, &lease);
    world.set(|scene| (scene.created, scene.owner) = (stats("Paused"), Ok(LeaseOwner::Nobody)));
    let vm = world.vm();
    vm.start(StartMode::Paused).await.unwrap();
    let xml = sent_xml(&world);
    assert!(xml.contains("<ovirt-vm:launchPaused>true</ovirt-vm:launchPaused>"), "{xml}");
    assert_eq!((xml.matches("<lease>").count(), xml.matches("launchPaused>false").count()), (1, 0), "{xml}");
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::Paused);
    let scene = world.scene.lock().unwrap();
    let Some(LeaseSpec::Sanlock { path, offset, .. }) = scene.looked_at.last() else { panic!() };
    assert_eq!((path.as_path(), *offset), (world.root.path().join("l").as_path(), 9));
}

#[tokio::test]
async fn a_description_of_another_vm_or_without_its_own_disk_is_refused() {
    let world = World::new(None).await;
    write_xml(&world, "00000000-0000-4000-8000-000000000000", "");
    let error = world.vm().start(StartMode::Run).await.unwrap_err().to_string();
    assert!(error.contains("describes the VM") && error.contains(ID), "{error}");

    let text = format!("vmId={ID}\nxmlBase64={}\n", STANDARD.encode("<domain><devices/></domain>"));
    std::fs::write(world.conf.vm_conf_path(), text).unwrap();
    let error = world.vm().start(StartMode::Run).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no disk in xmlBase64 has the imageID {IMAGE}")), "{error}");

    std::fs::write(world.conf.vm_conf_path(), format!("vmId={ID}\nxmlBase64=!\n")).unwrap();
    let error = world.vm().start(StartMode::Run).await.unwrap_err().to_string();
    assert!(error.contains("xmlBase64 cannot be read"), "{error}");
    assert_eq!(world.vdsm.calls(), []);
}
