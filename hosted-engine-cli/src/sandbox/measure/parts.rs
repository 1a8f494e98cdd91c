//! Whose each second of a recovery is. Pure.
//!
//! ```text
//! fault ── noticed ── shutdown asked ── VM gone ──── lease can be had ── QEMU starts ── page good
//!   │ detection │ ours  │  shutdown       │ lock manager   │ ours            │ boot         │
//! ```
//!
//! A moment belongs to the first of these that holds:
//!
//! 1. after the last start: the guest's **boot**, or the **move**, from when a guest that moved live stood still;
//! 2. while the VM's owner is silent, from its last renewal on, or the VM is gone, and the lease cannot be had: the **lock
//!    manager**'s. Nobody could start the VM then, whether or not somebody had noticed;
//! 3. while the guest powers down because an agent asked: **shutdown**;
//! 4. before any agent said something new: **detection**;
//! 5. else **ours**.
//!
//! A moment for which an observation is missing is **unknown**.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clock::Monotonic;
use ha_agent::core::Reason;
use serde::{Deserialize, Serialize};

use super::agents::{self, Said};
use super::leases::{Lease, Looked};
use super::rounded;
use crate::sandbox::layout::HostNumber;
use crate::sandbox::timeline::Change;

/// Whose a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Nobody has noticed yet.
    Detection,
    /// The lease cannot be had yet.
    LockManager,
    /// The agents'.
    Ours,
    /// The guest powers down as it was asked to.
    Shutdown,
    /// From QEMU's start to the first good answer.
    Boot,
    /// From the destination's QEMU to the first good answer after it took over.
    Move,
    /// Nobody saw enough to tell.
    Unknown,
}

impl Part {
    /// All, in the order of tables.
    pub const ALL: [Self; 7] = [
        Self::Detection,
        Self::LockManager,
        Self::Ours,
        Self::Shutdown,
        Self::Boot,
        Self::Move,
        Self::Unknown,
    ];

    /// In words, for a table's head.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::LockManager => "lock manager",
            Self::Ours => "ours",
            Self::Shutdown => "guest's shutdown",
            Self::Boot => "guest's boot",
            Self::Move => "move",
            Self::Unknown => "unknown",
        }
    }
}

/// What was seen of one run.
#[derive(Debug)]
pub struct Seen<'a> {
    /// When the fault was injected.
    pub fault: Monotonic,
    /// When the engine was good again.
    pub good: Monotonic,
    /// The agents had nothing new to say before the fault; else nobody can tell what their news are about.
    pub at_rest: bool,
    /// Where the VM was at the fault.
    pub from: HostNumber,
    /// QEMUs and the engine's answers.
    pub changes: &'a [(Monotonic, Change)],
    /// What the agents said.
    pub said: &'a [Said],
    /// What the lock managers said of the lease.
    pub looked: &'a [Looked],
}

/// A stretch of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// Begin, in seconds after the fault.
    pub from: f64,
    /// End, in seconds after the fault.
    pub to: f64,
    /// Whose.
    pub part: Part,
}

/// A recovery, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// All of it, in the order of time and without gaps.
    pub stretches: Vec<Stretch>,
    /// Seconds after the fault at which the first agent said something new.
    pub noticed: Option<f64>,
    /// Seconds after the fault from which on the lease could be had.
    pub lease: Option<f64>,
    /// Our seconds by the state that the acting agent was in.
    pub ours: BTreeMap<String, f64>,
}

impl Parts {
    /// Seconds of a part.
    pub fn of(&self, part: Part) -> f64 {
        self.stretches.iter().filter(|one| one.part == part).fold(0.0, |sum, one| sum + one.to - one.from)
    }

    /// As files have it.
    #[must_use]
    pub fn rounded(mut self) -> Self {
        for one in &mut self.stretches {
            (one.from, one.to) = (rounded(one.from), rounded(one.to));
        }
        self.noticed = self.noticed.map(rounded);
        self.lease = self.lease.map(rounded);
        self.ours.values_mut().for_each(|secs| *secs = rounded(*secs));
        self
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for part in Part::ALL.into_iter().filter(|part| self.of(*part) >= 0.05) {
            write!(f, "{comma}{} {:.1}", part.title(), self.of(part))?;
            comma = ", ";
        }
        if comma.is_empty() {
            f.write_str("–")?;
        }
        Ok(())
    }
}

/// The moments that matter.
#[derive(Debug, Default)]
struct Moments {
    /// The last start of a QEMU before the end, and where.
    start: Option<(Monotonic, HostNumber)>,
    /// The old QEMU was still there at the start.
    moved: bool,
    /// The end of the VM before that start.
    gone: Option<Monotonic>,
    noticed: Option<Monotonic>,
    /// When the guest was asked to power down.
    asked: Option<Monotonic>,
    /// From when to when the lease could not be had by those who could have started the VM; `None` when nobody told.
    held: Option<(Monotonic, Monotonic)>,
}

impl Moments {
    fn of(seen: &Seen<'_>) -> Self {
        let in_time = |at: Monotonic| (seen.fault..=seen.good).contains(&at);
        let changes = || seen.changes.iter().filter(|(at, _)| in_time(*at));
        let left_before = |arrived: Monotonic| {
            let left = changes().filter(|(at, change)| *at <= arrived && matches!(change, Change::Left(_)));
            left.map(|(at, _)| *at).next_back()
        };
        let start = changes()
            .filter_map(|(at, change)| match change {
                Change::Started(host) => Some((*at, *host)),
                Change::Arrived(host) => Some((left_before(*at).unwrap_or(*at), *host)),
                _ => None,
            })
            .next_back();
        let arrived = changes().rev().find_map(|(_, change)| match change {
            Change::Started(_) => Some(false),
            Change::Arrived(_) => Some(true),
            _ => None,
        });
        let ends: Vec<Monotonic> =
            changes().filter_map(|(at, change)| matches!(change, Change::Ended(_)).then_some(*at)).collect();
        let gone = start.and_then(|(start, _)| ends.iter().rev().copied().find(|end| *end <= start));
        let news = seen.at_rest.then(|| agents::first_news(seen.said, seen.fault)).flatten();
        let asks = Reason::ShuttingDown.to_string();
        let asked = seen.said.iter().find(|one| {
            let before_end = gone.is_some_and(|gone| one.at <= gone);
            in_time(one.at) && before_end && one.host == seen.from && one.text.starts_with(&asks)
        });
        let mut moments = Self {
            start,
            moved: arrived == Some(true) || start.is_some() && gone.is_none(),
            gone,
            noticed: news.map(|news| news.at).filter(|at| in_time(*at)),
            asked: asked.map(|asked| asked.at),
            held: None,
        };
        moments.held = moments.held(seen);
        moments
    }

    /// What the lock manager of the host that started the VM said until then.
    fn held(&self, seen: &Seen<'_>) -> Option<(Monotonic, Monotonic)> {
        let (start, host) = self.start?;
        let own = seen.looked.iter().filter(|one| one.host == host && one.at <= start);
        let told: Vec<(Monotonic, Lease)> = own.filter_map(|one| Some((one.at, one.lease?))).collect();
        let last_renewal = told.iter().rev().find(|(_, lease)| lease.is_forsaken());
        // All hosts of a sandbox have the machine's monotonic clock.
        let silent =
            last_renewal.and_then(|(_, lease)| lease.renewal()).map(|(_, at)| Monotonic::from_secs(at));
        let from = [silent, self.gone].into_iter().flatten().min()?.max(seen.fault);
        let free = told.iter().enumerate().find_map(|(number, (at, lease))| {
            let until = told.get(number + 1).map_or(start, |next| next.0);
            (lease.can_be_had() && until > from).then_some((*at).max(from))
        });
        // A look may have missed it: the lease of a process that ended on a live host is free at once, and one that QEMU
        // has could be had.
        let free =
            free.or_else(|| told.last().map(|(_, last)| if last.is_forsaken() { start } else { from }))?;
        Some((from, free))
    }

    fn part(&self, at: Monotonic) -> Part {
        let after = |moment: Option<Monotonic>| moment.is_some_and(|moment| at >= moment);
        let Some((start, _)) = self.start else { return Part::Unknown };
        if at >= start {
            return if self.moved { Part::Move } else { Part::Boot };
        }
        match self.held {
            Some((from, free)) if (from..free).contains(&at) => return Part::LockManager,
            None if after(self.gone) => return Part::Unknown,
            Some(_) | None => {}
        }
        if after(self.asked) && !after(self.gone) {
            Part::Shutdown
        } else if after(self.noticed) {
            Part::Ours
        } else if self.noticed.is_some() {
            Part::Detection
        } else {
            Part::Unknown
        }
    }
}

/// Takes a recovery apart.
pub fn of(seen: &Seen<'_>) -> Parts {
    let moments = Moments::of(seen);
    let (held, freed) = moments.held.unzip();
    let states = seen.said.iter().filter(|one| one.state.is_some()).map(|one| one.at);
    let mut cuts: Vec<Monotonic> = [moments.start.map(|start| start.0), moments.gone, moments.noticed]
        .into_iter()
        .chain([moments.asked, held, freed])
        .flatten()
        .chain(states)
        .chain([seen.fault, seen.good])
        .filter(|at| (seen.fault..=seen.good).contains(at))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let after = |at: Monotonic| at.saturating_since(seen.fault).as_secs_f64();
    let mut parts =
        Parts { noticed: moments.noticed.map(after), lease: freed.map(after), ..Parts::default() };
    for pair in cuts.windows(2) {
        let part = moments.part(pair[0]);
        let (from, to) = (after(pair[0]), after(pair[1]));
        if part == Part::Ours {
            let acting = match moments.start {
                Some((_, host)) if moments.gone.is_some_and(|gone| pair[0] >= gone) => host,
                _ => seen.from,
            };
            let state = agents::state_at(seen.said, acting, pair[0]).unwrap_or("not told");
            *parts.ours.entry(state.to_owned()).or_default() += to - from;
        }
        match parts.stretches.last_mut() {
            Some(last) if last.part == part => last.to = to,
            _ => parts.stretches.push(Stretch { from, to, part }),
        }
    }
    parts
}

/// Seconds after the fault, for something that may lie before it.
pub fn seconds(fault: Monotonic, at: Monotonic) -> f64 {
    let signed = |at: Duration| at.as_secs_f64();
    signed(at.since_start()) - signed(fault.since_start())
}

#[cfg(test)]
mod tests {
    use sanlock_client::HostState::{Dead, Fail, Live};

    use super::super::agents::tests::log;
    use super::super::leases::tests::owned;
    use super::*;

    const AT: fn(u64) -> Monotonic = Monotonic::from_secs;
    const ONE: HostNumber = HostNumber(1);
    const TWO: HostNumber = HostNumber(2);

    fn look(at: u64, lease: Lease) -> Looked {
        Looked { at: AT(at), host: TWO, lease: Some(lease) }
    }

    fn check(seen: &Seen<'_>, expected: &[(Part, f64)]) -> Parts {
        let parts = of(seen);
        let total: f64 = parts.stretches.iter().map(|one| one.to - one.from).sum();
        assert!((total - seconds(seen.fault, seen.good)).abs() < 1e-9, "{parts:?}");
        for part in Part::ALL {
            let expected = expected.iter().find(|one| one.0 == part).map_or(0.0, |one| one.1);
            assert!((parts.of(part) - expected).abs() < 1e-9, "{part:?}: {parts:?}");
        }
        parts
    }

    #[test]
    fn a_lost_host_costs_the_lock_managers_time_first() {
        let said = log("
            90 1 EngineUp the engine VM runs on this host
            95 2 EngineDown the engine VM runs on host1
            170 2 EngineDown waiting for the lease that host 1 holds
            181 2 EngineStart the best host");
        let looked =
            [look(50, owned(1, Live, 98)), look(124, owned(1, Fail, 98)), look(180, owned(1, Dead, 98))];
        let changes =
            [(AT(100), Change::Ended(ONE)), (AT(182), Change::Started(TWO)), (AT(186), Change::Good)];
        let (fault, good) = (AT(100), AT(186));
        let seen =
            Seen { fault, good, at_rest: true, from: ONE, changes: &changes, said: &said, looked: &looked };
        let parts = check(&seen, &[(Part::LockManager, 80.0), (Part::Ours, 2.0), (Part::Boot, 4.0)]);
        assert_eq!((parts.noticed, parts.lease), (Some(70.0), Some(80.0)));
        assert_eq!(parts.ours, [("EngineDown".to_owned(), 1.0), ("EngineStart".to_owned(), 1.0)].into());
    }

    #[test]
    fn a_hand_over_by_shutdown_has_its_own_parts() {
        let said = log("
            90 1 EngineUp the engine VM runs on this host
            95 2 EngineDown the engine VM runs on host1
            130 1 EngineUp the network test is worse
            140 1 EngineStop host2 is better: the engine VM is handed over
            150 1 - asking the engine VM to power down
            156 2 EngineStart the engine VM runs nowhere");
        let looked = [look(50, owned(1, Live, 98)), look(152, Lease::Free), look(157, owned(2, Live, 150))];
        let changes = [
            (AT(152), Change::Ended(ONE)),
            (AT(152), Change::Bad),
            (AT(157), Change::Started(TWO)),
            (AT(160), Change::Good),
        ];
        let (fault, good) = (AT(100), AT(160));
        let seen =
            Seen { fault, good, at_rest: true, from: ONE, changes: &changes, said: &said, looked: &looked };
        let expected =
            [(Part::Detection, 30.0), (Part::Ours, 25.0), (Part::Shutdown, 2.0), (Part::Boot, 3.0)];
        let parts = check(&seen, &expected);
        assert!((parts.ours["EngineStop"] - 10.0).abs() < 1e-9);
        assert_eq!(parts.lease, Some(52.0));
    }

    #[test]
    fn what_nobody_saw_is_unknown() {
        let changes =
            [(AT(100), Change::Ended(ONE)), (AT(120), Change::Started(TWO)), (AT(125), Change::Good)];
        let (fault, good) = (AT(100), AT(125));
        let seen = Seen { fault, good, at_rest: true, from: ONE, changes: &changes, said: &[], looked: &[] };
        check(&seen, &[(Part::Unknown, 20.0), (Part::Boot, 5.0)]);
        let seen = Seen { changes: &[], ..seen };
        check(&seen, &[(Part::Unknown, 25.0)]);
    }

    #[test]
    fn a_live_migration_is_a_move() {
        let changes =
            [(AT(110), Change::Started(TWO)), (AT(112), Change::Ended(ONE)), (AT(113), Change::Good)];
        let said = log("
            90 1 EngineUp the engine VM runs on this host
            105 1 EngineMigratingAway it moves");
        let (fault, good) = (AT(100), AT(113));
        let seen =
            Seen { fault, good, at_rest: true, from: ONE, changes: &changes, said: &said, looked: &[] };
        check(&seen, &[(Part::Detection, 5.0), (Part::Ours, 5.0), (Part::Move, 3.0)]);
        // With a record of the guest itself it begins where the guest stood still.
        let changes = [
            (AT(110), Change::Left(ONE)),
            (AT(110), Change::Bad),
            (AT(111), Change::Arrived(TWO)),
            (AT(113), Change::Good),
        ];
        check(
            &Seen { changes: &changes, ..seen },
            &[(Part::Detection, 5.0), (Part::Ours, 5.0), (Part::Move, 3.0)],
        );
    }
}
