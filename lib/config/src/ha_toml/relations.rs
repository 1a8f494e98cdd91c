//! The rules between the times, as data: what refuses a file prints them, and so does the operator's guide.

use std::fmt;
use std::time::Duration;

use super::HaToml;
use crate::deadlines;

/// One time in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    name: &'static str,
    value: Duration,
    factor: u32,
    /// Whether ha.toml can change it.
    is_set_here: bool,
}

impl Term {
    const fn times(self, factor: u32) -> Self {
        Self { factor, ..self }
    }
}

/// How the two sides must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The left one is less.
    Less,
    /// The left one is not more.
    AtMost,
}

/// An inequality between sums of times, with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    left: Vec<Term>,
    order: Order,
    right: Vec<Term>,
    why: &'static str,
}

fn sum(terms: &[Term]) -> Duration {
    let each = terms.iter().map(|term| term.value.saturating_mul(term.factor));
    each.fold(Duration::ZERO, Duration::saturating_add)
}

fn side(terms: &[Term], text: impl Fn(&Term) -> String) -> String {
    let texts: Vec<String> = terms
        .iter()
        .map(|term| match term.factor {
            1 => text(term),
            factor => format!("{} × {factor}", text(term)),
        })
        .collect();
    texts.join(" + ")
}

fn settable(terms: &[Term]) -> String {
    let names: Vec<&str> = terms.iter().filter(|term| term.is_set_here).map(|term| term.name).collect();
    names.join(" or ")
}

impl Relation {
    /// Whether the present figures keep it.
    pub fn holds(&self) -> bool {
        let (left, right) = (sum(&self.left), sum(&self.right));
        match self.order {
            Order::Less => left < right,
            Order::AtMost => left <= right,
        }
    }

    /// The inequality without figures: `timers.loop × 3 ≤ timers.host_alive`.
    pub fn rule(&self) -> String {
        let sign = match self.order {
            Order::Less => '<',
            Order::AtMost => '≤',
        };
        let name = |term: &Term| term.name.to_owned();
        format!("{} {sign} {}", side(&self.left, name), side(&self.right, name))
    }

    /// What goes wrong when it is broken, in words.
    pub const fn why(&self) -> &'static str {
        self.why
    }
}

/// The inequality with its figures, the reason, and what to change.
impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Less => "less than",
            Order::AtMost => "at most",
        };
        let figures = |term: &Term| format!("{} ({} s)", term.name, term.value.as_secs_f64());
        let (left, right) = (side(&self.left, figures), side(&self.right, figures));
        write!(f, "{left} must be {order} {right}: {}", self.why)?;
        match (settable(&self.right), settable(&self.left)) {
            (raise, lower) if lower.is_empty() => write!(f, "; raise {raise}"),
            (raise, lower) => write!(f, "; raise {raise}, or lower {lower}"),
        }
    }
}

/// All rules with the present figures.
pub(super) fn all(toml: &HaToml) -> Vec<Relation> {
    let timers = &toml.timers;
    let set = |name, value| Term { name, value, factor: 1, is_set_here: true };
    let fixed = |name, value| Term { name, value, factor: 1, is_set_here: false };
    let whole = |name, secs: u32| set(name, Duration::from_secs(secs.into()));

    let looped = set("timers.loop", timers.loop_interval);
    let alive = set("timers.host_alive", timers.host_alive);
    let stuck = set("timers.storage_deadline", timers.storage_deadline);
    let start = set("timers.engine_start", timers.engine_start);
    let bad_health = set("timers.bad_health", timers.bad_health);
    let page = set("liveliness.timeout", toml.liveliness.timeout);
    let lease = whole("lease.io_timeout", toml.lease.io_timeout);
    let watchdog = whole("lease.watchdog_timeout", toml.lease.watchdog_timeout);
    let launch = fixed("the launcher's deadline", deadlines::LAUNCH);
    let ready = fixed("QEMU's deadline for its first answer", deadlines::QEMU_READY);

    let at_most = |left: &[Term], right, why| Relation {
        left: left.to_vec(),
        order: Order::AtMost,
        right: vec![right],
        why,
    };
    let less = |left: &[Term], right, why| Relation { order: Order::Less, ..at_most(left, right, why) };
    vec![
        at_most(&[looped.times(3)], alive, "a host that misses two loops would look dead to the others"),
        less(
            &[looped, stuck],
            alive,
            "a host whose write takes as long as it may would look dead before it knows that storage is stuck",
        ),
        at_most(
            &[looped.times(2)],
            set("timers.alive_list", timers.alive_list),
            "the list of live hosts would not outlive one missed loop",
        ),
        less(
            &[alive, looped],
            set("timers.history", timers.history),
            "the snapshot older than host_alive that liveness compares with would be forgotten",
        ),
        less(
            &[stuck],
            lease.times(8),
            "sanlock would give the leases up before anybody says that storage is stuck",
        ),
        less(
            &[looped.times(2)],
            watchdog,
            "a VM whose lease nobody can vouch for would still run when another host may take the lease",
        ),
        less(
            &[lease.times(8), watchdog],
            start,
            "a start that waits in the hypervisor for a dead host's lease would be given up and counted as failed",
        ),
        less(&[launch, ready], start, "a start would be given up before the launcher has said why it fails"),
        at_most(
            &[looped.times(2)],
            set("timers.maybe_away", timers.maybe_away),
            "another host that runs the VM would have no time to say so",
        ),
        less(
            &[alive],
            set("timers.unexpectedly_down", timers.unexpectedly_down),
            "the other hosts would not yet have seen this host's score of 0",
        ),
        less(
            &[alive],
            set("timers.retry_clear", timers.retry_clear),
            "failed starts would be forgotten before another host could take its turn",
        ),
        at_most(&[looped.times(2)], bad_health, "one bad look would stop the VM"),
        at_most(&[page.times(2)], bad_health, "one slow page would stop the VM"),
        at_most(
            &[page.times(2)],
            set("timers.engine_starting", timers.engine_starting),
            "one slow page would stop a VM that is booting",
        ),
        at_most(
            &[looped.times(2)],
            set("timers.engine_stop", timers.engine_stop),
            "the guest would be powered off at the first look after it was asked to shut down",
        ),
        less(
            &[looped.times(3)],
            set("migration.timeout", toml.migration.timeout),
            "a live migration would be called off before its destination could get ready",
        ),
    ]
}

#[cfg(test)]
#[path = "relations_tests.rs"]
mod tests;
