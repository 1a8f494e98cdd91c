//! What a scenario plays on: the cluster, the host that has the VM, the observer, and the waits that most of them end with.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::Context;
use clock::{Clock, Monotonic, SystemClock};

use crate::sandbox::cluster::Cluster;
use crate::sandbox::faultfs::{self, Mode};
use crate::sandbox::host::Host;
use crate::sandbox::measure::leases::LeaseWatch;
use crate::sandbox::observer::Observer;

/// How long the engine must have been good before a scenario counts as over.
pub const STEADY: Duration = Duration::from_secs(5);
/// How long to watch after something that must not disturb the engine: longer than a daemon's restart takes, and than the
/// 8 I/O time-outs of 3 s after which a lease that nobody renews ends its holder.
const QUIET: Duration = Duration::from_secs(30);

/// A scenario's surroundings.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The whole sandbox.
    pub cluster: &'a Cluster,
    /// Who watches the engine.
    pub observer: &'a Observer,
    /// Who asks the lock managers for the VM's lease.
    pub leases: &'a LeaseWatch,
    /// Where the VM was at the fault.
    pub host: Host,
    /// Which boot of the guest runs at the fault.
    pub boot: String,
    /// When the fault was injected.
    pub fault: Monotonic,
    /// How long the engine may take until it is good again.
    pub patience: Duration,
    /// What the scenario itself has to say, and when.
    pub marks: RefCell<Vec<(Monotonic, String)>>,
    /// How long a guest that moved while it ran stood still.
    pub stood_still: Cell<Option<Duration>>,
}

impl Stage<'_> {
    /// Waits until the engine has been good for a while after the fault; since when it is.
    pub fn recovery(&self) -> anyhow::Result<Option<Monotonic>> {
        let good = self.observer.wait_good(self.fault, STEADY, self.patience);
        good.map(Some)
            .with_context(|| format!("the engine was not good again within {} s", self.patience.as_secs()))
    }

    /// Waits until the VM is good on another host; since when it is.
    pub fn recovery_elsewhere(&self) -> anyhow::Result<Option<Monotonic>> {
        let good = self.observer.wait(self.patience, |timeline| {
            let good = timeline.good_since(self.fault)?;
            let elsewhere = timeline.qemus().first()?.host != self.host.number;
            let steady = SystemClock.monotonic().saturating_since(good) >= STEADY;
            (elsewhere && steady).then_some(good)
        });
        good.map(Some).with_context(|| {
            let (host, patience) = (self.host.number, self.patience.as_secs());
            format!("the VM did not leave host {host} within {patience} s: {}", self.story())
        })
    }

    /// Watches after something that the engine should not notice; if it does, waits until it is good again.
    pub fn undisturbed(&self) -> anyhow::Result<Option<Monotonic>> {
        let disturbed =
            self.observer.wait(QUIET, |timeline| timeline.disturbed_since(self.fault).then_some(()));
        // A disturbance may also be over already.
        if disturbed.is_none() {
            return Ok(None);
        }
        let good = self.observer.wait_good(self.fault, STEADY, self.patience);
        good.map(Some).with_context(|| format!("the engine was disturbed: {}", self.story()))
    }

    /// Puts something into the row's story that only the scenario knows: a second step of the fault, a measurement.
    pub fn mark(&self, what: impl Into<String>) {
        self.marks.borrow_mut().push((SystemClock.monotonic(), what.into()));
    }

    /// What happened since the fault, with seconds after it.
    pub fn story(&self) -> String {
        let timeline = self.observer.timeline();
        let seen = timeline.changes_since(self.fault).map(|(at, change)| (*at, change.to_string()));
        let mut all: Vec<(Monotonic, String)> = seen.chain(self.marks.borrow().iter().cloned()).collect();
        all.sort_by_key(|(at, _)| *at);
        let lines: Vec<String> = all
            .iter()
            .map(|(at, what)| format!("{:.1}: {what}", at.saturating_since(self.fault).as_secs_f64()))
            .collect();
        if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
    }

    /// Has the storage of the VM's host behave so.
    pub fn storage(&self, mode: Mode) -> anyhow::Result<()> {
        faultfs::tell(&self.cluster.layout().fault_socket(self.host.number), mode)
    }

    /// Sets the maintenance mode, on the VM's host.
    pub fn maintenance(&self, mode: &str) -> anyhow::Result<()> {
        self.host.run(&["hosted-engine", "--set-maintenance", &format!("--mode={mode}")]).map(drop)
    }
}
