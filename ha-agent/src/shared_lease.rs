//! What `[lease]` must say alike on all hosts, as a line of a host's block: the times that tell when a lost host's lease is
//! free, and which lease protects the VM.

use ha_config::ha_toml::LeaseTable;
use metadata_format::HostBlock;

/// Line for people, and for the other hosts' warnings: `<io_timeout>/<watchdog_timeout>`, and `/<name>` with `vm`. Hosts
/// with sanlock's own times and the lease of the VM's disk write none, as the existing release does.
pub const KEY: &str = "lease";

/// The line's value; `None` with the defaults.
pub fn line(table: &LeaseTable) -> Option<String> {
    let LeaseTable { adapter: _, io_timeout, watchdog_timeout, vm } = table;
    let plain = LeaseTable::default();
    let times = format!("{io_timeout}/{watchdog_timeout}");
    match vm {
        Some(name) => Some(format!("{times}/{name}")),
        None => {
            ((*io_timeout, *watchdog_timeout) != (plain.io_timeout, plain.watchdog_timeout)).then_some(times)
        }
    }
}

/// The reverse of [`line`]; `None` for what no host of this release writes.
fn parse(value: &str) -> Option<LeaseTable> {
    let mut parts = value.splitn(3, '/');
    let mut secs = || parts.next()?.parse().ok();
    let (io_timeout, watchdog_timeout) = (secs()?, secs()?);
    let vm = parts.next().map(ToOwned::to_owned);
    Some(LeaseTable { io_timeout, watchdog_timeout, vm, ..LeaseTable::default() })
}

fn named(table: &LeaseTable) -> String {
    let LeaseTable { adapter: _, io_timeout, watchdog_timeout, vm } = table;
    let lease =
        vm.as_ref().map_or_else(|| "the lease of the VM's disk".to_owned(), |name| format!("vm = {name:?}"));
    format!("io_timeout = {io_timeout}, watchdog_timeout = {watchdog_timeout}, {lease}")
}

/// What is to be said of a host whose `[lease]` is another one. `said` is its line; without one it has the defaults. A
/// stopped host starts no VM.
pub fn differs(block: &HostBlock, said: Option<&str>, own: &LeaseTable) -> Option<String> {
    const WRONG_TIMES: &str = "one of the two reckons wrongly when the other's leases are free";
    if block.stopped || said == line(own).as_deref() {
        return None;
    }
    let (theirs, what) = match said.map(|said| parse(said).ok_or(said)) {
        Some(Err(said)) => (format!("{said:?}"), WRONG_TIMES),
        known => {
            let theirs = known.and_then(Result::ok).unwrap_or_default();
            let what = if theirs.vm == own.vm { WRONG_TIMES } else { "only one of the two can start the VM" };
            (named(&theirs) + if said.is_none() { ", the defaults" } else { "" }, what)
        }
    };
    Some(format!(
        "host {} (id {}) has other [lease] settings in ha.toml ({theirs}) than this host ({}): {what}; they must be the \
         same on all hosts of a cluster",
        block.hostname,
        block.host_id,
        named(own)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(io_timeout: u32, watchdog_timeout: u32, vm: Option<&str>) -> LeaseTable {
        LeaseTable { io_timeout, watchdog_timeout, vm: vm.map(ToOwned::to_owned), ..LeaseTable::default() }
    }

    #[test]
    fn only_what_is_not_the_default_is_written_and_it_is_read_back() {
        for (table, written) in [
            (table(10, 60, None), None),
            (table(5, 30, None), Some("5/30")),
            (table(10, 61, None), Some("10/61")),
            (table(10, 60, Some("engine")), Some("10/60/engine")),
            (table(2, 10, Some("a/b/c")), Some("2/10/a/b/c")),
        ] {
            assert_eq!(line(&table).as_deref(), written);
            assert_eq!(written.map_or_else(|| Some(LeaseTable::default()), parse), Some(table));
        }
        for wrong in ["", "5", "5/", "/30", "x/30", "-5/30", "99999999999/1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
