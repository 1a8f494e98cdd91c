//! An agent without a past: the lock manager's word, and its limits.

use super::*;

fn down() -> Option<EngineStatus> {
    engine(VmState::Down, Health::Bad, "Down")
}

fn vm_up() -> Option<EngineStatus> {
    engine(VmState::Up, Health::Good, "Up")
}

#[allow(clippy::unnecessary_wraps, reason = "the form in which observations hold it")]
fn live(ids: &[u16]) -> Option<Vec<HostId>> {
    Some(ids.iter().map(|id| host(*id)).collect())
}

/// A core that has never looked, in `state`, with the score of a healthy host.
fn young(state: State, settings: &Settings) -> Core {
    let mut core = Core { state, ..Core::default() };
    let healthy = look(NOW, vec![], None);
    let facts =
        score::Facts { state, local: &healthy.local, load: 0.0, retries: 0, maintenance_counts: false };
    core.score = score::score(&facts, &settings.weights, &settings.limits);
    core
}

fn step(state: State, policy: Policy, world: Observation) -> (State, Vec<Action>, Vec<Reason>) {
    let settings = settings(policy);
    let (core, decision, actions) = whole_step(young(state, &settings), world, true, &settings);
    (core.state, actions, decision.reasons)
}

fn first_look(hosts: Vec<RemoteHost>, lock_manager_live: Option<Vec<HostId>>) -> Observation {
    Observation { lock_manager_live, ..look(NOW, hosts, down()) }
}

#[test]
fn a_restarted_agent_that_knows_who_is_alive_starts_without_a_minute_of_history() {
    let world = || first_look(vec![remote(1, 100, down())], live(&[1, OTHER]));
    let (state, _, reasons) = step(State::EngineDown, Policy::default(), world());
    assert_eq!(state, State::EngineStart, "{reasons:?}");
    let off = Policy { blip_free_restart: false, ..Policy::default() };
    let (state, _, reasons) = step(State::EngineDown, off, world());
    assert_eq!(state, State::EngineDown);
    assert!(matches!(reasons.last(), Some(Reason::HistoryTooShort { .. })), "{reasons:?}");
}

#[test]
fn a_live_host_that_is_better_or_runs_the_vm_is_waited_for() {
    let better = first_look(vec![remote(1, 9000, down())], live(&[1, OTHER]));
    let (state, _, reasons) = step(State::EngineDown, Policy::default(), better);
    assert_eq!(state, State::EngineDown);
    assert!(matches!(reasons.last(), Some(Reason::BetterHost { .. })), "{reasons:?}");
    let running = first_look(vec![remote(1, 100, vm_up())], live(&[1, OTHER]));
    let (state, _, reasons) = step(State::EngineDown, Policy::default(), running);
    assert_eq!(state, State::EngineDown);
    assert!(matches!(reasons.last(), Some(Reason::EngineElsewhere { .. })), "{reasons:?}");
}

#[test]
fn a_dead_hosts_block_that_still_says_vm_up_does_not_count() {
    let world = first_look(vec![remote(1, 9000, vm_up())], live(&[1]));
    assert_eq!(step(State::EngineDown, Policy::default(), world).0, State::EngineStart);
}

#[test]
fn hosts_that_boot_at_once_wait_for_history_because_no_lock_manager_can_tell_yet() {
    let settings = settings(Policy::default());
    let mut core = young(State::EngineDown, &settings);
    // The other host's block is from before the power cut, until it is written anew after 30 s.
    for secs in (0_u32..=60).step_by(10) {
        let stamp = if secs < 30 { 7 } else { i64::from(secs) };
        let at = NOW + u64::from(secs);
        let world = look(at, vec![remote(stamp, 9000, down())], down());
        let (next, decision, actions) = whole_step(core, world, true, &settings);
        core = next;
        assert!(actions.is_empty());
        assert!(matches!(decision.reasons.last(), Some(Reason::HistoryTooShort { .. })), "{decision:?}");
    }
    let world = look(NOW + 70, vec![remote(70, 9000, down())], down());
    let (_, decision, _) = whole_step(core, world, true, &settings);
    assert!(matches!(decision.reasons.last(), Some(Reason::BetterHost { .. })), "{decision:?}");
}

#[test]
fn as_soon_as_history_tells_it_alone_counts() {
    let settings = settings(Policy::default());
    let mut core = young(State::EngineDown, &settings);
    let mut states = Vec::new();
    // The other host's sanlock lives on, its agent does not.
    for secs in [0, 30, 60, 61] {
        let hosts = vec![remote(7, 9000, vm_up())];
        let mut world = look(NOW + secs, hosts, down());
        world.lock_manager_live = live(&[1, OTHER]);
        core = whole_step(core, world, true, &settings).0;
        states.push((core.state, core.view.as_ref().map(|view| view.witness)));
    }
    let waits = (State::EngineDown, Some(Witness::LockManager));
    assert_eq!(states, [waits, waits, waits, (State::EngineStart, Some(Witness::History))]);
}

#[test]
fn a_vm_that_crashes_right_after_the_agents_restart_is_started_again_at_once() {
    let crashed = engine(VmState::DownUnexpected, Health::Bad, "Down");
    let world = |lock_manager_live| Observation {
        lock_manager_live,
        ..look(NOW, vec![remote(1, 100, down())], crashed.clone())
    };
    let (state, _, reasons) = step(State::EngineUp, Policy::default(), world(live(&[1, OTHER])));
    assert_eq!(state, State::EngineStart, "{reasons:?}");
    assert_eq!(step(State::EngineUp, Policy::default(), world(None)).0, State::EngineUnexpectedlyDown);
}

#[test]
fn a_running_vm_is_not_ended_for_hosts_that_only_the_lock_manager_vouches_for() {
    let sick = || engine(VmState::Up, Health::Bad, "Up");
    let run = |local, hosts, maintenance| {
        let mut world = Observation { lock_manager_live: live(&[1, OTHER]), ..look(NOW, hosts, local) };
        world.local.maintenance = maintenance;
        // Without the other switch that would delay it.
        step(State::EngineUp, Policy { debounce: false, ..Policy::default() }, world)
    };
    let (state, ..) = run(sick(), vec![remote(1, 100, vm_up())], false);
    assert_eq!(state, State::EngineUpBadHealth, "an old block says that it runs elsewhere");
    let (state, ..) = run(vm_up(), vec![remote(1, 9000, down())], false);
    assert_eq!(state, State::EngineUp, "an old block has a better score");
    let (state, _, reasons) = run(vm_up(), vec![remote(1, 9000, down())], true);
    assert_eq!((state, reasons), (State::EngineUp, vec![Reason::MaintenanceWaits, Reason::EngineRuns]));
}
