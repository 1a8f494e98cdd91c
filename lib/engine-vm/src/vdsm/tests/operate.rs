//! Ending, pausing, moving and showing the VM.

use super::*;
use crate::port::{ConsoleKind, EngineVm, MigrationProgress, MigrationTarget, VmActivity, VmError, VmExit};

fn target() -> MigrationTarget {
    MigrationTarget { uri: "h2.example".to_owned() }
}

#[tokio::test]
async fn a_destroyed_vm_is_gone_before_the_call_returns() {
    let world = World::new(Some(stats("Up"))).await;
    let vm = world.vm();
    world.set(|scene| scene.answers.push(("VM.destroy", Answer::Result(json!(true)))));
    let destroy = async { vm.destroy().await };
    let vanish = async {
        while world.vdsm.count("VM.getStats") < 2 {
            tokio::task::yield_now().await;
        }
        world.set(|scene| scene.vm = None);
    };
    let (destroyed, ()) = tokio::join!(destroy, vanish);
    destroyed.unwrap();
    assert_eq!(world.vdsm.count("VM.destroy"), 1);
    world.set(|scene| scene.answers.clear());
    assert!(matches!(vm.destroy().await, Err(VmError::NotRunning)));
}

#[tokio::test]
async fn a_destroy_whose_answer_was_lost_is_decided_by_looking() {
    let world = World::new(Some(stats("Up"))).await;
    let scene = Arc::clone(&world.scene);
    world.vdsm.rescript(move |method, _| {
        let usual = scene.lock().unwrap().answer(method);
        if method == "VM.destroy" { Answer::HangUp } else { usual }
    });
    world.vm().destroy().await.unwrap();
    assert_eq!(world.vdsm.count("VM.destroy"), 1);
}

#[tokio::test]
async fn a_guest_that_runs_is_asked_to_shut_down() {
    let world = World::new(Some(stats("Up"))).await;
    let vm = world.vm();
    vm.shutdown(Duration::from_secs(30), "Bye").await.unwrap();
    let params = world.only_call("VM.shutdown");
    assert_eq!((&params["delay"], &params["message"]), (&json!(30), &json!("Bye")));
    world.set(|scene| scene.vm = Some(stats("Paused")));
    let error = vm.shutdown(Duration::ZERO, "Bye").await.unwrap_err().to_string();
    assert!(error.contains("would not notice"), "{error}");
    for gone in [None, Some(ended(7, 0, "bye"))] {
        world.set(|scene| scene.vm = gone);
        assert!(matches!(vm.shutdown(Duration::ZERO, "Bye").await, Err(VmError::NotRunning)));
    }
    // The answer was lost, and the guest is on its way.
    let world = World::new(Some(stats("Powering down"))).await;
    world.set(|scene| scene.answers.push(("VM.shutdown", Answer::HangUp)));
    world.vm().shutdown(Duration::ZERO, "Bye").await.unwrap();
    world.set(|scene| scene.vm = Some(stats("Up")));
    let error = world.vm().shutdown(Duration::ZERO, "Bye").await.unwrap_err();
    assert!(matches!(error, VmError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_paused_guest_goes_on_only_under_its_lease() {
    let world = World::new(Some(stats("Paused"))).await;
    let vm = world.vm();
    world.set(|scene| scene.owner = Ok(LeaseOwner::Nobody));
    vm.resume().await.unwrap();
    assert_eq!(world.vdsm.count("VM.cont"), 1);
    world.set(|scene| scene.owner = Ok(other()));
    let error = vm.resume().await.unwrap_err();
    assert!(matches!(error, VmError::NoLease { .. }), "{error:?}");
    world.set(|scene| scene.owner = Err(LeaseError::Unavailable("no daemon".to_owned())));
    assert!(matches!(vm.resume().await, Err(VmError::NoLease { .. })));
    assert_eq!(world.vdsm.count("VM.cont"), 1);
    world.set(|scene| scene.vm = None);
    assert!(matches!(vm.resume().await, Err(VmError::NotRunning)));
    assert!(matches!(vm.pause().await, Err(VmError::NotRunning)));
}

#[tokio::test]
async fn an_unsure_pause_or_resume_is_decided_by_looking() {
    let world = World::new(Some(stats("Paused"))).await;
    world.set(|scene| scene.answers.extend([("VM.pause", Answer::HangUp), ("VM.cont", Answer::HangUp)]));
    let vm = world.vm();
    vm.pause().await.unwrap();
    assert!(matches!(vm.resume().await, Err(VmError::Unreachable { .. })));
    world.set(|scene| scene.vm = Some(stats("Up")));
    vm.resume().await.unwrap();
    assert!(matches!(vm.pause().await, Err(VmError::Unreachable { .. })));
}

#[tokio::test]
async fn a_migration_is_vdsms_work() {
    let world = World::new(Some(stats("Up"))).await;
    let vm = world.vm();
    vm.migrate(&target()).await.unwrap();
    let params = world.only_call("VM.migrate")["params"].clone();
    for (name, value) in [
        ("dst", json!("h2.example")),
        ("mode", json!("remote")),
        ("method", json!("online")),
        ("tunneled", json!(false)),
        ("abortOnError", json!(true)),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    let progress = |percent: u64, code: i64, message: &str| {
        Answer::Result(json!({"progress": percent, "status": {"code": code, "message": message}}))
    };
    let told = progress(25, 0, "Migration in progress");
    world.set(|scene| {
        scene.vm = Some(stats("Migration Source"));
        scene.answers.push(("VM.getMigrationStatus", told.clone()));
    });
    let mib = 1 << 20;
    let active = MigrationProgress::Active {
        transferred: 1024 * mib / 100 * 25,
        remaining: 1024 * mib - 1024 * mib / 100 * 25,
    };
    assert_eq!(vm.migration_progress().await.unwrap(), active);
    world.set(|scene| scene.vm = Some(stats("Up")));
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::None);
    world.set(|scene| scene.answers = vec![("VM.getMigrationStatus", progress(25, 12, "Fatal error"))]);
    let failed = MigrationProgress::Failed { detail: "Fatal error (code 12)".to_owned() };
    assert_eq!(vm.migration_progress().await.unwrap(), failed);
    world.set(|scene| scene.vm = Some(ended(4, 0, "Migration succeeded")));
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::Completed);
    world.set(|scene| scene.vm = None);
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::Completed);
}

#[tokio::test]
async fn vdsm_forgets_a_vm_that_has_left_so_that_it_can_come_back() {
    let world = World::new(Some(stats("Migration Source"))).await;
    let vm = world.vm();
    assert_eq!(vm.status().await.unwrap().activity, VmActivity::MigrationSource);
    world.set(|scene| scene.vm = Some(ended(4, 0, "Migration succeeded")));
    assert_eq!(vm.status().await.unwrap().exit, Some(VmExit::MigratedAway));
    assert_eq!(world.vdsm.count("VM.destroy"), 0, "a look destroys nothing");
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::Completed);
    assert!(world.scene.lock().unwrap().vm.is_none(), "VDSM has no such VM any more");
    assert_eq!(vm.status().await.unwrap().exit, Some(VmExit::MigratedAway), "how it ended is still known");
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::Completed);
    assert_eq!(world.vdsm.count("VM.destroy"), 1);
    // It comes back, and another end of it is its own.
    world.set(|scene| scene.vm = Some(stats("Up")));
    assert_eq!(vm.status().await.unwrap().exit, None);
    world.set(|scene| scene.vm = Some(ended(2, 1, "Lost connection with qemu process")));
    assert_eq!(vm.migration_progress().await.unwrap(), MigrationProgress::None);
    assert_eq!(world.vdsm.count("VM.destroy"), 1, "nothing that did not leave");
}

#[tokio::test]
async fn a_departed_vm_that_vdsm_does_not_forget_has_left_all_the_same() {
    let world = World::new(Some(ended(4, 0, "Migration succeeded"))).await;
    world.set(|scene| scene.answers.push(("VM.destroy", Answer::refusal(code::GENERAL))));
    assert_eq!(world.vm().migration_progress().await.unwrap(), MigrationProgress::Completed);
}

#[tokio::test]
async fn a_migration_whose_begin_was_lost_is_decided_by_looking() {
    let world = World::new(Some(stats("Migration Source"))).await;
    world.set(|scene| scene.answers.push(("VM.migrate", Answer::HangUp)));
    let vm = world.vm();
    vm.migrate(&target()).await.unwrap();
    world.set(|scene| scene.vm = Some(stats("Up")));
    assert!(matches!(vm.migrate(&target()).await, Err(VmError::Unreachable { .. })));
    assert_eq!(world.vdsm.count("VM.migrate"), 2);
}

#[tokio::test]
async fn vdsm_prepares_the_destination_itself() {
    let world = World::new(None).await;
    assert_eq!(world.vm().prepare_incoming(&target()).await.unwrap(), target());
    world.set(|scene| scene.vm = Some(stats("Up")));
    let error = world.vm().prepare_incoming(&target()).await.unwrap_err().to_string();
    assert!(error.contains("already"), "{error}");
}

fn with_screens() -> Value {
    let mut up = stats("Up");
    up["displayInfo"] = json!([
        {"type": "vnc", "port": "5900", "tlsPort": "-1", "ipAddress": "fd00::7"},
        {"type": "spice", "port": "5901", "tlsPort": "5902", "ipAddress": "0"},
    ]);
    up
}

#[tokio::test]
async fn a_password_is_set_on_every_screen_and_never_told() {
    let world = World::new(Some(with_screens())).await;
    let vm = world.vm();
    vm.set_console_password("s3cret", Duration::from_mins(2)).await.unwrap();
    let set: Vec<_> = world
        .vdsm
        .calls()
        .into_iter()
        .filter(|(verb, _)| verb == "VM.updateDevice")
        .map(|(_, params)| params)
        .collect();
    for (params, kind) in set.iter().zip(["vnc", "spice"]) {
        let device = &params["params"];
        assert_eq!((&device["graphicsType"], &device["password"]), (&json!(kind), &json!("s3cret")));
        assert_eq!((&device["ttl"], &device["existingConnAction"]), (&json!(120), &json!("keep")));
    }
    assert_eq!(set.len(), 2);
    let refusal = Answer::Error(code::UPDATE_DEVICE_FAILED, "cannot set passwd=s3cret".to_owned());
    world.set(|scene| scene.answers.push(("VM.updateDevice", refusal)));
    let error = vm.set_console_password("s3cret", Duration::ZERO).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    world.set(|scene| scene.vm = Some(stats("Up")));
    let error = vm.set_console_password("s3cret", Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.contains("no graphical one"), "{error}");
}

#[tokio::test]
async fn consoles_are_where_vdsm_says() {
    let world = World::new(Some(with_screens())).await;
    let vm = world.vm();
    let screen = vm.console(ConsoleKind::Graphical).await.unwrap();
    assert_eq!((screen.kind.as_str(), screen.address.as_str()), ("vnc", "[fd00::7]:5900"));
    let mut starting = with_screens();
    starting["displayInfo"][0]["port"] = json!("-1");
    world.set(|scene| scene.vm = Some(starting));
    let screen = vm.console(ConsoleKind::Graphical).await.unwrap();
    assert_eq!((screen.kind.as_str(), screen.address.as_str()), ("spice", "localhost:5901"));
    let error = vm.console(ConsoleKind::Serial).await.unwrap_err().to_string();
    assert!(error.contains("virsh"), "{error}");
    let folder = world.root.path().join("run/ovirt-vmconsole-console");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{ID}.sock")), "").unwrap();
    assert!(vm.console(ConsoleKind::Serial).await.unwrap().address.contains(ID));
    world.set(|scene| scene.vm = None);
    assert!(matches!(vm.console(ConsoleKind::Graphical).await, Err(VmError::NotRunning)));
}
