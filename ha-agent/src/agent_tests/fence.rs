//! Automatic fencing around the loop: one survivor, one host that ran the VM, a switch that takes its time.

use std::sync::Mutex;

use metadata_format::FencingPhase;
use metadata_format::fencing::{fencing_entries, fencing_switches};
use tokio::time::Instant;

use super::*;
use crate::core::HostName;
use crate::core::fencing::Ended;
use crate::fencer::Fencer;

/// A switch for each of the named hosts.
#[derive(Default)]
pub struct Switch {
    hosts: Vec<u16>,
    takes: Duration,
    fails: bool,
    asked: Mutex<Vec<(Instant, u16)>>,
}

#[async_trait::async_trait]
impl Fencer for Switch {
    fn has_switch(&self, host: &HostName) -> bool {
        self.hosts.contains(&host.id.get())
    }

    async fn switch_off(&self, host: &HostName) -> Ended {
        self.asked.lock().expect("whole").push((Instant::now(), host.id.get()));
        tokio::time::sleep(self.takes).await;
        if self.fails {
            Ended::Failed { detail: "no answer from the switch".to_owned() }
        } else {
            Ended::Off { remark: None }
        }
    }
}

fn switch(takes: u64) -> Arc<Switch> {
    Arc::new(Switch { hosts: vec![2], takes: Duration::from_secs(takes), ..Switch::default() })
}

fn fencing() -> AgentConfig {
    let limits = crate::core::fencing::Limits { grace: 30, alive: 60 };
    AgentConfig { fencing: Some(limits), ..config() }
}

impl Rig {
    fn phases(&self) -> Vec<FencingPhase> {
        let own = self.world.own().expect("published");
        fencing_entries(&own.extra).iter().map(|entry| entry.phase).collect()
    }

    /// Host 2 runs the VM for two minutes and falls silent.
    async fn host2_dies(&self) {
        self.secs_beside(120, 3400, &up()).await;
        assert_eq!(self.phases(), []);
        assert_eq!(fencing_switches(&self.world.own().expect("published").extra).len(), 1);
    }

    fn said(&self) -> String {
        self.world.lock().reports.last().map(|report| report.reasons.join("\n")).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_that_ran_the_vm_is_claimed_powered_off_once_and_told() {
    let switch = switch(45);
    let rig = start_with(&World::new(), fencing(), switch.clone());
    rig.host2_dies().await;
    let died = Instant::now();
    rig.secs(75).await;
    assert_eq!(rig.phases(), [FencingPhase::Claimed]);
    assert!(rig.said().contains("this host has announced that it powers h2 (id 2) off"), "{}", rig.said());
    rig.secs(40).await;
    assert_eq!(rig.phases(), [FencingPhase::Begun]);
    let (at, id) = switch.asked.lock().expect("whole")[0];
    let after = (at - died).as_secs();
    assert_eq!(id, 2);
    assert!((90..=115).contains(&after), "60 s silent and 30 s of grace, in steps of 10 s: {after}");
    // The loop goes on beside the switch, which takes 45 s.
    let looks = rig.world.lock().reports.len();
    rig.secs(20).await;
    assert!(rig.world.lock().reports.len() >= looks + 2);
    rig.secs(60).await;
    assert_eq!(rig.phases(), [FencingPhase::Off]);
    assert!(rig.said().contains("h2 (id 2) was powered off by this host, confirmed"), "{}", rig.said());
    let notified: Vec<_> =
        rig.world.lock().notified.iter().filter(|text| text.starts_with("fencing")).cloned().collect();
    assert_eq!(notified, ["fencing begun", "fencing off"]);
    rig.secs(900).await;
    assert_eq!(switch.asked.lock().expect("whole").len(), 1);
    // It comes back: the story is over.
    rig.secs_beside(120, 3400, &down()).await;
    assert_eq!(rig.phases(), []);
}

#[tokio::test(start_paused = true)]
async fn without_the_switch_in_ha_toml_nobody_is_powered_off() {
    let switch = switch(1);
    let rig = start_with(&World::new(), config(), switch.clone());
    rig.secs_beside(120, 3400, &up()).await;
    rig.secs(600).await;
    assert_eq!(switch.asked.lock().expect("whole").len(), 0);
    assert_eq!(fencing_switches(&rig.world.own().expect("published").extra), []);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shown_and_not_repeated_by_this_host() {
    let switch = Arc::new(Switch { hosts: vec![2], fails: true, ..Switch::default() });
    let rig = start_with(&World::new(), fencing(), switch.clone());
    rig.host2_dies().await;
    rig.secs(600).await;
    assert_eq!(switch.asked.lock().expect("whole").len(), 1);
    assert_eq!(rig.phases(), [FencingPhase::Failed]);
    let warnings = rig.last_warnings();
    assert!(warnings.contains("h2 (id 2) could not be powered off from this host: no answer"), "{warnings}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stopped_meanwhile_says_that_nobody_knows_and_its_successor_does_not_repeat_it() {
    let world = World::new();
    let first = switch(600);
    let rig = start_with(&world, fencing(), first.clone());
    rig.host2_dies().await;
    rig.secs(130).await;
    assert_eq!(rig.phases(), [FencingPhase::Begun]);
    rig.stop.send_replace(true);
    rig.agent.await.expect("ends");
    let own = world.own().expect("published");
    assert_eq!(fencing_entries(&own.extra)[0].phase, FencingPhase::Failed);
    let second = switch(1);
    let rig = start_with(&world, fencing(), second.clone());
    rig.secs(600).await;
    assert_eq!(second.asked.lock().expect("whole").len(), 0);
    assert_eq!(rig.phases(), [FencingPhase::Failed]);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_switch_says_the_start_waits_for_the_lease() {
    let world = World::new();
    let rig = start_with(&world, fencing(), switch(1));
    rig.secs_beside(120, 1, &up()).await;
    world.lock().outlook = engine_vm::LeaseOutlook::Held {
        host_id: 2,
        life: engine_vm::OwnerLife::Failing,
        free_in: Some(Duration::from_mins(5)),
    };
    rig.secs(180).await;
    assert_eq!(rig.phases(), [FencingPhase::Off]);
    assert_eq!(rig.actions(), [""; 0]);
    world.lock().outlook = engine_vm::LeaseOutlook::Free;
    rig.secs(30).await;
    assert_eq!(rig.actions(), ["start"]);
}
