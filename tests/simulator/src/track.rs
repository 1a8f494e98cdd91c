//! How each host was over time, for displays: the world's truth, taken down whenever something happens. It decides
//! nothing, draws no chance and waits for nothing, so that a run is the same with and without it.

use std::time::Duration;

use engine_vm::VmActivity;
use metadata_format::HostId;

use crate::storage::{Latency, Path};
use crate::vm::Process;
use crate::world::{Host, State};

/// Whether a host can do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It has no power.
    Off,
    /// It runs.
    On,
    /// All its processes stand still.
    Frozen,
}

/// A host's path to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageView {
    /// Requests are answered well.
    Good,
    /// Late, or with old contents.
    Slow,
    /// Requests, or writes alone, fail.
    Failing,
    /// Requests hang.
    Stalled,
}

impl StorageView {
    fn of(path: &Path) -> Self {
        if path.stalled {
            Self::Stalled
        } else if !path.is_good() {
            Self::Failing
        } else if !path.delay.is_zero() || path.stale.is_some() || path.latency != Latency::default() {
            Self::Slow
        } else {
            Self::Good
        }
    }
}

/// What the VM's process on a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Guest code runs.
    Runs,
    /// The guest was asked to power down and does so.
    PowersDown,
    /// It is on its way to another host.
    Leaves,
    /// The process exists, the guest stands still.
    Stopped,
    /// The process was killed and waits for storage to die.
    Dying,
}

/// The VM's process on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmView {
    /// Which one, counted from 1 over the whole run.
    pub instance: u64,
    /// What it does.
    pub doing: Doing,
}

impl VmView {
    fn of(process: &Process) -> Self {
        let doing = match process.activity {
            _ if process.dying.is_some() => Doing::Dying,
            VmActivity::Up | VmActivity::PoweringUp | VmActivity::RebootInProgress => Doing::Runs,
            VmActivity::PoweringDown => Doing::PowersDown,
            VmActivity::MigrationSource => Doing::Leaves,
            VmActivity::Down
            | VmActivity::WaitForLaunch
            | VmActivity::Paused
            | VmActivity::PausedByIoError
            | VmActivity::MigrationDestination
            | VmActivity::RestoringState
            | VmActivity::SavingState => Doing::Stopped,
        };
        Self { instance: process.instance, doing }
    }
}

/// A host at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    /// Whether it can do anything.
    pub power: Power,
    /// Its path to storage.
    pub storage: StorageView,
    /// Its network tests fail, some or all of them.
    pub network_bad: bool,
    /// Its management bridge is down.
    pub bridge_down: bool,
    /// The state that its agent last told; `None` while none has told any since the agent's begin.
    pub agent: Option<String>,
    /// The VM's process.
    pub vm: Option<VmView>,
}

impl HostView {
    fn of(host: &Host) -> Self {
        Self {
            power: match (host.powered, host.frozen) {
                (false, _) => Power::Off,
                (true, false) => Power::On,
                (true, true) => Power::Frozen,
            },
            storage: StorageView::of(&host.path),
            network_bad: host.network < 1.0,
            bridge_down: !host.bridge,
            agent: host.said.as_ref().map(|said| said.state.clone()),
            vm: host.vm.as_ref().map(VmView::of),
        }
    }
}

/// Something as it was from a moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since<T> {
    /// Time since the run began.
    pub at: Duration,
    /// How it was.
    pub what: T,
}

/// Adds how it is now, when that is new.
fn note<T: PartialEq>(samples: &mut Vec<Since<T>>, at: Duration, what: T) {
    match samples.last_mut() {
        Some(last) if last.what == what => {}
        Some(last) if last.at == at => last.what = what,
        _ => samples.push(Since { at, what }),
    }
}

/// An engine that answers well, or will when nothing comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// From when on.
    pub from: Duration,
    /// On which host.
    pub host: u16,
    /// In which VM, as in [`VmView`].
    pub instance: u64,
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Track {
    /// Each host, by id from 1: its changes in the order of time.
    pub hosts: Vec<Vec<Since<HostView>>>,
    /// The engine that answers; `None` while none does.
    pub engine: Vec<Since<Option<Answer>>>,
}

impl State {
    /// Takes down how everything is at `now`.
    pub fn look(&mut self, now: Duration) {
        for host in 0..self.hosts.len() {
            self.look_at_host(host, now);
        }
        self.look_at_engine(now);
    }

    /// Takes down how one host, and with it the engine, is at `now`. The place of the host is that in [`State::hosts`].
    pub fn look_at(&mut self, host: usize, now: Duration) {
        self.look_at_host(host, now);
        self.look_at_engine(now);
    }

    fn look_at_host(&mut self, host: usize, now: Duration) {
        self.track.hosts.resize_with(self.hosts.len(), Vec::new);
        note(&mut self.track.hosts[host], now, HostView::of(&self.hosts[host]));
    }

    fn look_at_engine(&mut self, now: Duration) {
        // Nothing tells of the moment at which a guest has booted; it is known before. Any host's engine counts: a
        // frozen host may still have a process of its own.
        let answer = (1..)
            .zip(&self.hosts)
            .filter_map(|(id, host)| {
                let vm = host.vm.as_ref()?;
                let answers =
                    self.engine_answers(HostId::new(id).ok()?, now.max(vm.healthy_at)) == Some(true);
                answers.then_some(Answer { from: vm.healthy_at, host: id, instance: vm.instance })
            })
            .min();
        note(&mut self.track.engine, now, answer);
    }
}
