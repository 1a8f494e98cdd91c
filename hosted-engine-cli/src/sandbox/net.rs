//! The sandbox's network: one namespace with a bridge that is switch and gateway in one, and a cable to each host.
//! No address of it can be reached from outside these namespaces, and nothing is added to the machine's own.

use super::layout::{BRIDGE, GATEWAY, HostNumber, Layout, POWER, PREFIX};
use super::shell::ip;

/// The switch's bridge.
const SWITCH: &str = "gw";
/// Its hardware address, one of those that anybody may give.
const SWITCH_MAC: &str = "02:00:00:00:00:01";

/// Makes the switch, or leaves it as it is.
pub fn create_switch(layout: &Layout) -> anyhow::Result<()> {
    let tag = layout.tag();
    if !exists(&tag) {
        ip(&format!("netns add {tag}"))?;
    }
    if ip(&format!("-n {tag} link show {SWITCH}")).is_err() {
        // An address of its own: it would take a cable's, and lose it with that host, to which the others would go on sending.
        ip(&format!("-n {tag} link add {SWITCH} address {SWITCH_MAC} type bridge forward_delay 0"))?;
    }
    ip(&format!("-n {tag} address replace {GATEWAY}/{PREFIX} dev {SWITCH}"))?;
    ip(&format!("-n {tag} address replace {POWER}/{PREFIX} dev {SWITCH}"))?;
    ip(&format!("-n {tag} link set lo up"))?;
    ip(&format!("-n {tag} link set {SWITCH} up"))?;
    Ok(())
}

/// Removes the switch and with it all cables.
pub fn remove_switch(layout: &Layout) -> anyhow::Result<()> {
    let tag = layout.tag();
    if exists(&tag) {
        ip(&format!("netns delete {tag}"))?;
    }
    Ok(())
}

fn exists(tag: &str) -> bool {
    std::path::Path::new("/run/netns").join(tag).exists()
}

/// Plugs a host's `eth0` into the switch. The cable goes with the host's namespace.
pub fn plug(layout: &Layout, number: HostNumber, init_pid: i32) -> anyhow::Result<()> {
    let (tag, port) = (layout.tag(), number.port());
    // Left over when the host's namespace has not been taken down yet.
    let _ = ip(&format!("-n {tag} link delete {port}"));
    let address = number.hardware_address();
    ip(&format!("-n {tag} link add {port} type veth peer name eth0 address {address} netns {init_pid}"))?;
    ip(&format!("-n {tag} link set {port} master {SWITCH} up"))?;
    Ok(())
}

/// Inside a host: puts `eth0` into the management bridge, which carries the host's address.
pub fn configure_host(number: HostNumber) -> anyhow::Result<()> {
    ip("link set lo up")?;
    if ip(&format!("link show {BRIDGE}")).is_err() {
        ip(&format!("link add {BRIDGE} type bridge forward_delay 0"))?;
    }
    ip(&format!("link set eth0 master {BRIDGE} up"))?;
    ip(&format!("address replace {}/{PREFIX} dev {BRIDGE}", number.address()))?;
    ip(&format!("link set {BRIDGE} up"))?;
    ip(&format!("route replace default via {GATEWAY}"))?;
    Ok(())
}

/// The gateway no longer answers this host; its other traffic goes on.
pub fn cut_gateway(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    ip(&format!("-n {} route replace blackhole {}/32", layout.tag(), number.address()))?;
    Ok(())
}

/// The gateway answers this host again.
pub fn restore_gateway(layout: &Layout, number: HostNumber) -> anyhow::Result<()> {
    if is_cut(layout, number)? {
        ip(&format!("-n {} route delete blackhole {}/32", layout.tag(), number.address()))?;
    }
    Ok(())
}

/// Whether [`cut_gateway`] is in force.
pub fn is_cut(layout: &Layout, number: HostNumber) -> anyhow::Result<bool> {
    let routes = ip(&format!("-n {} route show type blackhole {}", layout.tag(), number.address()))?;
    Ok(!routes.trim().is_empty())
}
