//! What the agent says about itself on shared storage, as far as the state decides it.
//!
//! Data only; the driver adds names and times and the `metadata-format` crate makes bytes of it.

use super::policy::Limits;
use super::{Core, Secs, State};

/// The state's own lines of the host's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateMetadata {
    /// The state; its name is the line `state=`.
    pub state: State,
    /// This host is in local maintenance, and the VM is away.
    pub maintenance: bool,
    /// The agent has stopped cleanly.
    pub stopped: bool,
    /// When the state's running timer fires.
    pub timeout: Option<Secs>,
}

impl Core {
    /// The state's own lines.
    pub fn metadata(&self, limits: &Limits) -> StateMetadata {
        StateMetadata {
            state: self.state,
            maintenance: self.state == State::LocalMaintenance,
            stopped: self.state == State::AgentStopped,
            timeout: self.deadline(limits),
        }
    }
}
