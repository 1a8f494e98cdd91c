//! Hosts that lose power.

use clock::Monotonic;

use super::{Script, Stage};

/// All hosts lose power and boot again.
pub struct ColdStart;

impl Script for ColdStart {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        for host in stage.cluster.hosts() {
            host.kill()?;
        }
        for host in stage.cluster.hosts() {
            host.start()?;
        }
        stage.recovery()
    }
}

/// The VM's host loses power.
pub struct KillHost;

impl Script for KillHost {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.host.kill()?;
        stage.recovery()
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.host.start()
    }
}
