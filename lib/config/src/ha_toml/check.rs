//! Ranges of single values, and the refusal of values that do not fit together.

use super::HaToml;
use super::relations;

/// Says the first rule between the times that is broken.
pub(super) fn together(toml: &HaToml) -> Result<(), String> {
    match relations::all(toml).into_iter().find(|relation| !relation.holds()) {
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
        ("timers.engine_start", timers.engine_start, 1.0, 86400.0),
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
    toml.libvirt.check()?;
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
