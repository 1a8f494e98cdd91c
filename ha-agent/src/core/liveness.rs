//! Which other hosts are alive, and the averaged processor load: everything that needs the past.
//!
//! A host is alive when its timestamp differs from the one in the newest snapshot taken more than 60 s before
//! the current look began. Its clock is never compared with ours, and until there is a snapshot that old no
//! host counts as alive, unless the lock manager can say it of every host: then those count whose leases are live. A
//! lease outlives an agent, so that word decides where the VM is started, and never ends a running one.
//!
//! Memory is bounded. Snapshots are at least one second apart and kept for 15 minutes, and the table of the
//! hosts' timestamps is dropped from every snapshot that can never again be the one to compare with: all
//! that are older than the newest one past the 60 s. At 2000 hosts and one look per second this is 61 tables
//! of 32 kB.

use std::collections::VecDeque;

use metadata_format::HostId;

use super::input::{Observation, RemoteHost};
use super::rebase::ClockShift;
use super::time::Secs;

/// What is kept of past looks, the newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    snapshots: VecDeque<Snapshot>,
}

/// What is kept of one look.
#[derive(Debug, Clone, PartialEq)]
struct Snapshot {
    started: Secs,
    finished: Secs,
    cpu_load: Option<f64>,
    /// Timestamps by host, sorted; `None` for a block that did not parse. Dropped when not needed any more.
    stamps: Vec<(HostId, Option<i64>)>,
}

/// Whose word counts on which hosts are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// Nobody can say: no host counts as alive.
    Nobody,
    /// The lock manager: the past does not reach back far enough yet.
    LockManager,
    /// The past.
    History,
}

impl History {
    /// The hosts of `look` that are alive, and by whose word (call before [`History::push`]). `ask_lock_manager`: its
    /// word counts as long as the past cannot tell.
    pub fn who_is_alive<'a>(
        &self,
        look: &'a Observation,
        alive_secs: u64,
        ask_lock_manager: bool,
    ) -> (Witness, Vec<&'a RemoteHost>) {
        if self.tells_liveness(look.started, alive_secs) {
            return (Witness::History, self.alive(look, alive_secs));
        }
        match look.lock_manager_live.as_ref().filter(|_| ask_lock_manager) {
            Some(live) => {
                let counts = |host: &&RemoteHost| host.block.is_some() && live.contains(&host.id);
                (Witness::LockManager, look.hosts.iter().filter(counts).collect())
            }
            None => (Witness::Nobody, Vec::new()),
        }
    }

    /// Whether that host has written a timestamp other than `stamp` as long as this one looks: it was alive then, which is
    /// less than that it is alive now.
    pub fn has_moved(&self, id: HostId, stamp: i64) -> bool {
        self.snapshots.iter().any(|past| {
            let at = past.stamps.binary_search_by_key(&id, |(id, _)| *id);
            at.is_ok_and(|at| past.stamps[at].1.is_some_and(|before| before != stamp))
        })
    }

    /// Whether the past reaches back far enough to tell who is alive in a look that began at `now`.
    pub fn tells_liveness(&self, now: Secs, alive_secs: u64) -> bool {
        self.snapshots.iter().any(|past| is_past(past, now, alive_secs))
    }

    /// The hosts of `look` that are alive, by the past alone (call before [`History::push`]). Hosts whose
    /// block does not parse never are.
    fn alive<'a>(&self, look: &'a Observation, alive_secs: u64) -> Vec<&'a RemoteHost> {
        let Some(past) = self.snapshots.iter().find(|past| is_past(past, look.started, alive_secs)) else {
            return Vec::new();
        };
        look.hosts
            .iter()
            .filter(|host| host.block.as_ref().is_some_and(|block| past.differs(host.id, block.host_ts)))
            .collect()
    }

    /// Adds `look` and forgets what is older than `keep_secs`. A further look within the second of the newest one adds
    /// nothing: liveness is told in whole seconds.
    pub fn push(&mut self, look: &Observation, keep_secs: u64, alive_secs: u64) {
        if self.snapshots.front().is_some_and(|newest| newest.finished == look.finished) {
            return;
        }
        let oldest = look.started.0.checked_sub(keep_secs);
        self.snapshots.retain(|past| oldest.is_none_or(|oldest| past.started.0 > oldest));
        let mut needed = true;
        for past in &mut self.snapshots {
            if !needed {
                past.stamps = Vec::new();
            } else if is_past(past, look.started, alive_secs) {
                needed = false;
            }
        }
        let mut stamps: Vec<_> =
            look.hosts.iter().map(|host| (host.id, host.block.as_ref().map(|block| block.host_ts))).collect();
        stamps.sort_unstable_by_key(|(id, _)| *id);
        self.snapshots.push_front(Snapshot {
            started: look.started,
            finished: look.finished,
            cpu_load: look.local.cpu_load.filter(|load| load.is_finite()),
            stamps,
        });
    }

    /// Moves the past to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { snapshots } = self;
        for Snapshot { started, finished, cpu_load: _, stamps } in snapshots {
            *started = shift.instant(*started);
            *finished = shift.instant(*finished);
            for (writer, stamp) in stamps {
                *stamp = stamp.map(|stamp| shift.stamp(*writer, stamp));
            }
        }
    }

    /// Seconds between the oldest and the newest snapshot.
    pub fn span(&self) -> u64 {
        match (self.snapshots.front(), self.snapshots.back()) {
            (Some(newest), Some(oldest)) => newest.finished.since(oldest.finished),
            _ => 0,
        }
    }

    /// Number of snapshots.
    pub fn len(&self) -> usize {
        self.snapshots.len()
    }

    /// True before the first look.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// The processor load over the whole history, 0.0 to 1.0: the area under the straight lines between
    /// neighbouring readings, by the time that they cover. Gaps next to a missing reading do not count.
    #[allow(clippy::cast_precision_loss, reason = "seconds within a quarter of an hour")]
    pub fn load_average(&self) -> f64 {
        let mut area = 0.0;
        let mut time = 0;
        for (newer, older) in self.snapshots.iter().zip(self.snapshots.iter().skip(1)) {
            if let (Some(newer_load), Some(older_load)) = (newer.cpu_load, older.cpu_load) {
                let secs = newer.started.since(older.started);
                area += secs as f64 * (newer_load + older_load) / 2.0;
                time += secs;
            }
        }
        if time == 0 { 0.0 } else { area / time as f64 }
    }

    /// Number of timestamps kept, over all snapshots.
    #[cfg(test)]
    fn stamps(&self) -> usize {
        self.snapshots.iter().map(|past| past.stamps.len()).sum()
    }
}

fn is_past(past: &Snapshot, now: Secs, alive_secs: u64) -> bool {
    past.finished.plus(alive_secs) < now
}

impl Snapshot {
    fn differs(&self, id: HostId, stamp: i64) -> bool {
        match self.stamps.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.stamps[at].1 != Some(stamp),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use metadata_format::Score;

    use super::super::input::{Footing, Local, RemoteBlock};
    use super::*;

    fn look(at: u64, hosts: &[(u16, Option<i64>)]) -> Observation {
        let hosts = hosts.iter().map(|&(id, stamp)| RemoteHost {
            id: HostId::new(id).expect("a valid id"),
            block: stamp.map(|host_ts| RemoteBlock {
                host_ts,
                score: Score(1),
                engine: None,
                hostname: String::new(),
                migration_to: None,
                ready: None,
            }),
        });
        Observation {
            started: Secs(at),
            finished: Secs(at),
            wall_offset: 0,
            global_maintenance: false,
            hosts: hosts.collect(),
            local: Local::default(),
            lock_manager_live: None,
            footing: Footing::default(),
        }
    }

    fn alive(history: &History, look: &Observation) -> Vec<u16> {
        history.alive(look, 60).iter().map(|host| host.id.get()).collect()
    }

    #[test]
    fn nobody_is_alive_until_there_is_a_snapshot_older_than_the_time_out() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(1))]), 900, 60);
        assert_eq!(alive(&history, &look(160, &[(2, Some(7))])), [0_u16; 0]);
        assert_eq!(alive(&history, &look(161, &[(2, Some(7))])), [2]);
    }

    #[test]
    fn until_the_past_tells_the_lock_managers_word_counts_and_not_a_second_longer() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(1))]), 900, 60);
        let live = [1, 2, 4, 9].map(|id| HostId::new(id).expect("a valid id")).to_vec();
        let who = |at, live, ask| {
            // 3 is not live, 4 does not parse, 9 has no block.
            let blocks = [(2, Some(1)), (3, Some(8)), (4, None)];
            let look = Observation { lock_manager_live: live, ..look(at, &blocks) };
            let (witness, hosts) = history.who_is_alive(&look, 60, ask);
            (witness, hosts.iter().map(|host| host.id.get()).collect::<Vec<_>>())
        };
        assert_eq!(who(101, Some(live.clone()), true), (Witness::LockManager, vec![2]));
        assert_eq!(who(160, Some(live.clone()), true), (Witness::LockManager, vec![2]));
        assert_eq!(who(161, Some(live.clone()), true), (Witness::History, vec![3]), "2 stood still");
        assert_eq!(who(160, Some(live), false), (Witness::Nobody, vec![]));
        assert_eq!(who(160, None, true), (Witness::Nobody, vec![]));
    }

    #[test]
    fn a_second_look_within_a_second_leaves_the_past_as_it_was() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(1))]), 900, 60);
        let before = history.clone();
        history.push(&look(100, &[(2, Some(7))]), 900, 60);
        assert_eq!(history, before);
        assert_eq!(alive(&history, &look(161, &[(2, Some(7))])), [2]);
    }

    #[test]
    fn a_stamp_that_stands_still_or_a_block_that_does_not_parse_is_not_alive() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(1)), (3, Some(5)), (4, None)]), 900, 60);
        let now = look(200, &[(2, Some(1)), (3, None), (4, Some(9)), (5, Some(9))]);
        assert_eq!(alive(&history, &now), [4, 5], "stood still, unreadable now, readable again, new");
    }

    #[test]
    fn a_host_has_moved_when_it_wrote_another_stamp_since_this_one_looks() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(1)), (3, None), (4, Some(7))]), 900, 60);
        history.push(&look(102, &[(2, Some(2)), (3, Some(1)), (4, Some(7)), (5, Some(1))]), 900, 60);
        let moved = |id, stamp| history.has_moved(HostId::new(id).expect("a valid id"), stamp);
        assert!(moved(2, 2), "it was seen at 1");
        assert!(!moved(3, 1) && !moved(5, 1), "nothing else was ever read of them");
        assert!(!moved(4, 7) && !moved(6, 7), "it stands still; it was never seen");
    }

    #[test]
    fn a_clock_that_goes_back_on_another_host_is_a_change_like_any_other() {
        let mut history = History::default();
        history.push(&look(100, &[(2, Some(50_000))]), 900, 60);
        assert_eq!(alive(&history, &look(170, &[(2, Some(3))])), [2]);
    }

    #[test]
    fn memory_is_bounded_with_2000_hosts_and_a_look_each_second() {
        let hosts: Vec<_> = (1..=2000).map(|id| (id, Some(i64::from(id)))).collect();
        let mut history = History::default();
        for second in 0..2000 {
            history.push(&look(second, &hosts), 900, 60);
        }
        assert_eq!(history.len(), 900);
        assert!(history.stamps() <= 62 * 2000, "{} stamps", history.stamps());
    }
}
