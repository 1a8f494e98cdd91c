//! Live migration: which host is chosen, and which one when that host does not take the VM.

use super::super::budget::Spent;
use super::super::moves::{Cause, Moved};
use super::moving::{here, last, on, ready, texts};
use super::*;

/// The VM runs here, well, in local maintenance; these others are idle, with their scores.
fn beside(at: u64, others: &[(u16, u32)]) -> Observation {
    let ts = i64::try_from(at).expect("a date");
    let idle = || engine(VmState::Down, Health::Bad, "Down");
    let hosts = others.iter().map(|&(id, score)| remote_of(id, ts, score, idle())).collect();
    let mut world = Observation { hosts, ..here(at, 0) };
    world.local.maintenance = true;
    world
}

/// A core beside these hosts, which it has seen so for that long at [`NOW`].
fn seen_for(secs: u64, others: &[(u16, u32)], settings: &Settings) -> Core {
    let mut core = Core { state: State::EngineUp, ..Core::default() };
    // From here on the past tells who is alive.
    core.absorb(beside(NOW - secs - 61, others), settings);
    core.compute_score(settings);
    for at in (NOW - secs..NOW).step_by(10) {
        core.absorb(beside(at, others), settings);
    }
    core
}

/// Where the VM goes at [`NOW`].
fn goes_to(core: Core, others: &[(u16, u32)], settings: &Settings) -> u16 {
    let (core, decision, _) = whole_step(core, beside(NOW, others), true, settings);
    let to = core.memory.moves.current.and_then(|moving| moving.to);
    to.unwrap_or_else(|| panic!("it stays: {}", texts(&decision))).id.get()
}

#[test]
fn a_host_that_was_alive_for_long_goes_before_one_that_has_just_booted_unless_that_is_better_by_the_margin() {
    let settings = on();
    let run = |for_long: u32| {
        let mut core = seen_for(70, &[(3, for_long)], &settings);
        core.absorb(beside(NOW - 1, &[(2, 0), (3, for_long)]), &settings);
        goes_to(core, &[(2, 3400), (3, for_long)], &settings)
    };
    assert_eq!(run(3400), 3, "2 appeared a second ago");
    assert_eq!(run(2601), 3);
    assert_eq!(run(2600), 2, "that is worth the wait");
    let both = [(2, 3400), (3, 3400)];
    assert_eq!(goes_to(seen_for(70, &both, &settings), &both, &settings), 2, "the first of equals");
    let second = [(2, 3399), (3, 3400)];
    assert_eq!(goes_to(seen_for(70, &second, &settings), &second, &settings), 3, "the better one");
    assert_eq!(goes_to(seen_for(60, &second, &settings), &second, &settings), 3, "neither for long");
}

#[test]
fn a_host_is_new_again_when_it_was_away_or_its_timestamp_went_back_and_not_after_a_maintenance() {
    let settings = on();
    let both = [(2, 3400), (3, 3400)];
    let after = |world: Observation| {
        let mut core = seen_for(80, &both, &settings);
        core.absorb(world, &settings);
        core.absorb(beside(NOW - 1, &both), &settings);
        goes_to(core, &both, &settings)
    };
    assert_eq!(after(beside(NOW - 2, &[(3, 3400)])), 3, "it was away");
    let mut booted = beside(NOW - 2, &both);
    booted.hosts[0].block.as_mut().expect("a block").host_ts = 7;
    assert_eq!(after(booted), 3);
    assert_eq!(after(beside(NOW - 2, &[(2, 0), (3, 3400)])), 2, "its score was 0 for a while");
}

#[test]
fn without_the_switch_the_best_score_alone_counts() {
    let off = settings(Policy { live_migration: false, ..Policy::default() });
    let core = seen_for(80, &[(3, 3400)], &off);
    let (_, decision, _) = whole_step(core, beside(NOW, &[(2, 3400), (3, 3400)]), true, &off);
    assert!(texts(&decision).contains("(id 2)"), "{}", texts(&decision));
}

#[test]
fn the_host_to_which_the_last_migration_failed_comes_last_for_a_while() {
    let settings = on();
    let both = [(2, 3400), (3, 3400)];
    let run = |at, failure: Option<&str>| {
        let mut core = seen_for(80, &both, &settings);
        let to = Some(HostName { id: host(2), name: "other".to_owned() });
        let failure = failure.map(str::to_owned);
        core.memory.moves.last = Some(Moved { to, since: Secs(at), at: Secs(at), request: None, failure });
        goes_to(core, &both, &settings)
    };
    assert_eq!(run(NOW - 20, Some("nobody listens")), 3);
    assert_eq!(run(NOW - 20, None), 2, "it went well");
    assert_eq!(run(NOW - 601, Some("nobody listens")), 2, "that was long ago");
}

/// A core whose VM is to leave for host 2 at [`NOW`], beside hosts 2, 3 and 4.
fn leaving(cause: Cause, settings: &Settings) -> Core {
    let others = [(2, 3400), (3, 3300), (4, 3200)];
    let (mut core, ..) = whole_step(seen_for(80, &others, settings), beside(NOW, &others), true, settings);
    assert_eq!(core.state, State::EngineMigratingAway);
    core.memory.moves.current.as_mut().expect("begun").cause = cause;
    core
}

#[test]
fn one_other_host_is_asked_when_the_first_does_not_answer_and_then_the_vm_is_shut_down() {
    let settings = on();
    let world = |at| beside(at, &[(2, 3400), (3, 3300), (4, 3200)]);
    let (core, decision, actions) =
        whole_step(leaving(Cause::Maintenance, &settings), world(NOW + 46), true, &settings);
    assert_eq!((core.state, decision.then), (State::EngineMigratingAway, Then::Next(Wait::No)));
    assert!(actions.is_empty() && core.memory.moves.failures == Spent::default());
    assert!(texts(&decision).contains("within 45 s"), "{}", texts(&decision));
    assert!(texts(&decision).contains("other (id 3) instead: "), "{}", texts(&decision));
    assert_eq!(core.metadata(&settings.limits).migration_to, Some(host(3)));
    // The first one's answer comes too late, the second one has its whole time.
    let (core, _, actions) = whole_step(core, ready(world(NOW + 91), 1), true, &settings);
    assert_eq!((core.state, actions), (State::EngineMigratingAway, vec![]));
    let mut answers = world(NOW + 91);
    answers.hosts[1].block.as_mut().expect("a block").ready =
        Some(Ready { from: host(1), uri: "tcp:other:49152".to_owned() });
    let (_, _, actions) = whole_step(core.clone(), answers, true, &settings);
    assert_eq!(actions, [Action::SendVm { to: host(3) }]);
    let (core, decision, _) = whole_step(core, world(NOW + 92), true, &settings);
    assert_eq!(core.state, State::EngineStop, "{}", texts(&decision));
    assert!(last(&core).failure.is_some());
}

#[test]
fn the_silence_of_a_host_that_has_just_come_up_ends_no_vm_in_maintenance_that_nobody_forced() {
    let settings = on();
    let new = [(2, 3400)];
    let run = |is_forced: bool, alive_for: u64| {
        let world = |at| {
            let mut world = beside(at, &new);
            world.local.force_maintenance = is_forced;
            world
        };
        let (core, ..) = whole_step(seen_for(alive_for, &new, &settings), world(NOW), true, &settings);
        assert_eq!(core.state, State::EngineMigratingAway);
        let (core, decision, actions) = whole_step(core, world(NOW + 46), true, &settings);
        assert!(actions.is_empty());
        (core, texts(&decision))
    };
    let (core, said) = run(false, 20);
    assert_eq!(core.state, State::EngineUp, "{said}");
    assert!(said.contains("other (id 2) has just come up") && said.contains("for 40 s at least"), "{said}");
    // It is asked again, and its silence counts in the end.
    let (core, decision, _) = whole_step(core, beside(NOW + 50, &new), true, &settings);
    assert_eq!(core.state, State::EngineMigratingAway, "{}", texts(&decision));
    let (core, ..) = whole_step(core, beside(NOW + 96, &new), true, &settings);
    assert_eq!(core.state, State::EngineStop);
    assert_eq!(run(true, 20).0.state, State::EngineStop, "who forces it waits for nobody");
    assert_eq!(run(false, 70).0.state, State::EngineStop, "it had its time");
}

#[test]
fn a_destination_that_is_seen_dead_or_unfit_before_it_is_ready_is_given_up_at_once_for_the_next() {
    let settings = on();
    for unfit in [0, 3400] {
        let mut world = beside(NOW + 5, &[(2, unfit), (3, 3300), (4, 3200)]);
        let mut core = leaving(Cause::Maintenance, &settings);
        if unfit > 0 {
            // It was seen last before the others were.
            world = Observation { started: Secs(NOW + 65), finished: Secs(NOW + 65), ..world };
            world.hosts[0].block.as_mut().expect("a block").host_ts = i64::try_from(NOW).expect("a date");
            core.memory.moves.current.as_mut().expect("begun").since = Secs(NOW + 60);
        }
        let (core, decision, _) = whole_step(core, world, true, &settings);
        assert_eq!(core.state, State::EngineMigratingAway);
        assert!(texts(&decision).contains("other (id 3) instead: "), "{}", texts(&decision));
    }
}

#[test]
fn a_host_that_a_person_named_is_not_replaced_and_one_that_was_left_to_us_is() {
    let settings = on();
    let run = |to: Option<u16>| {
        let mut world = beside(NOW + 46, &[(2, 3400), (3, 3300)]);
        world.local.maintenance = false;
        world.local.migration_request = Some(MigrationRequest { to: to.map(host), asked_at: 77 });
        let core = leaving(Cause::Request { asked_at: 77 }, &settings);
        let (core, ..) = whole_step(core, world, true, &settings);
        (core.state, core.memory.moves.current.and_then(|moving| moving.to).map(|to| to.id))
    };
    assert_eq!(run(Some(2)), (State::EngineUp, None));
    assert_eq!(run(None), (State::EngineMigratingAway, Some(host(3))));
}

#[test]
fn a_host_that_has_just_booted_gets_ready_for_a_source_that_it_saw_writing() {
    let settings = on();
    let source = |at: u64, ts| {
        let mut host = remote(ts, 3400, engine(VmState::Up, Health::Good, "Up"));
        host.block.as_mut().expect("a block").migration_to = Some(super::host(1));
        let mut world = look(at, vec![host], engine(VmState::Down, Health::Bad, "Down"));
        world.local.migrates = Migrates::Prepared;
        world
    };
    let fresh = || {
        let mut core = Core { state: State::EngineDown, ..Core::default() };
        core.absorb(source(NOW - 4, 5), &settings);
        core
    };
    let (_, _, actions) = whole_step(fresh(), source(NOW, 5), false, &settings);
    assert_eq!(actions, [], "nothing moved: the block may be years old");
    let (_, _, actions) = whole_step(fresh(), source(NOW, 6), false, &settings);
    assert_eq!(actions, [Action::ReceiveVm { from: host(2) }]);
    let mut old = fresh();
    old.absorb(source(NOW - 2, 6), &settings);
    let (_, _, actions) = whole_step(old, source(NOW + 90, 6), false, &settings);
    assert_eq!(actions, [], "now the past tells, and it is dead");
}
