//! The engine VM moves while it runs, and loses one end on the way.

use std::time::Duration;

use anyhow::Context;
use clock::Monotonic;

use super::{Script, Stage};
use crate::sandbox::guests::Guest;
use crate::sandbox::host::Host;
use crate::sandbox::layout::HostNumber;
use crate::sandbox::shell;

/// How long a destination may take to get ready: some rounds of two agents, after the minute for which one that has just
/// booted watches the others.
const READY: Duration = Duration::from_mins(2);

/// An operator asks for it.
pub struct Migrate;

impl Script for Migrate {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        let said = stage.host.run(&["hosted-engine", "--migrate-vm"])?;
        if let Some(last) = said.lines().last() {
            stage.mark(format!("the operator reads: {last}"));
        }
        let good = stage.recovery_elsewhere()?;
        stage.same_guest()?;
        Ok(good)
    }
}

/// Which end loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The host that the VM leaves.
    Source,
    /// The host that it goes to.
    Target,
}

/// An operator asks for it, and one of both hosts loses power while the VM is on its way.
pub struct LoseAnEnd(pub Lost);

impl Script for LoseAnEnd {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.host.run(&["hosted-engine", "--migrate-vm", "--no-wait"])?;
        let target = awaiting(stage)?;
        let lost = match self.0 {
            Lost::Source => stage.host.clone(),
            Lost::Target => target,
        };
        lost.kill()?;
        stage.mark(format!("host {} loses power", lost.number));
        let good = match self.0 {
            Lost::Source => stage.recovery_elsewhere(),
            Lost::Target => stage.undisturbed(),
        }?;
        if self.0 == Lost::Target && good.is_none() {
            stage.same_guest()?;
        }
        Ok(good)
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.cluster.hosts().iter().try_for_each(Host::start)
    }
}

/// The host on which a QEMU waits for the VM, as soon as there is one.
fn awaiting(stage: &Stage<'_>) -> anyhow::Result<Host> {
    let found = shell::wait_for(READY, Duration::from_millis(5), || {
        let qemus = stage.cluster.qemus();
        let waiting = qemus.iter().find(|(_, qemu)| Guest::of(qemu) == Some(Guest::Awaited));
        Ok(waiting.map(|(HostNumber(number), _)| *number))
    })?;
    let number =
        found.with_context(|| format!("no host got ready for the VM within {} s", READY.as_secs()))?;
    stage.cluster.host(number)
}

impl Stage<'_> {
    /// Checks that the guest of before the fault is still the one that runs, and says how long it stood still.
    pub fn same_guest(&self) -> anyhow::Result<()> {
        let boots = self.cluster.writers()?.boots;
        anyhow::ensure!(
            boots.last() == Some(&self.boot),
            "the guest was started anew instead of going on: {}",
            self.story()
        );
        if let Some(pause) = self.observer.longest_pause(self.fault) {
            self.marks.borrow_mut().push((pause.at, format!("the guest stood still for {pause}")));
            self.stood_still.set(Some(pause.stood_still));
        }
        Ok(())
    }
}
