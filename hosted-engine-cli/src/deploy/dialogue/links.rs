//! What `ip -json` tells of this network namespace; /sys may be another one's.

use std::net::IpAddr;

use serde::Deserialize;

use crate::deploy::questions::{Gateway, Nic};

/// A row of `ip -json -details address show`.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    #[serde(default, rename = "link_type")]
    hardware: String,
    master: Option<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Address {
    local: Option<IpAddr>,
    #[serde(default)]
    scope: String,
}

/// A row of `ip -json route show default`.
#[derive(Debug, Deserialize)]
struct Route {
    gateway: Option<IpAddr>,
    dev: Option<String>,
    #[serde(default)]
    metric: u32,
    #[serde(default)]
    nexthops: Vec<NextHop>,
}

#[derive(Debug, Deserialize)]
struct NextHop {
    gateway: Option<IpAddr>,
    dev: Option<String>,
}

/// Interfaces, and the addresses by which others reach this host.
pub(super) fn links(json: &str) -> serde_json::Result<(Vec<Nic>, Vec<IpAddr>)> {
    let links: Vec<Link> = rows(json)?;
    let nics = links.iter().map(|link| Nic {
        name: link.ifname.clone(),
        is_bridge: link.linkinfo.info_kind.as_deref() == Some("bridge"),
        can_be_bridged: link.hardware == "ether" && link.master.is_none() && is_card(link),
    });
    let addresses = links.iter().flat_map(|link| &link.addr_info);
    let addresses = addresses.filter(|address| address.scope == "global").filter_map(|address| address.local);
    Ok((nics.collect(), addresses.collect()))
}

/// A card, or what stands for one; not what connects VMs and containers.
fn is_card(link: &Link) -> bool {
    match link.linkinfo.info_kind.as_deref() {
        None | Some("bond" | "team" | "vlan") => true,
        // A container's or a namespace's own card is one end of a pair, and has addresses.
        Some("veth" | "macvlan") => link.addr_info.iter().any(|address| address.scope == "global"),
        Some(_) => false,
    }
}

/// Default routes, the one that is used first. A gateway that only its link knows is of no use to others.
pub(super) fn gateways(json: &str) -> serde_json::Result<Vec<Gateway>> {
    let mut routes: Vec<Route> = rows(json)?;
    routes.sort_by_key(|route| route.metric);
    let hops = routes.into_iter().flat_map(|route| {
        let first = (route.gateway, route.dev);
        std::iter::once(first).chain(route.nexthops.into_iter().map(|hop| (hop.gateway, hop.dev)))
    });
    let gateways = hops.filter_map(|(address, nic)| Some(Gateway { address: address?, nic: nic? }));
    Ok(gateways.filter(|gateway| !is_link_local(gateway.address)).collect())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Rows of unknown kinds are empty objects, and no rows at all may be no text.
fn rows<T: serde::de::DeserializeOwned>(json: &str) -> serde_json::Result<Vec<T>> {
    let rows: Vec<serde_json::Value> =
        if json.trim().is_empty() { Vec::new() } else { serde_json::from_str(json)? };
    let rows = rows.into_iter().filter(|row| row.as_object().is_some_and(|row| !row.is_empty()));
    rows.map(serde_json::from_value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bonds_and_vlans_count_as_cards_and_their_ports_do_not() {
        let json = r#"[
            {"ifname":"eth0","link_type":"ether","master":"bond0","addr_info":[]},
            {"ifname":"bond0","link_type":"ether","linkinfo":{"info_kind":"bond"},"addr_info":[]},
            {"ifname":"bond0.7","link_type":"ether","linkinfo":{"info_kind":"vlan"},"addr_info":[]},
            {"ifname":"docker0","link_type":"ether","linkinfo":{"info_kind":"bridge"},"addr_info":[]},
            {"ifname":"veth1","link_type":"ether","linkinfo":{"info_kind":"veth"},"addr_info":[]},
            {"ifname":"ib0","link_type":"infiniband","addr_info":[]},
            {}
        ]"#;
        let (nics, addresses) = links(json).unwrap();
        let cards: Vec<_> =
            nics.iter().filter(|nic| nic.can_be_bridged).map(|nic| nic.name.as_str()).collect();
        assert_eq!(cards, ["bond0", "bond0.7"]);
        let bridges: Vec<_> = nics.iter().filter(|nic| nic.is_bridge).map(|nic| nic.name.as_str()).collect();
        assert_eq!(bridges, ["docker0"]);
        assert!(addresses.is_empty());
    }

    #[test]
    fn every_hop_of_a_route_counts_and_link_local_ones_do_not() {
        let json = r#"[{"dst":"default","metric":100,"flags":[],"nexthops":[
            {"gateway":"fe80::1","dev":"eth0","weight":1,"flags":[]},
            {"gateway":"192.0.2.1","dev":"eth1","weight":1,"flags":[]}]},
            {"dst":"default","dev":"tun0","scope":"link","flags":[]}]"#;
        let all = gateways(json).unwrap();
        assert_eq!(all, [Gateway { address: "192.0.2.1".parse().unwrap(), nic: "eth1".to_owned() }]);
        assert!(gateways("").unwrap().is_empty() && gateways("{").is_err());
    }
}
