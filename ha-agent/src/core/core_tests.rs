use std::collections::BTreeSet;

use metadata_format::{Health, VmState};
use proptest::prelude::*;

use super::memory::Purpose;
use super::*;

#[path = "always_tests.rs"]
mod always;
#[path = "debounce_tests.rs"]
mod debounce;
#[path = "moved_tests.rs"]
mod moved;
#[path = "moving_tests.rs"]
mod moving;
#[path = "paused_tests.rs"]
mod paused;
#[path = "restart_tests.rs"]
mod restart;
#[path = "sick_tests.rs"]
mod sick;
#[path = "target_tests.rs"]
mod target;
#[path = "turn_tests.rs"]
mod turn;
#[path = "vouched_tests.rs"]
mod vouched;

const NOW: u64 = 10_000;
const OTHER: u16 = 2;

fn host(id: u16) -> HostId {
    HostId::new(id).expect("a valid id")
}

fn settings(policy: Policy) -> Settings {
    Settings { host_id: host(1), weights: Weights::of(Profile::Ovirt45), policy, limits: Limits::default() }
}

#[allow(clippy::unnecessary_wraps, reason = "the form in which observations hold it")]
fn engine(vm: VmState, health: Health, detail: &str) -> Option<EngineStatus> {
    Some(EngineStatus { vm, health, detail: detail.to_owned(), reason: None })
}

fn engines() -> Vec<Option<EngineStatus>> {
    vec![
        None,
        engine(VmState::Up, Health::Good, "Up"),
        engine(VmState::Up, Health::Bad, "Up"),
        engine(VmState::Up, Health::Bad, "Paused"),
        engine(VmState::Down, Health::Bad, "unknown"),
        engine(VmState::DownUnexpected, Health::Bad, "Down"),
        engine(VmState::DownMissing, Health::Bad, "unknown"),
        engine(VmState::Unknown, Health::Unknown, "unknown"),
    ]
}

fn remote(ts: i64, score: u32, engine: Option<EngineStatus>) -> RemoteHost {
    remote_of(OTHER, ts, score, engine)
}

fn remote_of(id: u16, ts: i64, score: u32, engine: Option<EngineStatus>) -> RemoteHost {
    let block = RemoteBlock {
        host_ts: ts,
        score: Score(score),
        engine,
        hostname: "other".to_owned(),
        migration_to: None,
        ready: None,
    };
    RemoteHost { id: host(id), block: Some(block) }
}

fn look(at: u64, hosts: Vec<RemoteHost>, engine: Option<EngineStatus>) -> Observation {
    Observation {
        started: Secs(at),
        finished: Secs(at),
        wall_offset: 1_700_000_000,
        global_maintenance: false,
        hosts,
        local: Local {
            network: Some(1.0),
            bridge: Some(true),
            mem_free: Some(8000.0),
            cpu_load: Some(0.0),
            engine,
            min_memory: 4000,
            conf_up_to_date: true,
            ..Local::default()
        },
        lock_manager_live: None,
        footing: Footing::default(),
    }
}

/// A core in `state` that has looked around for long enough.
fn core_in(state: State, timer: Option<Secs>, settings: &Settings) -> Core {
    core_beside(vec![remote(0, 0, None)], state, timer, settings)
}

/// The same, where these other hosts were seen 100 s ago.
fn core_beside(others: Vec<RemoteHost>, state: State, timer: Option<Secs>, settings: &Settings) -> Core {
    let mut core = Core { state, timer, ..Core::default() };
    core.absorb(look(NOW - 100, others, None), settings);
    core.compute_score(settings);
    core
}

/// Takes a whole step: does what is asked for, with the given result. Gives the actions asked for.
fn whole_step(
    core: Core,
    look: Observation,
    works: bool,
    settings: &Settings,
) -> (Core, Decision, Vec<Action>) {
    let mut actions = Vec::new();
    let (mut core, mut decision) = decide(core, Input::Look(Box::new(look)), settings);
    while let Then::Act(action) = decision.then {
        actions.push(action);
        let result =
            if works { ActionResult::Done } else { ActionResult::Failed { detail: "no".to_owned() } };
        (core, decision) = decide(core, Input::Done(result), settings);
    }
    (core, decision, actions)
}

type Edge = (State, State, Wait);

/// All looks that matter to the rules.
fn worlds() -> Vec<Observation> {
    let others = [
        Vec::new(),
        vec![remote(1, 100, engine(VmState::Down, Health::Bad, "Down"))],
        vec![remote(1, 9000, engine(VmState::Down, Health::Bad, "Down"))],
        vec![remote(1, 100, engine(VmState::Up, Health::Good, "Up"))],
    ];
    let mut worlds = Vec::new();
    for others in others {
        for local in engines() {
            for (global, own) in [(false, false), (false, true), (true, false), (true, true)] {
                for migration in [
                    None,
                    Some(Migration::InProgress { transferred: 1, remaining: 2 }),
                    Some(Migration::Finished),
                    Some(Migration::Failed { detail: "no".to_owned() }),
                ] {
                    let mut world = look(NOW, others.clone(), local.clone());
                    world.global_maintenance = global;
                    world.local.maintenance = own;
                    world.local.migration = migration;
                    worlds.push(world.clone());
                    world.local.migrates = Migrates::Prepared;
                    worlds.push(world.clone());
                    world.local.migrates = Migrates::Arranged;
                    world.local.migration_request = Some(MigrationRequest { to: None, asked_at: 7 });
                    worlds.push(world);
                }
                for (lease, storage_stuck) in [
                    (PausedLease::Held, None),
                    (PausedLease::Held, Some(9)),
                    (PausedLease::Unknown, None),
                    (PausedLease::Lost, None),
                ] {
                    let mut world = look(NOW, others.clone(), local.clone());
                    world.global_maintenance = global;
                    world.local.maintenance = own;
                    world.local.io_error_pause = Some(lease);
                    world.footing.storage_stuck = storage_stuck;
                    worlds.push(world);
                }
            }
        }
    }
    worlds
}

/// Walks every state through every world and collects the edges that the rules take.
fn walked(policy: Policy) -> BTreeSet<Edge> {
    let mut settings = settings(policy);
    let mut edges = walk(&settings, false);
    edges.extend(walk(&settings, true));
    settings.limits.sick_engine = SickEngine::Force;
    edges.extend(walk(&settings, false));
    edges
}

fn walk(settings: &Settings, budgets_spent: bool) -> BTreeSet<Edge> {
    let mut edges = BTreeSet::new();
    for state in State::ALL {
        let timers: &[_] = if state.timer(&settings.limits).is_some() {
            &[None, Some(Secs(NOW - 1)), Some(Secs(NOW - 100)), Some(Secs(NOW - 1000))]
        } else {
            &[None]
        };
        for (timer, world) in timers.iter().flat_map(|timer| worlds().into_iter().map(move |w| (timer, w))) {
            let tired = Retries { count: 3, last: Some(Secs(NOW - 10)) };
            for (works, resumes) in [(true, None), (false, None), (true, Some(tired))] {
                let mut core = Core { resumes, ..core_in(state, *timer, settings) };
                for purpose in [Purpose::Restart, Purpose::Reset] {
                    for _ in 0..if budgets_spent { 3 } else { 0 } {
                        core.memory.spend(purpose, &settings.limits, Secs(NOW - 1));
                    }
                }
                // What an earlier step may have begun.
                let moves = match state {
                    State::EngineMigratingAway | State::UnknownLocalVmState => moving::begun(),
                    _ => vec![None],
                };
                for current in moves {
                    let mut core = core.clone();
                    core.memory.moves.current = current;
                    let (_, decision, _) = whole_step(core, world.clone(), works, settings);
                    let Then::Next(wait) = decision.then else { panic!("a whole step ends") };
                    edges.insert((state, decision.to, wait));
                }
            }
        }
    }
    edges
}

/// The edges that the module text of `state` draws, with or without those that only a switch leads along.
fn drawn(with_switches: bool) -> BTreeSet<Edge> {
    let text = include_str!("state.rs");
    let block = text.split("//! ```edges\n").nth(1).and_then(|rest| rest.split("//! ```").next());
    let mut edges = BTreeSet::new();
    for line in block.expect("the text has a block of edges").lines() {
        let (from, to) = line.trim_start_matches("//!").split_once("->").expect("from -> to");
        let from = State::from_name(from.trim()).expect("a state");
        for to in to.split_whitespace() {
            let to = match to.strip_suffix('*') {
                Some(to) if with_switches => to,
                Some(_) => continue,
                None => to,
            };
            let wait = if to.ends_with('!') { Wait::No } else { Wait::Delay };
            let name = to.trim_end_matches('!');
            let to = State::from_name(name).unwrap_or_else(|| panic!("{name} is no state"));
            edges.insert((from, to, wait));
        }
    }
    edges
}

#[test]
fn the_drawn_edges_are_the_edges_of_the_rules() {
    let plain = walked(Policy::plain());
    let mut all = walked(Policy::default());
    all.extend(&plain);
    for (edges, drawn) in [(plain, drawn(false)), (all, drawn(true))] {
        let only_drawn: Vec<_> = drawn.difference(&edges).copied().collect();
        let not_drawn: Vec<_> = edges.difference(&drawn).copied().collect();
        assert!(
            only_drawn.is_empty() && not_drawn.is_empty(),
            "drawn only: {only_drawn:?}; rules only: {not_drawn:?}"
        );
    }
}

#[test]
fn the_plain_rules_have_the_edges_of_the_existing_release() {
    let new = [State::EngineMigratingAway, State::AgentStopped];
    let plain: Vec<_> = walked(Policy::plain()).into_iter().filter(|edge| !new.contains(&edge.0)).collect();
    assert_eq!(plain.len(), 77, "{plain:#?}");
}

#[test]
fn names_are_unique_and_found_again() {
    for state in State::ALL {
        assert_eq!(State::from_name(state.name()), Some(state));
        assert!(!state.meaning().is_empty());
    }
}

#[test]
fn a_timer_starts_with_the_first_step_that_keeps_the_state_and_fires_after_its_limit() {
    let settings = settings(Policy::plain());
    let vanished = || engine(VmState::DownMissing, Health::Bad, "unknown");
    let mut core = core_in(State::EngineMaybeAway, None, &settings);
    (core, ..) = whole_step(core, look(NOW, vec![], vanished()), true, &settings);
    assert_eq!((core.state, core.timer), (State::EngineMaybeAway, Some(Secs(NOW))));
    (core, ..) = whole_step(core, look(NOW + 40, vec![], vanished()), true, &settings);
    assert_eq!(core.state, State::EngineMaybeAway, "40 s are not more than 40 s");
    assert_eq!(core.deadline(&settings.limits), Some(Secs(NOW + 40)));
    (core, ..) = whole_step(core, look(NOW + 41, vec![], vanished()), true, &settings);
    assert_eq!((core.state, core.timer, core.score.total), (State::EngineUnexpectedlyDown, None, Score(0)));
}

#[test]
fn a_start_waits_until_somebody_could_be_seen_alive() {
    let run = |policy, ago| {
        let settings = settings(policy);
        let mut core = Core { state: State::EngineDown, ..Core::default() };
        let other = |ts| vec![remote(ts, 9000, engine(VmState::Down, Health::Bad, "Down"))];
        core.absorb(look(NOW - ago, other(0), None), &settings);
        core.compute_score(&settings);
        let world = look(NOW, other(1), engine(VmState::Down, Health::Bad, "Down"));
        whole_step(core, world, true, &settings).0.state
    };
    assert_eq!(
        run(Policy::plain(), 60),
        State::EngineStart,
        "the recorded release starts one look too early"
    );
    assert_eq!(run(Policy::default(), 60), State::EngineDown);
    assert_eq!(run(Policy::default(), 61), State::EngineDown, "the other host is better");
}

#[test]
fn failed_starts_are_counted_and_forgotten_by_the_monotonic_clock() {
    let settings = settings(Policy::default());
    let down = || engine(VmState::Down, Health::Bad, "unknown");
    let mut core = core_in(State::EngineStart, None, &settings);
    for failures in 1..=4 {
        core.state = State::EngineStart;
        let at = NOW + u64::from(failures);
        (core, ..) = whole_step(core, look(at, vec![], down()), false, &settings);
        assert_eq!((core.state, core.retries.count), (State::EngineDown, failures));
    }
    assert_eq!(core.score.total, Score(0));
    core.state = State::LocalMaintenance;
    (core, ..) = whole_step(core, look(NOW + 603, vec![], down()), true, &settings);
    assert_eq!(core.retries.count, 4);
    (core, ..) = whole_step(core, look(NOW + 604, vec![], down()), true, &settings);
    assert_eq!(core.retries, Retries::default());
}

#[test]
fn local_maintenance_moves_the_vm_only_when_somebody_can_take_it() {
    let settings = settings(Policy::default());
    let run = |other: u32| {
        let others = vec![remote(1, other, engine(VmState::Down, Health::Bad, "Down"))];
        let mut world = look(NOW, others, engine(VmState::Up, Health::Good, "Up"));
        world.local.maintenance = true;
        let (core, decision, actions) =
            whole_step(core_in(State::EngineUp, None, &settings), world, true, &settings);
        assert_eq!(core.score.total, Score(0), "maintenance counts at once");
        assert!(actions.is_empty());
        (core.state, decision.reasons)
    };
    let (state, reasons) = run(1000);
    assert_eq!(state, State::EngineStop);
    assert!(matches!(reasons.last(), Some(Reason::MaintenanceMovesVm { .. })));
    let (state, reasons) = run(0);
    assert_eq!(state, State::EngineUp);
    assert_eq!(reasons, [Reason::MaintenanceWaits, Reason::EngineRuns]);
}

#[test]
fn a_stop_for_local_maintenance_is_carried_through() {
    let settings = settings(Policy::default());
    let world = |at, vm| {
        let others = vec![remote(1, 1000, engine(VmState::Down, Health::Bad, "Down"))];
        let mut world = look(at, others, engine(vm, Health::Good, "Up"));
        world.local.maintenance = true;
        world
    };
    let core = core_in(State::EngineStop, None, &settings);
    let (core, _, actions) = whole_step(core, world(NOW, VmState::Up), true, &settings);
    assert_eq!((core.state, actions), (State::EngineStop, vec![Action::StopVm]));
    let (core, _, actions) = whole_step(core, world(NOW + 10, VmState::Down), true, &settings);
    assert_eq!((core.state, actions), (State::LocalMaintenance, vec![]));
}

#[test]
fn a_host_without_footing_does_not_start_the_vm_and_says_why() {
    let settings = settings(Policy::default());
    let run = |footing: Footing| {
        let mut world = look(NOW, vec![], engine(VmState::Down, Health::Bad, "Down"));
        world.footing = footing;
        let (core, decision, _) =
            whole_step(core_in(State::EngineDown, None, &settings), world, true, &settings);
        (core.state, decision.reasons.last().map(ToString::to_string).unwrap_or_default())
    };
    let good = Footing {
        last_acknowledged: Some(Secs(NOW - 60)),
        host_lease: Some(true),
        storage_stuck: None,
        lease_owner: None,
    };
    assert_eq!(run(good).0, State::EngineStart);
    for (footing, word) in [
        (Footing { last_acknowledged: Some(Secs(NOW - 61)), ..good }, "not written for 61 s"),
        (Footing { host_lease: Some(false), ..good }, "host id lease"),
        (Footing { storage_stuck: Some(12), ..good }, "has not worked for 12 s"),
    ] {
        let (state, reason) = run(footing);
        assert_eq!(state, State::EngineDown);
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn a_step_before_the_first_look_decides_nothing() {
    let settings = settings(Policy::default());
    for input in [Input::SameLook, Input::Done(ActionResult::Done)] {
        let (core, decision) = decide(Core::default(), input, &settings);
        assert_eq!(core.state, State::StartState);
        assert_eq!(decision.then, Then::Next(Wait::Delay));
    }
}

#[test]
fn a_stopped_agent_has_score_0_and_says_so() {
    let settings = settings(Policy::default());
    let core = core_in(State::EngineUp, None, &settings).stopped(&settings);
    let metadata = core.metadata(&settings.limits);
    assert_eq!((core.score.total, metadata.stopped, metadata.maintenance), (Score(0), true, false));
}
