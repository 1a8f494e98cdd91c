//! `Host.getStats`: this host's figures as the kernel has them.

use std::fs;

use serde_json::{Map, Value, json};

/// The answer. `domains` is what the storage side says of its monitored domains.
pub(crate) fn read(domains: &Value, vm_count: usize) -> Value {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mebibytes = |name: &str| meminfo(&memory, name).unwrap_or(0) / 1024;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "memFree": mebibytes("MemAvailable"),
        "memAvailable": mebibytes("MemAvailable"),
        "memUsed": (100 - mebibytes("MemAvailable") * 100 / mebibytes("MemTotal").max(1)).to_string(),
        "swapTotal": mebibytes("SwapTotal"),
        "swapFree": mebibytes("SwapFree"),
        "cpuLoad": load.split_whitespace().next().unwrap_or("0.00"),
        "vmCount": vm_count,
        "vmActive": vm_count,
        "momStatus": "inactive",
        "haStats": {
            "active": false,
            "configured": false,
            "score": 0,
            "globalMaintenance": false,
            "localMaintenance": false,
        },
        "storageDomains": domains,
        "network": networks(),
    })
}

/// A value of /proc/meminfo in kibibytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn networks() -> Value {
    let mut all = Map::new();
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "lo")
        .collect();
    names.sort();
    for name in names {
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
            text.trim().to_owned()
        };
        let state = if read("operstate") == "up" { "up" } else { "down" };
        let entry = json!({
            "name": name,
            "state": state,
            "speed": "1000",
            "macAddr": read("address"),
            "rx": read("statistics/rx_bytes"),
            "tx": read("statistics/tx_bytes"),
            "rxErrors": read("statistics/rx_errors"),
            "txErrors": read("statistics/tx_errors"),
            "rxDropped": read("statistics/rx_dropped"),
            "txDropped": read("statistics/tx_dropped"),
        });
        all.insert(name, entry);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!(meminfo("MemTotal:  100 kB\nMemAvailable:    2048 kB\n", "MemAvailable"), Some(2048));
        let stats = read(&json!({}), 0);
        assert!(stats["memFree"].as_u64().is_some_and(|free| free > 0), "{stats}");
    }
}
