//! Things that go wrong, played on a running sandbox: inject, watch, put right, and report one row each.
//!
//! A scenario starts from a good engine and ends with a whole cluster again, so that they can follow one another.
//!
//! To add one: a variant of [`Scenario`] with its help, a line in [`Scenario::script`], and a type that implements
//! [`Script`] in the file of its family.

mod daemons;
mod host;
mod maintenance;
mod network;
mod stage;
mod storage;

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use clock::{Clock, Monotonic, SystemClock};

use super::cluster::{Cluster, say};
use super::disk_record::{self, Writers};
use super::layout::HostNumber;
use super::observer::Observer;
use super::state::State;
use stage::{STEADY, Stage};

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All hosts lose power and boot again
    ColdStart,
    /// QEMU is killed
    KillVm,
    /// The agent on the VM's host is killed
    KillAgent,
    /// The broker on the VM's host is killed
    KillBroker,
    /// VDSM's stand-in on the VM's host is killed
    KillVdsm,
    /// The VM's host loses power
    KillHost,
    /// The gateway does not answer the VM's host
    CutGateway,
    /// The storage of the VM's host answers nothing for 15 seconds
    #[value(name = "stall-15")]
    Stall15,
    /// The storage of the VM's host answers nothing for 200 seconds
    #[value(name = "stall-200")]
    Stall200,
    /// The VM is killed in global maintenance, which ends a minute later
    GlobalMaintenance,
    /// Local maintenance of the VM's host
    LocalMaintenance,
}

impl Scenario {
    /// What is played for it.
    fn script(self) -> &'static dyn Script {
        match self {
            Self::ColdStart => &host::ColdStart,
            Self::KillVm => &daemons::KillVm,
            Self::KillAgent => &daemons::Kill(super::Service::Agent),
            Self::KillBroker => &daemons::Kill(super::Service::Broker),
            Self::KillVdsm => &daemons::Kill(super::Service::Vdsm),
            Self::KillHost => &host::KillHost,
            Self::CutGateway => &network::CutGateway,
            Self::Stall15 => &storage::STALL_15,
            Self::Stall200 => &storage::STALL_200,
            Self::GlobalMaintenance => &maintenance::Global,
            Self::LocalMaintenance => &maintenance::Local,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One scenario.
trait Script: Sync {
    /// Why a sandbox like this cannot play it, and what to do; `None` when it can.
    fn impossible(&self, _state: &State) -> Option<String> {
        None
    }

    /// How long the engine may take until it is good again.
    fn patience(&self) -> Duration {
        Duration::from_secs(400)
    }

    /// Injects the fault, and waits for the end. Gives when the engine was good again; `None` when it was never anything
    /// else.
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>>;

    /// Makes the cluster whole again. It runs after a failure too.
    fn put_right(&self, _stage: &Stage<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which scenario.
    pub scenario: Scenario,
    /// Where the VM was, and where it is now.
    pub hosts: (HostNumber, HostNumber),
    /// From the fault to the first good answer of the engine; `None` when it was never disturbed.
    pub recovery: Option<Duration>,
    /// The most QEMUs at once on all hosts.
    pub most_qemus: usize,
    /// How long more than one was there.
    pub overlapped: Duration,
    /// What the VM's disk says about its writers.
    pub writers: Writers,
    /// What happened, with seconds after the fault.
    pub story: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let recovery = self
            .recovery
            .map_or_else(|| "undisturbed".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
        let mut most = self.most_qemus.to_string();
        if !self.overlapped.is_zero() {
            most = format!("{most} ({:.1} s)", self.overlapped.as_secs_f64());
        }
        let mixed = if self.writers.mixed.is_some() { "MIXED" } else { "one at a time" };
        let (name, (from, to)) = (self.scenario.name(), self.hosts);
        write!(f, "| {name} | {from} → {to} | {recovery} | {most} | {mixed} | {} |", self.story)
    }
}

/// The table's head.
pub const HEAD: &str = "| what | VM's host | seconds until good again | most QEMUs at once | writers on the disk | seconds after the fault: what happened |\n| --- | --- | --- | --- | --- | --- |";

/// Plays some scenarios, or all that this sandbox can when none is named, and prints the table.
pub fn play_all(cluster: &Cluster, scenarios: &[Scenario]) -> anyhow::Result<()> {
    let impossible = |scenario: &Scenario| scenario.script().impossible(cluster.state());
    if let Some((scenario, why)) = scenarios.iter().find_map(|one| Some((one, impossible(one)?))) {
        bail!("{} cannot be played here: {why}", scenario.name());
    }
    let all = if scenarios.is_empty() { Scenario::value_variants() } else { scenarios };
    let mut rows = Vec::new();
    for scenario in all.iter().filter(|scenario| impossible(scenario).is_none()) {
        let outcome = play(cluster, *scenario)?;
        say(&outcome.to_string());
        rows.push(outcome);
    }
    println!("\n{HEAD}");
    for row in &rows {
        println!("{row}");
    }
    let unsafe_rows = rows.iter().filter(|row| row.writers.mixed.is_some()).count();
    anyhow::ensure!(unsafe_rows == 0, "two guests wrote to the VM's disk at the same time");
    Ok(())
}

/// Plays one scenario.
pub fn play(cluster: &Cluster, scenario: Scenario) -> anyhow::Result<Outcome> {
    let script = scenario.script();
    let observer = Observer::start(cluster)?;
    let begin = SystemClock.monotonic();
    say(&format!("{}: waiting for a good engine", scenario.name()));
    observer.wait_good(begin, STEADY, Duration::from_mins(5)).with_context(|| {
        format!("{} cannot begin: the engine is not good\n{}", scenario.name(), cluster.status())
    })?;
    let from = where_now(&observer)?;
    say(&format!("{}: the VM is on host {from}; injecting the fault", scenario.name()));
    let stage = Stage {
        cluster,
        observer: &observer,
        host: cluster.host(from.0)?,
        fault: SystemClock.monotonic(),
        patience: script.patience(),
        marks: RefCell::default(),
    };
    let seen = script.play(&stage).and_then(|good| {
        let timeline = observer.timeline();
        Ok(Outcome {
            scenario,
            hosts: (from, where_now(&observer)?),
            recovery: good.map(|good| good.saturating_since(stage.fault)),
            most_qemus: timeline.most_qemus(),
            overlapped: timeline.overlapped(),
            writers: disk_record::read(&cluster.disk()?).context("cannot read the VM's disk")?,
            story: stage.story(),
        })
    });
    let whole = script.put_right(&stage);
    let outcome = seen.with_context(|| format!("{} failed\n{}", scenario.name(), cluster.status()))?;
    whole.with_context(|| format!("cannot put right what {} broke", scenario.name()))?;
    Ok(outcome)
}

fn where_now(observer: &Observer) -> anyhow::Result<HostNumber> {
    let timeline = observer.timeline();
    timeline.qemus().first().map(|qemu| qemu.host).context("the engine VM is nowhere")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Hypervisor;

    #[test]
    fn what_a_sandbox_lacks_is_named_with_the_one_that_has_it() {
        let state =
            |hypervisor| State { hosts: 3, io_timeout: 3, guest: "/".into(), hypervisor, cgroup: None };
        let qemu = state(Hypervisor::Qemu);
        let lacks = |one: &&Scenario| one.script().impossible(&qemu).is_some();
        let lacking: Vec<Scenario> = Scenario::value_variants().iter().filter(lacks).copied().collect();
        assert_eq!(lacking, [Scenario::KillVdsm]);
        let why = Scenario::KillVdsm.script().impossible(&qemu).expect("a reason");
        assert!(why.contains("no vdsm") && why.ends_with("sandbox up --hypervisor vdsm"), "{why}");
        assert_eq!(Scenario::KillVdsm.script().impossible(&state(Hypervisor::Vdsm)), None);
    }
}
