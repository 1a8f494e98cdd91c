//! What the agent says about itself on shared storage, as far as the state decides it.
//!
//! Data only; the driver adds names and times and the `metadata-format` crate makes bytes of it.

use std::borrow::Cow;

use super::policy::{Limits, Policy};
use super::score::{Factor, ScoreSheet};
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

    /// The score that this host claims. A host that does not hold its leases could not start the VM, and has no right to
    /// its block: it claims nothing. The rules go on with the score that it would have: a VM that runs is not given up for
    /// what its own lease already decides.
    pub fn claimed_score(&self, policy: Policy) -> Cow<'_, ScoreSheet> {
        let leases = self.view.as_ref().and_then(|view| view.look.footing.host_lease);
        if policy.start_needs_footing && leases == Some(false) {
            Cow::Owned(self.score.zeroed(Factor::LeasesNotHeld))
        } else {
            Cow::Borrowed(&self.score)
        }
    }
}
