//! `local_restart`.

use super::*;

fn crashed() -> Option<EngineStatus> {
    engine(VmState::DownUnexpected, Health::Bad, "Down")
}

fn gone() -> Option<EngineStatus> {
    engine(VmState::DownMissing, Health::Bad, "unknown")
}

fn idle(ts: i64, score: u32) -> Vec<RemoteHost> {
    vec![remote(ts, score, engine(VmState::Down, Health::Bad, "Down"))]
}

fn only() -> Settings {
    settings(Policy { local_restart: true, start_needs_footing: true, ..Policy::plain() })
}

fn step(core: Core, world: Observation, settings: &Settings) -> (Core, Decision) {
    let (core, decision, _) = whole_step(core, world, true, settings);
    (core, decision)
}

fn texts(decision: &Decision) -> String {
    decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_vm_that_died_is_started_here_at_once_unless_another_host_is_better() {
    for state in [State::EngineUp, State::EngineUpBadHealth, State::EngineStarting, State::EngineMaybeAway] {
        let run = |settings: &Settings, score| {
            let core = core_in(state, None, settings);
            let (core, decision) = step(core, look(NOW, idle(1, score), crashed()), settings);
            (core.state, decision)
        };
        let plain = run(&settings(Policy::plain()), 100).0;
        assert!([State::EngineUnexpectedlyDown, State::EngineMaybeAway].contains(&plain), "{state}: {plain}");
        let (to, decision) = run(&only(), 3400);
        assert_eq!((to, decision.then), (State::EngineStart, Then::Next(Wait::No)), "{state}, an equal host");
        assert!(texts(&decision).contains("restart 1 of 3 within 600 s"), "{}", texts(&decision));
        let (to, decision) = run(&only(), 3401);
        assert_eq!(to, plain, "{state}, a better host");
        assert!(texts(&decision).contains("other (id 2) should start it"), "{}", texts(&decision));
    }
}

#[test]
fn a_vm_that_vanished_is_started_here_when_it_was_looked_for_long_enough() {
    let run = |settings: &Settings, local| {
        let core = core_in(State::EngineMaybeAway, Some(Secs(NOW - 41)), settings);
        step(core, look(NOW, idle(1, 100), local), settings).0.state
    };
    assert_eq!(run(&settings(Policy::plain()), gone()), State::EngineUnexpectedlyDown);
    assert_eq!(run(&only(), gone()), State::EngineStart);
    let ended = engine(VmState::Down, Health::Bad, "Storage of VM is locked");
    assert_eq!(run(&only(), ended), State::EngineUnexpectedlyDown, "no crash, and no restart");
}

#[test]
fn one_that_ended_in_order_is_no_crash() {
    let world = look(NOW, vec![], engine(VmState::Down, Health::Bad, "Storage of VM is locked"));
    let core = core_in(State::EngineMaybeAway, None, &only());
    assert_eq!(step(core, world.clone(), &only()).0.state, State::EngineDown);
    let core = core_in(State::EngineUp, None, &only());
    assert_eq!(step(core, world, &only()).0.state, State::EngineMaybeAway);
}

#[test]
fn nothing_is_restarted_where_nothing_may_be_started() {
    let settings = only();
    let run = |change: &dyn Fn(&mut Observation)| {
        let mut world = look(NOW, idle(1, 100), crashed());
        change(&mut world);
        let core = core_in(State::EngineUp, None, &settings);
        step(core, world, &settings).0.state
    };
    assert_eq!(run(&|_| ()), State::EngineStart);
    assert_eq!(run(&|world| world.global_maintenance = true), State::GlobalMaintenance);
    assert_eq!(run(&|world| world.local.maintenance = true), State::EngineUnexpectedlyDown);
    assert_eq!(run(&|world| world.footing.host_lease = Some(false)), State::EngineUnexpectedlyDown);
    let elsewhere = || vec![remote(1, 100, engine(VmState::Up, Health::Good, "Up"))];
    assert_eq!(run(&|world| world.hosts = elsewhere()), State::EngineUnexpectedlyDown);
    // Nobody can tell yet who is alive.
    let core = Core { state: State::EngineUp, ..Core::default() };
    assert_eq!(step(core, look(NOW, vec![], crashed()), &settings).0.state, State::EngineUnexpectedlyDown);
}

#[test]
fn the_timer_of_a_vanished_vm_starts_nothing_in_maintenance_either() {
    let settings = only();
    let core = core_in(State::EngineMaybeAway, Some(Secs(NOW - 41)), &settings);
    let mut world = look(NOW, vec![], gone());
    world.global_maintenance = true;
    let (core, _) = step(core, world.clone(), &settings);
    assert_eq!(core.state, State::EngineUnexpectedlyDown, "as ever");
    world.finished = Secs(NOW + 1);
    assert_eq!(step(core, world, &settings).0.state, State::GlobalMaintenance);
}

#[test]
fn memory_that_the_dead_vm_used_is_not_held_against_its_restart() {
    let settings = Settings { weights: Weights::of(Profile::Founding), ..only() };
    let mut world = look(NOW, idle(1, 2400), crashed());
    world.local.mem_free = Some(100.0);
    world.local.mem_load = Some(0.95);
    let core = core_in(State::EngineUp, None, &settings);
    assert_eq!(step(core, world, &settings).0.state, State::EngineStart);
}

/// Crashes `times` times in a row, a second apart, each time restarted with success in between.
fn crash(times: u64, score: u32, settings: &Settings) -> (Core, Decision) {
    let mut core = core_in(State::EngineUp, None, settings);
    let mut last = None;
    for number in 0..times {
        core.state = State::EngineUp;
        let ts = i64::try_from(number).expect("small") + 1;
        let (next, decision) = step(core, look(NOW + number, idle(ts, score), crashed()), settings);
        (core, last) = (next, Some(decision));
    }
    (core, last.expect("at least one crash"))
}

#[test]
fn beyond_the_budget_other_hosts_come_first() {
    let settings = only();
    let (core, decision) = crash(3, 100, &settings);
    assert_eq!(core.state, State::EngineStart);
    assert!(texts(&decision).contains("restart 3 of 3 within 600 s"), "{}", texts(&decision));
    let (core, decision) = crash(4, 100, &settings);
    assert_eq!((core.state, core.score.total), (State::EngineUnexpectedlyDown, Score(0)));
    assert!(texts(&decision).contains("3 of 3 restarts within 600 s are used up"), "{}", texts(&decision));
    // It rests as long as one of them could take the VM.
    let (core, _) = step(core, look(NOW + 10, idle(9, 100), crashed()), &settings);
    let (core, decision) = step(core, look(NOW + 200, idle(10, 100), crashed()), &settings);
    assert_eq!(core.state, State::EngineUnexpectedlyDown);
    assert!(texts(&decision).contains("other hosts come first"), "{}", texts(&decision));
    // None can any more: it rested for long enough already.
    let (core, _) = step(core, look(NOW + 210, idle(11, 0), crashed()), &settings);
    assert_eq!(core.state, State::EngineStart);
}

#[test]
fn the_budget_fills_again_when_its_window_has_passed() {
    let settings = only();
    let (mut core, _) = crash(4, 100, &settings);
    core.state = State::EngineUp;
    let (core, _) = step(core, look(NOW + 610, idle(20, 100), crashed()), &settings);
    assert_eq!(core.state, State::EngineStart);
}

#[test]
fn a_lone_host_and_hosts_that_all_rest_only_pause() {
    let settings = only();
    let (mut core, _) = crash(4, 0, &settings);
    assert_eq!(core.state, State::EngineUnexpectedlyDown);
    let mut states = Vec::new();
    for (ts, at) in [(20, 10), (21, 20), (22, 69), (23, 70)] {
        let (next, decision) = step(core, look(NOW + at, idle(ts, 0), crashed()), &settings);
        states.push((next.state, decision.again_in));
        core = next;
    }
    let rests = |left| (State::EngineUnexpectedlyDown, Some(left));
    assert_eq!(states, [rests(60), rests(50), rests(1), (State::EngineStart, None)]);
}

#[test]
fn a_pause_ends_in_no_start_without_footing() {
    let settings = only();
    let core = core_in(State::EngineUnexpectedlyDown, Some(Secs(NOW - 100)), &settings);
    let mut world = look(NOW, idle(1, 0), crashed());
    assert_eq!(step(core.clone(), world.clone(), &settings).0.state, State::EngineStart);
    assert_eq!(
        step(core.clone(), world.clone(), &super::settings(Policy::plain())).0.state,
        State::EngineUnexpectedlyDown
    );
    world.footing.storage_stuck = Some(20);
    let (core, decision) = step(core, world, &settings);
    assert_eq!(core.state, State::EngineUnexpectedlyDown);
    assert!(texts(&decision).contains("storage has not worked for 20 s"), "{}", texts(&decision));
}
