//! Automatic fencing around the loop: gathers the facts, hands orders to the worker beside it, tells of results.

use std::collections::BTreeMap;

use broker_api::status::{HostRow, StatusDocument};
use metadata_format::fencing::{FENCING_KEY, SWITCHES_KEY, fencing_entries, fencing_line, switches_line};
use metadata_format::{FencingEntry, HostBlock, HostId, VmState};
use tracing::{error, info, warn};

use super::{Agent, CALL_DEADLINE};
use crate::core::fencing::{Ended, Facts, Fencing, Note, Peer};
use crate::core::{HostName, NoFooting, Secs, View, Witness};
use crate::fencer::Desk;

/// An order that is older than this was given before this host stood still: it is not carried out.
const FRESH_SECS: u64 = 5;

/// The fencing of one agent.
pub(super) struct Fence {
    /// Who is fenced, and why.
    pub(super) decision: Fencing,
    /// Where orders are carried out.
    pub(super) desk: Desk,
    /// The raw blocks' parts for people, from the last look.
    blocks: BTreeMap<HostId, HostBlock>,
    /// What the broker said of these blocks.
    blocks_read: Option<Secs>,
    unreadable: Vec<HostId>,
    /// The own block of an earlier agent was looked at.
    resumed: bool,
    /// Hosts that can be switched from here, from the last look.
    switches: Vec<HostId>,
    /// Notes that were logged.
    logged: Vec<String>,
}

impl Fence {
    pub(super) fn new(desk: Desk) -> Self {
        Self {
            decision: Fencing::default(),
            desk,
            blocks: BTreeMap::new(),
            blocks_read: None,
            unreadable: Vec::new(),
            resumed: false,
            switches: Vec::new(),
            logged: Vec::new(),
        }
    }

    /// Keeps of a look what fencing needs of it.
    pub(super) fn take(
        &mut self,
        raw: &BTreeMap<u16, Vec<u8>>,
        status: Option<&StatusDocument>,
        own: HostId,
    ) {
        // The blocks were asked for after the status: they are at least as new.
        self.blocks_read = status.and_then(|status| status.blocks_read).map(|ms| Secs(ms / 1000));
        let bad = |(id, row): (&HostId, &HostRow)| matches!(row, HostRow::Bad { .. }).then_some(*id);
        self.unreadable = status.iter().flat_map(|status| status.hosts.iter().filter_map(bad)).collect();
        if !self.resumed {
            self.resumed = true;
            if let Some(block) = raw.get(&own.get()).and_then(|bytes| HostBlock::parse(own, bytes).ok()?) {
                self.decision = Fencing::resume(&fencing_entries(&block.extra));
            }
        }
        let parsed = raw.iter().filter_map(|(&number, bytes)| {
            let id = HostId::new(number).ok().filter(|id| *id != own)?;
            Some((id, HostBlock::parse(id, bytes).ok()??))
        });
        self.blocks = parsed.collect();
    }

    /// The lines of the own block.
    pub(super) fn lines(&self) -> Vec<(String, String)> {
        let entries: Vec<FencingEntry> = self.decision.entries();
        let mut lines = Vec::new();
        if !entries.is_empty() {
            lines.push((FENCING_KEY.to_owned(), fencing_line(&entries)));
        }
        if !self.switches.is_empty() {
            lines.push((SWITCHES_KEY.to_owned(), switches_line(&self.switches)));
        }
        lines
    }
}

impl Agent {
    /// After a step: whether a dead host is to be switched off now. The order is carried out beside the loop.
    pub(super) async fn fence_the_dead(&mut self) {
        let Some(limits) = self.config.fencing else { return };
        let Some(view) = &self.core.view else { return };
        let (looked, mut facts) = (view.look.finished, self.fencing_facts(view));
        if facts.peers.iter().all(|peer| !peer.has_switch) && !facts.peers.is_empty() {
            self.warnings.push(
                "fencing is enabled, and ha.toml has no [[fencing.host]] for any other host".to_owned(),
            );
        }
        self.fence.switches =
            facts.peers.iter().filter(|peer| peer.has_switch).map(|peer| peer.name.id).collect();
        if facts.vm_owner.is_none() && Fencing::suspects(&facts) {
            facts.vm_owner = self.lease_owner().await;
        }
        let order = self.fence.decision.look(&facts, &limits);
        let Some(order) = order else { return self.tell_fencing() };
        // What was decided is as old as the look. A host that stood still since then must look again.
        let age = Secs::from(self.ports.clock.monotonic()).since(looked);
        if age > FRESH_SECS {
            let detail = format!("this host stood still for {age} s between its decision and the deed");
            self.fencing_ended(&order.host, &Ended::Failed { detail }).await;
        } else if self.fence.desk.order(order.host.clone()) {
            warn!("powering {} off", order.host);
            self.notify_fencing(&order.host, "begun").await;
        } else {
            let detail = "an earlier order is still under way".to_owned();
            self.fencing_ended(&order.host, &Ended::Failed { detail }).await;
        }
        self.tell_fencing();
    }

    fn fencing_facts(&self, view: &View) -> Facts {
        let look = &view.look;
        let switch = |name: &HostName| self.ports.fencer.has_switch(name);
        let peer = |(id, block): (&HostId, &HostBlock)| {
            let name = HostName { id: *id, name: block.hostname.clone() };
            Peer {
                has_switch: switch(&name),
                stamp: block.host_ts,
                alive: view.alive.contains(id),
                stopped: block.stopped,
                vm_up: block.engine_status.vm == VmState::Up,
                score: block.score,
                entries: fencing_entries(&block.extra),
                switches: metadata_format::fencing::fencing_switches(&block.extra),
                name,
            }
        };
        let no_footing = if let Some(secs) = look.footing.storage_stuck {
            Some(NoFooting::StorageStuck { secs })
        } else if look.footing.host_lease == Some(true) {
            None
        } else {
            // Whoever does not know whether it holds its id must not judge others.
            Some(NoFooting::HostLeaseNotHeld)
        };
        Facts {
            now: look.finished,
            wall: look.finished.on_wall(look.wall_offset),
            own: self.config.settings.host_id,
            score: self.core.score.total,
            global_maintenance: look.global_maintenance,
            tells_liveness: view.witness == Witness::History,
            no_footing,
            acknowledged: self.last_acknowledged,
            lock_manager_live: look.lock_manager_live.clone(),
            vm_owner: look.footing.lease_owner,
            vm_here: look.local.vm() == VmState::Up,
            blocks_read: self.fence.blocks_read,
            unreadable: self.fence.unreadable.clone(),
            peers: self.fence.blocks.iter().map(peer).collect(),
        }
    }

    /// An order was carried out, or not.
    pub(super) async fn fencing_ended(&mut self, host: &HostName, ended: &Ended) {
        let wall = self.ports.clock.wall().0;
        self.fence.decision.ended(host.id, ended, wall);
        let word = match ended {
            Ended::Off { .. } => "off",
            Ended::Failed { .. } => "failed",
        };
        self.notify_fencing(host, word).await;
        self.tell_fencing();
    }

    async fn notify_fencing(&mut self, host: &HostName, word: &str) {
        let options = BTreeMap::from([
            ("hostname".to_owned(), self.config.hostname.clone()),
            ("fenced".to_owned(), host.to_string()),
        ]);
        let sent = self.ports.broker.notify("fencing", word, &options);
        if let Err(error) = self.ask("notify", CALL_DEADLINE, sent).await {
            self.warnings.push(format!("the fencing of {host} was not notified: {error}"));
        }
    }

    /// The own block with the present lines is on storage.
    pub(super) fn fencing_written(&mut self, now: Secs) {
        self.fence.decision.written(now);
    }

    /// The agent ends: whatever is under way ends with it.
    pub(super) fn end_fencing(&mut self) {
        self.fence.decision.stop(self.ports.clock.wall().0);
        self.tell_fencing();
    }

    /// Logs what is new.
    fn tell_fencing(&mut self) {
        let notes = self.fence.decision.notes();
        let texts: Vec<String> = notes.iter().map(ToString::to_string).collect();
        for (note, text) in notes.iter().zip(&texts) {
            let known = |before: &&String| super::gist(before).eq(super::gist(text));
            if self.fence.logged.iter().any(|before| known(&before)) {
                continue;
            }
            match note {
                Note::Failed { .. } => error!("fencing: {text}"),
                Note::Off { .. } | Note::Begun { .. } | Note::Claimed { .. } => warn!("fencing: {text}"),
                Note::Hindered { .. }
                | Note::Renews { .. }
                | Note::Waits { .. }
                | Note::OtherClaims { .. }
                | Note::OffBy { .. }
                | Note::Back { .. } => info!("fencing: {text}"),
            }
        }
        self.fence.logged = texts;
    }

    /// What the report says of fencing: reasons, and warnings.
    pub(super) fn fencing_texts(&self) -> (Vec<String>, Vec<String>) {
        let (warnings, reasons): (Vec<&Note>, Vec<&Note>) =
            self.fence.decision.notes().iter().partition(|note| note.is_warning());
        let texts = |notes: Vec<&Note>| notes.into_iter().map(ToString::to_string).collect();
        (texts(reasons), texts(warnings))
    }

    /// Seconds after which the next look is wanted for fencing.
    pub(super) fn fencing_again_in(&self) -> Option<u64> {
        let now = self.core.view.as_ref()?.look.finished;
        self.fence.decision.again_in(now, &self.config.fencing?)
    }
}
