//! How long the other hosts have been alive.
//!
//! The agent of a host that just booted does not know yet who is alive, and its host has not shown that it stays. A boot
//! is seen in two ways: the host was not alive before, or its timestamp, which counts from the boot, went back. Pure.
//! Memory is bounded: one instant for each live host.

use std::collections::BTreeMap;

use metadata_format::HostId;

use super::input::RemoteBlock;
use super::rebase::ClockShift;
use super::time::Secs;

/// The live hosts, and since when they have been, as far as this host saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    hosts: BTreeMap<HostId, Life>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    /// Its last timestamp.
    host_ts: i64,
    /// Since when it has been alive; `None` when that is so long that nobody asks any more.
    since: Option<Secs>,
}

impl Settled {
    /// Takes note of the live hosts at `now`. Nobody asks for more than `longest` seconds.
    pub(super) fn take(&mut self, alive: &[(HostId, RemoteBlock)], now: Secs, longest: u64) {
        let before = std::mem::take(&mut self.hosts);
        let life = |(id, block): &(HostId, RemoteBlock)| {
            let since = match before.get(id).filter(|life| life.host_ts <= block.host_ts) {
                Some(life) => life.since.filter(|since| now.since(*since) <= longest),
                None => Some(now),
            };
            (*id, Life { host_ts: block.host_ts, since })
        };
        self.hosts = alive.iter().map(life).collect();
    }

    /// Nothing is known of any host.
    pub(super) fn forget(&mut self) {
        self.hosts.clear();
    }

    /// Whether that host has been alive for more than `needed` seconds.
    pub(super) fn is_settled(&self, id: HostId, now: Secs, needed: u64) -> bool {
        self.hosts.get(&id).is_some_and(|life| life.since.is_none_or(|since| now.since(since) > needed))
    }

    /// In how many seconds a live host will have been alive for more than `needed`; `None` when it has been already, or is
    /// not alive.
    pub(super) fn settles_in(&self, id: HostId, now: Secs, needed: u64) -> Option<u64> {
        let since = self.hosts.get(&id)?.since?;
        (now.since(since) <= needed).then(|| needed + 1 - now.since(since))
    }

    /// Moves the readings to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { hosts } = self;
        for (writer, Life { host_ts, since }) in hosts {
            *host_ts = shift.stamp(*writer, *host_ts);
            *since = since.map(|at| shift.instant(at));
        }
    }
}
