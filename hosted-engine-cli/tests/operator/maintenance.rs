//! `--set-maintenance`: each scope alone, and the write that counts only once it was seen.

use engine_vm::{LeaseHolding, VmActivity};
use ha_config::{HaConf, Paths};
use hosted_engine_cli::maintenance::{Host, Mode, Wanted, set};
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use metadata_format::{GlobalBlock, HostId};
use tempfile::TempDir;

use crate::fake_broker::{FakeBroker, State};
use crate::fake_vm::FakeVm;
use crate::{DOWN, UP, block, cluster_block};

struct Lab {
    _root: TempDir,
    paths: Paths,
    broker: FakeBroker,
    vm: FakeVm,
}

impl Lab {
    fn new(state: State, vm: FakeVm) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { paths: Paths::new(root.path()), _root: root, broker: FakeBroker::start(state), vm }
    }

    async fn set(&self, mode: Mode) -> (anyhow::Result<Exit>, Record) {
        self.ask(Wanted { mode, force: false, no_wait: false }).await
    }

    async fn ask(&self, wanted: Wanted) -> (anyhow::Result<Exit>, Record) {
        let mut terminal = Terminal::recording();
        let host = Host { paths: &self.paths, id: HostId::new(1).unwrap(), broker: &self.broker.client };
        let exit = set(wanted, host, Some(&self.vm), &mut terminal).await;
        (exit, terminal.recorded())
    }

    fn local(&self) -> bool {
        HaConf::load(&self.paths).unwrap().is_maintenance()
    }

    fn global(&self) -> bool {
        GlobalBlock::parse(&self.broker.state.lock().unwrap().blocks[&0]).unwrap().maintenance()
    }

    fn writes(&self) -> usize {
        self.broker.state.lock().unwrap().writes.len()
    }
}

fn cluster(maintenance: bool) -> State {
    let blocks = [(0, cluster_block(maintenance)), (1, block(1, UP, 3400)), (2, block(2, DOWN, 900))];
    State { blocks: blocks.into(), alive: vec![1, 2], ours: true, ..State::default() }
}

#[tokio::test]
async fn global_changes_one_line_of_the_cluster_and_nothing_else() {
    let lab = Lab::new(cluster(false), FakeVm::down());
    assert_eq!(lab.set(Mode::Global).await.0.unwrap(), Exit::OK);
    assert!(lab.global() && !lab.local());
    let state = lab.broker.state.lock().unwrap();
    assert_eq!(state.writes.len(), 1);
    assert_eq!(GlobalBlock::parse(&state.blocks[&0]).unwrap().unknown_lines(), ["from-the-future=7"]);
}

#[tokio::test]
async fn local_does_not_end_global_maintenance() {
    let lab = Lab::new(cluster(true), FakeVm::down());
    assert_eq!(lab.set(Mode::Local).await.0.unwrap(), Exit::OK);
    assert!(lab.local() && lab.global());
    assert_eq!(lab.writes(), 0);
}

#[tokio::test]
async fn none_ends_both_and_keeps_what_else_is_in_ha_conf() {
    let lab = Lab::new(cluster(true), FakeVm::down());
    lab.set(Mode::Local).await.0.unwrap();
    let path = HaConf::path(&lab.paths);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("local_maintenance=True\n") && text.contains("local_maintenance_manual=True\n"));
    std::fs::write(&path, format!("other=1\n{text}")).unwrap();
    assert_eq!(lab.set(Mode::None).await.0.unwrap(), Exit::OK);
    assert!(!lab.local() && !lab.global());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("other=1\n"));
}

#[tokio::test]
async fn local_with_the_vm_here_needs_a_host_that_can_take_it() {
    let here = || FakeVm::new(VmActivity::Up, LeaseHolding::Held);
    let lab = Lab::new(cluster(false), here());
    let (exit, said) = lab.set(Mode::Local).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    assert!(said.out.contains("the agent moves it"), "{said:?}");

    let lab = Lab::new(State { alive: vec![1], ..cluster(false) }, here());
    let (exit, said) = lab.set(Mode::Local).await;
    assert_eq!(exit.unwrap(), Exit::FAILED);
    assert!(said.err.contains("Unable to enter local maintenance mode"), "{said:?}");
    assert!(!lab.local());
}

#[tokio::test]
async fn a_refused_write_is_an_error_with_the_brokers_words() {
    let lab =
        Lab::new(State { refuse: Some("storage stuck since 04:05:06"), ..cluster(false) }, FakeVm::down());
    let error = format!("{:#}", lab.set(Mode::Global).await.0.unwrap_err());
    assert!(error.contains("was not changed") && error.contains("storage stuck since 04:05:06"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_got_lost_is_not_called_done() {
    let lab = Lab::new(State { forget: true, ours: false, ..cluster(false) }, FakeVm::down());
    let (exit, said) = lab.set(Mode::Global).await;
    let error = format!("{:#}", exit.unwrap_err());
    assert!(error.contains("does not show it"), "{error}");
    assert!(!said.out.contains("is set"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_the_file_was_read() {
    let lab = Lab::new(State { reads_after: 3, ours: false, ..cluster(false) }, FakeVm::down());
    assert_eq!(lab.set(Mode::Global).await.0.unwrap(), Exit::OK);
    let block = lab.broker.state.lock().unwrap().blocks[&0].clone();
    assert_eq!(GlobalBlock::parse(&block).unwrap().unknown_lines(), ["from-the-future=7"]);

    let lab = Lab::new(State { reads_after: u32::MAX, ours: false, ..cluster(false) }, FakeVm::down());
    let error = format!("{:#}", lab.set(Mode::Global).await.0.unwrap_err());
    assert!(error.contains("has not read the metadata file yet"), "{error}");
    assert_eq!(lab.writes(), 0);
}

#[tokio::test]
async fn an_unreadable_cluster_block_is_repaired_and_said_so() {
    let mut state = cluster(false);
    state.blocks.insert(0, vec![7; 4096]);
    let lab = Lab::new(state, FakeVm::down());
    let (exit, said) = lab.set(Mode::Global).await;
    assert_eq!(exit.unwrap(), Exit::OK);
    assert!(lab.global() && said.err.contains("written anew"), "{said:?}");
}
