//! Things that go wrong, played on a running sandbox: inject, watch, put right, and report one row each.
//!
//! A scenario starts from a good engine and ends with a whole cluster again, so that they can follow one another.
//!
//! To add one: a variant of [`Scenario`] with its help, a line in [`Scenario::script`], and a type that implements
//! [`Script`] in the file of its family.

mod daemons;
mod fence;
mod host;
mod maintenance;
mod migration;
mod network;
mod stage;
mod storage;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use clock::{Clock, Monotonic, SystemClock};

use super::cluster::{Cluster, say};
use super::layout::HostNumber;
use super::measure::leases::LeaseWatch;
use super::measure::{self, agents, gather};
use super::observer::Observer;
use super::shell::{pause, wait_for};
use super::state::State;
use stage::{STEADY, Stage};

/// How long agents may have something new to say of what is over: a host that was away needs a minute to know the others.
const REST_PATIENCE: Duration = Duration::from_mins(2);
/// Width of the lanes that are printed.
const LANES_WIDTH: usize = 160;

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
    /// libvirt's daemon on the VM's host is killed
    KillLibvirtd,
    /// The VM's host loses power
    KillHost,
    /// The VM's host stands still, and is powered off by another one
    Fence,
    /// The gateway does not answer the VM's host
    CutGateway,
    /// The storage of the VM's host answers nothing for 15 seconds
    #[value(name = "stall-15")]
    Stall15,
    /// The storage of the VM's host answers nothing for 200 seconds
    #[value(name = "stall-200")]
    Stall200,
    /// Everything that the VM's host does on its storage fails for 200 seconds
    #[value(name = "fail-200")]
    Fail200,
    /// The VM is killed in global maintenance, which ends a minute later
    GlobalMaintenance,
    /// Local maintenance of the VM's host
    LocalMaintenance,
    /// An operator moves the VM to another host
    Migrate,
    /// The host that the VM leaves loses power on the way
    MigrateLoseSource,
    /// The host that the VM goes to loses power on the way
    MigrateLoseTarget,
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
            Self::KillLibvirtd => &daemons::Kill(super::Service::Libvirtd),
            Self::KillHost => &host::KillHost,
            Self::Fence => &fence::Fence,
            Self::CutGateway => &network::CutGateway,
            Self::Stall15 => &storage::STALL_15,
            Self::Stall200 => &storage::STALL_200,
            Self::Fail200 => &storage::FAIL_200,
            Self::GlobalMaintenance => &maintenance::Global,
            Self::LocalMaintenance => &maintenance::Local,
            Self::Migrate => &migration::Migrate,
            Self::MigrateLoseSource => &migration::LoseAnEnd(migration::Lost::Source),
            Self::MigrateLoseTarget => &migration::LoseAnEnd(migration::Lost::Target),
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

/// What to play, how often, and where to keep what was seen.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// Which; all that this sandbox can play, in turn, when absent
    scenarios: Vec<Scenario>,
    /// Play all of them so many times, one round after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Add what was seen to this file, one JSON object a line; `sandbox timelines` shows it
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Wait before each fault until the agents have nothing new to say of anything before: only then can be told when they
    /// notice it
    #[arg(long)]
    rest: bool,
    /// Print what happened after each, each host's events in a column of its own
    #[arg(long)]
    lanes: bool,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was seen.
    pub timeline: measure::Timeline,
    /// How long more than one QEMU was there.
    pub overlapped: Duration,
    /// What happened, with seconds after the fault.
    pub story: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = &self.timeline.run;
        let recovery = run.recovery.map_or_else(|| "undisturbed".to_owned(), |time| format!("{time:.1}"));
        let mut most = run.most_qemus.to_string();
        if !self.overlapped.is_zero() {
            most = format!("{most} ({:.1} s)", self.overlapped.as_secs_f64());
        }
        let mixed = if run.mixed { "MIXED" } else { "one at a time" };
        let (name, from, to, parts) = (&run.scenario, run.from, run.to, &run.parts);
        write!(f, "| {name} | {from} → {to} | {recovery} | {most} | {mixed} | {} | {parts} |", self.story)
    }
}

/// The table's head.
pub const HEAD: &str = "| what | VM's host | seconds until good again | most QEMUs at once | writers on the disk | seconds after the fault: what happened | whose seconds |\n| --- | --- | --- | --- | --- | --- | --- |";

/// Plays some scenarios, and prints the table.
pub fn play_all(cluster: &Cluster, args: &ScenarioArgs) -> anyhow::Result<()> {
    let impossible = |scenario: &Scenario| scenario.script().impossible(cluster.state());
    if let Some((scenario, why)) = args.scenarios.iter().find_map(|one| Some((one, impossible(one)?))) {
        bail!("{} cannot be played here: {why}", scenario.name());
    }
    let all = if args.scenarios.is_empty() { Scenario::value_variants() } else { &args.scenarios };
    let mut rows = Vec::new();
    for _ in 0..args.repeat {
        for scenario in all.iter().filter(|scenario| impossible(scenario).is_none()) {
            let outcome = play(cluster, *scenario, args.rest)?;
            say(&outcome.to_string());
            if let Some(file) = &args.json {
                outcome.timeline.append(file)?;
            }
            if args.lanes {
                println!("\n{}", outcome.timeline.lanes(LANES_WIDTH));
            }
            rows.push(outcome);
        }
    }
    println!("\n{HEAD}");
    for row in &rows {
        println!("{row}");
    }
    if args.repeat > 1 {
        println!("\n{}", measure::tables(rows.iter().map(|row| &row.timeline.run)));
    }
    let unsafe_rows = rows.iter().filter(|row| row.timeline.run.mixed).count();
    anyhow::ensure!(unsafe_rows == 0, "two guests wrote to the VM's disk at the same time");
    Ok(())
}

/// Plays one scenario, once the agents are at `rest` if that is wanted.
pub fn play(cluster: &Cluster, scenario: Scenario, rest: bool) -> anyhow::Result<Outcome> {
    let script = scenario.script();
    let observer = Observer::start(cluster)?;
    let begin = SystemClock.monotonic();
    say(&format!("{}: waiting for a good engine", scenario.name()));
    observer.wait_good(begin, STEADY, Duration::from_mins(5)).with_context(|| {
        format!("{} cannot begin: the engine is not good\n{}", scenario.name(), cluster.status())
    })?;
    let leases = LeaseWatch::start(cluster)?;
    let at_rest = wait_for_rest(cluster, if rest { REST_PATIENCE } else { Duration::ZERO })?;
    let from = where_now(&observer)?;
    say(&format!("{}: the VM is on host {from}; injecting the fault", scenario.name()));
    let stage = Stage {
        cluster,
        observer: &observer,
        leases: &leases,
        host: cluster.host(from.0)?,
        boot: cluster.writers()?.boots.pop().context("the guest has written nothing to its disk")?,
        fault: SystemClock.monotonic(),
        patience: script.patience(),
        marks: RefCell::default(),
        stood_still: Cell::default(),
    };
    let seen = script.play(&stage).and_then(|good| {
        let seen = observer.timeline();
        let timeline = gather::timeline(
            cluster,
            &gather::Evidence {
                scenario: scenario.name(),
                fault: stage.fault,
                at_rest,
                good,
                hosts: (from, where_now(&observer)?),
                observed: &seen,
                looked: &leases.looked(),
                marks: &stage.marks.borrow(),
                mixed: cluster.writers()?.mixed.is_some(),
                stood_still: stage.stood_still.get(),
            },
        );
        Ok(Outcome { timeline, overlapped: seen.overlapped(), story: stage.story() })
    });
    let whole = script.put_right(&stage);
    let outcome = seen.with_context(|| format!("{} failed\n{}", scenario.name(), cluster.status()))?;
    whole.with_context(|| format!("cannot put right what {} broke", scenario.name()))?;
    Ok(outcome)
}

/// Waits until the agents have nothing new to say of anything before; whether that is so.
fn wait_for_rest(cluster: &Cluster, patience: Duration) -> anyhow::Result<bool> {
    let hosts: Vec<HostNumber> =
        cluster.hosts().iter().filter(|host| host.init().is_some()).map(|host| host.number).collect();
    let rest = wait_for(patience, Duration::from_secs(1), || {
        Ok(agents::at_rest(&agents::read(cluster, SystemClock.wall_lead()), &hosts).then_some(()))
    })?;
    if patience.is_zero() {
        return Ok(rest.is_some());
    }
    if rest.is_none() {
        say("the agents do not come to rest: when they notice the fault cannot be told");
    }
    // The rest begins with the step of some agent. The fault is to come at any moment between two steps.
    let chance = SystemClock.monotonic().since_start().subsec_nanos() % 10_000;
    pause(Duration::from_millis(chance.into()));
    Ok(rest.is_some())
}

fn where_now(observer: &Observer) -> anyhow::Result<HostNumber> {
    let timeline = observer.timeline();
    timeline.qemus().first().map(|qemu| qemu.host).context("the engine VM is nowhere")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Hypervisor;
    use crate::sandbox::state::SharedStorage;

    #[test]
    fn what_a_sandbox_lacks_is_named_with_the_one_that_has_it() {
        let state = |hypervisor| State {
            hosts: 3,
            io_timeout: 3,
            guest: "/".into(),
            hypervisor,
            storage: SharedStorage::Folder,
            watchdog: false,
            fencing: false,
            cgroup: None,
        };
        let qemu = state(Hypervisor::Qemu);
        let lacks = |one: &&Scenario| one.script().impossible(&qemu).is_some();
        let lacking: Vec<Scenario> = Scenario::value_variants().iter().filter(lacks).copied().collect();
        assert_eq!(lacking, [Scenario::KillVdsm, Scenario::KillLibvirtd, Scenario::Fence]);
        let why = Scenario::KillVdsm.script().impossible(&qemu).expect("a reason");
        assert!(why.contains("no vdsm") && why.ends_with("sandbox up --hypervisor vdsm"), "{why}");
        assert_eq!(Scenario::KillVdsm.script().impossible(&state(Hypervisor::Vdsm)), None);
        let lvm = State { storage: SharedStorage::Lvm, ..qemu.clone() };
        let why = Scenario::Stall15.script().impossible(&lvm).expect("a reason");
        assert!(why.ends_with("sandbox up --storage folder"), "{why}");
        let fencing = State { fencing: true, ..qemu.clone() };
        assert_eq!(Scenario::Fence.script().impossible(&fencing), None);
    }
}
