//! What only a watchdog protects from, played on a running sandbox with and without one: the VM's host freezes and goes on
//! after another host took the VM's lease, loses its storage, or loses its sanlock.
//!
//! Counted is what may not be: how long a QEMU of the old host could run beside the new one. A frozen QEMU does not run.

use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use clock::{Clock, Monotonic, SystemClock};
use rustix::process::Signal;

use super::cluster::{Cluster, say};
use super::faultfs::{self, Mode};
use super::host::Host;
use super::layout::HostNumber;
use super::observer::Observer;
use super::procs::{self, Process};
use super::services::Service;
use super::shell::wait_for;

/// What happens to the VM's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Threat {
    /// It stands still until another host runs the VM, and then goes on
    FreezeHost,
    /// Everything that it does on storage fails
    FailStorage,
    /// Its storage answers nothing
    StallStorage,
    /// Its sanlock daemon is killed
    KillSanlock,
}

/// How long the engine must have been good before.
const STEADY: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether a process is still there.
const CLOSELY: Duration = Duration::from_millis(1);
/// How long a stale QEMU may be there.
const PATIENCE: Duration = Duration::from_mins(5);

/// One row of the table.
#[derive(Debug)]
struct Outcome {
    threat: Threat,
    has_watchdog: bool,
    hosts: (HostNumber, HostNumber),
    /// From the fault to the reset of the host.
    reset: Option<Duration>,
    /// From the fault to the end of its QEMU.
    ended: Duration,
    /// From the fault to the VM's start elsewhere.
    started: Duration,
    /// From the fault to the first good answer of the engine.
    good: Duration,
    /// How long the old QEMU could run beside the new one.
    beside: Duration,
    mixed: bool,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name =
            self.threat.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let secs = |time: Duration| format!("{:.1}", time.as_secs_f64());
        write!(
            f,
            "| {name} | {} | {} → {} | {} | {} | {} | {} | {} | {} |",
            if self.has_watchdog { "yes" } else { "no" },
            self.hosts.0,
            self.hosts.1,
            self.reset.map_or_else(|| "–".to_owned(), secs),
            secs(self.ended),
            secs(self.started),
            secs(self.good),
            self.beside.as_millis(),
            if self.mixed { "MIXED" } else { "one at a time" }
        )
    }
}

const HEAD: &str = "| what | watchdog | VM's host | host reset after, s | its QEMU ended after, s | VM started elsewhere after, s | engine good after, s | second QEMU ran for, ms | writers on the disk |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// Plays each, and prints the table. An error when two QEMUs ran although the hosts have a watchdog.
pub fn play_all(cluster: &Cluster, threats: &[Threat]) -> anyhow::Result<()> {
    if threats.iter().any(|threat| matches!(threat, Threat::FailStorage | Threat::StallStorage)) {
        cluster.state().storage.check_faults()?;
    }
    let mut rows = Vec::new();
    for threat in threats {
        let row = play(cluster, *threat)?;
        say(&row.to_string());
        rows.push(row);
    }
    println!("\n{HEAD}");
    for row in &rows {
        println!("{row}");
    }
    let broken = rows.iter().filter(|row| row.has_watchdog && !row.beside.is_zero()).count();
    anyhow::ensure!(broken == 0, "two engine VMs ran at the same time although the hosts have a watchdog");
    Ok(())
}

fn is_gone(process: &Process) -> bool {
    procs::state_of(process.pid).is_none_or(|state| matches!(state, 'Z' | 'X'))
}

fn play(cluster: &Cluster, threat: Threat) -> anyhow::Result<Outcome> {
    let observer = Observer::start(cluster)?;
    let begin = SystemClock.monotonic();
    observer
        .wait_good(begin, STEADY, PATIENCE)
        .with_context(|| format!("it cannot begin: the engine is not good\n{}", cluster.status()))?;
    let (from, old) = cluster.qemus().into_iter().next().context("the engine VM is nowhere")?;
    let host = cluster.host(from.0)?;
    let init = host.init().context("its host is not running")?;
    let storage = cluster.layout().fault_socket(from);
    say(&format!("{threat:?}: the VM is on host {from}"));
    let fault = SystemClock.monotonic();
    let since = |at: Monotonic| at.saturating_since(fault);
    match threat {
        Threat::FreezeHost => host.freeze(true)?,
        Threat::FailStorage => faultfs::tell(&storage, Mode::Eio)?,
        Threat::StallStorage => faultfs::tell(&storage, Mode::Hang)?,
        Threat::KillSanlock => {
            host.service_process(Service::Sanlock)?.context("sanlock does not run")?.signal(Signal::KILL);
        }
    }
    let mut watch = Watch { old: &old, init: &init, from, ended: None, reset: None, started: None };
    wait_for(PATIENCE, CLOSELY, || Ok(watch.look(cluster).then_some(())))?.with_context(|| {
        format!("no other host started the VM within {} s\n{}", PATIENCE.as_secs(), cluster.status())
    })?;
    let (to, started) = watch.started.context("the VM started elsewhere")?;
    let mut could_run_from = started;
    if threat == Threat::FreezeHost && watch.reset.is_none() {
        could_run_from = SystemClock.monotonic();
        host.freeze(false)?;
    }
    if watch.ended.is_none() {
        wait_for(PATIENCE, CLOSELY, || Ok(is_gone(&old).then_some(())))?
            .with_context(|| format!("the stale QEMU on host {from} does not end"))?;
        watch.ended = Some(SystemClock.monotonic());
    }
    let ended = watch.ended.context("the old QEMU ended")?;
    let good = observer
        .wait_good(started, STEADY, PATIENCE)
        .with_context(|| format!("the engine was not good again\n{}", cluster.status()))?;
    let writers = cluster.writers()?;
    put_right(&host, threat, &storage)?;
    Ok(Outcome {
        threat,
        has_watchdog: cluster.state().watchdog,
        hosts: (from, to),
        reset: watch.reset.map(since),
        ended: since(ended),
        started: since(started),
        good: since(good),
        beside: ended.saturating_since(could_run_from),
        mixed: writers.mixed.is_some(),
    })
}

/// What is waited for, each thing with its moment.
struct Watch<'a> {
    old: &'a Process,
    init: &'a Process,
    from: HostNumber,
    ended: Option<Monotonic>,
    reset: Option<Monotonic>,
    started: Option<(HostNumber, Monotonic)>,
}

impl Watch<'_> {
    /// True when the VM runs elsewhere.
    fn look(&mut self, cluster: &Cluster) -> bool {
        let now = SystemClock.monotonic();
        if self.ended.is_none() && is_gone(self.old) {
            self.ended = Some(now);
        }
        if self.reset.is_none() && is_gone(self.init) {
            self.reset = Some(now);
        }
        let elsewhere = cluster.qemus().into_iter().find(|(number, _)| *number != self.from);
        self.started = elsewhere.map(|(number, _)| (number, now));
        self.started.is_some()
    }
}

/// Makes the cluster whole again.
fn put_right(host: &Host, threat: Threat, storage: &std::path::Path) -> anyhow::Result<()> {
    match threat {
        Threat::FreezeHost => {}
        Threat::FailStorage | Threat::StallStorage => {
            if host.init().is_some() {
                faultfs::tell(storage, Mode::Ok)?;
            }
        }
        // It is not started again by itself.
        Threat::KillSanlock => host.kill()?,
    }
    host.start()
}
