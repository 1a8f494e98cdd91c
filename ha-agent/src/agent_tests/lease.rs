//! A start that another host's hold on the VM's lease would forbid.

use clock::Clock;
use engine_vm::{LeaseOutlook, OwnerLife};

use super::*;

fn held(life: OwnerLife, free_in: Option<u64>) -> LeaseOutlook {
    LeaseOutlook::Held { host_id: 2, life, free_in: free_in.map(Duration::from_secs) }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_while_the_owner_may_live_and_the_start_follows_at_once() {
    let rig = start(&World::new());
    rig.world.lock().outlook = held(OwnerLife::Failing, Some(71));
    rig.secs(90).await;
    assert_eq!(rig.actions(), Vec::<&str>::new());
    let report = rig.world.lock().reports.last().cloned().expect("a report");
    let reason = report.reasons.last().expect("a reason");
    assert_eq!(
        reason,
        "the engine VM runs nowhere; waiting for the lease that host 2 holds, which does not renew it any more: free in \
         71 s at the latest"
    );
    let left = report.timeout_at.expect("when it is free") - rig.world.wall().0;
    assert!((71 - 10..=71).contains(&left), "{left}");
    assert_eq!(report.score.0, 2400, "waiting costs nothing");

    let freed = rig.world.now();
    rig.world.lock().outlook = LeaseOutlook::Free;
    rig.until("EngineStarting", 2).await;
    assert!(rig.world.now() - freed <= 2);
    assert_eq!(rig.actions(), ["start"]);
}

#[tokio::test(start_paused = true)]
async fn without_the_switch_each_loop_tries() {
    let mut config = config();
    config.settings.policy.lease_aware_start = false;
    let rig = start_as(&World::new(), config);
    rig.world.lock().outlook = held(OwnerLife::Live, None);
    rig.until("EngineStarting", 90).await;
    assert_eq!(rig.actions(), ["start"]);
}
