//! Automatic fencing: which dead host is switched off from outside, by whom and when. Pure: no I/O, no clock.
//!
//! ```text
//!            dead, and it ran the VM       soon due           due, all blocks read anew, no other claim
//!  watching ─────────────────────▶ waiting ─────────▶ claimed ──────────────────────────────▶ begun ─▶ off | failed
//!     ▲                              │ ▲                 │
//!     └──────────────────────────────┘ └─────────────────┘
//!      alive again, maintenance,        the same, or another host's claim is better: withdrawn
//!      this host unsure of itself
//! ```
//!
//! Who claims stands in the own block, which the others read. A host acts only when a look at all blocks that began
//! after its claim was on storage shows no claim of another live host. Of two hosts that both acted the later one would
//! have read before its own claim was written: so only one acts at a time. Two hosts cannot shoot each other: to act,
//! a host must have its blocks acknowledged, and then the other one sees it alive.
//!
//! A death is told from the next one by the timestamp of the host's last record. Each survivor tries once per death.

use std::collections::BTreeSet;

use metadata_format::{FencingEntry, FencingPhase, HostId, Score};

use super::input::{LeaseOwner, OwnerLife};
use super::reason::{HostName, NoFooting};
use super::time::Secs;

mod note;

pub use note::Note;

/// Seconds that each host lets the ones before it have, when they do nothing: two looks.
pub const TURN: u64 = 20;
/// A death that was not looked at for so many seconds is looked at anew: this host may have stood still itself, and
/// what it sees first may be old.
const LOOK_GAP: u64 = 30;
/// Seconds before the deed at which it is announced, so that the announcement costs no time; at most the grace, for a claim
/// must not come in the turn of the host before.
const LEAD: u64 = 20;
/// Seconds until the next look while the announcement has not been read back by a read of all blocks.
const SOON: u64 = 3;

/// What does not change while the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Seconds that a host must have been silent for beyond `alive`. The lock manager must have given it up as well.
    pub grace: u64,
    /// Seconds without a change after which the others take a host for dead.
    pub alive: u64,
}

/// Another host in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Peer {
    /// Its id and name.
    pub name: HostName,
    /// The timestamp in its record.
    pub stamp: i64,
    /// Its record has changed lately.
    pub alive: bool,
    /// Its agent was stopped in order.
    pub stopped: bool,
    /// It says that the VM is up there.
    pub vm_up: bool,
    /// Its score.
    pub score: Score,
    /// What it does or did about dead hosts.
    pub entries: Vec<FencingEntry>,
    /// The hosts that it can switch.
    pub switches: Vec<HostId>,
    /// This host can switch it.
    pub has_switch: bool,
}

/// One look at the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When the look was complete.
    pub now: Secs,
    /// The same on the wall clock, for the entries.
    pub wall: i64,
    /// This host.
    pub own: HostId,
    /// Its score, as the others see it.
    pub score: Score,
    /// Nothing is done in global maintenance.
    pub global_maintenance: bool,
    /// The past reaches back far enough to tell who is alive.
    pub tells_liveness: bool,
    /// Why this host may be the one that is cut off.
    pub no_footing: Option<NoFooting>,
    /// When the own block was last written and read back.
    pub acknowledged: Secs,
    /// Hosts whose host id leases are live, when the lock manager can say that of all.
    pub lock_manager_live: Option<Vec<HostId>>,
    /// Who holds the VM's lease; `None` also when nobody knows.
    pub vm_owner: Option<LeaseOwner>,
    /// The VM is up on this host.
    pub vm_here: bool,
    /// When the read of the blocks began that this look shows; `None` when the broker does not say.
    pub blocks_read: Option<Secs>,
    /// Hosts whose blocks cannot be read at present.
    pub unreadable: Vec<HostId>,
    /// The other hosts whose records can be read.
    pub peers: Vec<Peer>,
}

/// The order to switch a host off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The host.
    pub host: HostName,
    /// Which death this is about.
    pub stamp: i64,
}

/// How switching went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The power was seen off after it was asked for.
    Off {
        /// What else is to be said: that the host did not come on again, for example.
        remark: Option<String>,
    },
    /// It was not, or nobody knows.
    Failed {
        /// Why.
        detail: String,
    },
}

/// A host that is taken for dead.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Case {
    host: HostName,
    stamp: i64,
    since: Secs,
    looked: Secs,
}

/// An own entry and what its writer knows beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    entry: FencingEntry,
    name: String,
    /// When the entry was first on storage.
    written: Option<Secs>,
    detail: Option<String>,
}

/// What is remembered from look to look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fencing {
    case: Option<Case>,
    own: Vec<Own>,
    /// Hosts that this agent has seen alive.
    seen: BTreeSet<HostId>,
    notes: Vec<Note>,
}

impl Fencing {
    /// Goes on from what an earlier agent of this host has left in its block. A claim is void; what had begun has
    /// ended somehow, and nobody knows how.
    pub fn resume(entries: &[FencingEntry]) -> Self {
        let own = entries.iter().filter_map(|entry| {
            let interrupted = "the agent was started anew meanwhile; whether the power is off is not known";
            let (phase, detail) = match entry.phase {
                FencingPhase::Claimed => return None,
                FencingPhase::Begun => (FencingPhase::Failed, Some(interrupted.to_owned())),
                FencingPhase::Off | FencingPhase::Failed => (entry.phase, None),
            };
            let entry = FencingEntry { phase, ..*entry };
            Some(Own { entry, name: format!("host {}", entry.host), written: None, detail })
        });
        Self { own: own.collect(), ..Self::default() }
    }

    /// The entries of the own block.
    pub fn entries(&self) -> Vec<FencingEntry> {
        self.own.iter().map(|own| own.entry).collect()
    }

    /// What there is to say after the last look.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Whether it is worth asking who holds the VM's lease: some host may have to be fenced.
    pub fn suspects(facts: &Facts) -> bool {
        facts.peers.iter().any(|peer| !peer.alive && peer.has_switch && !peer.stopped)
    }

    /// Seconds after which the next look is wanted, if that is sooner than usual: the deed is due then.
    pub fn again_in(&self, now: Secs, limits: &Limits) -> Option<u64> {
        let case = self.case.as_ref()?;
        self.own.iter().find(|own| own.entry.phase == FencingPhase::Claimed)?;
        Some(case.since.plus(limits.grace).since(now).max(SOON))
    }

    /// The own block with the present entries was written and read back.
    pub fn written(&mut self, now: Secs) {
        for own in &mut self.own {
            own.written.get_or_insert(now);
        }
    }

    /// Takes a look, and says whom to switch off now.
    pub fn look(&mut self, facts: &Facts, limits: &Limits) -> Option<Order> {
        self.notes.clear();
        self.remember(facts);
        if let Some(own) = self.own.iter().find(|own| own.entry.phase == FencingPhase::Begun) {
            self.notes.push(Note::Begun { host: own.name() });
            self.tell_results();
            return None;
        }
        let order = self.follow_case(facts, limits);
        self.tell_results();
        order
    }

    /// The order was carried out, or not.
    pub fn ended(&mut self, host: HostId, ended: &Ended, wall: i64) {
        let running = |own: &&mut Own| own.entry.host == host && own.entry.phase == FencingPhase::Begun;
        let Some(own) = self.own.iter_mut().find(running) else { return };
        own.entry.since = wall;
        own.written = None;
        (own.entry.phase, own.detail) = match ended {
            Ended::Off { remark } => (FencingPhase::Off, remark.clone()),
            Ended::Failed { detail } => (FencingPhase::Failed, Some(detail.clone())),
        };
        self.notes.clear();
        self.tell_results();
    }

    /// The agent ends. What it has begun is given up; nobody knows how far it is.
    pub fn stop(&mut self, wall: i64) {
        self.case = None;
        self.withdraw();
        let detail = "the agent was stopped meanwhile; whether the power is off is not known".to_owned();
        let begun = self.own.iter().find(|own| own.entry.phase == FencingPhase::Begun);
        if let Some(host) = begun.map(|own| own.entry.host) {
            self.ended(host, &Ended::Failed { detail }, wall);
        }
    }

    fn remember(&mut self, facts: &Facts) {
        self.seen.extend(facts.peers.iter().filter(|peer| peer.alive).map(|peer| peer.name.id));
        let peer = |host: HostId| facts.peers.iter().find(|peer| peer.name.id == host);
        let Self { own, notes, .. } = self;
        own.retain_mut(|own| {
            if let Some(peer) = peer(own.entry.host) {
                own.name.clone_from(&peer.name.name);
            }
            let back = peer(own.entry.host).is_some_and(|peer| peer.alive && peer.stamp != own.entry.stamp);
            let over = back && own.entry.phase != FencingPhase::Begun;
            if over && own.entry.phase != FencingPhase::Claimed {
                notes.push(Note::Back { host: own.name() });
            }
            !over
        });
    }

    fn tell_results(&mut self) {
        for own in &self.own {
            let (host, at) = (own.name(), own.entry.since);
            match own.entry.phase {
                FencingPhase::Claimed | FencingPhase::Begun => {}
                FencingPhase::Off => {
                    self.notes.push(Note::Off { host, at, remark: own.detail.clone() });
                }
                FencingPhase::Failed => {
                    let detail = own.detail.clone().unwrap_or_else(|| "see the log of that time".to_owned());
                    self.notes.push(Note::Failed { host, at, detail });
                }
            }
        }
    }

    fn follow_case(&mut self, facts: &Facts, limits: &Limits) -> Option<Order> {
        // Until the past tells who is alive everybody looks dead.
        let victim = if facts.tells_liveness { self.victim(facts) } else { None };
        let Some(peer) = victim else {
            self.case = None;
            self.withdraw();
            return None;
        };
        let host = peer.name.clone();
        if let Some(hindrance) = self.hindrance(facts, limits) {
            self.case = None;
            self.withdraw();
            self.notes.push(Note::Hindered { host, hindrance });
            return None;
        }
        let now = facts.now;
        let same = |case: &Case| {
            case.host.id == host.id && case.stamp == peer.stamp && now.since(case.looked) <= LOOK_GAP
        };
        let since = self.case.take().filter(same).map_or(now, |case| case.since);
        self.case = Some(Case { host: host.clone(), stamp: peer.stamp, since, looked: now });
        if renews(facts, peer) {
            self.withdraw();
            self.notes.push(Note::Renews { host });
            return None;
        }
        let place = match place(facts, peer) {
            Ok(place) => place,
            Err(note) => {
                self.withdraw();
                self.notes.push(note);
                return None;
            }
        };
        let due = since.plus(limits.grace).plus(TURN.saturating_mul(place));
        let rivals = rivals(facts, peer);
        let claim =
            self.own.iter().position(|own| own.entry.phase == FencingPhase::Claimed && own.is_about(peer));
        let Some(claim) = claim else {
            self.withdraw();
            if let Some((by, _)) = rivals.first() {
                self.notes.push(Note::OtherClaims { host, by: by.clone() });
            } else {
                let left = due.since(now);
                if now.plus(LEAD.min(limits.grace)) >= due {
                    self.claim(peer, facts);
                    self.notes.push(Note::Claimed { host, left });
                } else {
                    self.notes.push(Note::Waits { host, left, before: place });
                }
            }
            return None;
        };
        let mine = &self.own[claim];
        let mine_is_best = rivals.iter().all(|(by, rival)| {
            rival.phase == FencingPhase::Claimed && precedes(&mine.entry, facts.own, rival, by.id)
        });
        if !mine_is_best {
            self.withdraw();
            self.notes.extend(rivals.into_iter().next().map(|(by, _)| Note::OtherClaims { host, by }));
            return None;
        }
        // Seconds are whole: a read of the same second may have begun before.
        let read_since = mine.written.zip(facts.blocks_read).is_some_and(|(written, read)| read > written);
        if read_since && due <= now && rivals.is_empty() {
            let mine = &mut self.own[claim];
            mine.entry.phase = FencingPhase::Begun;
            mine.entry.since = facts.wall;
            mine.written = None;
            self.notes.push(Note::Begun { host: host.clone() });
            return Some(Order { host, stamp: peer.stamp });
        }
        self.notes.push(Note::Claimed { host, left: due.since(now) });
        None
    }

    /// The silent host that ran the VM: the one that holds its lease before others that only say so.
    fn victim<'f>(&self, facts: &'f Facts) -> Option<&'f Peer> {
        let vm_elsewhere = facts.vm_here || facts.peers.iter().any(|peer| peer.alive && peer.vm_up);
        let owner = |peer: &Peer| facts.vm_owner.filter(|owner| owner.host == u64::from(peer.name.id.get()));
        let is_victim = |peer: &&Peer| {
            let silent = !peer.alive && !peer.stopped;
            let ran_vm = peer.vm_up || owner(peer).is_some();
            // Who was never seen alive may have been gone for long, and its record be a tale of old times.
            let lately = self.seen.contains(&peer.name.id) || !vm_elsewhere;
            silent && ran_vm && lately && peer.has_switch && !self.is_done(peer)
        };
        let victims = facts.peers.iter().filter(is_victim);
        victims.min_by_key(|peer| (owner(peer).is_none(), peer.name.id))
    }

    fn is_done(&self, peer: &Peer) -> bool {
        let done = |own: &Own| matches!(own.entry.phase, FencingPhase::Off | FencingPhase::Failed);
        self.own.iter().any(|own| done(own) && own.is_about(peer))
    }

    /// Why this host must not judge others at present.
    fn hindrance(&self, facts: &Facts, limits: &Limits) -> Option<note::Hindrance> {
        let silent = facts.now.since(facts.acknowledged);
        if facts.global_maintenance {
            Some(note::Hindrance::GlobalMaintenance)
        } else if let Some(cause) = facts.no_footing {
            Some(note::Hindrance::NoFooting(cause))
        } else if silent > limits.alive / 2 {
            Some(note::Hindrance::NoFooting(NoFooting::BlockNotWritten {
                secs: silent,
                limit: limits.alive / 2,
            }))
        } else if facts.blocks_read.is_none() {
            Some(note::Hindrance::AgeUnknown)
        } else if let Some(id) = facts.unreadable.iter().find(|id| self.may_live(facts, **id)) {
            Some(note::Hindrance::Unreadable { id: *id })
        } else {
            let about_us =
                |entry: &FencingEntry| entry.host == facts.own && entry.phase == FencingPhase::Begun;
            let by = facts.peers.iter().find(|peer| peer.alive && peer.entries.iter().any(about_us));
            by.map(|by| note::Hindrance::FencedItself { by: by.name.clone() })
        }
    }

    /// A host whose block cannot be read may have claimed the same deed.
    fn may_live(&self, facts: &Facts, id: HostId) -> bool {
        facts.lock_manager_live.as_ref().map_or_else(|| self.seen.contains(&id), |live| live.contains(&id))
    }

    fn claim(&mut self, peer: &Peer, facts: &Facts) {
        let entry = FencingEntry {
            host: peer.name.id,
            stamp: peer.stamp,
            phase: FencingPhase::Claimed,
            since: facts.wall,
            score: facts.score,
        };
        // Of the same host no older story is told any more; and of all of them only the last ones.
        self.own.retain(|own| own.entry.host != entry.host);
        while self.own.len() >= metadata_format::fencing::MOST_ENTRIES {
            self.own.remove(0);
        }
        self.own.push(Own { entry, name: peer.name.name.clone(), written: None, detail: None });
    }

    fn withdraw(&mut self) {
        self.own.retain(|own| own.entry.phase != FencingPhase::Claimed);
    }
}

impl Own {
    fn name(&self) -> HostName {
        HostName { id: self.entry.host, name: self.name.clone() }
    }

    fn is_about(&self, peer: &Peer) -> bool {
        is_about(&self.entry, peer)
    }
}

fn is_about(entry: &FencingEntry, peer: &Peer) -> bool {
    entry.host == peer.name.id && entry.stamp == peer.stamp
}

/// How many live hosts come before this one; why this host has nothing to do, otherwise.
fn place(facts: &Facts, victim: &Peer) -> Result<u64, Note> {
    let host = victim.name.clone();
    let mut place = 0;
    for peer in facts.peers.iter().filter(|peer| peer.name.id != victim.name.id) {
        let entry = peer.entries.iter().find(|entry| is_about(entry, victim));
        match entry.map(|entry| entry.phase) {
            Some(FencingPhase::Off) => {
                let at = entry.map_or(facts.wall, |entry| entry.since);
                return Err(Note::OffBy { host, by: peer.name.clone(), at });
            }
            Some(FencingPhase::Begun) if peer.alive => {
                return Err(Note::OtherClaims { host, by: peer.name.clone() });
            }
            // It has tried.
            Some(FencingPhase::Failed) => {}
            Some(FencingPhase::Begun | FencingPhase::Claimed) | None => {
                let before =
                    peer.score > facts.score || (peer.score == facts.score && peer.name.id < facts.own);
                place += u64::from(peer.alive && before && peer.switches.contains(&victim.name.id));
            }
        }
    }
    Ok(place)
}

/// By the lock manager's word the host is there, whatever its block says: it has not given up on its id, or on its hold
/// of the VM's lease.
fn renews(facts: &Facts, peer: &Peer) -> bool {
    let live = facts.lock_manager_live.as_ref().is_some_and(|live| live.contains(&peer.name.id));
    let owner = facts.vm_owner.filter(|owner| owner.host == u64::from(peer.name.id.get()));
    live || owner.is_some_and(|owner| owner.life == OwnerLife::Live)
}

/// The claims of other live hosts on this death.
fn rivals(facts: &Facts, victim: &Peer) -> Vec<(HostName, FencingEntry)> {
    let claims =
        facts.peers.iter().filter(|peer| peer.alive && peer.name.id != victim.name.id).flat_map(|peer| {
            let open = |entry: &&FencingEntry| match entry.phase {
                FencingPhase::Claimed | FencingPhase::Begun => is_about(entry, victim),
                FencingPhase::Off | FencingPhase::Failed => false,
            };
            peer.entries.iter().filter(open).map(|entry| (peer.name.clone(), *entry))
        });
    claims.collect()
}

/// Whether `mine` wins over `theirs`: by the scores that both claims carry, then by the lower id.
fn precedes(mine: &FencingEntry, own: HostId, theirs: &FencingEntry, other: HostId) -> bool {
    (std::cmp::Reverse(mine.score), own) < (std::cmp::Reverse(theirs.score), other)
}

#[cfg(test)]
#[path = "fencing_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "fencing_worlds.rs"]
mod worlds;
