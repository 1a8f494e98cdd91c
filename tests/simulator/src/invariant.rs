//! The promises: what must hold after every event, whatever fails. Each has a name and one sentence that a user
//! understands. The checks look at the world's truth, never at what a host believes.

use std::fmt;
use std::time::Duration;

use broker_api::status::AgentReport;
use engine_vm::{VmError, VmExit};
use metadata_format::{GlobalBlock, HostId};

use crate::sanlock::{Space, Standing};
use crate::vm::{Ask, By, Process};
use crate::world::{Kind, State, World};

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`sentence` says it")]
pub enum Promise {
    OneWriter,
    LeaseFirst,
    HandsOff,
    OwnBlock,
    LeasedWrite,
    MaintenanceKept,
    ViewRecovers,
    BackInTime,
    FewStarts,
    LeftAlone,
    ScoresAgree,
    NoPanic,
    FencedRightly,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::OneWriter,
        Self::LeaseFirst,
        Self::HandsOff,
        Self::OwnBlock,
        Self::LeasedWrite,
        Self::MaintenanceKept,
        Self::ViewRecovers,
        Self::BackInTime,
        Self::FewStarts,
        Self::LeftAlone,
        Self::ScoresAgree,
        Self::NoPanic,
        Self::FencedRightly,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneWriter => "one-writer",
            Self::LeaseFirst => "lease-first",
            Self::HandsOff => "hands-off",
            Self::OwnBlock => "own-block",
            Self::LeasedWrite => "leased-write",
            Self::MaintenanceKept => "maintenance-kept",
            Self::ViewRecovers => "view-recovers",
            Self::BackInTime => "back-in-time",
            Self::FewStarts => "few-starts",
            Self::LeftAlone => "left-alone",
            Self::ScoresAgree => "scores-agree",
            Self::NoPanic => "no-panic",
            Self::FencedRightly => "fenced-rightly",
        }
    }

    /// What it says.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::OneWriter => "At no moment can more than one instance of the engine VM write to its disk.",
            Self::LeaseFirst => "The engine VM never starts without holding its lease.",
            Self::HandsOff => {
                "In global maintenance no agent starts, stops or moves the engine VM, unless an operator asks for a move."
            }
            Self::OwnBlock => "A host's block is written by that host alone.",
            Self::LeasedWrite => "A host writes its block only while it holds its host id.",
            Self::MaintenanceKept => "A change of global maintenance that was acknowledged is never lost.",
            Self::ViewRecovers => {
                "Whatever happened to blocks and storage, soon afterwards every host sees every other one again."
            }
            Self::BackInTime => {
                "After the last fault the engine is healthy within the bound that the configured timers give."
            }
            Self::FewStarts => "The engine VM is not started again and again without a cause.",
            Self::LeftAlone => "A healthy engine on a fit host is left alone.",
            Self::ScoresAgree => "A score is the sum of the terms that explain it.",
            Self::NoPanic => "No daemon ends because of a bug.",
            Self::FencedRightly => {
                "Only a host that is gone for the others is powered off, by one host, which is not cut off itself."
            }
        }
    }

    /// The promise of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|promise| promise.name() == name)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When.
    pub at: Duration,
    /// How.
    pub detail: String,
}

/// What the checks remember.
#[derive(Debug, Default)]
pub struct Book {
    /// Global maintenance as it was last acknowledged; `None` while nobody can know it.
    pub maintenance: Option<(bool, Duration)>,
    /// Changes of it that are under way.
    pub maintenance_pending: u32,
    /// When something was last done to the engine or its guest, or by a person.
    pub disturbed: Duration,
    /// When a person last asked for a live migration.
    pub migration_asked: Option<Duration>,
    /// When commands were given, within the last hour.
    pub commands: std::collections::VecDeque<Duration>,
    /// How many, over the whole run.
    pub all_commands: u64,
}

/// How long an agent may act on what it saw before: a look, a step and its writes.
const GRACE: Duration = Duration::from_mins(2);
/// How long a broker keeps a request for a migration.
const REQUEST_KEPT: Duration = Duration::from_mins(10);
const HOUR: Duration = Duration::from_hours(1);

impl State {
    /// Since when a host has been without any disturbance; `None` while it is disturbed.
    fn fit_since(&self, id: HostId) -> Option<Duration> {
        let host = self.host(id);
        let held = |space| host.sanlock.space(space).standing == Standing::Held;
        let fit = host.powered
            && !host.frozen
            && host.path.is_good()
            && host.path.stale.is_none()
            && host.path.delay.is_zero()
            && host.bridge
            && host.network > 0.99
            && !host.local_maintenance
            && held(Space::Blocks)
            && held(Space::Domain);
        fit.then_some(host.fit_since)
    }

    fn maintenance_on_disk(&self) -> Option<bool> {
        let block = self.disk.block(0)?;
        GlobalBlock::parse(block).ok().map(|block| block.maintenance())
    }
}

impl World {
    fn violated(&self, promise: Promise, host: Option<HostId>, detail: String) {
        let at = self.now();
        self.log(host, Kind::Violation, format!("{promise}: {detail}"));
        self.state().violations.push(Violation { promise, at, detail });
        self.broken.send_replace(true);
    }

    /// A promise that is checked from outside of the events was broken.
    pub fn broke(&self, promise: Promise, detail: String) {
        self.violated(promise, None, detail);
    }

    /// Something disturbs this host, or has just stopped to.
    pub fn unfit(&self, id: HostId) {
        let now = self.now();
        self.state().hosts[usize::from(id.get()) - 1].fit_since = now;
    }

    /// Something was done to the guest, or by a person.
    pub fn disturbed(&self) {
        let now = self.now();
        self.state().book.disturbed = now;
    }

    /// A command was given.
    pub fn commanded(&self) {
        let now = self.now();
        let book = &mut self.state().book;
        book.commands.push_back(now);
        book.all_commands += 1;
    }

    /// A process with the VM began, ended, or was let run.
    pub fn vm_changed(&self) {
        let writers: Vec<u16> = self.state().writers().collect();
        if writers.len() > 1 {
            self.violated(Promise::OneWriter, None, format!("the VM runs on hosts {writers:?}"));
        }
        self.state().look(self.now());
        self.vm_moved.notify_waiters();
    }

    /// Something worth noting about the VM.
    pub fn vm_note(&self, id: HostId, text: &str) {
        self.log(Some(id), Kind::Vm, text);
    }

    /// Somebody wants something of the VM.
    pub fn vm_asked(&self, id: HostId, by: By, ask: Ask) {
        let what = match ask {
            Ask::Start => "start the VM",
            Ask::Shutdown => "power the VM down",
            Ask::Destroy => "end the VM at once",
            Ask::Migrate { .. } => "move the VM",
        };
        let what = &match ask {
            Ask::Migrate { to } => format!("{what} to host{to}"),
            Ask::Start | Ask::Shutdown | Ask::Destroy => what.to_owned(),
        };
        match by {
            By::Operator => {
                self.disturbed();
                self.log(Some(id), Kind::Vm, format!("an operator wants to {what}"));
            }
            By::Agent => {
                self.log(Some(id), Kind::Vm, format!("the agent wants to {what}"));
                if matches!(ask, Ask::Migrate { .. }) && self.migration_was_asked() {
                    return;
                }
                // What waits for a guest that nobody sends any more is not the VM.
                let waits = self.state().host(id).vm.as_ref().is_some_and(Process::is_empty);
                if ask == Ask::Destroy && waits {
                    return;
                }
                self.check_hands_off(id, what);
                if ask != Ask::Start {
                    self.check_left_alone(id, what);
                }
            }
        }
    }

    /// A person may have asked for the move that an agent begins now.
    fn migration_was_asked(&self) -> bool {
        let now = self.now();
        let asked = self.state().book.migration_asked;
        asked.is_some_and(|at| now.saturating_sub(at) < REQUEST_KEPT + GRACE)
    }

    /// A person asks for a move.
    pub fn migration_asked(&self) {
        self.disturbed();
        let now = self.now();
        self.state().book.migration_asked = Some(now);
    }

    fn check_hands_off(&self, id: HostId, what: &str) {
        let now = self.now();
        let known = {
            let state = self.state();
            let since = match state.book.maintenance {
                Some((true, since)) if state.book.maintenance_pending == 0 => since,
                _ => return,
            };
            state.fit_since(id).is_some_and(|fit| now > fit.max(since) + GRACE)
        };
        if known {
            self.violated(Promise::HandsOff, Some(id), format!("host {id} wants to {what}"));
        }
    }

    fn check_left_alone(&self, id: HostId, what: &str) {
        let now = self.now();
        let healthy_for = {
            let state = self.state();
            let Some(vm) = state.host(id).vm.as_ref().filter(|vm| !vm.asked_down) else { return };
            let Some(fit) = state.fit_since(id) else { return };
            if state.engine_answers(id, now) != Some(true) || state.writers().count() > 1 {
                return;
            }
            // Without the switch load and memory may move the VM, as they do in the existing release.
            let busy = state.host(id).cpu_load > 0.4 || state.host(id).mem_free < 5_000.0;
            if busy && !self.shape.toml.policy.cpu_never_evicts {
                return;
            }
            now.saturating_sub(fit.max(vm.healthy_at).max(state.book.disturbed))
        };
        if healthy_for > GRACE {
            let secs = healthy_for.as_secs();
            let detail = format!("host {id} wants to {what}, where the engine was healthy for {secs} s");
            self.violated(Promise::LeftAlone, Some(id), detail);
        }
    }

    /// A process with the VM exists and runs.
    pub fn vm_started(&self, id: HostId) {
        let (leased, starts, allowed) = {
            let now = self.now();
            let mut state = self.state();
            let leased = state.areas.vm.owner.is_some_and(|(owner, _)| owner == id.get())
                && state.host(id).sanlock.holds_vm_lease;
            state.starts.push_back(now);
            let old = now.saturating_sub(HOUR);
            state.starts.retain(|at| *at >= old);
            state.book.commands.retain(|at| *at >= old);
            (leased, state.starts.len(), 6 + 3 * state.book.commands.len())
        };
        self.log(Some(id), Kind::Vm, "the VM runs");
        if !leased {
            self.violated(
                Promise::LeaseFirst,
                Some(id),
                format!("the VM runs on host {id} without its lease"),
            );
        }
        if starts > allowed {
            let detail = format!("{starts} starts within an hour, {allowed} are explained by what happened");
            self.violated(Promise::FewStarts, Some(id), detail);
        }
        self.vm_changed();
    }

    /// The VM did not start.
    pub fn vm_refused(&self, id: HostId, error: &VmError) {
        self.log(Some(id), Kind::Vm, format!("the VM does not start: {error}"));
    }

    /// A process with the VM is gone.
    pub fn vm_ended(&self, id: HostId, exit: &VmExit) {
        let text = match exit {
            VmExit::Orderly { detail } => format!("the VM is down: {detail}"),
            VmExit::Crashed { detail } => format!("the VM died: {detail}"),
            VmExit::MigratedAway => "the VM has left for another host".to_owned(),
            VmExit::LeaseRefused { detail } | VmExit::StartFailed { detail } => detail.clone(),
        };
        self.log(Some(id), Kind::Vm, text);
        self.vm_changed();
    }

    /// sanlock on this host gives a lockspace up.
    pub fn lease_failing(&self, id: HostId, space: Space) {
        self.unfit(id);
        let name = match space {
            Space::Blocks => "hosted-engine",
            Space::Domain => "the storage domain",
        };
        self.log(Some(id), Kind::World, format!("sanlock could not renew the lease in {name} for 8N"));
    }

    /// A write is on its way to storage, by a broker that may do that.
    pub fn block_sent(&self, id: HostId, block: u16) {
        if block == 0 {
            return;
        }
        let standing = self.state().host(id).sanlock.space(Space::Blocks).standing;
        if block != id.get() {
            self.violated(Promise::OwnBlock, Some(id), format!("host {id} writes block {block}"));
        } else if standing != Standing::Held {
            let detail = format!("host {id} writes its block while its lease is {standing:?}");
            self.violated(Promise::LeasedWrite, Some(id), detail);
        }
    }

    /// A write for `block` has landed in `target`.
    pub fn block_written(&self, id: HostId, block: u16, target: u16) {
        if block != target {
            self.log(
                Some(id),
                Kind::World,
                format!("storage put block {block} in the place of block {target}"),
            );
            if target == 0 {
                self.state().book.maintenance = None;
            }
            return;
        }
        if block == 0 {
            self.check_maintenance("after a write");
        }
    }

    fn check_maintenance(&self, when: &str) {
        let lost = {
            let state = self.state();
            let book = &state.book;
            match book.maintenance {
                Some((on, _)) if book.maintenance_pending == 0 => {
                    state.maintenance_on_disk().is_some_and(|found| found != on).then_some(on)
                }
                _ => None,
            }
        };
        if let Some(on) = lost {
            let detail = format!("maintenance={} was acknowledged and is not there {when}", u8::from(on));
            self.violated(Promise::MaintenanceKept, None, detail);
        }
    }

    /// An operator begins to change global maintenance.
    pub fn maintenance_asked(&self) {
        self.disturbed();
        self.state().book.maintenance_pending += 1;
    }

    /// The change was acknowledged, or not.
    pub fn maintenance_answered(&self, value: Option<bool>) {
        let now = self.now();
        {
            let mut state = self.state();
            state.book.maintenance_pending -= 1;
            state.book.maintenance = value.map(|on| (on, now));
            state.book.disturbed = now;
        }
        self.check_maintenance("when it was acknowledged");
    }

    /// An agent explains its score.
    pub fn check_report(&self, id: HostId, report: &AgentReport) {
        let sum: i64 = report.score_terms.iter().map(|term| term.points).sum();
        if !report.score_terms.is_empty() && sum != i64::from(report.score.0) {
            let detail = format!("host {id} has the score {} with terms that add up to {sum}", report.score);
            self.violated(Promise::ScoresAgree, Some(id), detail);
        }
    }

    /// A task of a daemon panicked.
    pub fn panicked(&self, process: &str, text: &str) {
        self.violated(Promise::NoPanic, None, format!("{process}: {text}"));
    }
}
