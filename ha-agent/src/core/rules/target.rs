//! Where the VM goes when it leaves this host, and where it goes instead when that host does not take it.

use std::cmp::Reverse;

use metadata_format::{HostId, Score};

use super::Step;
use crate::core::View;
use crate::core::moves::{Cause, Moving};
use crate::core::reason::HostName;

/// So many hosts are asked to get ready for the VM before it is shut down instead: each may let its whole time pass.
const HOSTS_ASKED: usize = 2;

impl Step<'_> {
    /// The live hosts that can take the VM, the best first. With `live_migration` hosts that are as good as the best one,
    /// but for less than the margin of a hand-over, go by how likely the VM is to arrive: not where the last migration
    /// failed, not to one that has just booted if another will do.
    pub(super) fn targets(&self) -> Vec<(HostName, Score)> {
        let Some((_, best)) = &self.view.best_score else { return Vec::new() };
        if !self.settings.policy.live_migration {
            return self.view.best_score.iter().cloned().collect();
        }
        let margin = self.settings.limits.hand_over_margin;
        let mut fit: Vec<_> = self
            .live_blocks()
            .filter(|(_, block)| block.score > Score(0))
            .map(|(id, block)| (View::host_name(id, &block.hostname), block.score))
            .collect();
        let settled = &self.core.memory.settled;
        // Stable: the first of equal ones.
        fit.sort_by_key(|(host, score)| {
            let is_behind = score.0.saturating_add(margin) <= best.0;
            let is_settled = settled.is_settled(host.id, self.now(), self.settings.limits.alive);
            (is_behind, self.failed_lately(host.id), !is_settled, Reverse(*score))
        });
        fit
    }

    /// The last migration went there, and failed.
    fn failed_lately(&self, id: HostId) -> bool {
        let window = self.settings.limits.migration_failures;
        self.moves.last.as_ref().is_some_and(|last| {
            last.failure.is_some()
                && last.to.as_ref().is_some_and(|to| to.id == id)
                && self.now().since(last.at) <= window
        })
    }

    /// Where the VM that is to leave goes instead, unless a person named the host or enough of them were asked.
    pub(super) fn next_target(&mut self, moving: &Moving) -> Option<HostName> {
        let asked: Vec<HostId> =
            moving.asked.iter().copied().chain(moving.to.as_ref().map(|to| to.id)).collect();
        if asked.len() >= HOSTS_ASKED {
            return None;
        }
        let chosen_by_us = match moving.cause {
            Cause::HandOver => return self.hand_over_due(&asked).map(|(host, _)| host),
            Cause::Maintenance => true,
            Cause::Request { asked_at } => {
                let request = self.view.look.local.migration_request;
                request.is_some_and(|request| request.asked_at == asked_at && request.to.is_none())
            }
            Cause::Found => false,
        };
        let targets = self.targets().into_iter().filter(|_| chosen_by_us);
        targets.map(|(host, _)| host).find(|host| !asked.contains(&host.id))
    }
}
