//! Networks that are cut.

use clock::Monotonic;

use super::{Script, Stage};
use crate::sandbox::net;

/// The gateway does not answer the VM's host.
pub struct CutGateway;

impl Script for CutGateway {
    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        net::cut_gateway(stage.cluster.layout(), stage.host.number)?;
        let good = stage.recovery_elsewhere()?;
        stage.same_guest()?;
        Ok(good)
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        net::restore_gateway(stage.cluster.layout(), stage.host.number)
    }
}
