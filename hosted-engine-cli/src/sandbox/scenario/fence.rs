//! A host that stands still is powered off by another one.
//!
//! Each step is told by whoever cannot be wrong about it: the claim by the claimant's block on storage, the request by the
//! switch, the loss of power by the kernel, the confirmation again by the block.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clock::{Clock, Monotonic, SystemClock};
use ha_config::HostedEngineConf;
use metadata_format::fencing::fencing_entries;
use metadata_format::{BLOCK_SIZE, FencingEntry, FencingPhase, HostBlock, HostId, block_offset};

use super::{Script, Stage};
use crate::sandbox::host::Host;
use crate::sandbox::lun::Place;
use crate::sandbox::measure::leases::Lease;
use crate::sandbox::power;
use crate::sandbox::shell::wait_for;
use crate::sandbox::state::State;

/// Pause between two looks at what the others do about the host.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The VM's host stands still until it is powered off.
pub struct Fence;

impl Script for Fence {
    fn impossible(&self, state: &State) -> Option<String> {
        (!state.fencing).then(|| {
            "the hosts of this sandbox have no power switches; make one with: hosted-engine sandbox up --fencing"
                .to_owned()
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(200)
    }

    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        let mut watch = Watch::start(stage)?;
        stage.host.freeze(true)?;
        wait_for(stage.patience, LOOK_EVERY, || watch.look().map(|over| over.then_some(())))?
            .with_context(|| format!("host {} was not powered off: {}", stage.host.number, stage.story()))?;
        let thawed = stage.host.freeze(false);
        anyhow::ensure!(thawed.is_err(), "host {} goes on: {}", stage.host.number, stage.story());
        let good = stage.recovery_elsewhere()?;
        watch.lease();
        watch.once()?;
        what_operators_read(stage, &watch.doer()?)?;
        Ok(good)
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        // Not powered off, it still stands.
        if stage.host.is_frozen() {
            stage.host.freeze(false)?;
        }
        stage.host.start()
    }
}

/// What is done about the host, step by step.
struct Watch<'a> {
    stage: &'a Stage<'a>,
    victim: HostId,
    metadata: Place,
    /// Requests to the switch before.
    asked_before: usize,
    /// Steps that were seen on storage: whose, and which.
    steps: Vec<(HostId, FencingPhase)>,
    asked: bool,
    dark: bool,
}

impl<'a> Watch<'a> {
    fn start(stage: &'a Stage<'a>) -> anyhow::Result<Self> {
        let layout = stage.cluster.layout();
        let conf = HostedEngineConf::load(&layout.host(stage.host.number))?;
        Ok(Self {
            stage,
            victim: HostId::new(stage.host.number.0.into())?,
            metadata: stage.cluster.place(
                conf.sd_uuid()?,
                Path::new("ha_agent/hosted-engine.metadata"),
                conf.metadata_volume()?,
            )?,
            asked_before: power::requests(layout).len(),
            steps: Vec::new(),
            asked: false,
            dark: false,
        })
    }

    /// How often the switch was asked since the fault.
    fn times_asked(&self) -> usize {
        let wanted = power::off_request(self.stage.host.number);
        let requests = power::requests(self.stage.cluster.layout());
        requests.iter().skip(self.asked_before).filter(|line| **line == wanted).count()
    }

    /// Takes a look. True when the host is off, and somebody has confirmed that.
    fn look(&mut self) -> anyhow::Result<bool> {
        for (by, entry) in self.entries()? {
            if !self.steps.contains(&(by, entry.phase)) {
                self.steps.push((by, entry.phase));
                self.stage.mark(match entry.phase {
                    FencingPhase::Claimed => format!("host {by} claims the deed"),
                    FencingPhase::Begun => format!("host {by} begins"),
                    FencingPhase::Off => format!("host {by}: off, confirmed"),
                    FencingPhase::Failed => format!("host {by} FAILED to power it off"),
                });
            }
        }
        if !self.asked && self.times_asked() > 0 {
            self.asked = true;
            self.stage.mark("off asked");
        }
        if !self.dark && self.stage.host.init().is_none() {
            self.dark = true;
            self.stage.mark(format!("host {} is without power", self.victim));
        }
        Ok(self.asked && self.dark && self.doer().is_ok())
    }

    /// What stands in the other hosts' blocks about this death.
    fn entries(&self) -> anyhow::Result<Vec<(HostId, FencingEntry)>> {
        let Place { file, offset } = &self.metadata;
        let file = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let mut found = Vec::new();
        let fault = SystemClock.wall().0
            - i64::try_from(SystemClock.monotonic().saturating_since(self.stage.fault).as_secs())?;
        for number in self.stage.cluster.state().numbers() {
            let id = HostId::new(number.0.into())?;
            let mut bytes = [0; BLOCK_SIZE];
            file.read_exact_at(&mut bytes, offset + block_offset(id.get()))?;
            let block = HostBlock::parse(id, &bytes).ok().flatten();
            let entries = block.map(|block| fencing_entries(&block.extra)).unwrap_or_default();
            let about_this =
                entries.into_iter().filter(|entry| entry.host == self.victim && entry.since >= fault);
            found.extend(about_this.map(|entry| (id, entry)));
        }
        Ok(found)
    }

    /// Who has powered it off.
    fn doer(&self) -> anyhow::Result<Host> {
        let off = self.steps.iter().find(|(_, phase)| *phase == FencingPhase::Off);
        let (by, _) = off.with_context(|| format!("host {} was not confirmed off", self.victim))?;
        self.stage.cluster.host(u8::try_from(by.get())?)
    }

    /// Tells when the lease could be had: the start elsewhere waited for that, whatever the switch said.
    fn lease(&self) {
        let looked = self.stage.leases.looked();
        let free =
            looked.iter().find(|one| one.at >= self.stage.fault && one.lease.is_some_and(Lease::can_be_had));
        if let Some(free) = free {
            self.stage.marks.borrow_mut().push((free.at, "the lease can be taken".to_owned()));
        }
    }

    /// One host did it, once.
    fn once(&self) -> anyhow::Result<()> {
        let begun = self.steps.iter().filter(|(_, phase)| *phase == FencingPhase::Begun).count();
        let asked = self.times_asked();
        // That it has begun stands in the block for as long as the switch takes, which may be too short to be seen.
        anyhow::ensure!(
            begun <= 1 && asked == 1,
            "host {} was switched off {asked} times, by {begun} hosts: {}",
            self.victim,
            self.stage.story()
        );
        Ok(())
    }
}

/// Both displays on the host that did it must say so.
fn what_operators_read(stage: &Stage<'_>, doer: &Host) -> anyhow::Result<()> {
    let host = stage.host.number;
    let status = doer.run(&["hosted-engine", "--vm-status"])?;
    let line = status.lines().find(|line| line.contains("was powered off by") && line.ends_with("confirmed"));
    let line =
        line.with_context(|| format!("--vm-status does not tell that host {host} is off:\n{status}"))?;
    stage.mark(format!("--vm-status: {}", line.trim()));
    let power = doer.run(&["hosted-engine", "--fence-status", &format!("--host-id={host}")])?;
    let line = power.lines().find(|line| line.ends_with("the power is off"));
    let line =
        line.with_context(|| format!("--fence-status does not tell that host {host} is off:\n{power}"))?;
    stage.mark(format!("--fence-status: {}", line.trim()));
    Ok(())
}
