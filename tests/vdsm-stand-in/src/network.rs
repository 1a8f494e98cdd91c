//! The host's networks, in the stand-in's memory alone: what VDSM is told of them is checked, kept, put back when nobody
//! confirms it, and told again. The host itself is never touched.

use std::sync::Mutex;
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use serde_json::{Map, Value, json};

use crate::{Failure, lock};

/// Between two looks for a confirmation, as VDSM looks.
const LOOK: Duration = Duration::from_millis(100);
/// Without `connectivityTimeout`.
const DEFAULT_TIMEOUT: u64 = 4;
/// Whether a value fits.
type Fits = fn(&Value) -> bool;
/// What a network may be described with. The schema calls `nic` a list and knows no `mtu`; VDSM takes them so.
const ATTRIBUTES: [(&str, Fits); 14] = [
    ("nic", Value::is_string),
    ("bonding", Value::is_string),
    ("vlan", |value| value.is_u64() || value.is_string()),
    ("bootproto", Value::is_string),
    ("ipaddr", Value::is_string),
    ("netmask", Value::is_string),
    ("gateway", Value::is_string),
    ("ipv6addr", Value::is_string),
    ("ipv6gateway", Value::is_string),
    ("dhcpv6", Value::is_boolean),
    ("ipv6autoconf", Value::is_boolean),
    ("defaultRoute", Value::is_boolean),
    ("nameservers", Value::is_array),
    ("mtu", Value::is_u64),
];

/// The networks now.
#[derive(Debug)]
pub struct Networks {
    now: Mutex<Value>,
    confirmed: Mutex<Option<Monotonic>>,
}

impl Default for Networks {
    /// One card with the host's address.
    fn default() -> Self {
        let now = json!({
            "networks": {}, "bridges": {}, "bondings": {}, "vlans": {}, "nameservers": ["192.0.2.53"],
            "nics": {"eth0": {
                "addr": "192.0.2.5", "netmask": "255.255.255.0", "gateway": "192.0.2.1", "dhcpv4": false, "dhcpv6": false,
                "ipv4defaultroute": true, "ipv6autoconf": false, "ipv6addrs": [], "ipv6gateway": "::", "mtu": 9000
            }},
        });
        Self { now: Mutex::new(now), confirmed: Mutex::default() }
    }
}

fn bad_parameters(what: &str) -> Failure {
    Failure::new(21, what)
}

impl Networks {
    /// `Host.getNetworkCapabilities`.
    pub(crate) fn capabilities(&self) -> Value {
        lock(&self.now).clone()
    }

    /// `Host.confirmConnectivity`.
    pub(crate) fn confirm(&self) {
        *lock(&self.confirmed) = Some(SystemClock.monotonic());
    }

    /// `Host.setupNetworks`: puts everything back when no confirmation comes after the change.
    pub(crate) async fn set_up(
        &self,
        networks: &Map<String, Value>,
        bondings: &Map<String, Value>,
        options: &Map<String, Value>,
    ) -> Result<(), Failure> {
        if !bondings.is_empty() {
            return Err(bad_parameters("bonds are not made here"));
        }
        let before = self.capabilities();
        let mut after = before.clone();
        for (name, attributes) in networks {
            add(&mut after, name, attributes)?;
        }
        *lock(&self.now) = after;
        if options.get("connectivityCheck").and_then(Value::as_i64) == Some(0) {
            return Ok(());
        }
        let seconds = options.get("connectivityTimeout").and_then(Value::as_u64).unwrap_or(DEFAULT_TIMEOUT);
        let begin = SystemClock.monotonic();
        while SystemClock.monotonic().saturating_since(begin) < Duration::from_secs(seconds) {
            if lock(&self.confirmed).is_some_and(|confirmed| confirmed > begin) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        *lock(&self.now) = before;
        Err(Failure::new(10, "connectivity check failed"))
    }
}

/// A bridged network, which takes its port's addresses.
fn add(all: &mut Value, name: &str, attributes: &Value) -> Result<(), Failure> {
    let attributes = attributes.as_object().ok_or_else(|| bad_parameters("a network is no object"))?;
    for (key, value) in attributes {
        let known = ATTRIBUTES.iter().find(|(known, _)| known == key);
        if !known.is_some_and(|(_, fits)| fits(value)) {
            return Err(bad_parameters(&format!("{name}: {key} = {value}")));
        }
    }
    let text = |key: &str| attributes.get(key).and_then(Value::as_str);
    let (kind, port) = match (text("nic"), text("bonding")) {
        (Some(nic), None) => ("nics", nic),
        (None, Some(bond)) => ("bondings", bond),
        _ => return Err(bad_parameters(&format!("{name}: one nic or bonding"))),
    };
    let Some(below) = all[kind].get_mut(port) else {
        return Err(Failure::new(23, format!("Nonexistent NIC: {port}")));
    };
    for key in ["addr", "netmask", "gateway"] {
        below[key] = "".into();
    }
    let network = json!({
        "iface": name, "bridged": true, "ports": [port], "addr": text("ipaddr").unwrap_or_default(),
        "netmask": text("netmask").unwrap_or_default(), "gateway": text("gateway").unwrap_or_default(),
        "mtu": attributes.get("mtu").and_then(Value::as_u64).unwrap_or(1500),
    });
    all["bridges"][name] = network.clone();
    all["networks"][name] = network;
    Ok(())
}
