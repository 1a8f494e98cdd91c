//! `health_escalation`.

use super::*;

fn only(sick_engine: SickEngine) -> Settings {
    let mut settings = settings(Policy { health_escalation: true, ..Policy::plain() });
    settings.limits.sick_engine = sick_engine;
    settings
}

fn sick() -> Option<EngineStatus> {
    engine(VmState::Up, Health::Bad, "Up")
}

/// A step in `state`, whose timer began `began` seconds ago.
fn step(state: State, began: u64, world: Observation, settings: &Settings) -> (Core, String) {
    step_of(core_in(state, Some(Secs(NOW - began)), settings), world, settings)
}

fn step_of(core: Core, world: Observation, settings: &Settings) -> (Core, String) {
    let (core, decision, _) = whole_step(core, world, true, settings);
    (core, decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

fn spend(core: &mut Core, settings: &Settings, at: &[u64]) {
    for at in at {
        core.memory.spend(Purpose::Reset, &settings.limits, Secs(*at));
    }
}

#[test]
fn the_first_step_is_the_configured_one() {
    for (state, began, says) in
        [(State::EngineUpBadHealth, 301, "300 s"), (State::EngineStarting, 601, "600 s")]
    {
        let run = |settings: &Settings| step(state, began, look(NOW, vec![], sick()), settings);
        let (core, text) = run(&only(SickEngine::ShutdownThenForce));
        assert_eq!(core.state, State::EngineStop);
        assert!(
            text.contains(says) && text.contains("reset 1 of 3 within an hour, the guest is asked"),
            "{text}"
        );
        let (core, text) = run(&only(SickEngine::Force));
        assert_eq!(core.state, State::EngineForceStop);
        assert!(text.contains("the VM is ended by force"), "{text}");
        let (core, text) = run(&only(SickEngine::LeftAlone));
        assert_eq!(core.state, State::EngineUpBadHealth);
        assert!(text.contains("never reset"), "{text}");
        assert_eq!(run(&settings(Policy::plain())).0.state, State::EngineStop);
    }
}

#[test]
fn the_next_step_and_its_time_are_always_said() {
    let settings = only(SickEngine::ShutdownThenForce);
    let text = |state, began| step(state, began, look(NOW, vec![], sick()), &settings).1;
    assert!(text(State::EngineUpBadHealth, 100).contains("the guest is asked to power down in 200 s"));
    assert!(text(State::EngineStarting, 100).contains("the guest is asked to power down in 500 s"));
    assert!(text(State::EngineStop, 100).contains("100 of 300 s, then it is ended by force"));
    let (_, fresh) = step_of(core_in(State::EngineUp, None, &settings), look(NOW, vec![], sick()), &settings);
    assert!(fresh.contains("not healthy (Up); the guest is asked to power down in 300 s"), "{fresh}");
    let plain =
        step(State::EngineUpBadHealth, 100, look(NOW, vec![], sick()), &super::settings(Policy::plain())).1;
    assert_eq!(plain, "the engine in the VM is not healthy (Up, 200 s left)");
}

#[test]
fn when_the_budget_is_used_up_the_vm_is_left_alone_until_the_oldest_reset_is_an_hour_ago() {
    let settings = only(SickEngine::ShutdownThenForce);
    for (state, began) in [(State::EngineUpBadHealth, 301), (State::EngineStarting, 601)] {
        let mut core = core_in(state, Some(Secs(NOW - began)), &settings);
        spend(&mut core, &settings, &[NOW - 3000, NOW - 2000, NOW - 1000]);
        let (core, text) = step_of(core, look(NOW, vec![], sick()), &settings);
        assert_eq!(core.state, State::EngineUpBadHealth);
        assert!(
            text.contains("it was reset 3 times within an hour, the next reset is possible in 600 s"),
            "{text}"
        );
    }
    let mut core = core_in(State::EngineUpBadHealth, Some(Secs(NOW - 2000)), &settings);
    spend(&mut core, &settings, &[NOW - 3599, NOW - 2000, NOW - 1000]);
    let (core, _) = step_of(core, look(NOW, vec![], sick()), &settings);
    assert_eq!(core.state, State::EngineUpBadHealth);
    let (core, text) = step_of(core, look(NOW + 1, vec![], sick()), &settings);
    assert_eq!(core.state, State::EngineStop);
    assert!(text.contains("reset 3 of 3"), "{text}");
}

#[test]
fn a_budget_that_is_free_before_the_timer_fires_changes_nothing() {
    let settings = only(SickEngine::Force);
    let mut core = core_in(State::EngineUpBadHealth, Some(Secs(NOW - 100)), &settings);
    spend(&mut core, &settings, &[NOW - 3500, NOW - 200, NOW - 100]);
    let (_, text) = step_of(core, look(NOW, vec![], sick()), &settings);
    assert!(text.contains("the VM is ended by force in 200 s"), "{text}");
}

#[test]
fn an_engine_that_is_left_alone_still_ends_up_well_or_moves() {
    let settings = only(SickEngine::LeftAlone);
    let well = look(NOW, vec![], engine(VmState::Up, Health::Good, "Up"));
    assert_eq!(step(State::EngineUpBadHealth, 900, well, &settings).0.state, State::EngineUp);
    let better = vec![remote(1, 9000, engine(VmState::Down, Health::Bad, "Down"))];
    assert_eq!(
        step(State::EngineUpBadHealth, 900, look(NOW, better, sick()), &settings).0.state,
        State::EngineStop
    );
}

#[test]
fn a_timer_that_fires_while_the_engine_is_well_or_nobody_may_act_resets_nothing() {
    let settings = only(SickEngine::Force);
    let mut global = look(NOW, vec![], sick());
    global.global_maintenance = true;
    for (world, to) in [
        (look(NOW, vec![], engine(VmState::Up, Health::Good, "Up")), State::EngineUp),
        (global, State::GlobalMaintenance),
        (look(NOW, vec![], engine(VmState::Unknown, Health::Unknown, "unknown")), State::UnknownLocalVmState),
        (look(NOW, vec![], engine(VmState::DownMissing, Health::Bad, "unknown")), State::EngineMaybeAway),
    ] {
        for (state, began) in [(State::EngineUpBadHealth, 301), (State::EngineStarting, 601)] {
            let (core, _) = step(state, began, world.clone(), &settings);
            assert_eq!((core.state, &core.memory.resets), (to, &budget::Spent::default()), "{state}");
        }
    }
}

#[test]
fn a_stop_whose_cause_is_gone_is_not_carried_out() {
    let well = || engine(VmState::Up, Health::Good, "Up");
    let asked = |settings: &Settings, world| {
        let (core, decision, asked) =
            whole_step(core_in(State::EngineStop, None, settings), world, true, settings);
        (core.state, asked.len(), decision.reasons.last().map(ToString::to_string).unwrap_or_default())
    };
    let on = settings(Policy { stop_needs_cause: true, ..Policy::plain() });
    let (state, actions, reason) = asked(&on, look(NOW, vec![], well()));
    assert_eq!((state, actions), (State::EngineUp, 0));
    assert!(reason.contains("left alone"), "{reason}");
    assert_eq!(asked(&on, look(NOW, vec![], sick())).1, 1, "it is still sick");
    assert_eq!(
        asked(&settings(Policy::plain()), look(NOW, vec![], well())).1,
        1,
        "plain asks whatever is seen"
    );
}

#[test]
fn a_host_in_maintenance_looks_again_after_a_second_and_a_sick_engine_has_a_loop() {
    let run = |state, engine: Option<EngineStatus>, policy| {
        let mut settings = settings(policy);
        settings.policy.local_maintenance_moves_vm = true;
        let seen = |at| {
            let mut seen = look(at, vec![], engine.clone());
            seen.local.maintenance = true;
            seen.local.force_maintenance = true;
            seen
        };
        let core = core_in(state, Some(Secs(NOW - 301)), &settings);
        let (core, decision, _) = whole_step(core, seen(NOW), true, &settings);
        assert_eq!(core.state, State::EngineStop);
        let (core, next, asked) = whole_step(core, seen(NOW + 1), true, &settings);
        assert_eq!((core.state, asked, next.again_in), (State::EngineStop, vec![Action::StopVm], None));
        decision.again_in
    };
    let well = || engine(VmState::Up, Health::Good, "Up");
    let on = Policy { stop_needs_cause: true, ..Policy::plain() };
    assert_eq!(run(State::EngineUp, well(), on), Some(1));
    assert_eq!(run(State::EngineUp, well(), Policy::plain()), None, "the next loop");
    assert_eq!(run(State::EngineUpBadHealth, sick(), on), None, "its timer fires: it is asked once more");
}
