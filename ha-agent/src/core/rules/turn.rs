//! `ranked_start`: hosts that are equally good start the VM one after the other, so that they do not race for its lease.
//!
//! Nobody waits for another host's deed, only for time: when those who come first do nothing, this host starts.

use metadata_format::VmState;

use super::{Outcome, Step, To};
use crate::core::Retries;
use crate::core::reason::Reason;
use crate::core::state::State;
use crate::core::state::Wait::{Delay, No};
use crate::core::{HostName, View};

/// Seconds from a start that failed to the next one here, at least: less than a loop. What failed wakes the agent, and often
/// fails again at once.
const START_PAUSE: u64 = 8;
/// Seconds between two hosts, at most, when the VM's host is dead: its lease orders the start then. Each host asks its own
/// lock manager, and the one that comes first may be the last to hear that the lease can be had.
const AFTER_A_DEAD_HOST: u64 = 1;

impl Step<'_> {
    /// This host should start the VM: now, or when those who come first have had their time.
    pub(super) fn take_turn(&mut self) -> Outcome {
        let now = self.view.look.finished;
        let due = self.core.memory.due.unwrap_or(now);
        self.due = Some(due);
        let score = self.core.score.total;
        let Retries { count, last } = self.core.retries;
        let pause = last.map_or(0, |at| at.plus(START_PAUSE).since(now));
        if self.settings.policy.retry_memory && count > 0 && pause > 0 {
            self.again_in = Some(pause);
            return To(State::EngineDown, Delay, Reason::StartPauses { left: pause });
        }
        if self.settings.policy.ranked_start && score.0 > 0 {
            let first = || self.equals_before();
            let mut apart = self.settings.limits.stagger;
            if self.settings.policy.lease_aware_start && self.dead_host_has_vm() {
                apart = apart.min(AFTER_A_DEAD_HOST);
            }
            let wait = apart.saturating_mul(first().map(|_| 1).sum());
            let left = wait.saturating_sub(now.since(due));
            if left > 0
                && let Some(host) = first().min_by_key(|host| host.id)
            {
                self.again_in = Some(left);
                return To(State::EngineDown, Delay, Reason::OthersFirst { score, host, left });
            }
        }
        if let Some(owner) = self.view.look.footing.lease_owner
            && self.settings.policy.lease_aware_start
        {
            return To(State::EngineDown, Delay, Reason::LeaseWaits { owner });
        }
        To(State::EngineStart, No, Reason::BestHost { score, next: self.view.best_score.clone() })
    }

    /// A host that is not alive any more said last that it runs the VM.
    fn dead_host_has_vm(&self) -> bool {
        let view = self.view;
        view.look.hosts.iter().filter(|host| !view.alive.contains(&host.id)).any(|host| {
            let engine = host.block.as_ref().and_then(|block| block.engine.as_ref());
            engine.is_some_and(|status| status.vm == VmState::Up)
        })
    }

    /// The live hosts with exactly this host's score and a lower id.
    fn equals_before(&self) -> impl Iterator<Item = HostName> {
        let score = self.core.score.total;
        let own = self.settings.host_id;
        let view = self.view;
        view.look.hosts.iter().filter_map(move |host| {
            let block = host.block.as_ref().filter(|block| block.score == score)?;
            let before = host.id < own && view.alive.contains(&host.id);
            before.then(|| View::host_name(host.id, &block.hostname))
        })
    }
}
