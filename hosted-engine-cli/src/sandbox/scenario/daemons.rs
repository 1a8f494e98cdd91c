//! Processes that die: the VM's own, and the daemons around it.

use anyhow::Context;
use clap::ValueEnum;
use clock::Monotonic;
use rustix::process::Signal;

use super::{Script, Stage};
use crate::sandbox::Service;
use crate::sandbox::cluster::Cluster;
use crate::sandbox::state::{Hypervisor, State};

/// QEMU is killed.
pub struct KillVm;

impl Script for KillVm {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        kill_vm(stage.cluster)?;
        stage.recovery()
    }
}

/// Kills QEMU, wherever it runs.
pub fn kill_vm(cluster: &Cluster) -> anyhow::Result<()> {
    let qemus = cluster.qemus();
    anyhow::ensure!(!qemus.is_empty(), "no engine VM runs on any host");
    for (_, qemu) in qemus {
        qemu.signal(Signal::KILL);
    }
    Ok(())
}

/// A daemon of the VM's host is killed; its supervisor starts it again.
pub struct Kill(pub Service);

impl Script for Kill {
    fn impossible(&self, state: &State) -> Option<String> {
        if self.0.exists(state.hypervisor) {
            return None;
        }
        let has = Hypervisor::value_variants().iter().find(|one| self.0.exists(**one))?;
        Some(format!(
            "the hosts of this sandbox have no {} to kill; make one with: hosted-engine sandbox up --hypervisor {has}",
            self.0.name()
        ))
    }

    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        let process = stage.host.service_process(self.0)?;
        process
            .with_context(|| format!("{} does not run on host {}", self.0.name(), stage.host.number))?
            .signal(Signal::KILL);
        stage.undisturbed()
    }
}
