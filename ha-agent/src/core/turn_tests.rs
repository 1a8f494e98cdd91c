//! `ranked_start`.

use super::*;

const OWN: u16 = 5;

fn as_host_5(policy: Policy) -> Settings {
    Settings { host_id: host(OWN), ..settings(policy) }
}

fn only() -> Settings {
    as_host_5(Policy { ranked_start: true, ..Policy::plain() })
}

fn others(ts: i64, scores: &[(u16, u32)]) -> Vec<RemoteHost> {
    let down = || engine(VmState::Down, Health::Bad, "Down");
    scores.iter().map(|&(id, score)| remote_of(id, ts, score, down())).collect()
}

/// Steps of host 5 at these seconds, beside hosts with these scores.
fn run(settings: &Settings, scores: &[(u16, u32)], at: &[u64]) -> Vec<(State, Option<u64>)> {
    let mut core = core_beside(others(0, scores), State::EngineDown, None, settings);
    let mut steps = Vec::new();
    for (&at, ts) in at.iter().zip(1..) {
        let world = look(NOW + at, others(ts, scores), engine(VmState::Down, Health::Bad, "vm not running"));
        let (next, decision, _) = whole_step(core, world, true, settings);
        steps.push((next.state, decision.again_in));
        core = next;
    }
    steps
}

const START: (State, Option<u64>) = (State::EngineStart, None);

fn waits(secs: u64) -> (State, Option<u64>) {
    (State::EngineDown, Some(secs))
}

#[test]
fn equal_hosts_start_in_the_order_of_their_ids() {
    let equals = [(2, 3400), (4, 3400), (7, 3400)];
    assert_eq!(run(&only(), &equals, &[0, 5, 10]), [waits(10), waits(5), START]);
    assert_eq!(run(&as_host_5(Policy::plain()), &equals, &[0]), [START]);
    assert_eq!(run(&only(), &[(7, 3400), (8, 3400)], &[0]), [START], "the lowest id is this host's");
    assert_eq!(run(&only(), &[(2, 3399)], &[0]), [START], "the best host waits for nobody");
}

#[test]
fn nobody_waits_longer_than_for_its_turn() {
    // The first ones do nothing at all.
    assert_eq!(run(&only(), &[(2, 3400), (3, 3400), (4, 3400)], &[0, 14, 15]), [waits(15), waits(1), START]);
}

#[test]
fn dead_hosts_and_hosts_without_a_score_are_not_waited_for() {
    let settings = only();
    let core = core_beside(others(1, &[(2, 3400)]), State::EngineDown, None, &settings);
    // Its timestamp stands still.
    let world = look(NOW, others(1, &[(2, 3400)]), engine(VmState::Down, Health::Bad, "Down"));
    assert_eq!(whole_step(core, world, true, &settings).0.state, State::EngineStart);
    let settings = Settings { weights: Weights { base: 0, ..settings.weights }, ..settings };
    assert_eq!(run(&settings, &[(2, 0), (3, 0)], &[0]), [START]);
}

#[test]
fn the_turn_is_forgotten_when_the_vm_runs_again_and_kept_when_a_start_is_refused() {
    let settings = only();
    let scores = [(2, 3400)];
    let down = || engine(VmState::Down, Health::Bad, "Down");
    let core = core_beside(others(0, &scores), State::EngineDown, None, &settings);
    let (core, decision, _) = whole_step(core, look(NOW, others(1, &scores), down()), true, &settings);
    let reason = decision.reasons.last().expect("a reason").to_string();
    assert!(reason.contains("other (id 2) comes first") && reason.contains("here in 5 s"), "{reason}");

    let up = vec![remote_of(2, 2, 3400, engine(VmState::Up, Health::Good, "Up"))];
    let (elsewhere, ..) = whole_step(core.clone(), look(NOW + 3, up, down()), true, &settings);
    assert_eq!((elsewhere.state, elsewhere.memory.due), (State::EngineDown, None));
    let (again, decision, _) =
        whole_step(elsewhere, look(NOW + 20, others(3, &scores), down()), true, &settings);
    assert_eq!((again.state, decision.again_in), waits(5));

    let (core, ..) = whole_step(core, look(NOW + 5, others(2, &scores), down()), true, &settings);
    assert_eq!(core.state, State::EngineStart);
    let (core, decision) = decide(core, Input::SameLook, &settings);
    assert_eq!(decision.then, Then::Act(Action::StartVm));
    let refused = ActionResult::Refused { detail: "host 9 holds it".to_owned() };
    let lenient = Policy { lease_refusal_is_no_failure: true, ..settings.policy };
    let settings = Settings { policy: lenient, ..settings };
    let (core, _) = decide(core, Input::Done(refused), &settings);
    assert_eq!(core.state, State::EngineDown);
    let (core, ..) = whole_step(core, look(NOW + 15, others(4, &scores), down()), true, &settings);
    assert_eq!(core.state, State::EngineStart, "its turn has come and lasts");
}

#[test]
fn a_lease_that_another_host_holds_is_waited_for_without_leaving_the_state() {
    let aware = Policy { lease_aware_start: true, ..only().policy };
    let settings = Settings { policy: aware, ..only() };
    let owner = LeaseOwner { host: 9, life: OwnerLife::Failing, free_in: Some(30) };
    let down = || engine(VmState::Down, Health::Bad, "Down");
    let alone = || core_beside(Vec::new(), State::EngineDown, None, &settings);
    let seen = |lease_owner| {
        let mut seen = look(NOW, Vec::new(), down());
        seen.footing.lease_owner = lease_owner;
        seen
    };
    let (core, decision, _) = whole_step(alone(), seen(Some(owner)), true, &settings);
    assert_eq!(core.state, State::EngineDown);
    assert_eq!(decision.reasons.last(), Some(&Reason::LeaseWaits { owner }));
    let (core, ..) = whole_step(alone(), seen(None), true, &settings);
    assert_eq!(core.state, State::EngineStart);
    let plain = Settings { policy: Policy { lease_aware_start: false, ..aware }, ..settings.clone() };
    let (core, ..) = whole_step(alone(), seen(Some(owner)), true, &plain);
    assert_eq!(core.state, State::EngineStart, "plain tries");

    // Asked right before the start, it leads back without counting as a failure.
    let (core, decision) = decide(core, Input::SameLook, &settings);
    assert_eq!(decision.then, Then::Act(Action::StartVm));
    let (core, decision) = decide(core, Input::Done(ActionResult::Waits { owner }), &settings);
    assert_eq!((core.state, core.retries.count), (State::EngineDown, 0));
    assert_eq!(decision.reasons, [Reason::LeaseWaits { owner }]);
}

#[test]
fn after_a_dead_host_the_order_costs_a_second_for_each_better_host() {
    let aware = Policy { lease_aware_start: true, ..only().policy };
    let settings = Settings { policy: aware, ..only() };
    let down = || engine(VmState::Down, Health::Bad, "Down");
    let left = |vm_of_9: Option<EngineStatus>, settings: &Settings| {
        let hosts =
            |ts| [others(ts, &[(2, 3400), (4, 3400)]), vec![remote_of(9, 0, 3400, vm_of_9.clone())]].concat();
        let core = core_beside(hosts(0), State::EngineDown, None, settings);
        let (core, decision, _) = whole_step(core, look(NOW, hosts(1), down()), true, settings);
        (core.state, decision.again_in)
    };
    let up = || engine(VmState::Up, Health::Good, "Up");
    assert_eq!(left(up(), &settings), waits(2));
    assert_eq!(left(down(), &settings), waits(10), "that host ran no VM");
    assert_eq!(left(up(), &only()), waits(10), "nobody would ask for the lease");
    let at_once = Settings { limits: Limits { stagger: 0, ..settings.limits }, ..settings };
    assert_eq!(left(up(), &at_once), START, "no longer than configured");
}
