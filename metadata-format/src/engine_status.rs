//! What a host says about the engine VM: field 5 of a host block.

use serde::{Deserialize, Serialize};

/// Whether the engine VM runs on the host that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// The VM runs (or is paused) here.
    Up,
    /// No VM here, and that was expected.
    Down,
    /// The VM was here and ended without being asked to.
    DownUnexpected,
    /// The VM was here at the last look and is gone without a trace.
    DownMissing,
    /// The hypervisor could not be asked, or the word is not one of ours.
    #[serde(other)]
    Unknown,
}

impl VmState {
    /// Any of the forms of "not running here".
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::DownUnexpected | Self::DownMissing)
    }
}

/// Whether the engine inside the VM answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The liveliness page answered as it must.
    Good,
    /// It did not, or there is no VM to ask.
    Bad,
    /// Nobody could look.
    #[serde(other)]
    Unknown,
}

/// The engine status object: `{"vm": …, "health": …, "detail": …, "reason": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Whether the VM runs on this host.
    pub vm: VmState,
    /// Whether the engine in it answers.
    pub health: Health,
    /// The VM's own status word: Up, Down, Paused, `WaitForLaunch`, Powering up, Powering down, Migration Source,
    /// Migration Destination, `RebootInProgress`, Restoring state, Saving State, or unknown.
    pub detail: String,
    /// Why it is so, in words; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EngineStatus {
    /// How much engine there is, for comparing hosts: unknown 0, any down 1, up and paused 2, up with bad
    /// health 3, up with good health 4.
    pub fn rank(&self) -> u8 {
        match (self.vm, self.health) {
            (VmState::Unknown, _) => 0,
            (VmState::Down | VmState::DownUnexpected | VmState::DownMissing, _) => 1,
            (VmState::Up, _) if self.detail == "Paused" => 2,
            (VmState::Up, Health::Good) => 4,
            (VmState::Up, Health::Bad | Health::Unknown) => 3,
        }
    }
}
