//! What the questions want to know of this host's network.

use std::net::IpAddr;

use crate::deploy::network::picture::{Link, Picture};
use crate::deploy::questions::{Gateway, Nic};

/// Interfaces.
pub(super) fn nics(picture: &Picture) -> Vec<Nic> {
    let nic = |link: &Link| Nic {
        name: link.name.clone(),
        is_bridge: link.kind() == Some("bridge"),
        can_be_bridged: link.link_type == "ether" && link.master.is_none() && is_card(picture, link),
    };
    picture.links.iter().map(nic).collect()
}

/// The addresses by which others reach this host.
pub(super) fn addresses(picture: &Picture) -> Vec<IpAddr> {
    let of_links = picture.links.iter().flat_map(|link| picture.addresses(&link.name));
    of_links
        .filter(|address| address.scope == "global")
        .filter_map(|address| address.local().parse().ok())
        .collect()
}

/// A card, or what stands for one; not what connects VMs and containers.
fn is_card(picture: &Picture, link: &Link) -> bool {
    match link.kind() {
        None | Some("bond" | "team" | "vlan") => true,
        // A container's or a namespace's own card is one end of a pair, and has addresses.
        Some("veth" | "macvlan") => {
            picture.addresses(&link.name).iter().any(|address| address.scope == "global")
        }
        Some(_) => false,
    }
}

/// Default routes, the one that is used first. A gateway that only its link knows is of no use to others.
pub(super) fn gateways(picture: &Picture) -> Vec<Gateway> {
    let hops = picture.default_hops().into_iter().map(|(address, nic)| Gateway { address, nic });
    hops.filter(|gateway| !is_link_local(gateway.address)).collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Recorded;

    fn picture(routes: &str, links: &str) -> Picture {
        let tools = Recorded::new(&[
            ("ip -json -4 route show table all", 0, routes, ""),
            ("ip -json -4 rule show", 0, "[]", ""),
            ("ip -json -6 route show table all", 0, "", ""),
            ("ip -json -6 rule show", 0, "[]", ""),
            ("ip -json -details link show", 0, links, ""),
            ("ip -json address show", 0, "[]", ""),
        ]);
        Picture::look(&tools).unwrap()
    }

    #[test]
    fn bonds_and_vlans_count_as_cards_and_their_ports_do_not() {
        let link = |name: &str, of: &str| {
            format!(r#"{{"ifname":"{name}","flags":["UP","LOWER_UP"],"mtu":1500,"link_type":"ether"{of}}}"#)
        };
        let kind = |name: &str, kind: &str| link(name, &format!(r#","linkinfo":{{"info_kind":"{kind}"}}"#));
        let links = [
            link("eth0", r#","master":"bond0""#),
            kind("bond0", "bond"),
            kind("bond0.7", "vlan"),
            kind("docker0", "bridge"),
            kind("veth1", "veth"),
            link("ib0", "").replace("ether", "infiniband"),
            "{}".to_owned(),
        ];
        let picture = picture("[]", &format!("[{}]", links.join(",")));
        let nics = nics(&picture);
        let cards: Vec<_> =
            nics.iter().filter(|nic| nic.can_be_bridged).map(|nic| nic.name.as_str()).collect();
        assert_eq!(cards, ["bond0", "bond0.7"]);
        let bridges: Vec<_> = nics.iter().filter(|nic| nic.is_bridge).map(|nic| nic.name.as_str()).collect();
        assert_eq!(bridges, ["docker0"]);
        assert!(addresses(&picture).is_empty());
    }

    #[test]
    fn every_hop_of_a_route_counts_and_link_local_ones_do_not() {
        let routes = r#"[{"dst":"default","gateway":"192.0.2.7","dev":"eth2","table":"100","flags":[]},
            {"dst":"default","metric":100,"flags":[],"nexthops":[
            {"gateway":"fe80::1","dev":"eth0","weight":1,"flags":[]},
            {"gateway":"192.0.2.1","dev":"eth1","weight":1,"flags":[]}]},
            {"dst":"default","dev":"tun0","scope":"link","flags":[]}]"#;
        let all = gateways(&picture(routes, "[]"));
        assert_eq!(all, [Gateway { address: "192.0.2.1".parse().unwrap(), nic: "eth1".to_owned() }]);
        assert!(gateways(&picture("", "[]")).is_empty());
    }
}
