//! One bad sample is none: what the network, the bridge and the other hosts showed over the last samples.
//!
//! The monitors measure every 10 s, a woken loop looks more often; so a look counts as a new sample of this host only
//! when it comes 9 s or more after the last one, and as a new sample of another host only when that host has written a
//! new timestamp. A network test that fails takes longer, up to half a minute for its five tries; its result is then
//! more than one sample. Pure. Memory is bounded: [`Limits::debounce_samples`] samples, and one counter for each live host.

use std::collections::{BTreeMap, VecDeque};

use metadata_format::{HostId, Score};

use super::input::{Local, Observation, RemoteBlock};
use super::policy::Limits;
use super::rebase::ClockShift;
use super::state::State;
use super::time::Secs;

/// Seconds between two samples of this host, at least: less than the monitors' 10 s, so that a look that comes early by
/// the part of a second is still a sample.
const SAMPLE_SPACING: u64 = 9;

/// The last samples of this host, the newest last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples {
    kept: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: Secs,
    network: Option<f64>,
    bridge: Option<bool>,
}

/// How many of each host's last samples in a row showed it ahead of this host by the hand-over margin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lead {
    hosts: BTreeMap<HostId, Ahead>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    host_ts: i64,
    samples: u32,
}

impl Samples {
    /// Adds what `look` shows, if it is a new sample.
    pub(super) fn take(&mut self, look: &Observation, limits: &Limits) {
        let at = look.finished;
        if self.kept.back().is_some_and(|last| at.since(last.at) < SAMPLE_SPACING) {
            return;
        }
        // No result, and a result that is no number, are as bad as none of the tries having succeeded.
        let network = look.local.network.filter(|share| share.is_finite());
        self.kept.push_back(Sample { at, network, bridge: look.local.bridge });
        while self.kept.len() > size(limits.debounce_samples) {
            self.kept.pop_front();
        }
    }

    /// `local` with the network and the bridge as bad as enough of the last samples show them. Samples that were not
    /// taken yet count as good.
    pub(super) fn steady(&self, local: &Local, limits: &Limits) -> Local {
        let mut network: Vec<_> = self.kept.iter().map(|sample| sample.network).collect();
        network.sort_by(|a, b| a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)));
        let mut bridge: Vec<_> = self.kept.iter().map(|sample| sample.bridge).collect();
        bridge.sort_unstable();
        let at = size(limits.debounce_bad).saturating_sub(1);
        Local {
            network: network.get(at).copied().unwrap_or(Some(1.0)),
            bridge: bridge.get(at).copied().unwrap_or(Some(true)),
            ..local.clone()
        }
    }

    /// Moves the samples to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { kept } = self;
        for Sample { at, network: _, bridge: _ } in kept {
            *at = shift.instant(*at);
        }
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

impl Lead {
    /// Counts the samples of the live hosts against `bar`, the score that another host must reach to take the VM.
    /// Forgets the hosts that are not among them.
    pub(super) fn take(&mut self, alive: &[(HostId, RemoteBlock)], bar: Score) {
        let before = std::mem::take(&mut self.hosts);
        self.hosts = alive
            .iter()
            .map(|(id, block)| {
                let ahead = match before.get(id) {
                    Some(ahead) if ahead.host_ts == block.host_ts => *ahead,
                    earlier => Ahead {
                        host_ts: block.host_ts,
                        samples: if block.score >= bar {
                            earlier.map_or(0, |ahead| ahead.samples).saturating_add(1)
                        } else {
                            0
                        },
                    },
                };
                (*id, ahead)
            })
            .collect();
    }

    /// Moves the timestamps to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { hosts } = self;
        for (writer, Ahead { host_ts, samples }) in hosts {
            *host_ts = shift.stamp(*writer, *host_ts);
            *samples = shift.samples(*samples);
        }
    }

    /// In how many of its last samples in a row that host was ahead.
    pub(super) fn of(&self, id: HostId) -> u32 {
        self.hosts.get(&id).map_or(0, |ahead| ahead.samples)
    }
}

/// Whether the VM runs here in that state, so that a bad sample would stop it.
pub(super) const fn protects(state: State) -> bool {
    match state {
        State::EngineUp | State::EngineUpBadHealth | State::EngineStarting | State::EngineMigratingAway => {
            true
        }
        State::StartState
        | State::ReinitializeFSM
        | State::EngineDown
        | State::EngineStart
        | State::EngineStop
        | State::EngineForceStop
        | State::EngineMaybeAway
        | State::EngineUnexpectedlyDown
        | State::UnknownLocalVmState
        | State::LocalMaintenance
        | State::GlobalMaintenance
        | State::AgentStopped => false,
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
