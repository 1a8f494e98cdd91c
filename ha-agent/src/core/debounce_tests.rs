//! `debounce` and `cpu_never_evicts`: when a running VM is handed over.

use super::*;
use crate::core::debounce::Lead;

fn only_debounce() -> Settings {
    settings(Policy { debounce: true, ..Policy::plain() })
}

fn world(at: u64, ts: i64, theirs: u32, network: f64) -> Observation {
    let others = vec![remote(ts, theirs, engine(VmState::Down, Health::Bad, "Down"))];
    let mut world = look(NOW + at, others, engine(VmState::Up, Health::Good, "Up"));
    world.local.network = Some(network);
    world
}

/// Looks 10 s apart with this host's network share and the other host's score; the states and own scores after each.
fn run(settings: &Settings, looks: &[(f64, u32)]) -> Vec<(State, u32)> {
    let mut core = core_in(State::EngineUp, None, settings);
    let mut steps = Vec::new();
    for (number, &(network, theirs)) in (1_u64..).zip(looks) {
        let ts = i64::try_from(number).expect("small");
        let world = world(10 * number, ts, theirs, network);
        (core, ..) = whole_step(core, world, true, settings);
        steps.push((core.state, core.score.total.0));
    }
    steps
}

const UP: (State, u32) = (State::EngineUp, 3400);
const WORSE: (State, u32) = (State::EngineUp, 1800);

#[test]
fn a_single_bad_sample_moves_the_vm_only_in_the_plain_rules() {
    let one_bad = [(0.0, 3400), (1.0, 3400), (1.0, 3400)];
    assert_eq!(run(&settings(Policy::plain()), &one_bad)[..2], [WORSE, (State::EngineStop, 3400)]);
    assert_eq!(run(&only_debounce(), &one_bad), [UP, UP, UP]);
}

#[test]
fn a_host_whose_network_stays_bad_loses_the_vm_after_three_samples_of_each() {
    let steps = run(&only_debounce(), &[(0.0, 3400); 4]);
    assert_eq!(steps[..3], [UP, UP, WORSE]);
    assert_eq!(steps[3].0, State::EngineStop, "the other host's samples were counted meanwhile");
}

#[test]
fn three_of_four_are_enough_and_two_are_not() {
    let share = |shares: &[f64]| {
        let looks: Vec<_> = shares.iter().map(|share| (*share, 100)).collect();
        run(&only_debounce(), &looks).last().map(|(_, score)| *score)
    };
    assert_eq!(share(&[0.0, 1.0, 0.0, 1.0]), Some(3400));
    assert_eq!(share(&[0.0, 1.0, 0.0, 0.0]), Some(1800));
    assert_eq!(share(&[0.0, 0.5, 0.0, 1.0]), Some(2600), "the third worst counts");
}

#[test]
fn when_all_hosts_suffer_alike_nobody_moves() {
    assert!(run(&only_debounce(), &[(0.0, 1800); 20]).iter().all(|(state, _)| *state == State::EngineUp));
}

#[test]
fn the_end_of_a_fault_that_all_hosts_share_moves_nothing_either() {
    // The other host sees it 10 s earlier, and its score is back at once.
    let mut looks = vec![(0.0, 1800); 6];
    looks.push((0.0, 3400));
    looks.extend([(1.0, 3400); 6]);
    let steps = run(&only_debounce(), &looks);
    assert!(steps.iter().all(|(state, _)| *state == State::EngineUp), "{steps:?}");
    assert_eq!((steps[7], steps[8]), (WORSE, UP), "the own score is back after two good samples");
}

#[test]
fn another_host_must_be_ahead_in_three_of_its_own_samples_in_a_row() {
    // This host is bad throughout; the other one is well now and then.
    let looks: Vec<_> = (0..20).map(|number| (0.0, if number % 3 == 2 { 1800 } else { 3400 })).collect();
    assert!(run(&only_debounce(), &looks).iter().all(|(state, _)| *state == State::EngineUp));
}

#[test]
fn looks_of_a_woken_loop_are_no_new_samples_of_either_host() {
    let settings = only_debounce();
    let mut core = core_in(State::EngineUp, None, &settings);
    for second in 1..9 {
        (core, ..) = whole_step(core, world(second, 1, 9000, 0.0), true, &settings);
        assert_eq!((core.state, core.score.total), (State::EngineUp, Score(3400)), "after {second} s");
    }
    assert_eq!(core.memory.lead.of(host(OTHER)), 1, "its timestamp was new once");
    let (_, decision, _) = whole_step(core, world(9, 2, 9000, 0.0), true, &settings);
    let text = decision.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    assert!(text.contains("seen in 2 of its samples, handed over after 3"), "{text}");
    assert!(text.contains("the network test is worse now"), "{text}");
}

#[test]
fn the_lead_of_a_host_that_is_not_alive_is_forgotten() {
    let settings = only_debounce();
    let mut core = core_in(State::EngineUp, None, &settings);
    for second in [10, 20] {
        let ts = i64::try_from(second).expect("small");
        (core, ..) = whole_step(core, world(second, ts, 9000, 1.0), true, &settings);
    }
    assert_eq!(core.memory.lead.of(host(OTHER)), 2);
    // It stops writing, is dead after a minute, and comes back.
    (core, ..) = whole_step(core, world(100, 20, 9000, 1.0), true, &settings);
    assert_eq!((core.memory.lead.of(host(OTHER)), &core.memory.lead), (0, &Lead::default()));
}

#[test]
fn a_host_that_does_not_run_the_vm_is_penalised_at_once() {
    let settings = only_debounce();
    let core = core_in(State::EngineDown, None, &settings);
    let mut world = world(10, 1, 9000, 0.0);
    world.local.engine = engine(VmState::Down, Health::Bad, "Down");
    let (core, ..) = whole_step(core, world.clone(), true, &settings);
    assert_eq!((core.state, core.score.total), (State::EngineDown, Score(1800)));
    world.local.bridge = None;
    world.finished = Secs(NOW + 12);
    let (core, ..) = whole_step(core, world, true, &settings);
    assert_eq!(core.score.total, Score(1200), "also between two samples");
}

#[test]
fn the_bridge_is_borne_like_the_network() {
    let settings = only_debounce();
    let mut core = core_in(State::EngineUp, None, &settings);
    let mut scores = Vec::new();
    for number in 1..=4_u64 {
        let mut world = world(10 * number, i64::try_from(number).expect("small"), 100, 1.0);
        world.local.bridge = Some(number == 2);
        (core, ..) = whole_step(core, world, true, &settings);
        scores.push(core.score.total.0);
    }
    assert_eq!(scores, [3400, 3400, 3400, 2800]);
}

#[test]
fn samples_are_bounded() {
    let settings = only_debounce();
    let mut core = core_in(State::EngineUp, None, &settings);
    for number in 1..=50 {
        (core, ..) = whole_step(core, world(10 * number, 1, 100, 0.0), true, &settings);
    }
    assert_eq!(core.memory.samples.len(), 4);
}

#[test]
fn load_and_memory_do_not_stop_a_running_vm() {
    let run = |policy, cpu_load, conf_up_to_date| {
        let mut settings = settings(policy);
        // The idle time before counts in the average too.
        (settings.weights.cpu_min, settings.weights.cpu_max) = (0.0, 0.01);
        let mut core = core_in(State::EngineUp, None, &settings);
        for at in [10, 20, 30] {
            let mut world = world(at, i64::try_from(at).expect("small"), 3400, 1.0);
            world.local.cpu_load = Some(cpu_load);
            world.local.conf_up_to_date = conf_up_to_date;
            (core, ..) = whole_step(core, world, true, &settings);
        }
        (core.state, core.score.total.0)
    };
    let never = Policy { cpu_never_evicts: true, ..Policy::plain() };
    assert_eq!(run(Policy::plain(), 1.0, true).0, State::EngineStop);
    let (state, published) = run(never, 1.0, true);
    assert_eq!(state, State::EngineUp);
    assert!(published < 2600, "the other hosts still see the load: {published}");
    assert_eq!(run(never, 1.0, false).0, State::EngineStop, "what else is wrong counts as ever");
}
