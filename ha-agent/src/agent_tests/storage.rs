//! The loop while storage fails, and right after a restart.

use engine_vm::VmActivity;

use super::*;
use crate::ports::ConfTrouble;

/// A world in which the engine runs here, with its agent.
async fn engine_up() -> (Arc<World>, Rig) {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    (world, rig)
}

fn pause(world: &World) {
    world.lock().vm.activity = VmActivity::PausedByIoError;
    world.wake();
}

fn last_reasons(world: &World) -> String {
    world.lock().reports.last().expect("explained").reasons.join("; ")
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_an_io_error_paused_goes_on_when_storage_is_back() {
    let (world, rig) = engine_up().await;
    world.lock().storage_hangs = true;
    pause(&world);
    rig.secs(60).await;
    assert!(rig.actions().is_empty());
    let reasons = last_reasons(&world);
    assert!(reasons.contains("it goes on when shared storage, which has not worked for"), "{reasons}");
    world.lock().storage_hangs = false;
    world.wake();
    rig.until("EngineUp", 30).await;
    rig.secs(60).await;
    assert_eq!(rig.actions(), ["resume"]);
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_go_on_is_ended_and_started_again() {
    let (world, rig) = engine_up().await;
    let refused = || VmError::Failed { action: "resume the guest", detail: "no".to_owned() };
    world.lock().resume_errors = (0..3).map(|_| refused()).collect();
    pause(&world);
    rig.secs(120).await;
    assert_eq!(rig.actions(), ["resume", "resume", "resume", "destroy", "start"]);
    rig.until("EngineUp", 30).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_vm_whose_lease_is_lost_is_never_resumed_and_its_host_does_not_rest() {
    let (world, rig) = engine_up().await;
    world.lock().storage_hangs = true;
    pause(&world);
    rig.secs(30).await;
    world.lock().vm.lease = LeaseHolding::Lost { detail: "no owner".to_owned() };
    // As the monitor sees the end of it.
    world.lock().health = Some(
        r#"{"vm": "down_unexpected", "health": "bad", "detail": "Down", "reason": "bad vm status"}"#
            .to_owned(),
    );
    rig.secs(40).await;
    let told = |world: &World| {
        world.lock().reports.iter().any(|report| report.reasons.join("").contains("its lease was lost"))
    };
    assert!(told(&world) && rig.actions().iter().all(|action| *action == "destroy"), "{:?}", rig.actions());
    assert_eq!(world.lock().reports.last().map(|report| report.state.clone()), Some("EngineDown".to_owned()));
    world.lock().storage_hangs = false;
    world.lock().health = None;
    rig.secs(60).await;
    assert_eq!((rig.actions().last(), world.own_state()), (Some(&"start"), "EngineUp".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_is_not_ended_by_the_agent() {
    let (world, rig) = engine_up().await;
    world.lock().vm.activity = VmActivity::Paused;
    world.wake();
    rig.secs(120).await;
    assert!(rig.actions().is_empty());
}

/// The score after `secs` of trouble that begins when the engine is up.
async fn score_in_trouble(policy: Policy, lease_held: bool, trouble: Option<ConfTrouble>, secs: u64) -> u32 {
    let world = World::new();
    world.lock().vm = running_vm();
    let mut config = config();
    config.settings.weights = Weights::of(Profile::Ovirt45);
    config.settings.policy = policy;
    let rig = start_as(&world, config);
    rig.until("EngineUp", 40).await;
    world.lock().storage_hangs = trouble.is_none();
    world.lock().conf_trouble = trouble;
    if !lease_held {
        world.lock().lease = LeaseState::Lost { since: EPOCH, error: "renewal failed".to_owned() };
    }
    rig.secs(secs).await;
    assert!(rig.actions().is_empty());
    let score = world.lock().reports.last().expect("explained").score;
    score.0
}

#[tokio::test(start_paused = true)]
async fn a_delay_of_storage_costs_no_point_while_the_lease_is_held() {
    let off = Policy { storage_patience: false, ..Policy::default() };
    let slow = || Some(ConfTrouble::Storage("storage does not answer".to_owned()));
    assert_eq!(score_in_trouble(Policy::default(), true, None, 1000).await, 3400, "stuck");
    assert_eq!(score_in_trouble(Policy::default(), true, slow(), 1000).await, 3400, "slow");
    assert_eq!(score_in_trouble(Policy::default(), false, None, 1000).await, 0, "without the lease");
    let claims = Policy { start_needs_footing: false, ..Policy::default() };
    assert_eq!(score_in_trouble(claims, false, None, 1000).await, 2400, "no patience without the lease");
    assert_eq!(score_in_trouble(off, true, None, 1000).await, 2400, "plain");
    assert_eq!(score_in_trouble(off, true, None, 250).await, 3400, "plain, at first");
    let broken = || Some(ConfTrouble::Unusable("not an archive".to_owned()));
    assert_eq!(score_in_trouble(Policy::default(), true, broken(), 1000).await, 2400, "no delay");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_knows_at_once_who_is_alive() {
    let live = |ids: [u16; 2]| Some(ids.map(|id| HostId::new(id).expect("valid")).to_vec());
    let world = World::new();
    world.write_other(2, 2400, &up());
    world.write_other(3, 2400, &up());
    world.lock().lock_manager_live = live([1, 2]);
    let rig = start(&world);
    rig.secs(5).await;
    assert_eq!(world.lock().alive, [1, 2], "3 is dead, whatever its block says");
    rig.until("EngineDown", 20).await;
    rig.secs_beside(200, 2400, &up()).await;
    assert_eq!((rig.actions(), world.own_state()), (vec![], "EngineDown".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_starts_the_vm_without_a_minute_of_looking_around() {
    let started_at = async |lock_manager_live: Option<Vec<HostId>>| {
        let world = World::new();
        world.lock().lock_manager_live = lock_manager_live;
        let rig = start(&world);
        rig.until("EngineUp", 120).await;
        let actions = world.lock().actions.clone();
        actions[0].0
    };
    assert!(started_at(Some(vec![HostId::new(1).expect("valid")])).await <= 30);
    assert!(started_at(None).await >= 60, "a broker that has only just joined tells nothing");
}

/// The last request about the storage domain's lockspace.
fn last_domain_call(world: &World) -> Option<String> {
    world.lock().calls.iter().rev().find(|call| call.ends_with("_domain_monitor")).cloned()
}

#[tokio::test(start_paused = true)]
async fn a_lockspace_of_vdsms_is_left_in_local_maintenance_once_the_vm_is_away() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start_as(&world, AgentConfig { leaves_domain_in_maintenance: true, ..config() });
    rig.secs_beside(100, 0, &down()).await;
    world.lock().maintenance = true;
    rig.secs_beside(50, 0, &down()).await;
    assert_eq!(rig.actions(), Vec::<&str>::new(), "nobody can take it");
    assert_eq!(last_domain_call(&world).as_deref(), Some("start_domain_monitor"), "leaving would end the VM");

    world.lock().vm.activity = VmActivity::Down;
    rig.secs_beside(30, 0, &down()).await;
    assert_eq!(last_domain_call(&world).as_deref(), Some("stop_domain_monitor"));

    world.lock().maintenance = false;
    rig.secs_beside(30, 0, &down()).await;
    assert_eq!(last_domain_call(&world).as_deref(), Some("start_domain_monitor"));
}
