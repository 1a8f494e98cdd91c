//! The destination of a live migration, with the switch `live_migration`: it gets ready when another host asks, says so
//! in its block, and gives up when nobody sends the VM any more. A VM that arrives counts as down until its guest runs
//! here.
//!
//! Nobody starts the VM while it is on its way: the lease lies free for an instant between the two hypervisors, and a
//! host that took it then would cost the guest its life.

use super::{Act, Outcome, Step, To};
use crate::core::input::{Action, Migrates, RemoteBlock, RemoteHost};
use crate::core::liveness::Witness;
use crate::core::move_reason::MoveReason;
use crate::core::moves::Incoming;
use crate::core::reason::{HostName, Reason};
use crate::core::state::State;
use crate::core::state::Wait::Delay;
use metadata_format::{HostId, VmState};

impl Step<'_> {
    /// Gets ready, waits for the VM, or gives up; nothing when no VM is to arrive.
    pub(super) fn receives(&mut self) -> Option<Outcome> {
        let local = &self.view.look.local;
        if !self.settings.policy.live_migration || local.vm() == VmState::Unknown {
            return None;
        }
        if local.vm() == VmState::Up {
            // It is here, or another one is.
            self.moves.incoming = None;
            return None;
        }
        let state = self.core.state;
        if !matches!(state, State::EngineDown | State::GlobalMaintenance | State::LocalMaintenance) {
            return None;
        }
        if local.arriving {
            return self.arriving();
        }
        // What waited is gone; if it is still wanted, this host gets ready anew.
        self.moves.incoming = None;
        let refuses = local.maintenance && !self.view.look.global_maintenance;
        if local.migrates != Migrates::Prepared || refuses || state == State::LocalMaintenance {
            return None;
        }
        let from = self.sender()?;
        if let Some(cause) = self.no_footing() {
            self.notes.push(Reason::Move(MoveReason::CannotReceive { cause }));
            return None;
        }
        let action = Action::ReceiveVm { from: from.id };
        Some(Act(action, Reason::Move(MoveReason::GetsReady { from })))
    }

    /// The live host that runs the VM and wants to send it here. As long as nobody can say who is alive, as after a boot of
    /// this host, one counts that was seen to write its block: more is not needed to get ready.
    fn sender(&self) -> Option<HostName> {
        let own = self.settings.host_id;
        let (view, history) = (&self.view, &self.core.history);
        let writes = |host: &&RemoteHost| {
            view.witness != Witness::History
                && host.block.as_ref().is_some_and(|block| history.has_moved(host.id, block.host_ts))
        };
        let seen = view.look.hosts.iter().filter(writes);
        let seen = seen.filter_map(|host| Some((host.id, host.block.as_ref()?)));
        let (id, block) = self.live_blocks().chain(seen).find(|(_, block)| {
            block.migration_to == Some(own)
                && block.engine.as_ref().is_some_and(|engine| engine.vm == VmState::Up)
        })?;
        Some(crate::core::View::host_name(id, &block.hostname))
    }

    pub(super) fn live_blocks(&self) -> impl Iterator<Item = (HostId, &RemoteBlock)> {
        let alive = &self.view.alive;
        let live = self.view.look.hosts.iter().filter(|host| alive.contains(&host.id));
        live.filter_map(|host| Some((host.id, host.block.as_ref()?)))
    }

    fn arriving(&mut self) -> Option<Outcome> {
        let now = self.now();
        let own = self.settings.host_id;
        let is_ours = self.view.look.local.migrates == Migrates::Prepared;
        let sends = |block: &RemoteBlock| {
            let leaves = block.engine.as_ref().is_some_and(|engine| engine.detail == "Migration Source");
            leaves || block.migration_to == Some(own)
        };
        let is_sent = self.live_blocks().any(|(_, block)| sends(block));
        let known = self.view.witness == Witness::History;
        let refuses = self.view.look.local.maintenance && !self.view.look.global_maintenance;
        let incoming = self.moves.incoming.get_or_insert(Incoming { from: None, uri: None, unasked: None });
        if is_sent || !known {
            incoming.unasked = None;
        } else {
            incoming.unasked.get_or_insert(now);
        }
        let source_died = known && incoming.from.is_some_and(|from| !self.view.alive.contains(&from));
        let waited = incoming.unasked.map(|since| now.since(since));
        let left = waited.map(|secs| self.settings.limits.arrival_grace.saturating_sub(secs));
        if is_ours && (refuses || source_died || left == Some(0)) {
            return Some(Act(Action::EndArrival, Reason::Move(MoveReason::ArrivalNotWanted)));
        }
        let reason = match left.filter(|_| is_ours) {
            Some(left) => MoveReason::Unasked { left },
            None => MoveReason::Arriving,
        };
        match self.core.state {
            State::EngineDown if !self.view.look.global_maintenance => {
                Some(To(State::EngineDown, Delay, Reason::Move(reason)))
            }
            _ => {
                self.notes.push(Reason::Move(reason));
                None
            }
        }
    }

    /// The VM runs nowhere that can be seen, because it is between two hosts.
    pub(super) fn on_its_way(&self) -> Option<Outcome> {
        if !self.settings.policy.live_migration {
            return None;
        }
        let (id, block) =
            self.live_blocks().find(|(_, block)| block.migration_to.is_some() || block.ready.is_some())?;
        let host = crate::core::View::host_name(id, &block.hostname);
        Some(To(State::EngineDown, Delay, Reason::Move(MoveReason::OnItsWay { host })))
    }
}
