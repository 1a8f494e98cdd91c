//! Storage that answers late, with errors, or not at all.

use std::time::Duration;

use clock::Monotonic;

use super::{Script, Stage};
use crate::sandbox::faultfs::Mode;
use crate::sandbox::shell::pause;
use crate::sandbox::state::State;

/// Shorter than the lease lasts: nobody should notice.
pub const STALL_15: Trouble = Trouble { how: Mode::Hang, lasts: Duration::from_secs(15), noticed: false };
/// Long after the lease can be had by others.
pub const STALL_200: Trouble = Trouble { how: Mode::Hang, lasts: Duration::from_secs(200), noticed: true };
/// As long, and QEMU learns of it: it stops the guest and stays.
pub const FAIL_200: Trouble = Trouble { how: Mode::Eio, lasts: Duration::from_secs(200), noticed: true };

/// The storage of the VM's host is in trouble for a while.
pub struct Trouble {
    how: Mode,
    lasts: Duration,
    noticed: bool,
}

impl Script for Trouble {
    fn impossible(&self, state: &State) -> Option<String> {
        state.storage.check_faults().err().map(|why| why.to_string())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(if self.noticed { 700 } else { 400 })
    }

    fn play(&self, stage: &Stage<'_>) -> anyhow::Result<Option<Monotonic>> {
        stage.storage(self.how)?;
        pause(self.lasts);
        stage.storage(Mode::Ok)?;
        stage.mark("storage is well again");
        if self.noticed { stage.recovery() } else { stage.undisturbed() }
    }

    fn put_right(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        stage.storage(Mode::Ok)
    }
}
