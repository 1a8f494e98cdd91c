//! What is remembered of live migrations: the one that leaves this host, how the last one went, and the VM that
//! arrives. The rules are in `rules/moving.rs` and `rules/receive.rs`.
//!
//! Pure. Bounded: one of each, and the instants of a few failures.

use metadata_format::HostId;

use super::budget::{Budget, Spent};
use super::input::{Action, ActionResult};
use super::policy::Limits;
use super::reason::HostName;
use super::rebase::ClockShift;
use super::time::Secs;

/// Live migrations, as this host remembers them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moves {
    /// The one that leaves, from the decision to its end.
    pub current: Option<Moving>,
    /// How the last one went, or why there was none.
    pub last: Option<Moved>,
    /// When migrations failed since the last that worked.
    pub failures: Spent,
    /// [`MigrationRequest::asked_at`](super::input::MigrationRequest) of the request that was answered last.
    pub answered: Option<i64>,
    /// The VM that arrives here.
    pub incoming: Option<Incoming>,
    /// The destination that this host's block named when the agent started; until it is known whether the VM still leaves.
    pub before: Option<HostId>,
}

/// A migration away from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// Where to; not known of one that this agent only found.
    pub to: Option<HostName>,
    /// Since when it is to go there.
    pub since: Secs,
    /// The hosts that were asked to take it before.
    pub asked: Vec<HostId>,
    /// What for.
    pub cause: Cause,
    /// When the hypervisor was told to send it; `None` while the destination gets ready.
    pub sent: Option<Secs>,
    /// Since when the VM has been down here; `None` while it is not.
    pub down: Option<Secs>,
}

/// Why the VM leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Another host is better.
    HandOver,
    /// Local maintenance.
    Maintenance,
    /// An operator asked for it, at this time by the broker's clock.
    Request {
        /// Which request.
        asked_at: i64,
    },
    /// Somebody else began it, or this agent before it was started again.
    Found,
}

impl Cause {
    /// The request, if it was one.
    pub const fn request(self) -> Option<i64> {
        match self {
            Self::Request { asked_at } => Some(asked_at),
            Self::HandOver | Self::Maintenance | Self::Found => None,
        }
    }
}

/// A migration that has ended, or was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where to; `None` when that was never decided.
    pub to: Option<HostName>,
    /// Since when.
    pub since: Secs,
    /// Until when.
    pub at: Secs,
    /// The request that it answers.
    pub request: Option<i64>,
    /// Why it failed; `None` when the VM has moved.
    pub failure: Option<String>,
}

/// A VM that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// From which host; not known of one that this agent only found.
    pub from: Option<HostId>,
    /// Where the source must send it; not known likewise.
    pub uri: Option<String>,
    /// Since when no host sends it, as far as this one sees.
    pub unasked: Option<Secs>,
}

/// Failures in a row after which the VM is shut down instead.
const FAILURES: u32 = 2;

/// How they are counted.
pub(super) const fn failures(limits: &Limits) -> Budget {
    Budget { times: FAILURES, window: limits.migration_failures }
}

impl Moves {
    /// The migration has ended.
    pub(super) fn end(&mut self, failure: Option<String>, now: Secs, limits: &Limits) {
        let Some(Moving { to, since, cause, .. }) = self.current.take() else { return };
        if failure.is_some() {
            self.failures.spend(failures(limits), now);
        } else {
            self.failures = Spent::default();
        }
        self.answer(to, since, cause.request(), failure, now);
    }

    /// A request was refused; nothing was tried.
    pub(super) fn refuse(&mut self, asked_at: i64, to: Option<HostName>, why: String, now: Secs) {
        self.answer(to, now, Some(asked_at), Some(why), now);
    }

    fn answer(
        &mut self,
        to: Option<HostName>,
        since: Secs,
        request: Option<i64>,
        failure: Option<String>,
        at: Secs,
    ) {
        self.answered = request.or(self.answered);
        self.last = Some(Moved { to, since, at, request, failure });
    }

    /// Takes note of how an action went.
    pub(super) fn acted(&mut self, action: Action, result: &ActionResult, now: Secs, limits: &Limits) {
        match (action, result) {
            (Action::SendVm { .. }, ActionResult::Done) => {
                if let Some(moving) = &mut self.current {
                    moving.sent = Some(now);
                }
            }
            (Action::SendVm { .. }, ActionResult::Failed { detail } | ActionResult::Refused { detail }) => {
                self.end(Some(detail.clone()), now, limits);
            }
            (Action::ReceiveVm { from }, ActionResult::Ready { uri }) => {
                self.incoming = Some(Incoming { from: Some(from), uri: Some(uri.clone()), unasked: None });
            }
            (Action::EndArrival, ActionResult::Done) => self.incoming = None,
            _ => {}
        }
    }

    /// The host that blocks name as the VM's destination; for some seconds after its arrival too, until that host's own
    /// block says that it is there.
    pub(super) fn announced(&self, now: Secs, limits: &Limits) -> Option<HostId> {
        let lately = |moved: &&Moved| moved.failure.is_none() && now.since(moved.at) <= limits.arrival_grace;
        match &self.current {
            Some(moving) => moving.to.as_ref(),
            None => self.last.as_ref().filter(lately).and_then(|moved| moved.to.as_ref()),
        }
        .map_or(self.before, |host| Some(host.id))
    }

    /// Moves it all to shifted clocks.
    pub(super) fn rebase(&mut self, shift: &ClockShift) {
        let Self { current, last, failures, answered: _, incoming, before: _ } = self;
        if let Some(Moving { to: _, since, asked: _, cause: _, sent, down }) = current {
            *since = shift.instant(*since);
            *sent = sent.map(|at| shift.instant(at));
            *down = down.map(|at| shift.instant(at));
        }
        if let Some(Moved { to: _, since, at, request: _, failure: _ }) = last {
            *since = shift.instant(*since);
            *at = shift.instant(*at);
        }
        failures.rebase(shift);
        if let Some(Incoming { from: _, uri: _, unasked }) = incoming {
            *unasked = unasked.map(|at| shift.instant(at));
        }
    }
}
