//! Ranges, and the rules between the times. Each rule is data, so that `doctor` can print it.

use std::fmt;
use std::time::Duration;

use super::HaToml;

/// `small.0 × factor ≤ large.0`, with the reason why.
pub(super) struct Relation {
    small: (&'static str, Duration),
    factor: u32,
    large: (&'static str, Duration),
    why: &'static str,
}

impl Relation {
    pub(super) fn holds(&self) -> bool {
        self.small.1.saturating_mul(self.factor) <= self.large.1
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { small, factor, large, why } = self;
        let times = if *factor == 1 { String::new() } else { format!("{factor} × ") };
        write!(
            f,
            "{} ({} s) must be at least {times}{} ({} s): {why}",
            large.0,
            large.1.as_secs_f64(),
            small.0,
            small.1.as_secs_f64()
        )
    }
}

/// All rules with the present figures.
pub(super) fn all(toml: &HaToml) -> Vec<Relation> {
    let timers = &toml.timers;
    let looped = ("timers.loop", timers.loop_interval);
    let alive = ("timers.host_alive", timers.host_alive);
    let storage = ("timers.storage_deadline", timers.storage_deadline);
    let page = ("liveliness.timeout", toml.liveliness.timeout);
    let rule = |small, factor, large, why| Relation { small, factor, large, why };
    vec![
        rule(looped, 3, alive, "a host that misses two loops must not count as dead"),
        rule(looped, 2, ("timers.alive_list", timers.alive_list), "the list must outlive a missed loop"),
        rule(
            alive,
            2,
            ("timers.history", timers.history),
            "liveness compares with a snapshot that is older than host_alive",
        ),
        rule(storage, 1, alive, "a host must know that its storage is stuck before the others think it dead"),
        rule(
            looped,
            2,
            ("timers.maybe_away", timers.maybe_away),
            "another host needs a loop to report the VM",
        ),
        rule(looped, 2, ("timers.bad_health", timers.bad_health), "one bad look must not stop the VM"),
        rule(page, 2, ("timers.bad_health", timers.bad_health), "one slow page must not stop the VM"),
        rule(page, 2, ("timers.engine_starting", timers.engine_starting), "a start needs more than one look"),
        rule(looped, 2, ("timers.engine_stop", timers.engine_stop), "a shutdown needs more than one look"),
        rule(
            alive,
            1,
            ("timers.unexpectedly_down", timers.unexpectedly_down),
            "the other hosts must have seen this host's score of 0",
        ),
    ]
}

pub(super) fn relations(toml: &HaToml) -> Result<(), String> {
    match all(toml).into_iter().find(|relation| !relation.holds()) {
        Some(broken) => Err(broken.to_string()),
        None => Ok(()),
    }
}

pub(super) fn ranges(toml: &HaToml) -> Result<(), String> {
    let timers = &toml.timers;
    for (name, value, least, most) in [
        ("timers.loop", timers.loop_interval, 0.1, 60.0),
        ("timers.host_alive", timers.host_alive, 1.0, 600.0),
        ("timers.history", timers.history, 2.0, 86400.0),
        ("timers.alive_list", timers.alive_list, 1.0, 600.0),
        ("timers.engine_starting", timers.engine_starting, 1.0, 86400.0),
        ("timers.bad_health", timers.bad_health, 1.0, 86400.0),
        ("timers.engine_stop", timers.engine_stop, 1.0, 86400.0),
        ("timers.maybe_away", timers.maybe_away, 1.0, 86400.0),
        ("timers.unexpectedly_down", timers.unexpectedly_down, 1.0, 86400.0),
        ("timers.retry_clear", timers.retry_clear, 1.0, 86400.0),
        ("timers.storage_deadline", timers.storage_deadline, 0.1, 600.0),
        ("liveliness.timeout", toml.liveliness.timeout, 0.1, 60.0),
    ] {
        let value = value.as_secs_f64();
        if !(least..=most).contains(&value) {
            return Err(format!("{name} = {value} must be from {least} to {most} seconds"));
        }
    }
    for (name, value, least, most) in [
        ("lease.io_timeout", toml.lease.io_timeout, 1, 60),
        ("lease.watchdog_timeout", toml.lease.watchdog_timeout, 5, 600),
    ] {
        if !(least..=most).contains(&value) {
            return Err(format!("{name} = {value} must be from {least} to {most} whole seconds"));
        }
    }
    for (name, value) in [
        ("qemu.binary", Some(&toml.qemu.binary)),
        ("qemu.machine", toml.qemu.machine.as_ref()),
        ("qemu.user", toml.qemu.user.as_ref()),
        ("qemu.bridge", toml.qemu.bridge.as_ref()),
        ("liveliness.expected", Some(&toml.liveliness.expected)),
    ] {
        if value.is_some_and(|text| text.trim().is_empty()) {
            return Err(format!("{name} must not be empty; leave the key out to get its default"));
        }
    }
    if toml.liveliness.urls.is_empty() {
        return Err(
            "liveliness.urls must name at least one page; leave the key out to get the default".to_owned()
        );
    }
    match toml.liveliness.urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://"))
    {
        Some(url) => Err(format!("liveliness.urls: {url:?} must start with http:// or https://")),
        None => Ok(()),
    }
}
