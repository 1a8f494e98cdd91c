//! Events: how soon what they tell of is in this host's block, and what a storm of them costs.

use super::*;

/// The health that the engine-health monitor shows from now on, with the event that tells of it.
fn health_is(world: &World, status: &EngineStatus) {
    world.lock().health = Some(serde_json::to_string(status).expect("a status"));
    world.wake();
}

fn own_health(world: &World) -> Option<Health> {
    world.own().map(|block| block.engine_status.health)
}

#[tokio::test(start_paused = true)]
async fn each_event_is_in_the_block_within_a_second_at_any_moment_and_after_one_another() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    let sick = EngineStatus { health: Health::Bad, ..up() };
    // At each tenth of a second of the loop's first three, and each time two more events on its heels.
    for tenth in 0..30 {
        health_is(&world, &up());
        rig.secs(12).await;
        tokio::time::sleep(Duration::from_millis(100 * tenth)).await;
        for (status, wanted) in [(&sick, Health::Bad), (&up(), Health::Good), (&sick, Health::Bad)] {
            health_is(&world, status);
            let before = tokio::time::Instant::now();
            while own_health(&world) != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert!(before.elapsed() < Duration::from_secs(1), "{wanted:?} in tenth {tenth}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_events_costs_two_looks_a_second() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    let looks = |world: &World| world.lock().calls.iter().filter(|call| *call == "get_stats").count();
    let before = looks(&world);
    for _ in 0..600 {
        world.wake();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let looks = looks(&world) - before;
    assert!((30..=62).contains(&looks), "{looks} looks in 30 s");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_lost_its_leases_claims_no_score_and_keeps_its_running_vm() {
    let world = World::new();
    world.lock().vm = running_vm();
    world.write_other(2, 2400, &down());
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    world.lock().lease = LeaseState::Lost { since: EPOCH, error: "renewal failed".to_owned() };
    world.wake();
    rig.secs(2).await;
    let report = world.lock().reports.last().cloned().expect("explained");
    assert_eq!(report.score.0, 0, "{report:?}");
    assert_eq!(report.score_terms.iter().map(|term| term.points).sum::<i64>(), 0);
    assert_eq!(report.score_terms.last().map(|term| term.name.as_str()), Some("leases"));
    rig.secs_beside(300, 2400, &down()).await;
    assert_eq!(rig.actions(), [""; 0], "the VM's own lease decides about the VM");
    world.lock().lease = LeaseState::Held { since: EPOCH };
    world.wake();
    rig.secs(2).await;
    assert!(world.lock().reports.last().expect("explained").score.0 > 0);
}
