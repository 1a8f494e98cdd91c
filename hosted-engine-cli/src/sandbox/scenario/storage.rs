//! Storage that answers late, or not at all.

use std::time::Duration;

use clock::Monotonic;

use super::{Script, Stage};
use crate::sandbox::faultfs::Mode;
use crate::sandbox::shell::pause;

/// Shorter than the lease lasts: nobody should notice.
pub const STALL_15: Stall = Stall { lasts: Duration::from_secs(15), noticed: false };
/// Long after the lease can be had by others.
pub const STALL_200: Stall = Stall { lasts: Duration::from_secs(200), noticed: true };

/// The storage of the VM's host answers nothing for a while.
pub struct Stall {
    lasts: Duration,
    noticed: bool,
}

impl Script for Stall {
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.noticed { 700 } else { 400 })
    }

    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.storage(Mode::Hang)?;
        pause(self.lasts);
        stage.storage(Mode::Ok)?;
        stage.mark("storage answers again");
        if self.noticed { stage.recovery() } else { stage.undisturbed() }
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.storage(Mode::Ok)
    }
}
