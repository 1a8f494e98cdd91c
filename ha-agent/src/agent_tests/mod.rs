//! The loop in a world made up, on paused time.

mod events;
mod fakes;
mod fence;
mod lease;
mod mixed;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use broker_api::status::LeaseState;
use engine_vm::{LeaseHolding, VmError};
use fakes::{EPOCH, World, no_vm, running_vm};
use ha_config::ha_toml::LeaseTable;
use metadata_format::{EngineStatus, Health, HostId, VmState};
use tokio::task::JoinHandle;

use super::*;
use crate::core::{Limits, Policy, Profile, Settings, Weights};
use crate::settings::{MonitorSpec, Receives};

const CRASHED: &str =
    r#"{"vm": "down_unexpected", "health": "bad", "detail": "Down", "reason": "bad vm status"}"#;

struct Rig {
    world: Arc<World>,
    stop: watch::Sender<bool>,
    agent: JoinHandle<()>,
}

fn config() -> AgentConfig {
    let spec = |(field, kind)| MonitorSpec { field, kind, options: BTreeMap::new() };
    AgentConfig {
        hostname: "h1".to_owned(),
        settings: Settings {
            host_id: HostId::new(1).expect("valid"),
            weights: Weights::of(Profile::Founding),
            policy: Policy::default(),
            limits: Limits::default(),
        },
        interval: Duration::from_secs(10),
        start_deadline: Duration::from_mins(3),
        lease: LeaseTable::default(),
        monitors: [
            (Field::Network, "network"),
            (Field::Bridge, "mgmt-bridge"),
            (Field::MemFree, "mem-free"),
            (Field::CpuLoad, "cpu-load-no-engine"),
            (Field::EngineHealth, "engine-health"),
            (Field::StorageDomain, "storage-domain"),
        ]
        .map(spec)
        .to_vec(),
        conf_on_shared_storage: true,
        leaves_domain_in_maintenance: false,
        fencing: None,
        receives: Receives {
            address: None,
            bridge: "ovirtmgmt".to_owned(),
            ports: ha_config::ha_toml::PortRange::default(),
        },
    }
}

fn start(world: &Arc<World>) -> Rig {
    start_as(world, config())
}

fn start_as(world: &Arc<World>, config: AgentConfig) -> Rig {
    start_with(world, config, Arc::new(fence::Switch::default()))
}

fn start_with(world: &Arc<World>, config: AgentConfig, fencer: Arc<fence::Switch>) -> Rig {
    let (stop, stopped) = watch::channel(false);
    let ports = Ports {
        addresses: world.clone(),
        broker: world.clone(),
        vm: world.clone(),
        clock: world.clone(),
        files: world.clone(),
        service: world.clone(),
        fencer,
    };
    let agent = Agent::new(ports, config, TimeZone::UTC, stopped);
    Rig { world: world.clone(), stop, agent: tokio::spawn(agent.run()) }
}

impl Rig {
    async fn secs(&self, secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }

    /// Lets time pass while another host writes its block every 10 s.
    async fn secs_beside(&self, secs: u64, score: u32, status: &EngineStatus) {
        for _ in 0..secs / 10 {
            self.world.write_other(2, score, status);
            self.secs(10).await;
        }
    }

    /// Waits until this host has published `state`; gives the seconds that took.
    async fn until(&self, state: &str, at_most: u64) -> u64 {
        let began = self.world.now();
        while self.world.own_state() != state {
            let waited = self.world.now() - began;
            assert!(waited <= at_most, "{} instead of {state} after {waited} s", self.world.own_state());
            self.secs(1).await;
        }
        self.world.now() - began
    }

    fn actions(&self) -> Vec<&'static str> {
        self.world.lock().actions.iter().map(|(_, action)| *action).collect()
    }

    fn last_warnings(&self) -> String {
        self.world.lock().reports.last().map(|report| report.warnings.join("\n")).unwrap_or_default()
    }
}

fn down() -> EngineStatus {
    EngineStatus { vm: VmState::Down, health: Health::Bad, detail: "Down".to_owned(), reason: None }
}

fn up() -> EngineStatus {
    EngineStatus { vm: VmState::Up, health: Health::Good, detail: "Up".to_owned(), reason: None }
}

#[tokio::test(start_paused = true)]
async fn a_lone_host_starts_the_vm_once_it_has_looked_around() {
    let rig = start(&World::new());
    rig.until("EngineUp", 100).await;
    let (at, action) = rig.world.lock().actions[0];
    assert_eq!(action, "start");
    assert!((60..=80).contains(&at), "at {at} s");
    rig.secs(60).await;
    assert_eq!(rig.actions(), ["start"]);
    let own = rig.world.own().expect("published");
    assert_eq!((own.score.0, own.engine_status.vm), (2400, VmState::Up));
    assert!(own.extra.contains("score_profile=founding"));
    let inner = rig.world.lock();
    assert_eq!(inner.alive, [1]);
    assert_eq!(inner.started_monitors.len(), 6);
    assert_eq!(
        inner.notified,
        [
            "StartState-ReinitializeFSM",
            "ReinitializeFSM-EngineDown",
            "EngineDown-EngineStart",
            "EngineStart-EngineStarting",
            "EngineStarting-EngineUp"
        ]
    );
    let report = inner.reports.last().expect("explained");
    assert_eq!((report.state.as_str(), report.score.0), ("EngineUp", 2400));
    assert!(!report.reasons.is_empty() && report.warnings.is_empty(), "{report:?}");
    assert!(inner.status_text.starts_with("EngineUp (score 2400)"), "{}", inner.status_text);
}

#[tokio::test(start_paused = true)]
async fn a_better_host_is_left_to_start_it_and_seen_alive() {
    let world = World::new();
    world.lock().monitors.clear();
    let rig = start(&world);
    // This host is worse: its bridge is down.
    rig.secs(1).await;
    world.lock().monitors.insert("mgmt-bridge".to_owned(), "False".to_owned());
    rig.secs_beside(200, 2400, &down()).await;
    assert_eq!((rig.actions(), world.own_state()), (vec![], "EngineDown".to_owned()));
    assert_eq!(world.lock().alive, [1, 2]);
    let reasons = world.lock().reports.last().expect("explained").reasons.join("; ");
    assert!(reasons.contains("h2 (id 2) should start it"), "{reasons}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_lease_costs_no_score_and_is_tried_again_until_it_is_free() {
    let world = World::new();
    world.lock().start_errors = (0..6).map(|_| VmError::LeaseHeld { detail: "host 2".to_owned() }).collect();
    let rig = start(&world);
    rig.until("EngineUp", 200).await;
    assert_eq!(rig.actions(), ["start"; 7]);
    let world = world.lock();
    assert!(world.reports.iter().all(|report| report.score.0 == 2400 || report.state == "ReinitializeFSM"));
    let told = |report: &broker_api::status::AgentReport| {
        report.reasons.join("").contains("lease is held elsewhere")
    };
    assert!(world.reports.iter().any(told));
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_costs_score() {
    let world = World::new();
    world.lock().start_errors = vec![VmError::NoLease { detail: "sanlock does not run".to_owned() }];
    let rig = start(&world);
    rig.until("EngineUp", 150).await;
    assert_eq!(rig.actions(), ["start", "start"]);
    assert!(world.lock().reports.iter().any(|report| report.score.0 == 2350));
}

#[tokio::test(start_paused = true)]
async fn a_vm_whose_lease_nobody_can_vouch_for_is_ended_before_another_host_can_take_it() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    world.lock().vm.lease = LeaseHolding::Unknown { detail: "sanlock does not answer".to_owned() };
    rig.secs(75).await;
    assert!(rig.actions().is_empty(), "a short silence is borne");
    world.lock().vm.lease = LeaseHolding::Held;
    rig.secs(15).await;
    world.lock().vm.lease = LeaseHolding::Unknown { detail: "sanlock does not answer".to_owned() };
    rig.secs(75).await;
    assert!(rig.actions().is_empty(), "the count starts anew");
    rig.secs(25).await;
    assert_eq!(rig.actions(), ["destroy"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_stops_nothing_and_is_met_again() {
    let world = World::new();
    world.lock().broker_up = false;
    let rig = start(&world);
    rig.secs(120).await;
    assert!(rig.actions().is_empty() && world.lock().status_text.contains("cannot connect to the broker"));
    world.lock().broker_up = true;
    rig.until("EngineUp", 120).await;
    world.lock().broker_up = false;
    rig.secs(300).await;
    assert_eq!(rig.actions(), ["start"]);
    // It comes back as a new process: no monitors, no lease.
    let before = {
        let mut inner = world.lock();
        inner.broker_up = true;
        inner.monitors.clear();
        inner.lease = LeaseState::NotRequested;
        inner.started_monitors.len()
    };
    rig.secs(30).await;
    assert_eq!(world.lock().started_monitors.len(), before + 6);
    assert_eq!((rig.actions(), world.own_state()), (vec!["start"], "EngineUp".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn todays_broker_is_enough_and_is_asked_every_ten_seconds() {
    let world = World::new();
    world.lock().old_broker = true;
    let rig = start(&world);
    rig.until("EngineUp", 120).await;
    rig.secs(30).await;
    let looks = |world: &World| world.lock().calls.iter().filter(|call| *call == "get_stats").count();
    let before = looks(&world);
    rig.secs(100).await;
    assert_eq!((looks(&world) - before, rig.actions()), (10, vec!["start"]));
    // It was restarted and runs no monitors.
    world.lock().monitors.clear();
    rig.secs(30).await;
    assert_eq!(world.lock().monitors.len(), 6);
    assert_eq!(world.own_state(), "EngineUp");
    assert!(!world.lock().calls.contains(&"wake".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn storage_that_hangs_blocks_a_start_but_not_the_loop() {
    let world = World::new();
    let rig = start(&world);
    rig.until("EngineDown", 30).await;
    world.lock().storage_hangs = true;
    rig.secs(200).await;
    assert!(rig.actions().is_empty());
    let warnings = rig.last_warnings();
    assert!(warnings.contains("stuck in write of block 1"), "{warnings}");
    assert!(warnings.contains("the other hosts think this host dead"), "{warnings}");
    let reasons = world.lock().reports.last().expect("explained").reasons.join("; ");
    assert!(reasons.contains("not started here: shared storage has not worked"), "{reasons}");
    world.lock().storage_hangs = false;
    rig.until("EngineUp", 60).await;
    assert_eq!(rig.actions(), ["start"]);
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_says_so_and_leaves_the_vm_alone() {
    let world = World::new();
    let rig = start(&world);
    rig.until("EngineUp", 120).await;
    rig.stop.send_replace(true);
    let began = world.now();
    rig.agent.await.expect("ends");
    assert!(world.now() - began <= 1);
    let own = world.own().expect("published");
    assert!(own.stopped && own.score.0 == 0 && own.engine_status.vm == VmState::Up);
    let inner = world.lock();
    assert_eq!(inner.actions.len(), 1, "only the start");
    assert!(inner.calls.contains(&"release_host_id".to_owned()));
    assert!(!inner.calls.contains(&"stop_domain_monitor".to_owned()), "it would kill the VM");
    assert_eq!(inner.service.last(), Some(&"stopping"));
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_is_quick_even_when_storage_hangs() {
    let world = World::new();
    let rig = start(&world);
    rig.until("EngineDown", 30).await;
    world.lock().storage_hangs = true;
    rig.secs(5).await;
    rig.stop.send_replace(true);
    let began = world.now();
    rig.agent.await.expect("ends");
    assert!(world.now() - began <= 12, "{} s", world.now() - began);
    assert!(world.lock().calls.contains(&"stop_domain_monitor".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_finds_the_running_vm_and_does_nothing_to_it() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("EngineUp", 40).await;
    rig.secs_beside(200, 2400, &down()).await;
    assert!(rig.actions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_wakes_the_loop_and_the_vm_is_started_here_again_at_once() {
    let world = World::new();
    let rig = start(&world);
    rig.until("EngineUp", 120).await;
    // A loop has just ended; without the event the next one is 10 s away.
    world.lock().vm = no_vm();
    world.lock().health = Some(CRASHED.to_owned());
    world.wake();
    assert!(rig.until("EngineStarting", 2).await <= 2);
    assert_eq!(rig.actions(), ["start", "start"]);
    world.lock().health = None;
    rig.until("EngineUp", 20).await;
    let told = |report: &broker_api::status::AgentReport| {
        report.reasons.join("").contains("restart 1 of 3 within 600 s")
    };
    assert!(world.lock().reports.iter().any(told));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_crashes_again_and_again_rests_only_a_minute_on_a_lone_host() {
    let world = World::new();
    let rig = start(&world);
    rig.until("EngineUp", 120).await;
    for _ in 0..4 {
        world.lock().vm = no_vm();
        world.lock().health = Some(CRASHED.to_owned());
        world.wake();
        rig.secs(5).await;
    }
    assert_eq!((rig.actions(), world.own_state()), (vec!["start"; 4], "EngineUnexpectedlyDown".to_owned()));
    let waited = rig.until("EngineStarting", 80).await;
    assert!((50..=75).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_bad_network_moves_the_vm_only_when_it_stays_bad() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.secs_beside(100, 2400, &down()).await;
    let network = |share: &str| world.lock().monitors.insert("network".to_owned(), share.to_owned());
    network("0.0");
    rig.secs_beside(20, 2400, &down()).await;
    network("1.0");
    rig.secs_beside(60, 2400, &down()).await;
    assert_eq!((rig.actions(), world.own_state()), (vec![], "EngineUp".to_owned()));
    network("0.0");
    while world.own().expect("published").score.0 == 2400 {
        assert_eq!(rig.actions(), [""; 0], "not before the network counts");
        rig.secs_beside(10, 2400, &down()).await;
    }
    rig.secs_beside(40, 2400, &down()).await;
    assert_eq!(rig.actions(), ["shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn among_equals_the_second_host_tries_five_seconds_later_without_waiting_for_its_next_loop() {
    let world = World::new();
    let mut config = config();
    config.settings.host_id = HostId::new(3).expect("valid");
    let rig = start_as(&world, config);
    while rig.actions().is_empty() {
        rig.secs_beside(10, 2400, &down()).await;
        assert!(world.now() <= 120, "no start");
    }
    let world = world.lock();
    let waits = "h2 (id 2) comes first with the same score 2400, trying here in 5 s";
    let (due, _) = world.told.iter().find(|(_, text)| text.contains(waits)).expect("it was due and waited");
    assert!((5..=6).contains(&(world.actions[0].0 - due)), "due at {due}, {:?}", world.actions);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_in_global_maintenance() {
    let world = World::new();
    world.set_global_maintenance(true);
    let rig = start(&world);
    rig.secs(300).await;
    assert_eq!((rig.actions(), world.own_state()), (vec![], "GlobalMaintenance".to_owned()));
    // A block that cannot be read ends no maintenance.
    world.lock().blocks.insert(0, vec![0xff, 1, 2, 3]);
    rig.secs(60).await;
    assert_eq!(world.own_state(), "GlobalMaintenance");
    assert!(rig.last_warnings().contains("cluster block"), "{}", rig.last_warnings());
    world.set_global_maintenance(false);
    rig.until("EngineUp", 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_without_its_lease_is_ended_at_once_even_in_global_maintenance() {
    let world = World::new();
    world.set_global_maintenance(true);
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.until("GlobalMaintenance", 40).await;
    world.lock().vm.lease = LeaseHolding::Lost { detail: "owner is host 3".to_owned() };
    world.wake();
    rig.secs(3).await;
    assert_eq!(rig.actions(), ["destroy"]);
    let told =
        world.lock().reports.iter().any(|report| report.warnings.join("").contains("without its lease"));
    assert!(told);
}

#[tokio::test(start_paused = true)]
async fn local_maintenance_moves_the_vm_to_a_host_that_can_take_it() {
    let world = World::new();
    world.lock().vm = running_vm();
    let rig = start(&world);
    rig.secs_beside(100, 2400, &down()).await;
    world.lock().maintenance = true;
    rig.secs_beside(50, 2400, &down()).await;
    assert_eq!((rig.actions(), world.own_state()), (vec!["shutdown"], "LocalMaintenance".to_owned()));
    assert!(world.own().expect("published").maintenance);
}

#[tokio::test(start_paused = true)]
async fn without_the_host_id_nothing_is_started_or_published() {
    let world = World::new();
    world.lock().lease = LeaseState::Lost { since: EPOCH, error: "renewal failed".to_owned() };
    let rig = start(&world);
    rig.secs(200).await;
    assert!(rig.actions().is_empty() && world.own().is_none());
    let warnings = rig.last_warnings();
    assert!(warnings.contains("renewal failed") && warnings.contains("was not written"), "{warnings}");
    world.lock().lease = LeaseState::Held { since: EPOCH };
    rig.until("EngineUp", 60).await;
}

#[tokio::test(start_paused = true)]
async fn the_service_manager_hears_from_each_loop() {
    let rig = start(&World::new());
    rig.secs(95).await;
    let inner = rig.world.lock();
    assert_eq!(inner.service.first(), Some(&"ready"));
    assert!(inner.service.iter().filter(|word| **word == "alive").count() >= 10);
}
