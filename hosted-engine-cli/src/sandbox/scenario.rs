//! Things that go wrong, played on a running sandbox: inject, watch, put right, and report one row each.
//!
//! A scenario starts from a good engine and ends with a whole cluster again, so that they can follow one another.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use clock::{Clock, Monotonic, SystemClock};
use rustix::process::Signal;

use super::cluster::{Cluster, say};
use super::disk_record::{self, Writers};
use super::faultfs::{self, Mode};
use super::host::Host;
use super::layout::HostNumber;
use super::net;
use super::observer::Observer;
use super::services::Service;
use super::shell::pause;
use super::state::Hypervisor;

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
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How long the engine may take until it is good again.
    const fn patience(self) -> Duration {
        match self {
            Self::Stall200 => Duration::from_secs(700),
            _ => Duration::from_secs(400),
        }
    }
}

/// How long the engine must have been good before a scenario counts as over.
const STEADY: Duration = Duration::from_secs(5);
/// How long to watch after something that must not disturb the engine: longer than a daemon's restart takes, and than the
/// 8 I/O time-outs of 3 s after which a lease that nobody renews ends its holder.
const QUIET: Duration = Duration::from_secs(30);
/// How long the product must keep its hands off in global maintenance.
const HANDS_OFF: Duration = Duration::from_mins(1);

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

/// Plays some scenarios, or all of them when none is named, and prints the table.
pub fn play_all(cluster: &Cluster, scenarios: &[Scenario]) -> anyhow::Result<()> {
    let hypervisor = cluster.state().hypervisor;
    let has = |scenario: &Scenario| *scenario != Scenario::KillVdsm || hypervisor == Hypervisor::Vdsm;
    if !scenarios.iter().all(has) {
        bail!(
            "the hosts of this sandbox have no VDSM to kill; make one with: hosted-engine sandbox up --hypervisor vdsm"
        );
    }
    let all = if scenarios.is_empty() { Scenario::value_variants() } else { scenarios };
    let mut rows = Vec::new();
    for scenario in all.iter().filter(|scenario| has(scenario)) {
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
    let observer = Observer::start(cluster)?;
    let begin = SystemClock.monotonic();
    say(&format!("{}: waiting for a good engine", scenario.name()));
    observer.wait_good(begin, STEADY, Duration::from_mins(5)).with_context(|| {
        format!("{} cannot begin: the engine is not good\n{}", scenario.name(), cluster.status())
    })?;
    let from = where_now(&observer)?;
    let host = cluster.host(from.0)?;
    say(&format!("{}: the VM is on host {from}; injecting the fault", scenario.name()));
    let fault = SystemClock.monotonic();
    let good = inject(cluster, &host, scenario, &observer, fault)?;
    let to = where_now(&observer)?;
    let timeline = observer.timeline();
    let outcome = Outcome {
        scenario,
        hosts: (from, to),
        recovery: good.map(|good| good.saturating_since(fault)),
        most_qemus: timeline.most_qemus(),
        overlapped: timeline.overlapped(),
        writers: disk_record::read(&cluster.disk()?).context("cannot read the VM's disk")?,
        story: story(&timeline, fault),
    };
    put_right(cluster, &host, scenario)?;
    Ok(outcome)
}

fn where_now(observer: &Observer) -> anyhow::Result<HostNumber> {
    let timeline = observer.timeline();
    timeline.qemus().first().map(|qemu| qemu.host).context("the engine VM is nowhere")
}

fn story(timeline: &super::timeline::Timeline, fault: Monotonic) -> String {
    let lines: Vec<String> = timeline
        .changes_since(fault)
        .map(|(at, change)| format!("{:.1}: {change}", at.saturating_since(fault).as_secs_f64()))
        .collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
}

/// Injects, and waits for the end. Gives when the engine was good again; `None` when it was never anything else.
fn inject(
    cluster: &Cluster,
    host: &Host,
    scenario: Scenario,
    observer: &Observer,
    fault: Monotonic,
) -> anyhow::Result<Option<Monotonic>> {
    let storage = cluster.layout().fault_socket(host.number);
    let recovery = |since| {
        observer.wait_good(since, STEADY, scenario.patience()).map(Some).with_context(|| {
            format!(
                "{}: the engine was not good again within {} s\n{}",
                scenario.name(),
                scenario.patience().as_secs(),
                cluster.status()
            )
        })
    };
    match scenario {
        Scenario::ColdStart => {
            for host in cluster.hosts() {
                host.kill()?;
            }
            for host in cluster.hosts() {
                host.start()?;
            }
            recovery(fault)
        }
        Scenario::KillVm => {
            kill_vm(cluster)?;
            recovery(fault)
        }
        Scenario::KillAgent => undisturbed(observer, fault, || kill_daemon(host, Service::Agent)),
        Scenario::KillBroker => undisturbed(observer, fault, || kill_daemon(host, Service::Broker)),
        Scenario::KillVdsm => undisturbed(observer, fault, || kill_daemon(host, Service::Vdsm)),
        Scenario::KillHost => {
            host.kill()?;
            recovery(fault)
        }
        Scenario::CutGateway => {
            net::cut_gateway(cluster.layout(), host.number)?;
            recovery_elsewhere(observer, host, fault, scenario)
        }
        Scenario::Stall15 => undisturbed(observer, fault, || {
            faultfs::tell(&storage, Mode::Hang)?;
            pause(Duration::from_secs(15));
            faultfs::tell(&storage, Mode::Ok)
        }),
        Scenario::Stall200 => {
            faultfs::tell(&storage, Mode::Hang)?;
            pause(Duration::from_secs(200));
            faultfs::tell(&storage, Mode::Ok)?;
            recovery(fault)
        }
        Scenario::GlobalMaintenance => {
            host.run(&["hosted-engine", "--set-maintenance", "--mode=global"])?;
            kill_vm(cluster)?;
            let early = observer.wait(HANDS_OFF, |timeline| {
                let mut changes = timeline.changes_since(fault);
                changes.find(|(_, change)| matches!(change, super::timeline::Change::Started(_))).copied()
            });
            if early.is_some() {
                bail!("the VM was started in global maintenance: {}", story(&observer.timeline(), fault));
            }
            host.run(&["hosted-engine", "--set-maintenance", "--mode=none"])?;
            recovery(fault)
        }
        Scenario::LocalMaintenance => {
            host.run(&["hosted-engine", "--set-maintenance", "--mode=local"])?;
            recovery_elsewhere(observer, host, fault, scenario)
        }
    }
}

/// Waits until the VM is good on another host.
fn recovery_elsewhere(
    observer: &Observer,
    host: &Host,
    fault: Monotonic,
    scenario: Scenario,
) -> anyhow::Result<Option<Monotonic>> {
    observer
        .wait(scenario.patience(), |timeline| {
            let good = timeline.good_since(fault)?;
            let elsewhere = timeline.qemus().first()?.host != host.number;
            let steady = SystemClock.monotonic().saturating_since(good) >= STEADY;
            (elsewhere && steady).then_some(good)
        })
        .map(Some)
        .with_context(|| {
            format!(
                "the VM did not leave host {} within {} s: {}",
                host.number,
                scenario.patience().as_secs(),
                story(&observer.timeline(), fault)
            )
        })
}

/// Watches after something that the engine should not notice; if it does, waits until it is good again.
fn undisturbed(
    observer: &Observer,
    fault: Monotonic,
    inject: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Option<Monotonic>> {
    inject()?;
    let disturbed = observer.wait(QUIET, |timeline| timeline.disturbed_since(fault).then_some(()));
    // A disturbance may also be over already.
    if disturbed.is_none() {
        return Ok(None);
    }
    let good = observer.wait_good(fault, STEADY, Duration::from_secs(400));
    good.map(Some)
        .with_context(|| format!("the engine was disturbed: {}", story(&observer.timeline(), fault)))
}

fn kill_vm(cluster: &Cluster) -> anyhow::Result<()> {
    let qemus = cluster.qemus();
    anyhow::ensure!(!qemus.is_empty(), "no engine VM runs on any host");
    for (_, qemu) in qemus {
        qemu.signal(Signal::KILL);
    }
    Ok(())
}

fn kill_daemon(host: &Host, service: Service) -> anyhow::Result<()> {
    let process = host.service_process(service)?;
    process
        .with_context(|| format!("{} does not run on host {}", service.name(), host.number))?
        .signal(Signal::KILL);
    Ok(())
}

/// Makes the cluster whole again.
fn put_right(cluster: &Cluster, host: &Host, scenario: Scenario) -> anyhow::Result<()> {
    match scenario {
        Scenario::KillHost => host.start(),
        Scenario::CutGateway => net::restore_gateway(cluster.layout(), host.number),
        Scenario::LocalMaintenance => {
            host.run(&["hosted-engine", "--set-maintenance", "--mode=none"]).map(drop)
        }
        Scenario::ColdStart
        | Scenario::KillVm
        | Scenario::KillAgent
        | Scenario::KillBroker
        | Scenario::KillVdsm
        | Scenario::Stall15
        | Scenario::Stall200
        | Scenario::GlobalMaintenance => Ok(()),
    }
}
