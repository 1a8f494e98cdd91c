//! A VM that an I/O error paused, and timers while storage does not work.

use super::*;

const PATIENT: [State; 2] = [State::EngineStarting, State::EngineUpBadHealth];

/// `at` seconds after the first look: paused by an I/O error, with this lease and storage.
fn paused(at: u64, lease: PausedLease, storage_stuck: Option<u64>) -> Observation {
    let mut world = look(NOW + at, vec![], engine(VmState::Up, Health::Bad, "Paused"));
    world.local.io_error_pause = Some(lease);
    world.footing.storage_stuck = storage_stuck;
    world.footing.host_lease = Some(true);
    world
}

fn tries(core: &Core) -> Option<u32> {
    core.resumes.map(|resumes| resumes.count)
}

fn last(decision: &Decision) -> &Reason {
    decision.reasons.last().expect("a decision has a reason")
}

#[test]
fn once_storage_is_back_the_vm_goes_on_and_its_health_counts_again() {
    let settings = settings(Policy::default());
    for state in [State::EngineUp, State::EngineUpBadHealth, State::EngineStarting] {
        let stays = if state == State::EngineStarting { state } else { State::EngineUpBadHealth };
        let core = core_in(state, None, &settings);
        let (core, decision, actions) =
            whole_step(core, paused(0, PausedLease::Held, Some(12)), true, &settings);
        assert_eq!((core.state, actions), (stays, vec![]));
        assert_eq!(last(&decision), &Reason::PausedWaits { secs: 12 });
        let (core, decision, actions) =
            whole_step(core, paused(10, PausedLease::Held, None), true, &settings);
        assert_eq!((core.state, actions), (stays, vec![Action::ResumeVm]));
        assert_eq!((decision.reasons, tries(&core)), (vec![Reason::Resumed], Some(1)));
        let healthy = look(NOW + 20, vec![], engine(VmState::Up, Health::Good, "Up"));
        let (core, ..) = whole_step(core, healthy, true, &settings);
        assert_eq!((core.state, tries(&core)), (State::EngineUp, None));
    }
}

#[test]
fn after_three_tries_in_vain_the_vm_is_ended_and_started_where_it_can_run() {
    let settings = settings(Policy::default());
    // Also when the hypervisor takes the command and the guest meets the next error at once.
    for works in [true, false] {
        let mut core = core_in(State::EngineUp, None, &settings);
        for attempt in 1..=3 {
            let world = paused(u64::from(attempt) * 10, PausedLease::Held, None);
            let (_, asked) = decide(core.clone(), Input::Look(Box::new(world.clone())), &settings);
            assert_eq!(asked.reasons, [Reason::Resuming { attempt, of: 3 }]);
            let (next, _, actions) = whole_step(core, world, works, &settings);
            assert_eq!((actions, tries(&next)), (vec![Action::ResumeVm], Some(attempt)));
            core = next;
        }
        let (core, decision, actions) =
            whole_step(core, paused(40, PausedLease::Held, None), true, &settings);
        assert_eq!((core.state, actions), (State::EngineForceStop, vec![]));
        assert_eq!(
            (last(&decision), decision.then),
            (&Reason::ResumeGivenUp { tries: 3 }, Then::Next(Wait::No))
        );
        let (core, decision) = decide(core, Input::SameLook, &settings);
        assert_eq!(decision.then, Then::Act(Action::ForceStopVm));
        let (core, _) = decide(core, Input::Done(ActionResult::Done), &settings);
        assert_eq!((core.state, core.score.total), (State::EngineDown, Score(3400)), "no reason to rest");
    }
}

#[test]
fn events_do_not_use_the_tries_up_before_anybody_knows_that_storage_fails() {
    let settings = settings(Policy::default());
    let mut core = core_in(State::EngineUp, None, &settings);
    let mut tried = Vec::new();
    // Each try ends in the next error, which wakes the agent; from the fourth second on the broker knows.
    for at in 0..30 {
        let stuck = (at >= 4).then(|| at - 4);
        let (next, decision, actions) =
            whole_step(core, paused(at, PausedLease::Held, stuck), true, &settings);
        core = next;
        tried.extend(actions.iter().map(|_| at));
        if at == 1 {
            assert_eq!(last(&decision), &Reason::ResumePauses { left: 7 });
        }
    }
    assert_eq!((tried, core.state), (vec![0], State::EngineUpBadHealth));
    let (core, _, actions) = whole_step(core, paused(30, PausedLease::Held, None), true, &settings);
    assert_eq!((actions, tries(&core)), (vec![Action::ResumeVm], Some(2)));
}

#[test]
fn tries_count_in_a_row_only() {
    let settings = settings(Policy::default());
    let mut core = core_in(State::EngineUp, None, &settings);
    for round in 0..5 {
        let world = paused(round * 20, PausedLease::Held, None);
        let (next, _, actions) = whole_step(core, world, true, &settings);
        assert_eq!(actions, [Action::ResumeVm]);
        let runs = look(NOW + round * 20 + 10, vec![], engine(VmState::Up, Health::Good, "Up"));
        core = whole_step(next, runs, true, &settings).0;
        assert_eq!(core.state, State::EngineUp);
    }
}

#[test]
fn without_its_lease_it_is_ended_and_while_nobody_knows_it_is_left_alone() {
    let settings = settings(Policy::default());
    for stuck in [None, Some(90)] {
        let core = core_in(State::EngineUpBadHealth, None, &settings);
        let (core, decision, actions) =
            whole_step(core, paused(0, PausedLease::Lost, stuck), true, &settings);
        assert_eq!((core.state, actions), (State::EngineForceStop, vec![]));
        assert_eq!(last(&decision), &Reason::PausedLeaseLost);
    }
    let core = core_in(State::EngineUpBadHealth, None, &settings);
    let (core, decision, actions) = whole_step(core, paused(0, PausedLease::Unknown, None), true, &settings);
    assert_eq!((core.state, actions), (State::EngineUpBadHealth, vec![]));
    assert_eq!(last(&decision), &Reason::PausedLeaseUnknown);
}

#[test]
fn a_paused_vm_that_sanlock_ended_is_no_crash() {
    let run = |policy| {
        let settings = settings(policy);
        let core = core_in(State::EngineUp, None, &settings);
        let (core, ..) = whole_step(core, paused(0, PausedLease::Held, Some(70)), true, &settings);
        let gone = look(NOW + 10, vec![], engine(VmState::DownUnexpected, Health::Bad, "Down"));
        whole_step(core, gone, true, &settings).0.state
    };
    assert_eq!(run(Policy::default()), State::EngineDown);
    let off = Policy { paused_policy: false, ..Policy::default() };
    assert_ne!(run(off), State::EngineDown, "a crash as any other");
}

#[test]
fn an_operators_pause_is_left_to_the_health_timer() {
    let settings = settings(Policy::default());
    let by_hand = |at| look(NOW + at, vec![], engine(VmState::Up, Health::Bad, "Paused"));
    let core = core_in(State::EngineUpBadHealth, None, &settings);
    let (core, _, actions) = whole_step(core, by_hand(0), true, &settings);
    assert_eq!((core.timer, actions), (Some(Secs(NOW)), vec![]));
    let (core, ..) = whole_step(core, by_hand(301), true, &settings);
    assert_eq!(core.state, State::EngineStop);
}

#[test]
fn nothing_is_resumed_in_global_maintenance_or_with_the_switch_off() {
    let on = settings(Policy::default());
    let mut world = paused(0, PausedLease::Held, None);
    world.global_maintenance = true;
    let (core, _, actions) = whole_step(core_in(State::EngineUp, None, &on), world, true, &on);
    assert_eq!((core.state, actions), (State::GlobalMaintenance, vec![]));
    let off = settings(Policy { paused_policy: false, ..Policy::default() });
    let world = paused(0, PausedLease::Held, None);
    let (core, _, actions) = whole_step(core_in(State::EngineUp, None, &off), world, true, &off);
    assert_eq!((core.state, actions), (State::EngineUpBadHealth, vec![]));
}

#[test]
fn storage_that_is_waited_for_runs_no_timer_down() {
    let policy =
        |paused_policy, storage_patience| Policy { storage_patience, paused_policy, ..Policy::default() };
    let stuck = |at, is_paused: bool, lease| {
        let mut world = paused(at, PausedLease::Held, Some(at));
        world.local.io_error_pause = is_paused.then_some(PausedLease::Held);
        world.footing.host_lease = Some(lease);
        world
    };
    for state in PATIENT {
        let run = |policy, is_paused, lease| {
            let settings = settings(policy);
            let core = core_in(state, Some(Secs(NOW)), &settings);
            let (core, decision, _) = whole_step(core, stuck(700, is_paused, lease), true, &settings);
            (core.state == state && core.timer.is_none(), decision.reasons)
        };
        assert!(run(policy(true, false), true, false).0, "paused: whatever the host id lease");
        assert!(run(policy(true, true), false, true).0, "a guest that hangs on its disk");
        assert!(run(policy(false, true), true, true).0);
        assert!(!run(policy(true, true), false, false).0, "the host id lease is lost");
        assert!(!run(policy(true, false), false, true).0, "not paused, and not patient");
        assert!(!run(policy(false, false), true, true).0);
        let (_, reasons) = run(policy(true, true), false, true);
        assert_eq!(reasons[0], Reason::StorageIsWaitedFor { secs: 700 });
    }
}

#[test]
fn once_storage_is_back_the_timer_begins_anew() {
    let settings = settings(Policy::default());
    let sick = |at, storage_stuck| {
        let mut world = paused(at, PausedLease::Held, storage_stuck);
        world.local.io_error_pause = None;
        world
    };
    let mut core = core_in(State::EngineUpBadHealth, None, &settings);
    for (at, stuck, timer) in [
        (0, None, Some(NOW)),
        (200, Some(5), None),
        (400, Some(205), None),
        (410, None, Some(NOW + 410)),
        (710, None, Some(NOW + 410)),
    ] {
        core = whole_step(core, sick(at, stuck), true, &settings).0;
        assert_eq!((core.state, core.timer), (State::EngineUpBadHealth, timer.map(Secs)), "at {at} s");
    }
    core = whole_step(core, sick(711, None), true, &settings).0;
    assert_eq!(core.state, State::EngineStop);
}
