use metadata_format::{EngineStatus, Health, Score, VmState};
use proptest::prelude::*;

use super::super::{
    Action, ActionResult, Decision, Footing, Input, Limits, Local, Observation, PausedLease, Policy, Profile,
    RemoteBlock, RemoteHost, Settings, Then, Weights, decide,
};
use super::*;

/// What happens in one look of a random run.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "what a look shows are independent facts")]
struct Turn {
    /// Seconds since the look before.
    after: u64,
    /// Per other host: whether its timestamp moved, its score, whether the VM runs there, whether it parses.
    others: Vec<(bool, u32, bool, bool)>,
    vm: VmState,
    health: Health,
    paused: bool,
    global: bool,
    maintenance: bool,
    network: bool,
    /// Whether the lock manager says who is alive.
    live: bool,
    /// Seconds since the own block was written.
    silent: u64,
    works: bool,
}

fn host(id: u16) -> HostId {
    HostId::new(id).expect("a valid id")
}

fn turn() -> impl Strategy<Value = Turn> {
    let vm = prop_oneof![
        4 => Just(VmState::Up),
        4 => Just(VmState::Down),
        1 => Just(VmState::DownUnexpected),
        1 => Just(VmState::DownMissing),
        1 => Just(VmState::Unknown),
    ];
    let other = (any::<bool>(), prop_oneof![Just(0), Just(2000), Just(3400)], any::<bool>(), any::<bool>());
    (
        (1_u64..30, prop::collection::vec(other, 2), vm),
        (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        (any::<bool>(), any::<bool>(), 0_u64..60, any::<bool>()),
    )
        .prop_map(
            |((after, others, vm), (good, paused, global, maintenance), (network, live, silent, works))| {
                let health = if good { Health::Good } else { Health::Bad };
                Turn { after, others, vm, health, paused, global, maintenance, network, live, silent, works }
            },
        )
}

fn settings(policy: Policy) -> Settings {
    let limits = Limits {
        alive: 20,
        history: 60,
        retry_window: 60,
        starting: 40,
        bad_health: 30,
        stop: 30,
        away: 20,
        unexpected_down: 50,
        restart_window: 90,
        restart_pause: 20,
        engine_reset_window: 90,
        ..Limits::default()
    };
    Settings { host_id: host(1), weights: Weights::of(Profile::Ovirt45), policy, limits }
}

/// A look at `turn` in which this host's clock says `now` and the others' blocks carry `stamps`.
fn look(turn: &Turn, now: u64, stamps: &[i64]) -> Observation {
    let engine = |up: bool| EngineStatus {
        vm: if up { VmState::Up } else { VmState::Down },
        health: Health::Bad,
        detail: "Up".to_owned(),
        reason: None,
    };
    let hosts = turn.others.iter().zip(stamps).zip(2..).map(|((&(_, score, up, parses), &host_ts), id)| {
        let block = RemoteBlock {
            host_ts,
            score: Score(score),
            engine: Some(engine(up)),
            hostname: String::new(),
            migration_to: None,
            ready: None,
        };
        RemoteHost { id: host(id), block: parses.then_some(block) }
    });
    let detail = if turn.paused { "Paused" } else { "Up" }.to_owned();
    Observation {
        started: Secs(now),
        finished: Secs(now),
        wall_offset: 1_700_000_000,
        global_maintenance: turn.global,
        hosts: hosts.collect(),
        local: Local {
            network: Some(if turn.network { 1.0 } else { 0.25 }),
            bridge: Some(true),
            mem_free: Some(8000.0),
            cpu_load: Some(0.5),
            engine: Some(EngineStatus { vm: turn.vm, health: turn.health, detail, reason: None }),
            maintenance: turn.maintenance,
            io_error_pause: turn.paused.then_some(PausedLease::Held),
            min_memory: 4000,
            conf_up_to_date: true,
            ..Local::default()
        },
        lock_manager_live: turn.live.then(|| vec![host(1), host(2)]),
        footing: Footing {
            last_acknowledged: Some(Secs(now - turn.silent)),
            host_lease: Some(true),
            storage_stuck: None,
            lease_owner: None,
        },
    }
}

/// A whole step, with the steps that follow at once; gives all that was decided.
fn step(mut core: Core, look: Observation, works: bool, settings: &Settings) -> (Core, Vec<Decision>) {
    let mut decisions = Vec::new();
    let mut input = Input::Look(Box::new(look));
    loop {
        let (next, decision) = decide(core, input, settings);
        core = next;
        let then = decision.then;
        decisions.push(decision);
        input = match then {
            Then::Act(Action::StartVm) if !works => {
                Input::Done(ActionResult::Failed { detail: String::new() })
            }
            Then::Act(_) => Input::Done(ActionResult::Done),
            Then::Next(super::super::Wait::No) if decisions.len() < 16 => Input::SameLook,
            Then::Next(_) => return (core, decisions),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// One core lives through the run on clocks that go on; the other is brought back to the same origin after
    /// each look. They decide the same, for the same reasons, at every look.
    #[test]
    fn a_rebased_core_decides_like_one_whose_clocks_went_on(
        turns in prop::collection::vec(turn(), 1..60),
        plain in any::<bool>(),
    ) {
        const ORIGIN: u64 = 100_000;
        let settings = settings(if plain { Policy::plain() } else { Policy::default() });
        // The next timestamp is the last or a higher one, so that lower ones need not be told apart.
        let horizon = Some(Horizon {
            instant: Secs(ORIGIN - 100),
            stamp: -1,
            samples: settings.limits.debounce_bad,
        });
        let (mut whole, mut moved) = (Core::default(), Core::default());
        let (mut now, mut stamps) = (ORIGIN, vec![700_i64, 9]);
        let mut last_stamps = stamps.clone();
        for turn in &turns {
            now += turn.after;
            for (stamp, (alive, ..)) in stamps.iter_mut().zip(&turn.others) {
                *stamp += i64::from(*alive);
            }
            let shifted: Vec<_> = stamps.iter().zip(&last_stamps).map(|(stamp, last)| stamp - last).collect();
            let (next, expected) = step(whole, look(turn, now, &stamps), turn.works, &settings);
            whole = next;
            let (next, decisions) =
                step(moved, look(turn, ORIGIN + turn.after, &shifted), turn.works, &settings);
            prop_assert_eq!(&decisions, &expected);
            prop_assert_eq!(&next.score, &whole.score);
            let remote = (2..).map(host).zip(shifted).collect();
            moved = next.rebased(&ClockShift { own: turn.after, remote, horizon });
            last_stamps.clone_from(&stamps);
        }
        // And one shift of the whole life gives the same core as one shift after each look.
        let remote = (2..).map(host).zip(stamps).collect();
        let shift = ClockShift { own: now - ORIGIN, remote, horizon };
        prop_assert_eq!(whole.rebased(&shift), moved);
    }
}
