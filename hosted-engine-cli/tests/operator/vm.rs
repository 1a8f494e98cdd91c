//! Starting and stopping the VM by hand: what is refused, what is warned of, what is passed on.

use engine_vm::{LeaseHolding, StartMode, VmActivity};
use ha_config::Secret;
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use hosted_engine_cli::{console, password, vm};
use metadata_format::HostId;

use crate::fake_broker::{FakeBroker, State};
use crate::fake_vm::FakeVm;
use crate::{DOWN, UP, block, cluster_block};

fn cluster(maintenance: bool, elsewhere: &str) -> State {
    let blocks = [(0, cluster_block(maintenance)), (1, block(1, DOWN, 3400)), (2, block(2, elsewhere, 900))];
    State { blocks: blocks.into(), alive: vec![1, 2], ours: true, ..State::default() }
}

async fn start(state: State, machine: &FakeVm, mode: StartMode) -> (Exit, Record) {
    let broker = FakeBroker::start(state);
    let mut terminal = Terminal::recording();
    let host = vm::Host { id: HostId::new(1).ok(), broker: &broker.client, vm: machine };
    let exit = vm::start(host, mode, &mut terminal).await.unwrap();
    (exit, terminal.recorded())
}

#[tokio::test]
async fn a_start_in_global_maintenance_is_silent_about_agents() {
    let machine = FakeVm::down();
    let (exit, said) = start(cluster(true, DOWN), &machine, StartMode::Paused).await;
    assert_eq!((exit, said.out.as_str(), said.err.as_str()), (Exit::OK, "VM in WaitForLaunch\n", ""));
    assert_eq!(machine.calls(), ["start Paused"]);
}

#[tokio::test]
async fn a_start_without_global_maintenance_warns() {
    let machine = FakeVm::down();
    let (exit, said) = start(cluster(false, DOWN), &machine, StartMode::Run).await;
    assert_eq!(exit, Exit::OK);
    assert!(said.err.contains("not in global maintenance"), "{said:?}");
}

#[tokio::test]
async fn a_vm_that_is_up_elsewhere_is_not_started() {
    let machine = FakeVm::down();
    let (exit, said) = start(cluster(true, UP), &machine, StartMode::Run).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("up on h2 (id 2)"), "{said:?}");
    assert!(machine.calls().is_empty());
}

#[tokio::test]
async fn a_stale_row_does_not_keep_the_vm_down() {
    let machine = FakeVm::down();
    let state = State { alive: vec![1], ..cluster(true, UP) };
    assert_eq!(start(state, &machine, StartMode::Run).await.0, Exit::OK);
    assert_eq!(machine.calls(), ["start Run"]);
}

#[tokio::test]
async fn a_held_lease_is_the_last_word() {
    let machine = FakeVm { lease_taken: true, ..FakeVm::down() };
    let (exit, said) = start(cluster(true, DOWN), &machine, StartMode::Run).await;
    assert_eq!(exit, Exit::FAILED);
    assert!(said.err.contains("lease is held elsewhere: -243"), "{said:?}");
    assert_eq!(said.out, "VM failed to launch\n");
}

#[tokio::test]
async fn a_vm_that_is_here_is_left_alone() {
    let machine = FakeVm::new(VmActivity::Up, LeaseHolding::Held);
    let (exit, said) = start(cluster(true, DOWN), &machine, StartMode::Run).await;
    assert_eq!((exit, said.err.as_str()), (Exit::FAILED, "VM exists and its status is Up\n"));
    assert!(machine.calls().is_empty());
}

#[tokio::test]
async fn a_paused_vm_goes_on_only_with_its_lease() {
    let held = FakeVm::new(VmActivity::Paused, LeaseHolding::Held);
    assert_eq!(start(cluster(true, DOWN), &held, StartMode::Run).await.0, Exit::OK);
    assert_eq!(held.calls(), ["resume"]);

    let lost = FakeVm::new(VmActivity::Paused, LeaseHolding::Lost { detail: "not ours".into() });
    assert_eq!(start(cluster(true, DOWN), &lost, StartMode::Run).await.0, Exit::OK);
    assert_eq!(lost.calls(), ["destroy", "start Run"]);

    let unknown = FakeVm::new(VmActivity::Paused, LeaseHolding::Unknown { detail: "no answer".into() });
    assert_eq!(start(cluster(true, DOWN), &unknown, StartMode::Run).await.0, Exit::FAILED);
    assert!(unknown.calls().is_empty());
}

#[tokio::test]
async fn stopping_is_passed_on_with_a_word_about_the_agents() {
    let broker = FakeBroker::start(cluster(false, DOWN));
    let machine = FakeVm::new(VmActivity::Up, LeaseHolding::Held);
    let host = || vm::Host { id: HostId::new(1).ok(), broker: &broker.client, vm: &machine };
    let mut terminal = Terminal::recording();
    assert_eq!(vm::shutdown(host(), &mut terminal).await.unwrap(), Exit::OK);
    assert!(terminal.recorded().err.contains("the agents start it again"));
    assert_eq!(vm::power_off(host(), &mut terminal).await.unwrap(), Exit::OK);
    assert_eq!(machine.calls(), ["shutdown 120", "destroy"]);
}

#[tokio::test]
async fn stopping_a_vm_that_is_elsewhere_says_where() {
    let broker = FakeBroker::start(cluster(false, UP));
    let machine = FakeVm::down();
    let mut terminal = Terminal::recording();
    let host = vm::Host { id: HostId::new(1).ok(), broker: &broker.client, vm: &machine };
    assert_eq!(vm::power_off(host, &mut terminal).await.unwrap(), Exit::FAILED);
    assert_eq!(terminal.recorded().err, "The engine VM is not on this host; it is up on h2 (id 2)\n");
}

#[tokio::test]
async fn a_console_password_is_set_and_never_said() {
    let machine = FakeVm::new(VmActivity::Up, LeaseHolding::Held);
    let mut terminal = Terminal::recording();
    let secret = Secret::new("hunter2hunter2");
    assert_eq!(password::set(&machine, &secret, &mut terminal).await.unwrap(), Exit::OK);
    let said = terminal.recorded();
    assert!(said.out.contains("VNC at 127.0.0.1:5900"), "{said:?}");
    assert!(said.err.contains("first 8 bytes"), "{said:?}");
    assert!(!format!("{said:?}").contains("hunter2"));
    assert_eq!(machine.calls(), ["password 14 120"]);
}

#[tokio::test]
async fn a_console_that_cannot_be_reached_is_named() {
    let machine = FakeVm::new(VmActivity::Paused, LeaseHolding::Held);
    let mut terminal = Terminal::recording();
    let error = console::open(&machine, &mut terminal).await.unwrap_err().to_string();
    assert!(error.contains("serial console /nonexistent/serial.sock"), "{error}");
    assert!(terminal.recorded().out.contains("its status is Paused"));
}

#[tokio::test]
async fn a_vm_that_is_elsewhere_has_no_console_here() {
    let mut terminal = Terminal::recording();
    assert_eq!(console::open(&FakeVm::down(), &mut terminal).await.unwrap(), Exit::FAILED);
    assert_eq!(terminal.recorded().err, "The engine VM is not on this host\n");
}
