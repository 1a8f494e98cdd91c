//! `--migrate-vm`, and how a host empties itself: what is asked, what is shown, and what the exit code says.

use std::time::Duration;

use broker_api::status::{AgentReport, MigrationPhase, MigrationReport};
use engine_vm::{LeaseHolding, VmActivity};
use ha_config::{HaConf, Paths};
use hosted_engine_cli::maintenance::{self, Mode, Wanted};
use hosted_engine_cli::migrate::{Host, MigrateVmArgs, migrate};
use hosted_engine_cli::status::{Format, show};
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use metadata_format::HostId;

use crate::fake_broker::{FakeBroker, State, asked_at};
use crate::fake_vm::FakeVm;
use crate::{DOWN, UP, block, cluster_block, report};

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

fn here() -> FakeVm {
    FakeVm::new(VmActivity::Up, LeaseHolding::Held)
}

fn moving(to: u16, request: Option<i64>, phase: MigrationPhase) -> AgentReport {
    let hostname = format!("h{to}");
    report("EngineUp", Some(MigrationReport { to: id(to), hostname, since: 1_700_000_000, phase, request }))
}

fn sending(percent: u64) -> MigrationPhase {
    MigrationPhase::Sending { transferred: percent << 20, remaining: (100 - percent) << 20 }
}

fn refused(why: &str) -> MigrationPhase {
    MigrationPhase::Failed { detail: why.to_owned() }
}

/// Three hosts: the VM on the first, the third not live; and what the first one's agent reports in turn.
fn cluster(reports: impl IntoIterator<Item = AgentReport>) -> State {
    let blocks = [
        (0, cluster_block(false)),
        (1, block(1, UP, 3400)),
        (2, block(2, DOWN, 3400)),
        (3, block(3, DOWN, 3400)),
    ];
    State {
        blocks: blocks.into(),
        alive: vec![1, 2],
        ours: true,
        reports: reports.into_iter().collect(),
        ..State::default()
    }
}

async fn ask(state: State, vm: &FakeVm, args: MigrateVmArgs) -> (Exit, Record, Vec<Option<HostId>>) {
    let broker = FakeBroker::start(state);
    let mut terminal = Terminal::recording();
    let host = Host { id: id(1), broker: &broker.client, vm: Some(vm) };
    let exit = migrate(args, host, &mut terminal).await.unwrap();
    let asked = broker.state.lock().unwrap().asked.clone();
    (exit, terminal.recorded(), asked)
}

#[tokio::test(start_paused = true)]
async fn the_vm_is_moved_and_the_way_is_shown() {
    let at = Some(asked_at(1));
    let (exit, said, asked) = ask(
        cluster([
            report("EngineUp", None),
            report("EngineUp", None),
            moving(2, at, MigrationPhase::Asked),
            moving(2, at, sending(10)),
            moving(2, at, sending(60)),
            moving(2, at, MigrationPhase::Done),
        ]),
        &here(),
        MigrateVmArgs::to(None),
    )
    .await;
    assert_eq!((exit, asked), (Exit::OK, vec![None]), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "This host's agent was asked to move the engine VM to the best other host",
            "h2 (id 2) gets ready for the engine VM",
            "Moving the engine VM to h2 (id 2): 10 % of 100.00 MiB",
            "Moving the engine VM to h2 (id 2): 60 % of 100.00 MiB",
        ]
    );
    assert!(lines[4].starts_with("The engine VM runs on h2 (id 2) now, "), "{said:?}");
    assert_eq!((lines.len(), said.err.as_str()), (5, ""));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_given_in_the_agents_words_and_an_earlier_answer_is_nobodys() {
    // The last request of another operator failed a moment ago.
    let earlier = moving(2, Some(asked_at(0)), refused("an old reason"));
    let answer = moving(2, Some(asked_at(1)), refused("h2 cannot prepare: no memory"));
    let (exit, said, asked) =
        ask(cluster([earlier.clone(), earlier, answer]), &here(), MigrateVmArgs::to(Some(id(2)))).await;
    assert_eq!((exit, asked), (Exit::FAILED, vec![Some(id(2))]));
    assert_eq!(said.err, "The engine VM was not moved: h2 cannot prepare: no memory\n");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_said_at_once_and_nobody_is_asked() {
    let up = || cluster([report("EngineUp", None)]);
    let mut elsewhere = up();
    elsewhere.blocks.insert(1, block(1, DOWN, 3400));
    elsewhere.blocks.insert(2, block(2, UP, 3400));
    let alone = State { alive: vec![1], ..up() };
    let silent = State { reports: Vec::new().into(), ..up() };
    let any = MigrateVmArgs::to(None);
    for (state, vm, args, words) in [
        (elsewhere, FakeVm::down(), any, "it is up on h2 (id 2): give the command there"),
        (
            up(),
            here(),
            MigrateVmArgs::to(Some(id(9))),
            "no host 9; the other hosts are: h2 (id 2), h3 (id 3)",
        ),
        (
            up(),
            here(),
            MigrateVmArgs::to(Some(id(3))),
            "h3 (id 3) cannot take the engine VM: its status is not up",
        ),
        (alone, here(), any, "No other host can take the engine VM:\n  h2 (id 2): its status"),
        (silent, here(), any, "agent has not spoken"),
    ] {
        let (exit, said, asked) = ask(state, &vm, args).await;
        assert_eq!((exit, asked), (Exit::FAILED, vec![]), "{words}");
        assert!(said.err.contains(words), "{words:?} in {said:?}");
    }
    let (exit, said, asked) = ask(up(), &here(), MigrateVmArgs::to(Some(id(1)))).await;
    assert_eq!((exit, asked), (Exit::OK, vec![]));
    assert!(said.out.contains("already"), "{said:?}");
    let python = State { ours: false, ..up() };
    let (exit, said, _) = ask(python, &here(), any).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("release"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_move_is_shown_in_the_status_and_adds_to_json_without_changing_it() {
    let plain = FakeBroker::start(cluster([report("EngineUp", None)]));
    let busy = FakeBroker::start(cluster([moving(2, None, sending(40))]));
    let shown = async |broker: &FakeBroker, format| {
        let mut terminal = Terminal::recording();
        show(&broker.client, format, false, &mut terminal).await.unwrap();
        terminal.recorded().out
    };
    let text = shown(&busy, Format::Text).await;
    assert!(text.contains("-- This host moves the engine VM to h2 (id 2) since"), "{text}");
    assert!(text.contains(": 40 % of its memory is sent --"), "{text}");
    assert!(!shown(&plain, Format::Text).await.contains("moves"));
    for (to, phase, words) in [
        (2, MigrationPhase::Done, "-- The engine VM moved from this host to h2 (id 2) --"),
        (2, refused("no memory"), "-- The engine VM was not moved to h2 (id 2): no memory --"),
        (1, refused("no host is fit"), "-- The engine VM was not moved: no host is fit --"),
    ] {
        let text = shown(&FakeBroker::start(cluster([moving(to, None, phase)])), Format::Text).await;
        assert!(text.contains(words), "{text}");
    }

    let json = async |broker| -> serde_json::Value {
        serde_json::from_str(&shown(broker, Format::Json).await).unwrap()
    };
    let mut with = json(&busy).await;
    let added = with["1"].as_object_mut().unwrap().remove("migration").unwrap();
    assert_eq!(
        added,
        serde_json::json!({"to": 2, "hostname": "h2", "since": 1_700_000_000, "phase": "sending", "percent": 40})
    );
    assert_eq!(with, json(&plain).await, "nothing else differs");

    let mut other = cluster([]);
    other.blocks.insert(1, block(1, r#"{"vm":"up","health":"good","detail":"Migration Source"}"#, 3400));
    let text = shown(&FakeBroker::start(other), Format::Text).await;
    assert!(text.contains("-- The engine VM is moving away from h1 (id 1) --"), "{text}");
}

struct Emptied {
    exit: Exit,
    said: Record,
    conf: HaConf,
}

async fn empty(state: State, force: bool, no_wait: bool) -> Emptied {
    empty_while(state, force, no_wait, async |_: &FakeBroker| {}).await
}

/// While `meanwhile` happens.
async fn empty_while(
    state: State,
    force: bool,
    no_wait: bool,
    meanwhile: impl AsyncFnOnce(&FakeBroker),
) -> Emptied {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let broker = FakeBroker::start(state);
    let host = maintenance::Host { paths: &paths, id: id(1), broker: &broker.client };
    let mut terminal = Terminal::recording();
    let wanted = Wanted { mode: Mode::Local, force, no_wait };
    let vm = here();
    let (exit, ()) =
        tokio::join!(maintenance::set(wanted, host, Some(&vm), &mut terminal), meanwhile(&broker));
    let exit = exit.unwrap();
    Emptied { exit, said: terminal.recorded(), conf: HaConf::load(&paths).unwrap() }
}

#[tokio::test(start_paused = true)]
async fn a_host_shows_how_it_empties_itself() {
    let reports = || {
        [
            report("EngineUp", None),
            moving(2, None, MigrationPhase::Asked),
            moving(2, None, sending(50)),
            moving(2, None, refused("the stream broke")),
            report("EngineStop", None),
            report("LocalMaintenance", None),
        ]
    };
    let Emptied { exit, said, conf } = empty(cluster(reports()), false, false).await;
    assert!(exit == Exit::OK && conf.is_maintenance() && !conf.local_maintenance_force, "{said:?}");
    let mut rest = said.out.as_str();
    for words in [
        "the agent moves it",
        "Local maintenance is set",
        "h2 (id 2) gets ready",
        "50 %",
        "was not moved to h2 (id 2): the stream broke",
        "EngineStop: why EngineStop",
        "This host is empty and in local maintenance after",
    ] {
        let at = rest.find(words).unwrap_or_else(|| panic!("{words:?} in {said:?}"));
        rest = &rest[at..];
    }
    let Emptied { exit, said, conf } = empty(cluster(reports()), false, true).await;
    assert!(exit == Exit::OK && conf.is_maintenance(), "{said:?}");
    assert!(said.out.ends_with("Local maintenance is set on this host\n"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_host_says_where_the_vm_went() {
    let moved = || {
        cluster([
            report("EngineUp", None),
            moving(2, None, sending(50)),
            moving(2, None, MigrationPhase::Done),
            report("LocalMaintenance", None),
        ])
    };
    // The row of the host that has it is a moment older than the report.
    let late = async |broker: &FakeBroker| {
        tokio::time::sleep(Duration::from_secs(5)).await;
        broker.state.lock().unwrap().blocks.insert(2, block(2, UP, 3400));
    };
    let Emptied { exit, said, .. } = empty_while(moved(), false, false, late).await;
    assert_eq!(exit, Exit::OK);
    assert!(said.out.ends_with(" s; the engine VM has moved to h2 (id 2)\n"), "{said:?}");
    let Emptied { exit, said, .. } = empty(moved(), false, false).await;
    assert_eq!(exit, Exit::OK);
    assert!(
        said.out.contains("; the engine VM has moved to h2 (id 2), whose row does not show it after 15 s")
    );
    // Shut down here and started there, or not yet.
    let mut stopped = cluster([report("EngineUp", None), report("LocalMaintenance", None)]);
    let Emptied { said, .. } = empty(stopped, false, false).await;
    assert!(said.out.ends_with("; no live host shows the engine VM up\n"), "{said:?}");
    stopped = cluster([report("LocalMaintenance", None)]);
    stopped.blocks.insert(2, block(2, UP, 3400));
    let Emptied { said, .. } = empty(stopped, false, false).await;
    assert!(said.out.ends_with("; the engine VM is on h2 (id 2)\n"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_host_that_can_take_the_vm_only_force_empties_this_one() {
    let alone = || {
        let mut state = cluster([report("EngineStop", None), report("LocalMaintenance", None)]);
        state.blocks.insert(2, block(2, DOWN, 0));
        state
    };
    let Emptied { exit, said, conf } = empty(alone(), false, false).await;
    assert!(exit == Exit::FAILED && conf == HaConf::default());
    for words in
        ["Unable to enter", "h2 (id 2): its score is 0", "h3 (id 3): its status is not up", "--force"]
    {
        assert!(said.err.contains(words), "{words:?} in {said:?}");
    }
    let Emptied { exit, said, conf } = empty(alone(), true, false).await;
    assert!(exit == Exit::OK && conf.is_maintenance() && conf.local_maintenance_force, "{said:?}");
    assert!(said.out.contains("It is shut down") && said.out.contains("This host is empty"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_just_come_up_is_waited_for_and_no_longer_than_it_takes() {
    let young = || {
        let mut state = cluster([report("EngineUp", None), moving(2, None, MigrationPhase::Done)]);
        (state.alive, state.unchanged) = (vec![1], [(2, 3), (3, 40)].into());
        state
    };
    let comes = async |broker: &FakeBroker| {
        tokio::time::sleep(Duration::from_secs(50)).await;
        let mut state = broker.state.lock().unwrap();
        state.alive.push(2);
        state.blocks.insert(2, block(2, UP, 3400));
        state.reports.push_back(report("LocalMaintenance", None));
    };
    let Emptied { exit, said, conf } = empty_while(young(), false, false, comes).await;
    assert!(exit == Exit::OK && conf.is_maintenance(), "{said:?}");
    let begins = "No other host can take the engine VM yet. Waiting for h2 (id 2), until it was watched for a \
                  minute: 90 s at most\nThe engine VM is running on this host; the agent moves it";
    assert!(said.out.starts_with(begins), "{said:?}");
    let Emptied { exit, said, conf } = empty(young(), false, false).await;
    assert!(exit == Exit::FAILED && conf == HaConf::default(), "nothing was set: {said:?}");
    assert!(said.err.contains("or add --force"), "{said:?}");
    let begun = tokio::time::Instant::now();
    let Emptied { exit, .. } = empty(State { unchanged: [(2, 31)].into(), ..young() }, false, false).await;
    assert!(exit == Exit::FAILED && begun.elapsed() < Duration::from_secs(1), "it does not write");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_agents_that_keep_their_hands_off_or_are_not_there() {
    let mut global = cluster([report("GlobalMaintenance", None)]);
    global.blocks.insert(0, cluster_block(true));
    let Emptied { exit, said, conf } = empty(global, false, false).await;
    assert!(exit == Exit::OK && conf.is_maintenance());
    assert!(said.err.contains("global maintenance"), "{said:?}");
    let Emptied { exit, said, conf } = empty(cluster([]), false, false).await;
    assert!(exit == Exit::OK && conf.is_maintenance());
    assert!(said.err.contains("leaves once it runs"), "{said:?}");
}
