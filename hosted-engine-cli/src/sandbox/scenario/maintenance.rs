//! What operators do.

use std::time::Duration;

use anyhow::bail;
use clock::Monotonic;

use super::{Script, Stage, daemons};
use crate::sandbox::timeline::Change;

/// How long the product must keep its hands off in global maintenance.
const HANDS_OFF: Duration = Duration::from_mins(1);

/// The VM is killed in global maintenance, which ends a minute later.
pub struct Global;

impl Script for Global {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.maintenance("global")?;
        daemons::kill_vm(stage.cluster)?;
        let early = stage.observer.wait(HANDS_OFF, |timeline| {
            let mut changes = timeline.changes_since(stage.fault);
            changes.find(|(_, change)| matches!(change, Change::Started(_))).copied()
        });
        if early.is_some() {
            bail!("the VM was started in global maintenance: {}", stage.story());
        }
        stage.maintenance("none")?;
        stage.mark("global maintenance ends");
        stage.recovery()
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.maintenance("none")
    }
}

/// Local maintenance of the VM's host.
pub struct Local;

impl Script for Local {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.maintenance("local")?;
        let good = stage.recovery_elsewhere()?;
        stage.same_guest()?;
        Ok(good)
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.maintenance("none")
    }
}
