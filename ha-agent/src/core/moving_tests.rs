//! Live migration: both ends of it, and the hosts beside them.

use super::super::budget::Spent;
use super::super::moves::{Cause, Incoming, Moved};
use super::*;

/// Migrations that may have been begun, or none.
pub(super) fn begun() -> Vec<Option<Moving>> {
    let causes = [Cause::HandOver, Cause::Maintenance, Cause::Request { asked_at: 3 }, Cause::Found];
    let each = causes.into_iter().flat_map(|cause| {
        [
            (NOW - 5, None),
            (NOW - 500, None),
            (NOW - 5, Some(Secs(NOW - 1))),
            (NOW - 500, Some(Secs(NOW - 400))),
        ]
        .map(|(since, sent)| {
            Some(Moving { to: Some(other()), since: Secs(since), asked: Vec::new(), cause, sent, down: None })
        })
    });
    each.chain([None]).collect()
}

pub(super) fn other() -> HostName {
    HostName { id: host(OTHER), name: "other".to_owned() }
}

pub(super) fn on() -> Settings {
    settings(Policy::default())
}

fn up() -> Option<EngineStatus> {
    engine(VmState::Up, Health::Good, "Up")
}

pub(super) fn down() -> Option<EngineStatus> {
    engine(VmState::Down, Health::Bad, "Down")
}

/// The VM runs here, well; the other host is idle, with that score.
pub(super) fn here(at: u64, score: u32) -> Observation {
    let ts = i64::try_from(at).expect("a date");
    let mut world = look(at, vec![remote(ts, score, down())], up());
    world.local.migrates = Migrates::Prepared;
    world
}

pub(super) fn ready(mut world: Observation, from: u16) -> Observation {
    let block = world.hosts[0].block.as_mut().expect("a block");
    block.ready = Some(Ready { from: host(from), uri: "tcp:other:49152".to_owned() });
    world
}

pub(super) fn in_progress(mut world: Observation, percent: u64) -> Observation {
    let migration = Migration::InProgress { transferred: percent, remaining: 100 - percent };
    world.local.migration = Some(migration);
    world.local.engine = engine(VmState::Up, Health::Good, "Migration Source");
    world
}

pub(super) fn ended(mut world: Observation, migration: Migration) -> Observation {
    world.local.engine = if migration == Migration::Finished { down() } else { up() };
    world.local.migration = Some(migration);
    world
}

pub(super) fn texts(decision: &Decision) -> String {
    decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

pub(super) fn ask(mut world: Observation, to: Option<u16>) -> Observation {
    world.local.migration_request = Some(MigrationRequest { to: to.map(host), asked_at: 77 });
    world
}

/// A core whose VM is to leave because of a request to the other host, at [`NOW`].
pub(super) fn asked(settings: &Settings) -> Core {
    let (core, ..) =
        whole_step(core_in(State::EngineUp, None, settings), ask(here(NOW, 100), Some(2)), true, settings);
    assert_eq!(core.state, State::EngineMigratingAway);
    core
}

pub(super) fn last(core: &Core) -> &Moved {
    core.memory.moves.last.as_ref().expect("it has ended")
}

#[test]
fn a_request_is_carried_through_step_by_step() {
    let settings = on();
    let core = asked(&settings);
    assert_eq!(core.metadata(&settings.limits).migration_to, Some(host(2)));
    let world = |at, f: fn(Observation) -> Observation| f(ask(here(at, 100), Some(2)));
    let (core, decision, actions) = whole_step(core, world(NOW + 2, |world| world), true, &settings);
    assert!(actions.is_empty() && decision.again_in == Some(2), "{}", texts(&decision));
    let (core, _, actions) = whole_step(core, world(NOW + 4, |world| ready(world, 3)), true, &settings);
    assert!(actions.is_empty(), "it is ready for another host's");
    let (core, _, actions) = whole_step(core, world(NOW + 6, |world| ready(world, 1)), true, &settings);
    assert_eq!((core.state, actions), (State::EngineMigratingAway, vec![Action::SendVm { to: host(2) }]));
    let (core, decision, actions) =
        whole_step(core, world(NOW + 8, |world| in_progress(world, 40)), true, &settings);
    assert!(actions.is_empty() && texts(&decision).contains("other (id 2): 40 %"), "{}", texts(&decision));
    assert_eq!(core.score.total, Score(3400), "a host whose VM leaves is as good as before");
    let (core, ..) =
        whole_step(core, world(NOW + 20, |world| ended(world, Migration::Finished)), true, &settings);
    assert_eq!((core.state, core.score.total), (State::EngineDown, Score(3400)));
    assert_eq!((last(&core).failure.as_ref(), last(&core).request), (None, Some(77)));
    assert_eq!(core.metadata(&settings.limits).migration_to, Some(host(2)), "said a little longer");
    let (core, ..) =
        whole_step(core, world(NOW + 41, |world| ended(world, Migration::Finished)), true, &settings);
    assert_eq!(core.metadata(&settings.limits).migration_to, None);
    assert_eq!(last(&core).at, Secs(NOW + 20), "the request was answered and is not taken again");
}

#[test]
fn a_request_that_cannot_be_met_is_refused_with_the_reason_and_changes_nothing() {
    let refused = |state, world: Observation, policy, says: &str| {
        let settings = settings(policy);
        let (core, decision, actions) = whole_step(core_in(state, None, &settings), world, true, &settings);
        assert_eq!((core.state, actions), (state, vec![]), "{says}");
        assert!(texts(&decision).contains(says), "{says}: {}", texts(&decision));
        let moved = last(&core);
        assert!(moved.request == Some(77) && moved.failure.as_ref().expect("refused").contains(says));
    };
    let (up, is) = (State::EngineUp, Policy::default());
    refused(up, ask(here(NOW, 100), Some(3)), is, "there is no host 3");
    refused(up, ask(here(NOW, 100), Some(1)), is, "runs on that host already");
    refused(up, ask(here(NOW, 0), Some(2)), is, "its score is 0");
    refused(up, ask(here(NOW, 0), None), is, "no other live host can take it");
    let mut silent = here(NOW, 100);
    silent.hosts = vec![remote(0, 100, down())];
    refused(up, ask(silent, Some(2)), is, "other (id 2) is not alive");
    let mut unread = here(NOW, 100);
    unread.hosts[0].block = None;
    refused(up, ask(unread, Some(2)), is, "the block of host 2 cannot be read");
    let mut never = here(NOW, 100);
    never.local.migrates = Migrates::Never { why: "a file lease stays where it is".to_owned() };
    refused(up, ask(never, Some(2)), is, "a file lease stays where it is");
    let mut paused = here(NOW, 100);
    paused.local.engine = engine(VmState::Up, Health::Bad, "Paused");
    refused(State::EngineUpBadHealth, ask(paused, None), is, "status Paused");
    refused(up, ask(here(NOW, 100), None), Policy { live_migration: false, ..is }, "policy.live_migration");
    let elsewhere = look(NOW, vec![remote(1, 100, super::engine(VmState::Up, Health::Good, "Up"))], down());
    refused(State::EngineDown, ask(elsewhere, None), is, "the engine VM runs on other (id 2); ask there");
}

#[test]
fn a_request_waits_until_it_is_known_who_is_alive() {
    let settings = on();
    let mut world = ask(here(NOW, 100), None);
    world.lock_manager_live = Some(vec![host(1), host(2)]);
    let core = Core { state: State::EngineUp, ..Core::default() };
    let (core, decision, _) = whole_step(core, world, true, &settings);
    assert_eq!((core.state, core.memory.moves.answered), (State::EngineUp, None));
    assert!(texts(&decision).contains("waits until it is known"), "{}", texts(&decision));
}

#[test]
fn a_person_may_move_it_in_global_maintenance_and_nobody_else() {
    let settings = on();
    let global = |world: Observation| Observation { global_maintenance: true, ..world };
    let (core, ..) = whole_step(
        core_in(State::GlobalMaintenance, None, &settings),
        global(ask(here(NOW, 100), Some(2))),
        true,
        &settings,
    );
    assert_eq!(core.state, State::EngineMigratingAway);
    let (core, _, actions) = whole_step(core, global(ready(here(NOW + 5, 100), 1)), true, &settings);
    assert_eq!(actions, [Action::SendVm { to: host(2) }]);
    let (core, ..) = whole_step(core, global(in_progress(here(NOW + 9, 100), 1)), true, &settings);
    assert_eq!(core.state, State::EngineMigratingAway);

    let mut core = asked(&settings);
    core.memory.moves.current.as_mut().expect("begun").cause = Cause::HandOver;
    let (core, _, actions) = whole_step(core, global(ready(here(NOW + 5, 100), 1)), true, &settings);
    assert_eq!((core.state, actions), (State::GlobalMaintenance, vec![]));
    assert_eq!(core.metadata(&settings.limits).migration_to, None);
}

#[test]
fn a_destination_that_does_not_answer_gets_the_vm_by_a_shutdown_unless_a_person_asked() {
    let settings = on();
    for (cause, state) in
        [(Cause::Maintenance, State::EngineStop), (Cause::Request { asked_at: 77 }, State::EngineUp)]
    {
        let mut core = asked(&settings);
        core.memory.moves.current.as_mut().expect("begun").cause = cause;
        let world = |at| {
            let mut world = here(at, 100);
            world.local.maintenance = true;
            // The other host has just come up, which nobody who forces it waits for.
            world.local.force_maintenance = true;
            world
        };
        let (waiting, ..) = whole_step(core, world(NOW + 45), true, &settings);
        assert_eq!(waiting.state, State::EngineMigratingAway);
        let (core, decision, _) = whole_step(waiting, world(NOW + 46), true, &settings);
        assert_eq!(core.state, state);
        assert!(texts(&decision).contains("did not get ready for it within 45 s"), "{}", texts(&decision));
        assert!(last(&core).failure.is_some());
    }
}

#[test]
fn where_the_hypervisors_arrange_it_it_is_sent_at_once() {
    let settings = on();
    let mut world = here(NOW + 1, 100);
    world.local.migrates = Migrates::Arranged;
    let (_, _, actions) = whole_step(asked(&settings), world, true, &settings);
    assert_eq!(actions, [Action::SendVm { to: host(2) }]);
}

#[test]
fn maintenance_empties_the_host_and_after_two_failures_shuts_the_vm_down() {
    let settings = on();
    let world = |at| {
        let mut world = here(at, 100);
        world.local.maintenance = true;
        world
    };
    let mut core = core_in(State::EngineUp, None, &settings);
    let mut at = NOW;
    for _ in 0..2 {
        (core, ..) = whole_step(core, world(at), true, &settings);
        assert_eq!(core.state, State::EngineMigratingAway);
        (core, ..) = whole_step(core, ready(world(at + 1), 1), true, &settings);
        let failed = Migration::Failed { detail: "the stream broke".to_owned() };
        let (failing, decision, _) = whole_step(core, ended(world(at + 2), failed), true, &settings);
        assert_eq!(failing.state, State::EngineUp);
        assert!(texts(&decision).contains("the stream broke"), "{}", texts(&decision));
        core = failing;
        at += 10;
    }
    let (stopping, decision, _) = whole_step(core.clone(), world(at), true, &settings);
    assert_eq!(stopping.state, State::EngineStop);
    assert!(texts(&decision).contains("2 live migrations within 600 s failed"), "{}", texts(&decision));
    let (core, ..) = whole_step(core, world(NOW + 620), true, &settings);
    assert_eq!(core.state, State::EngineMigratingAway, "that was long ago");
}

#[test]
fn forced_maintenance_does_not_wait_for_a_host_that_can_take_the_vm() {
    let settings = on();
    let run = |force| {
        let mut world = here(NOW, 0);
        world.local.maintenance = true;
        world.local.force_maintenance = force;
        whole_step(core_in(State::EngineUp, None, &settings), world, true, &settings)
    };
    let (core, decision, _) = run(false);
    assert_eq!(core.state, State::EngineUp);
    assert!(texts(&decision).contains("--force"), "{}", texts(&decision));
    let (core, ..) = run(true);
    assert_eq!(core.state, State::EngineStop);
    let mut world = here(NOW + 10, 0);
    world.local.maintenance = true;
    world.local.force_maintenance = true;
    let (core, _, actions) = whole_step(core, world, true, &settings);
    assert_eq!((core.state, actions), (State::EngineStop, vec![Action::StopVm]));
}

#[test]
fn a_sick_vm_is_not_handed_over_while_it_runs() {
    let settings = Settings { policy: Policy { debounce: false, ..Policy::default() }, ..on() };
    let run = |health| {
        let mut world = here(NOW, 9000);
        world.local.engine = engine(VmState::Up, health, "Up");
        whole_step(core_in(State::EngineUp, None, &settings), world, true, &settings).0.state
    };
    assert_eq!(run(Health::Good), State::EngineMigratingAway);
    assert_eq!(run(Health::Bad), State::EngineStop);
}

#[test]
fn what_is_not_needed_any_more_is_not_sent() {
    let settings = on();
    let mut core = asked(&settings);
    core.memory.moves.current.as_mut().expect("begun").cause = Cause::Maintenance;
    let (core, decision, actions) = whole_step(core, ready(here(NOW + 5, 100), 1), true, &settings);
    assert_eq!((core.state, actions), (State::EngineUp, vec![]));
    assert!(texts(&decision).contains("what asked for it is over"), "{}", texts(&decision));
    assert_eq!(core.memory.moves.failures, Spent::default());
}

#[test]
fn a_migration_that_takes_too_long_or_loses_its_target_is_called_off() {
    let settings = on();
    let mut core = asked(&settings);
    core.memory.moves.current.as_mut().expect("begun").sent = Some(Secs(NOW + 1));
    core.timer = Some(Secs(NOW + 1));
    let late = Box::new(in_progress(here(NOW + 602, 100), 99));
    let (_, decision) = decide(core.clone(), Input::Look(late), &settings);
    assert_eq!(decision.then, Then::Act(Action::CancelMigration));
    assert!(texts(&decision).contains("within 600 s"), "{}", texts(&decision));
    let mut silent = in_progress(here(NOW + 70, 100), 50);
    let mut core = Core { timer: None, ..core };
    // The other host was seen last at NOW.
    core.absorb(in_progress(here(NOW + 5, 100), 5), &settings);
    silent.hosts[0].block.as_mut().expect("a block").host_ts = i64::try_from(NOW + 5).expect("a date");
    let (core, _, actions) = whole_step(core, silent, true, &settings);
    assert_eq!((core.state, actions), (State::EngineMigratingAway, vec![Action::CancelMigration]));
}

#[test]
fn a_vm_that_dies_on_its_way_is_a_crash_and_one_that_arrived_is_none() {
    let settings = settings(Policy { local_restart: false, ..Policy::default() });
    let mut core = asked(&settings);
    core.memory.moves.current.as_mut().expect("begun").sent = Some(Secs(NOW));
    let mut died = here(NOW + 5, 100);
    died.local.engine = engine(VmState::DownUnexpected, Health::Bad, "Down");
    let (dead, ..) = whole_step(core.clone(), died, true, &settings);
    assert_eq!((dead.state, dead.score.total), (State::EngineUnexpectedlyDown, Score(0)));
    let mut arrived = ended(here(NOW + 5, 100), Migration::Finished);
    arrived.local.engine = engine(VmState::DownUnexpected, Health::Bad, "Down");
    let (moved, ..) = whole_step(core, arrived, true, &settings);
    assert_eq!((moved.state, moved.score.total), (State::EngineDown, Score(3400)));
}

#[test]
fn a_restarted_source_finds_its_migration_and_goes_on() {
    let settings = on();
    let mut world = in_progress(here(NOW, 100), 10);
    world.local.announced = Some(host(2));
    let (core, decision, _) =
        whole_step(core_in(State::EngineStarting, None, &settings), world, true, &settings);
    assert_eq!((core.state, decision.then), (State::EngineMigratingAway, Then::Next(Wait::No)));
    assert_eq!(
        core.metadata(&settings.limits).migration_to,
        Some(host(2)),
        "the destination goes on waiting"
    );
    let (core, ..) = whole_step(core, ended(here(NOW + 5, 100), Migration::Finished), true, &settings);
    assert_eq!(core.state, State::EngineDown);
}

/// The VM runs on the other host, which wants to send it to `to`.
fn sent_to(at: u64, to: Option<u16>) -> Observation {
    let mut source = remote(i64::try_from(at).expect("a date"), 100, up());
    source.block.as_mut().expect("a block").migration_to = to.map(host);
    let mut world = look(at, vec![source], down());
    world.local.migrates = Migrates::Prepared;
    world
}

fn waits_for_it(settings: &Settings) -> Core {
    let core = core_in(State::EngineDown, None, settings);
    let (core, decision) = decide(core, Input::Look(Box::new(sent_to(NOW, Some(1)))), settings);
    assert_eq!(decision.then, Then::Act(Action::ReceiveVm { from: host(2) }));
    let done = Input::Done(ActionResult::Ready { uri: "tcp:h1:49152".to_owned() });
    let (core, decision) = decide(core, done, settings);
    assert_eq!(decision.then, Then::Next(Wait::Delay));
    core
}

#[test]
fn a_destination_gets_ready_says_so_and_does_not_start_the_vm_itself() {
    let settings = on();
    let core = waits_for_it(&settings);
    let ready = Ready { from: host(2), uri: "tcp:h1:49152".to_owned() };
    assert_eq!((core.state, core.metadata(&settings.limits).ready), (State::EngineDown, Some(ready)));
    // Source and all are gone for a moment: the guest is between the two.
    let mut between = sent_to(NOW + 5, Some(1));
    between.hosts[0].block.as_mut().expect("a block").engine = down();
    between.local.arriving = true;
    let (core, _, actions) = whole_step(core, between, true, &settings);
    assert_eq!((core.state, actions), (State::EngineDown, vec![]));
    let mut here = sent_to(NOW + 9, Some(1));
    here.hosts[0].block.as_mut().expect("a block").engine = down();
    here.local.engine = engine(VmState::Up, Health::Good, "Up");
    let (core, ..) = whole_step(core, here, true, &settings);
    assert_eq!((core.state, core.metadata(&settings.limits).ready), (State::EngineStarting, None));
}

#[test]
fn a_destination_gives_up_when_nobody_sends_and_at_once_when_the_source_is_dead() {
    let settings = on();
    let arriving = |at, to| {
        let mut world = sent_to(at, to);
        world.local.arriving = true;
        world
    };
    let core = waits_for_it(&settings);
    let (core, decision, actions) = whole_step(core, arriving(NOW + 10, None), true, &settings);
    assert!(actions.is_empty() && texts(&decision).contains("given up in 20 s"), "{}", texts(&decision));
    let (back, _, actions) = whole_step(core.clone(), arriving(NOW + 20, Some(1)), true, &settings);
    assert!(actions.is_empty() && back.memory.moves.incoming.is_some_and(|it| it.unasked.is_none()));
    let (core, _, actions) = whole_step(core, arriving(NOW + 30, None), true, &settings);
    assert_eq!((core.state, actions), (State::EngineDown, vec![Action::EndArrival]));
    assert_eq!(core.memory.moves.incoming, None);

    let mut core = waits_for_it(&settings);
    core.absorb(arriving(NOW + 1, Some(1)), &settings);
    let mut dead = arriving(NOW + 70, Some(1));
    dead.hosts[0].block.as_mut().expect("a block").host_ts = i64::try_from(NOW + 1).expect("a date");
    let (_, _, actions) = whole_step(core, dead, true, &settings);
    assert_eq!(actions, [Action::EndArrival]);
}

#[test]
fn a_host_in_maintenance_or_without_footing_receives_nothing() {
    let settings = on();
    let acts = |state, change: fn(&mut Observation)| {
        let mut world = sent_to(NOW, Some(1));
        change(&mut world);
        whole_step(core_in(state, None, &settings), world, false, &settings).2
    };
    let receives = vec![Action::ReceiveVm { from: host(2) }];
    assert_eq!(acts(State::EngineDown, |_| ()), receives);
    assert_eq!(acts(State::EngineDown, |world| world.local.maintenance = true), []);
    assert_eq!(acts(State::LocalMaintenance, |world| world.local.maintenance = true), []);
    assert_eq!(acts(State::EngineDown, |world| world.footing.host_lease = Some(false)), []);
    assert_eq!(acts(State::EngineDown, |world| world.local.migrates = Migrates::Arranged), []);
    assert_eq!(acts(State::EngineUnexpectedlyDown, |_| ()), []);
    assert_eq!(acts(State::GlobalMaintenance, |world| world.global_maintenance = true), receives);
    let mut gone = sent_to(NOW, Some(1));
    gone.hosts[0].block.as_mut().expect("a block").engine = down();
    let (core, _, actions) = whole_step(core_in(State::EngineDown, None, &settings), gone, true, &settings);
    assert_eq!((core.state, actions), (State::EngineDown, vec![]), "it does not run there any more");
}

#[test]
fn a_vm_that_the_hypervisors_move_by_themselves_is_left_to_them() {
    let settings = on();
    let mut world = sent_to(NOW, None);
    world.local.migrates = Migrates::Arranged;
    world.local.arriving = true;
    let mut core = core_in(State::EngineDown, None, &settings);
    core.memory.moves.incoming = Some(Incoming { from: None, uri: None, unasked: Some(Secs(NOW - 500)) });
    let (core, _, actions) = whole_step(core, world, true, &settings);
    assert_eq!((core.state, actions), (State::EngineDown, vec![]));
}

#[test]
fn nobody_starts_the_vm_while_a_live_host_says_that_it_is_on_its_way() {
    let run = |policy, change: fn(&mut RemoteBlock)| {
        let settings = settings(policy);
        let mut world = look(NOW, vec![remote(1, 100, down())], down());
        change(world.hosts[0].block.as_mut().expect("a block"));
        whole_step(core_in(State::EngineDown, None, &settings), world, true, &settings).0.state
    };
    let moves: fn(&mut RemoteBlock) = |block| block.migration_to = Some(host(3));
    let receives: fn(&mut RemoteBlock) =
        |block| block.ready = Some(Ready { from: host(3), uri: "tcp:h:1".to_owned() });
    assert_eq!(run(Policy::default(), |_| ()), State::EngineStart);
    assert_eq!(run(Policy::default(), moves), State::EngineDown);
    assert_eq!(run(Policy::default(), receives), State::EngineDown);
    let dead: fn(&mut RemoteBlock) = |block| {
        block.migration_to = Some(host(3));
        block.host_ts = 0;
    };
    assert_eq!(run(Policy::default(), dead), State::EngineStart, "only a live host's word counts");
    assert_eq!(run(Policy { live_migration: false, ..Policy::default() }, moves), State::EngineStart);
}
