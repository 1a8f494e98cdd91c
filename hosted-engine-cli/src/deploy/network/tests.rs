//! What can go into a bridge, what is said to `ip`, and what the network managers are told.

use std::fs;

use super::keeper::Keeper;
use super::picture::{Picture, Same};
use super::plan::{self, examine};
use crate::deploy::fixture::Fixture;
use crate::deploy::testing::Recorded;

/// As `ip -json` of iproute2 6.1 tells it, cut to the fields that are read.
const LINKS: &str = r#"[{"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"link_type":"loopback","address":"00:00:00:00:00:00"},
{"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:05","inet6_addr_gen_mode":"eui64"},
{"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:06","master":"bond0"},
{"ifname":"eth2","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:07"},
{"ifname":"bond0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:06","linkinfo":{"info_kind":"bond","info_data":{"mode":"balance-alb"}}},
{"ifname":"bond1","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:08","linkinfo":{"info_kind":"bond","info_data":{"mode":"802.3ad"}}},
{"ifname":"eth0.5","link":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:05","linkinfo":{"info_kind":"vlan","info_data":{"id":5}}},
{"ifname":"br0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"link_type":"ether","address":"52:54:00:00:00:09","linkinfo":{"info_kind":"bridge"}},
{"ifname":"tun0","flags":["POINTOPOINT","UP","LOWER_UP"],"mtu":1500,"link_type":"none"}]"#;
const ADDRESSES: &str = r#"[{"ifname":"eth0","addr_info":[
{"family":"inet","local":"10.0.0.5","prefixlen":24,"broadcast":"10.0.0.255","scope":"global","dynamic":true,"label":"eth0","valid_life_time":3000,"preferred_life_time":3000},
{"family":"inet6","local":"fe80::5054:ff:fe00:5","prefixlen":64,"scope":"link","valid_life_time":4294967295,"preferred_life_time":4294967295}]},{}]"#;
const ROUTES: &str = r#"[{"dst":"default","gateway":"10.0.0.1","dev":"eth0","protocol":"dhcp","prefsrc":"10.0.0.5","metric":100,"flags":[]},
{"dst":"10.0.0.0/24","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"10.0.0.5","flags":[]}]"#;
const RULES: &str =
    r#"[{"priority":0,"src":"all","table":"local"},{"priority":90,"src":"all","iif":"bond1","table":"100"}]"#;

fn picture() -> Picture {
    let tools = Recorded::new(&[
        ("ip -json -4 route show table all", 0, ROUTES, ""),
        ("ip -json -4 rule show", 0, RULES, ""),
        ("ip -json -6 route show table all", 0, "", ""),
        ("ip -json -6 rule show", 0, "[ ]", ""),
        ("ip -json -details link show", 0, LINKS, ""),
        ("ip -json address show", 0, ADDRESSES, ""),
    ]);
    let picture = Picture::look(&tools).unwrap();
    tools.assert_over();
    picture
}

fn nic() -> plan::Nic {
    examine(&picture(), "eth0", "ovirtmgmt", false).unwrap()
}

/// A bridge over eth0.
pub(super) fn made(keeper: Keeper) -> super::MadeBridge {
    super::MadeBridge { bridge: "ovirtmgmt".to_owned(), nic: nic(), mark: "mark".to_owned(), keeper }
}

#[test]
fn what_fits_no_bridge_is_refused_with_the_way_out() {
    let picture = picture();
    for (card, bridge, words) in [
        (
            "eth9",
            "ovirtmgmt",
            "there is no network card eth9 on this host; there are: eth0, eth1, eth2, bond0, bond1, eth0.5",
        ),
        ("eth1", "ovirtmgmt", "eth1 is in bond0"),
        ("eth2", "ovirtmgmt", "eth2 has no link"),
        ("bond0", "ovirtmgmt", "mode balance-alb"),
        ("bond1", "ovirtmgmt", "rule 90 of `ip rule` names bond1"),
        ("br0", "ovirtmgmt", "br0 is a bridge itself"),
        ("lo", "ovirtmgmt", "lo is the loopback"),
        ("tun0", "ovirtmgmt", "tun0 is none"),
        ("eth0", "br0", "the bridge br0 is there already, and eth0 is not in it"),
        ("eth0", "bond1", "bond1 is there already and is of the kind bond"),
        ("eth0", "a/b", "cannot be a bridge's name"),
        ("eth0", "a-name-too-long-", "cannot be a bridge's name"),
    ] {
        let error = examine(&picture, card, bridge, false).unwrap_err().to_string();
        assert!(error.contains(words), "{card}: {error}");
    }
    assert!(examine(&picture, "eth0", "ovirtmgmt", true).unwrap_err().to_string().contains("wireless"));
    assert!(examine(&picture, "eth0.5", "ovirtmgmt", false).is_ok());
}

#[test]
fn a_route_with_something_unknown_is_refused_before_anything_is_changed() {
    let encapsulated = ROUTES.replace("\"metric\":100", "\"encap\":\"mpls\"");
    let tools = Recorded::new(&[
        ("ip -json -4 route show table all", 0, &encapsulated, ""),
        ("ip -json -4 rule show", 0, "[]", ""),
        ("ip -json -6 route show table all", 0, "[]", ""),
        ("ip -json -6 rule show", 0, "[]", ""),
        ("ip -json -details link show", 0, LINKS, ""),
        ("ip -json address show", 0, ADDRESSES, ""),
    ]);
    let error = examine(&Picture::look(&tools).unwrap(), "eth0", "ovirtmgmt", false).unwrap_err();
    assert_eq!(error.to_string(), "the route to default has \"encap\", which cannot be moved to a bridge");
}

#[test]
fn the_commands_follow_from_what_is_missing() {
    let (now, nic) = (picture(), nic());
    let made = plan::make_bridge(&now, &nic, "ovirtmgmt", "mark").strict;
    assert_eq!(
        made[0],
        "link add name ovirtmgmt address 52:54:00:00:00:05 type bridge stp_state 0 forward_delay 0"
    );
    assert_eq!(made[2], "link set dev eth0 master ovirtmgmt");
    let moved = plan::move_addresses(&now, &nic, "ovirtmgmt");
    assert_eq!(moved.lenient.last().unwrap(), "address flush dev eth0");
    assert_eq!(
        moved.strict,
        [
            "address add 10.0.0.5/24 broadcast 10.0.0.255 dev ovirtmgmt scope global valid_lft 3000 preferred_lft 3000"
        ]
    );
    assert_eq!(
        plan::move_routes(&now, &nic, "ovirtmgmt", Same::Exactly).strict,
        [
            "-4 route add 10.0.0.0/24 dev ovirtmgmt proto kernel scope link src 10.0.0.5",
            "-4 route add default via 10.0.0.1 dev ovirtmgmt proto dhcp src 10.0.0.5 metric 100",
        ]
    );
    // Nothing was done yet: nothing is to be taken back.
    let back = [
        plan::remove_bridge(&now, &nic, "ovirtmgmt"),
        plan::restore_addresses(&now, &nic),
        plan::restore_routes(&now, &nic, Same::Exactly),
    ];
    assert_eq!(back, [plan::Batch::default(), plan::Batch::default(), plan::Batch::default()]);
}

/// No `NetworkManager` that runs, no networkd that does.
const NOBODY: [(&str, i32, &str, &str); 2] = [
    (
        "nmcli -g GENERAL.STATE,GENERAL.CON-UUID device show eth0",
        8,
        "",
        "Error: NetworkManager is not running.\n",
    ),
    ("networkctl --no-pager --lines=0 status eth0", 1, "", "systemd-networkd is not running\n"),
];

#[test]
fn a_lease_of_dhcp_that_nobody_would_renew_is_refused() {
    let fixture = Fixture::new();
    let tools = Recorded::new(&NOBODY);
    let error =
        Keeper::find(&fixture.paths, &tools, &picture(), &nic(), "ovirtmgmt").unwrap_err().to_string();
    assert!(error.contains("eth0 has its address from DHCP, by a client"), "{error}");
}

#[test]
fn ifupdowns_stanzas_become_the_bridges() {
    let fixture = Fixture::new();
    let directory = fixture.paths.resolve("/etc/network/interfaces.d");
    fs::create_dir_all(&directory).unwrap();
    let main = fixture.paths.resolve("/etc/network/interfaces");
    fs::write(&main, "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n").unwrap();
    let text = "auto eth1 eth0\niface eth0 inet static\n    address 10.0.0.5/24\n    gateway 10.0.0.1\n    dns-nameservers 10.0.0.53\n\n\
                iface eth0 inet6 auto\niface eth1 inet dhcp\n";
    fs::write(directory.join("cards"), text).unwrap();
    let mut calls = NOBODY.to_vec();
    calls.push(("ifquery --list", 0, "lo\neth0\n", ""));
    let tools = Recorded::new(&calls);
    let keeper = Keeper::find(&fixture.paths, &tools, &picture(), &nic(), "ovirtmgmt").unwrap();
    tools.assert_over();
    let json = serde_json::to_value(&keeper).unwrap();
    let changed = &json["ifupdown"]["files"];
    assert_eq!(changed.as_array().unwrap().len(), 1, "{changed}");
    assert_eq!(
        changed[0]["changed"]["after"],
        "auto eth1\nauto eth0 ovirtmgmt\niface eth0 inet manual\n\niface ovirtmgmt inet static\n    \
         # A bridge over eth0, made by hosted-engine --deploy.\n    \
         pre-up ip link show dev ovirtmgmt >/dev/null 2>&1 || ip link add name ovirtmgmt address 52:54:00:00:00:05 type bridge stp_state 0 forward_delay 0\n    \
         pre-up ip link set dev eth0 master ovirtmgmt up\n    post-down ip link delete dev ovirtmgmt\n    \
         address 10.0.0.5/24\n    gateway 10.0.0.1\n    dns-nameservers 10.0.0.53\n\n\
         iface ovirtmgmt inet6 auto\niface eth1 inet dhcp\n"
    );
}

#[test]
fn network_managers_profile_gives_its_settings_to_the_bridge() {
    let profile = "connection.id:Wired connection 1\nconnection.uuid:c0ffee\nconnection.autoconnect:yes\nconnection.interface-name:eth0\nconnection.zone:internal\nconnection.metered:unknown\n\
                   ipv4.method:manual\nipv4.dns:10.0.0.53\nipv4.dns-search:\nipv4.addresses:10.0.0.5/24\nipv4.gateway:10.0.0.1\n\
                   ipv4.routes:10.9.0.0/16 10.0.0.2 50\nipv4.dhcp-iaid:\nipv6.method:auto\nipv6.addresses:\nIP4.ADDRESS[1]:10.0.0.5/24\n";
    let options = "DHCP4.OPTION[1]:broadcast_address = 10.0.0.255\nDHCP4.OPTION[2]:dhcp_client_identifier = 01:52:54:00:00:00:05\n\
                   DHCP6.OPTION[1]:dhcp6_client_id = 00:04:6d:a5\nDHCP6.OPTION[3]:iaid = 2b:50:67:35\n";
    let tools = Recorded::new(&[
        ("nmcli -g GENERAL.STATE,GENERAL.CON-UUID device show eth0", 0, "100 (connected)\nc0ffee\n", ""),
        ("nmcli -t -e no -f connection,ipv4,ipv6 connection show c0ffee", 0, profile, ""),
        (
            "nmcli -g connection.uuid connection show hosted-engine-ovirtmgmt",
            10,
            "",
            "Error: no such connection profile.\n",
        ),
        ("nmcli -t -e no -f DHCP4,DHCP6 device show eth0", 0, options, ""),
    ]);
    let fixture = Fixture::new();
    let keeper = Keeper::find(&fixture.paths, &tools, &picture(), &nic(), "ovirtmgmt").unwrap();
    tools.assert_over();
    let settings = "connection.zone internal connection.metered unknown ipv4.dns 10.0.0.53 ipv4.addresses 10.0.0.5/24 ipv4.gateway 10.0.0.1 ipv4.routes '10.9.0.0/16 10.0.0.2 50' \
                    ipv4.method manual ipv6.method auto";
    let client = "ipv4.dhcp-client-id 01:52:54:00:00:00:05 ipv6.dhcp-iaid 2b:50:67:35";
    let add = format!(
        "nmcli connection add type bridge con-name hosted-engine-ovirtmgmt ifname ovirtmgmt connection.autoconnect yes \
         connection.autoconnect-slaves 1 bridge.stp no bridge.forward-delay 0 bridge.mac-address 52:54:00:00:00:05 {client} {settings}"
    );
    let back =
        format!("nmcli connection modify c0ffee connection.master '' connection.slave-type '' {settings}");
    let made = made(keeper);
    let tools = Recorded::new(&[
        (&add, 0, "", ""),
        (
            "nmcli connection modify c0ffee connection.master ovirtmgmt connection.slave-type bridge",
            0,
            "",
            "",
        ),
        ("nmcli -w 25 connection up hosted-engine-ovirtmgmt", 0, "", ""),
        ("nmcli -w 25 connection up c0ffee", 0, "", ""),
        (&back, 0, "", ""),
        ("nmcli connection delete hosted-engine-ovirtmgmt", 0, "", ""),
        ("nmcli -w 25 connection up c0ffee", 0, "", ""),
    ]);
    made.keeper.keep(&made, &tools).unwrap();
    assert_eq!(made.keeper.forget(&made, &tools).unwrap(), None);
    tools.assert_over();
}

#[test]
fn what_dhcp_gave_is_the_network_managers_to_get_again() {
    let (now, nic) = (picture(), nic().without_lent());
    let moved = plan::move_addresses(&now, &nic, "ovirtmgmt");
    assert_eq!(moved.strict, Vec::<String>::new());
    // Both routes lead over the lease: one is told by DHCP, the other one has its address.
    assert_eq!(plan::move_routes(&now, &nic, "ovirtmgmt", Same::Way).strict, Vec::<String>::new());
}

#[test]
fn the_order_in_which_a_route_is_told_makes_no_other_route() {
    let route = |text: &str| super::picture::Route {
        version: super::picture::Version::V4,
        told: serde_json::from_str(text).unwrap(),
    };
    let one = route(r#"{"dst":"default","gateway":"10.0.0.1","dev":"eth0","metric":5,"flags":["linkdown"]}"#);
    let other = route(r#"{"metric":5,"dev":"br","dst":"default","gateway":"10.0.0.1"}"#);
    assert!(one.is_same(&other, "eth0", "br", Same::Exactly));
    let farther = route(r#"{"metric":6,"dev":"br","dst":"default","gateway":"10.0.0.1"}"#);
    assert!(!one.is_same(&farther, "eth0", "br", Same::Exactly));
}

#[test]
fn a_router_that_only_its_link_knows_is_no_gateway_to_ask() {
    let route = |gateway: &str| super::picture::Route {
        version: super::picture::Version::V6,
        told: serde_json::from_str(&format!(r#"{{"dst":"default","gateway":"{gateway}","dev":"eth0"}}"#))
            .unwrap(),
    };
    assert_eq!(route("fe80::1").default_gateway(), None);
    assert_eq!(route("2001:db8::1").default_gateway(), Some("2001:db8::1"));
}

#[test]
fn a_route_that_a_manager_made_with_another_metric_is_not_made_twice() {
    let nic = nic();
    let other = ROUTES.replace("\"metric\":100", "\"metric\":425").replace("eth0", "ovirtmgmt");
    let tools = Recorded::new(&[
        ("ip -json -4 route show table all", 0, &other, ""),
        ("ip -json -4 rule show", 0, RULES, ""),
        ("ip -json -6 route show table all", 0, "", ""),
        ("ip -json -6 rule show", 0, "", ""),
        ("ip -json -details link show", 0, LINKS, ""),
        ("ip -json address show", 0, ADDRESSES, ""),
    ]);
    let now = Picture::look(&tools).unwrap();
    assert_eq!(plan::move_routes(&now, &nic, "ovirtmgmt", Same::Way).strict, Vec::<String>::new());
    assert_eq!(plan::move_routes(&now, &nic, "ovirtmgmt", Same::Exactly).strict.len(), 1);
}
