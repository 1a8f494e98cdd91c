//! Live migration: ends of the VM on its way, and a hypervisor that does not tell of them.

use super::super::moves::Moving;
use super::moving::{ask, asked, down, ended, here, in_progress, last, on, ready, texts};
use super::*;

/// A core whose VM is on its way since [`NOW`] + 2.
fn sent(settings: &Settings) -> Core {
    let (core, ..) = whole_step(asked(settings), world(NOW + 2, |world| ready(world, 1)), true, settings);
    assert!(core.memory.moves.current.as_ref().is_some_and(|moving| moving.sent == Some(Secs(NOW + 2))));
    core
}

fn world(at: u64, f: impl Fn(Observation) -> Observation) -> Observation {
    f(ask(here(at, 100), Some(2)))
}

/// The hypervisor still tells of a migration of the VM, which has ended like that.
fn gone(engine: Option<EngineStatus>) -> impl Fn(Observation) -> Observation {
    move |world| {
        let mut world = in_progress(world, 99);
        world.local.engine.clone_from(&engine);
        world
    }
}

#[test]
fn a_vm_that_is_gone_is_not_on_its_way_whatever_the_hypervisor_says() {
    let settings = on();
    let dead = gone(engine(VmState::DownUnexpected, Health::Bad, "Down"));
    let (core, decision, _) = whole_step(sent(&settings), world(NOW + 4, dead), true, &settings);
    assert_ne!(core.state, State::EngineMigratingAway, "{}", texts(&decision));
    assert!(core.memory.moves.current.is_none() && last(&core).failure.is_some());
}

#[test]
fn a_vm_that_ended_in_order_while_it_was_sent_is_waited_for() {
    let settings = on();
    // However long it was on its way.
    let late = NOW + 300;
    let (core, decision, _) = whole_step(sent(&settings), world(late, gone(down())), true, &settings);
    assert_eq!(core.state, State::EngineMigratingAway, "{}", texts(&decision));
    let arrived = world(late + 2, |world| ended(world, Migration::Finished));
    let (arrived, ..) = whole_step(core.clone(), arrived, true, &settings);
    assert_eq!((arrived.state, last(&arrived).failure.as_ref()), (State::EngineDown, None));
    let (core, ..) = whole_step(core, world(late + 121, gone(down())), true, &settings);
    assert_eq!(core.state, State::EngineDown, "not for ever");
}

#[test]
fn the_migration_of_a_vm_that_is_gone_is_not_called_off_but_given_up() {
    let settings = on();
    for vm in [VmState::Down, VmState::DownMissing, VmState::DownUnexpected] {
        let core = Core { timer: Some(Secs(NOW + 2)), ..sent(&settings) };
        let dead = || gone(engine(vm, Health::Bad, "Down"));
        let mut late = world(NOW + 700, dead());
        // Nor because its destination is dead too.
        late.hosts[0].block.as_mut().expect("a block").host_ts = i64::try_from(NOW).expect("a date");
        let (core, decision, actions) = whole_step(core, late, true, &settings);
        assert_eq!(actions, [], "{vm:?}: {}", texts(&decision));
        let (core, ..) = whole_step(core, world(NOW + 900, dead()), true, &settings);
        assert_ne!(core.state, State::EngineMigratingAway, "{vm:?}");
        assert_eq!(core.memory.moves.current, None::<Moving>, "{vm:?}");
    }
}
