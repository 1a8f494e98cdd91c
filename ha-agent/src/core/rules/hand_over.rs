//! When a better host takes a VM that runs here. `cpu_never_evicts` and `debounce` make that rarer.

use metadata_format::{HostId, Score};

use super::{Outcome, Step};
use crate::core::moves::Cause;
use crate::core::reason::{HostName, Monitored, Reason};
use crate::core::{Core, debounce};

impl Step<'_> {
    /// Gives the VM to another host when that is better by the margin, with `debounce` for long enough.
    pub(super) fn hand_over(&mut self) -> Option<Outcome> {
        let (to, reason) = self.hand_over_due(&[])?;
        Some(self.leaves(to, Cause::HandOver, reason))
    }

    /// The host that should have the VM, and why. Not one of `except`.
    pub(super) fn hand_over_due(&mut self, except: &[HostId]) -> Option<(HostName, Reason)> {
        if self.only_vouched_for() {
            return None;
        }
        let (limits, policy) = (&self.settings.limits, self.settings.policy);
        let (margin, needed) = (limits.hand_over_margin, limits.debounce_bad);
        let mut score = Core::defended(&self.core.score, policy);
        if policy.debounce {
            // This host's score recovers some samples after its network does. Another host's recovers at once: when a
            // fault that all hosts share ends, it must not look better for that.
            let now = self.core.sheet(self.core.state, &self.view.look.local, self.settings);
            score = score.max(Core::defended(&now, policy));
        }
        let is_ahead = |(host, theirs): &(HostName, Score)| {
            theirs.0 >= score.0.saturating_add(margin) && !except.contains(&host.id)
        };
        let ahead: Vec<_> = self.targets().into_iter().filter(is_ahead).collect();
        let seen = |host: &HostName| self.core.memory.lead.of(host.id);
        let for_long = ahead.iter().find(|(host, _)| !policy.debounce || seen(host) >= needed);
        let Some((host, theirs)) = for_long.cloned() else {
            let (host, theirs) = ahead.into_iter().next()?;
            let seen = seen(&host);
            self.notes.push(Reason::HandOverWaits { score, host, theirs, seen, needed });
            return None;
        };
        Some((host.clone(), Reason::HandOver { score, host, theirs, margin }))
    }

    /// Notes what is bad now and does not count yet.
    pub(super) fn note_bad_samples(&mut self) {
        if !(self.settings.policy.debounce && debounce::protects(self.core.state)) {
            return;
        }
        let limits = &self.settings.limits;
        let (needed, samples) = (limits.debounce_bad, limits.debounce_samples);
        let local = &self.view.look.local;
        let steady = self.core.memory.samples.steady(local, limits);
        let worse = |now: Option<f64>, counted: Option<f64>| now.unwrap_or(0.0) < counted.unwrap_or(0.0);
        for (what, bad) in [
            (Monitored::Network, worse(local.network, steady.network)),
            (Monitored::Bridge, local.bridge != Some(true) && steady.bridge == Some(true)),
        ] {
            if bad {
                self.notes.push(Reason::BadSampleBorne { what, needed, samples });
            }
        }
    }
}
