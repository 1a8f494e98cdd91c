//! What the agent says about itself on shared storage, as far as the state decides it.
//!
//! Data only; the driver adds names and times and the `metadata-format` crate makes bytes of it.

use std::borrow::Cow;

use metadata_format::HostId;

use super::input::Ready;
use super::policy::{Limits, Policy};
use super::score::{Factor, ScoreSheet};
use super::{Core, Secs, State};

/// The state's own lines of the host's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMetadata {
    /// The state; its name is the line `state=`.
    pub state: State,
    /// This host is in local maintenance, and the VM is away.
    pub maintenance: bool,
    /// The agent has stopped cleanly.
    pub stopped: bool,
    /// When the state's running timer fires.
    pub timeout: Option<Secs>,
    /// The VM moves, is to move or has just moved to that host.
    pub migration_to: Option<HostId>,
    /// This host is ready to receive the VM.
    pub ready: Option<Ready>,
}

impl Core {
    /// The state's own lines.
    pub fn metadata(&self, limits: &Limits) -> StateMetadata {
        let now = self.view.as_ref().map(|view| view.look.finished);
        let moves = &self.memory.moves;
        let ready = moves
            .incoming
            .as_ref()
            .and_then(|incoming| Some(Ready { from: incoming.from?, uri: incoming.uri.clone()? }));
        StateMetadata {
            state: self.state,
            maintenance: self.state == State::LocalMaintenance,
            stopped: self.state == State::AgentStopped,
            timeout: self.deadline(limits),
            migration_to: now.and_then(|now| moves.announced(now, limits)),
            ready,
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
