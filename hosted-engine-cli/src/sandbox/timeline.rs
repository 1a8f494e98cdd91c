//! What was seen of the engine VM over time: on which hosts it ran, when two ran at once, when it answered. Pure.
//!
//! Only QEMUs with a guest are looked at: one that waits for a guest to arrive, or has sent its guest away, counts as none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clock::Monotonic;

use super::guests::Guest;
use super::layout::HostNumber;

/// One QEMU process: its host, and its process id on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Qemu {
    /// Where.
    pub host: HostNumber,
    /// Which.
    pub pid: i32,
}

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A QEMU appeared.
    Started(HostNumber),
    /// A guest came from another host and goes on.
    Arrived(HostNumber),
    /// A QEMU is gone.
    Ended(HostNumber),
    /// The guest was sent away; its QEMU may still be there.
    Left(HostNumber),
    /// More than one QEMU at once.
    Overlap(usize),
    /// At most one again.
    OverlapOver,
    /// The health page answers well, and has not before.
    Good,
    /// It does not any more.
    Bad,
}

impl Change {
    /// Where; `None` for what concerns the cluster.
    pub const fn host(self) -> Option<HostNumber> {
        match self {
            Self::Started(host) | Self::Arrived(host) | Self::Ended(host) | Self::Left(host) => Some(host),
            Self::Overlap(_) | Self::OverlapOver | Self::Good | Self::Bad => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(host) => write!(f, "QEMU starts on host {host}"),
            Self::Arrived(host) => write!(f, "the guest goes on on host {host}"),
            Self::Ended(host) => write!(f, "QEMU ends on host {host}"),
            Self::Left(host) => write!(f, "the guest leaves host {host}"),
            Self::Overlap(count) => write!(f, "{count} QEMUs AT ONCE"),
            Self::OverlapOver => write!(f, "one QEMU at most again"),
            Self::Good => write!(f, "engine good"),
            Self::Bad => write!(f, "engine bad"),
        }
    }
}

/// All that was seen since the watching began.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    qemus: BTreeSet<Qemu>,
    qemus_since: Monotonic,
    good: Option<bool>,
    most: usize,
    changes: Vec<(Monotonic, Change)>,
    overlap_since: Option<Monotonic>,
    overlapped: Duration,
}

impl Timeline {
    /// Adds one look at all QEMUs. `answered` is when the health page was asked for its newest answer, if that was a good one. An
    /// answer counts only for a QEMU that was there when it was asked for.
    pub fn look(&mut self, now: Monotonic, all: &BTreeMap<Qemu, Guest>, answered: Option<Monotonic>) {
        let here = all.iter().filter(|(_, guest)| guest.is_here());
        let qemus: BTreeSet<Qemu> = here.map(|(qemu, _)| *qemu).collect();
        if qemus != self.qemus {
            self.qemus_since = now;
        }
        let good = !qemus.is_empty() && answered.is_some_and(|asked| asked >= self.qemus_since);
        for gone in self.qemus.difference(&qemus) {
            let has_left = all.get(gone) == Some(&Guest::Left);
            self.changes
                .push((now, if has_left { Change::Left(gone.host) } else { Change::Ended(gone.host) }));
        }
        for new in qemus.difference(&self.qemus) {
            let has_arrived = all.get(new) == Some(&Guest::Arrived);
            self.changes
                .push((now, if has_arrived { Change::Arrived(new.host) } else { Change::Started(new.host) }));
        }
        match (self.overlap_since, qemus.len()) {
            (None, count @ 2..) => {
                self.overlap_since = Some(now);
                self.changes.push((now, Change::Overlap(count)));
            }
            (Some(since), 0 | 1) => {
                self.overlap_since = None;
                self.overlapped += now.saturating_since(since);
                self.changes.push((now, Change::OverlapOver));
            }
            _ => {}
        }
        if self.good != Some(good) {
            self.good = Some(good);
            self.changes.push((now, if good { Change::Good } else { Change::Bad }));
        }
        self.most = self.most.max(qemus.len());
        self.qemus = qemus;
    }

    /// Whether the engine answers well now, and exactly one QEMU is there.
    pub fn is_good(&self) -> bool {
        self.good == Some(true) && self.qemus.len() == 1
    }

    /// Where the VM is.
    pub fn qemus(&self) -> &BTreeSet<Qemu> {
        &self.qemus
    }

    /// The most QEMUs that were seen at once.
    pub fn most_qemus(&self) -> usize {
        self.most
    }

    /// How long more than one was there, so far as it is over.
    pub fn overlapped(&self) -> Duration {
        self.overlapped
    }

    /// What changed after `start`.
    pub fn changes_since(&self, start: Monotonic) -> impl Iterator<Item = &(Monotonic, Change)> {
        self.changes.iter().filter(move |(at, _)| *at >= start)
    }

    /// True when something happened to the VM or the engine since `start`.
    pub fn disturbed_since(&self, start: Monotonic) -> bool {
        self.changes_since(start)
            .any(|(_, change)| matches!(change, Change::Ended(_) | Change::Left(_) | Change::Bad))
    }

    /// When the engine last became good after `start`, if it is good.
    pub fn good_since(&self, start: Monotonic) -> Option<Monotonic> {
        if !self.is_good() {
            return None;
        }
        let good = |(at, change): &(Monotonic, Change)| (*change == Change::Good).then_some(*at);
        self.changes_since(start).filter_map(good).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Monotonic = Monotonic::from_secs;

    fn with(guest: Guest, hosts: &[(u8, i32)]) -> BTreeMap<Qemu, Guest> {
        hosts.iter().map(|(host, pid)| (Qemu { host: HostNumber(*host), pid: *pid }, guest)).collect()
    }

    fn on(hosts: &[(u8, i32)]) -> BTreeMap<Qemu, Guest> {
        with(Guest::Booted, hosts)
    }

    #[test]
    fn a_takeover_is_seen_with_its_times() {
        let mut timeline = Timeline::default();
        timeline.look(AT(0), &on(&[(1, 10)]), Some(AT(0)));
        timeline.look(AT(1), &on(&[]), None);
        timeline.look(AT(20), &on(&[(2, 11)]), None);
        assert_eq!(timeline.good_since(AT(1)), None);
        timeline.look(AT(25), &on(&[(2, 11)]), Some(AT(25)));
        assert!(timeline.disturbed_since(AT(1)));
        assert_eq!(timeline.good_since(AT(1)), Some(AT(25)));
        assert_eq!((timeline.most_qemus(), timeline.overlapped()), (1, Duration::ZERO));
        let changes: Vec<_> = timeline.changes_since(AT(1)).map(|(_, change)| *change).collect();
        assert_eq!(
            changes,
            [Change::Ended(HostNumber(1)), Change::Bad, Change::Started(HostNumber(2)), Change::Good]
        );
    }

    #[test]
    fn two_at_once_are_never_missed() {
        let mut timeline = Timeline::default();
        timeline.look(AT(0), &on(&[(1, 10)]), Some(AT(0)));
        timeline.look(AT(5), &on(&[(1, 10), (2, 11)]), Some(AT(5)));
        assert!(!timeline.is_good());
        timeline.look(AT(7), &on(&[(2, 11)]), Some(AT(7)));
        assert_eq!((timeline.most_qemus(), timeline.overlapped()), (2, Duration::from_secs(2)));
    }

    #[test]
    fn a_quick_restart_on_the_same_host_is_seen_and_an_old_answer_does_not_count_for_the_new_vm() {
        let mut timeline = Timeline::default();
        timeline.look(AT(0), &on(&[(1, 10)]), Some(AT(0)));
        timeline.look(AT(2), &on(&[(1, 12)]), Some(AT(1)));
        assert!(timeline.disturbed_since(AT(1)));
        assert_eq!((timeline.most_qemus(), timeline.good_since(AT(1))), (1, None));
        timeline.look(AT(3), &on(&[(1, 12)]), Some(AT(3)));
        assert_eq!(timeline.good_since(AT(1)), Some(AT(3)));
    }
    #[test]
    fn a_guest_that_moves_is_in_one_place_though_there_are_two_qemus() {
        let mut timeline = Timeline::default();
        let both = |first, second| [with(first, &[(1, 10)]), with(second, &[(2, 11)])].into_iter().flatten();
        timeline.look(AT(0), &on(&[(1, 10)]), Some(AT(0)));
        timeline.look(AT(1), &both(Guest::Booted, Guest::Awaited).collect(), Some(AT(1)));
        assert!(!timeline.disturbed_since(AT(0)) && timeline.is_good());
        timeline.look(AT(2), &both(Guest::Left, Guest::Awaited).collect(), None);
        timeline.look(AT(3), &both(Guest::Left, Guest::Arrived).collect(), Some(AT(2)));
        timeline.look(AT(4), &with(Guest::Arrived, &[(2, 11)]), Some(AT(4)));
        assert_eq!((timeline.most_qemus(), timeline.good_since(AT(1))), (1, Some(AT(4))));
        let changes: Vec<_> = timeline.changes_since(AT(1)).map(|(_, change)| *change).collect();
        let (one, two) = (HostNumber(1), HostNumber(2));
        assert_eq!(changes, [Change::Left(one), Change::Bad, Change::Arrived(two), Change::Good]);
    }
}
