//! The management bridge with real network managers: each gives its card to the bridge, takes it back when the gateway
//! is lost and when it is undone, and makes the bridge again after a boot. Needs root, the example `network_steps`, and
//! the packages that `etc/sandbox/fetch-network-managers` fetches; for bonds and VLANs QEMU and what
//! `etc/sandbox/build-guest` makes.

mod machine;

use std::path::{Path, PathBuf};
use std::process::Output;

use machine::{GATEWAY, MAC, Machine};

const ANSWERS: &str = "[environment:default]
OVEHOSTED_NETWORK/fqdn=str:engine.example.test
OVEHOSTED_STORAGE/domainType=str:directory
OVEHOSTED_STORAGE/storageDomainConnection=str:/storage
OVEHOSTED_STORAGE/imgSizeGB=int:1
OVEHOSTED_VM/vmMemSizeMB=int:128
OVEHOSTED_VM/vmBoot=str:pxe
";

/// What runs the card.
#[derive(Debug, Clone, Copy)]
enum Keeper {
    NetworkManager,
    Networkd,
    Ifupdown,
}

/// How the card gets its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Fixed,
    Dhcp,
}

struct Host {
    machine: Machine,
    keeper: Keeper,
    way: Way,
    program: PathBuf,
}

fn program() -> PathBuf {
    let program =
        Path::new(env!("CARGO_BIN_EXE_hosted-engine")).with_file_name("examples").join("network_steps");
    assert!(program.exists(), "{}: cargo build --examples", program.display());
    program
}

impl Host {
    /// Up, with an address of its card.
    fn new(keeper: Keeper, way: Way) -> Self {
        let program = program();
        let machine = Machine::new(program.parent().expect("in a directory"));
        let host = Self { machine, keeper, way, program };
        if way == Way::Dhcp {
            host.machine.serve_addresses();
        }
        let (path, text) = host.configuration();
        host.machine.run(&format!("printf '%s' '{text}' >{path}"));
        host.machine.run(&format!("printf '%s' '{ANSWERS}' >/answers.conf"));
        host.boot();
        host.is_on("eth0");
        host
    }

    fn configuration(&self) -> (&'static str, String) {
        let (v4, v6) = match self.way {
            Way::Fixed => ("10.0.0.5/24", "2001:db8::5/64"),
            Way::Dhcp => ("", ""),
        };
        match (self.keeper, self.way) {
            (Keeper::Networkd, Way::Dhcp) => (
                "/etc/systemd/network/50-card.network",
                "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n".to_owned(),
            ),
            (Keeper::Networkd, Way::Fixed) => (
                "/etc/systemd/network/50-card.network",
                format!(
                    "[Match]\nMACAddress={MAC}\n\n[Link]\nMTUBytes=1400\n\n[Network]\nAddress={v4}\nAddress={v6}\nGateway={GATEWAY}\n\
                     Gateway=2001:db8::fe\nDNS=10.0.0.53\nIPv6AcceptRA=no\n\n[Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.253\n"
                ),
            ),
            (Keeper::Ifupdown, Way::Dhcp) => (
                "/etc/network/interfaces",
                "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\niface eth0 inet6 auto\n"
                    .to_owned(),
            ),
            (Keeper::Ifupdown, Way::Fixed) => (
                "/etc/network/interfaces.d/card",
                format!(
                    "auto eth0\niface eth0 inet static\n    mtu 1400\n    address {v4}\n    gateway {GATEWAY}\n    \
                     up ip route add 10.9.0.0/16 via 10.0.0.253\niface eth0 inet6 static\n    address {v6}\n    \
                     gateway 2001:db8::fe\n"
                ),
            ),
            (Keeper::NetworkManager, Way::Dhcp) => (
                "/etc/NetworkManager/system-connections/card.nmconnection",
                "[connection]\nid=card\nuuid=5d9d1947-a04a-4264-8e44-5a88381bc47e\ntype=ethernet\ninterface-name=eth0\n\n\
                 [ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\naddr-gen-mode=eui64\n"
                    .to_owned(),
            ),
            (Keeper::NetworkManager, Way::Fixed) => (
                "/etc/NetworkManager/system-connections/card.nmconnection",
                format!(
                    "[connection]\nid=card\nuuid=5d9d1947-a04a-4264-8e44-5a88381bc47e\ntype=ethernet\n\n\
                     [ethernet]\nmac-address={MAC}\nmtu=1400\n\n\
                     [ipv4]\nmethod=manual\naddress1={v4}\ngateway={GATEWAY}\ndns=10.0.0.53;\nroute1=10.9.0.0/16,10.0.0.253\n\n\
                     [ipv6]\nmethod=manual\naddress1={v6}\ngateway=2001:db8::fe\n"
                ),
            ),
        }
    }

    /// Starts whoever runs the network.
    fn boot(&self) {
        match self.keeper {
            Keeper::NetworkManager => {
                // It takes nothing that others could read: there may be passwords in it.
                self.machine
                    .run("mkdir -p /run/NetworkManager; chmod 600 /etc/NetworkManager/system-connections/*");
                self.machine.start("manager", "NetworkManager --no-daemon");
                self.machine.until("nmcli -g RUNNING general", "running");
            }
            Keeper::Networkd => {
                self.machine.run(
                    "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp \
                     && chown -R systemd-network:systemd-network /run/systemd/netif",
                );
                self.machine.start("manager", "/usr/lib/systemd/systemd-networkd");
            }
            Keeper::Ifupdown => {
                let main = "/etc/network/interfaces";
                self.machine.run(&format!(
                    "mkdir -p /run/network; [ -e {main} ] || echo 'source /etc/network/interfaces.d/*' >{main}"
                ));
                // What the two services of the package do: all that is automatic, and what udev has found.
                self.machine.run("ifup --all; ifup --all --allow=hotplug");
            }
        }
    }

    /// All processes of the network manager end, and all that the kernel knew is gone.
    fn reboot(&self) {
        match self.keeper {
            Keeper::NetworkManager | Keeper::Networkd => self.machine.stop("manager"),
            Keeper::Ifupdown => {
                self.machine.ask("pkill dhclient");
            }
        }
        self.machine.ask("ip link delete ovirtmgmt");
        self.machine.run("ip link delete eth0");
        self.machine.run(
            "rm -rf /run/NetworkManager /run/systemd/netif /run/network /run/dhclient* /etc/resolv.conf",
        );
        self.machine.plug_in();
        self.boot();
    }

    /// The host is reached through this device, in both IP versions, and by its own addresses only.
    fn is_on(&self, device: &str) {
        let (v4, v6) = match self.way {
            Way::Fixed => ("10.0.0.5/24", "2001:db8::5/64"),
            Way::Dhcp => ("10.0.0.67/24", "2001:db8::ff:fe00:5/64"),
        };
        let show = format!("ip -brief address show dev {device}");
        self.machine.until(&show, v4);
        let mut all = self.machine.until(&show, v6);
        if self.way == Way::Dhcp && !matches!(self.keeper, Keeper::Ifupdown) {
            // Besides the one that it made itself: ifupdown's `auto` asks for none.
            all = self.machine.until(&show, "/128");
        }
        let global = all
            .split_whitespace()
            .filter(|word| word.contains('/') && !word.starts_with("fe80:") && !word.ends_with("/128"));
        assert_eq!(global.collect::<Vec<_>>(), [v4, v6], "{all}");
        let routes = self.machine.until("ip route show default", GATEWAY);
        assert!(routes.contains(&format!("dev {device} ")) && routes.lines().count() == 1, "{routes}");
        let routes = self.machine.until("ip -6 route show default", "via");
        assert!(routes.contains(&format!("dev {device} ")) && routes.lines().count() == 1, "{routes}");
        if self.way == Way::Fixed {
            self.machine.until("ip route show 10.9.0.0/16", &format!("via 10.0.0.253 dev {device}"));
            self.machine.until(&format!("cat /sys/class/net/{device}/mtu"), "1400");
        }
        for gateway in [GATEWAY, "2001:db8::fe"] {
            self.machine.until(&format!("ping -c1 -W1 {gateway}"), "1 received");
        }
    }

    fn is_bridged(&self) {
        self.is_on("ovirtmgmt");
        let card = self.machine.run("ip -brief address show dev eth0");
        assert!(!card.contains("10.0.0.") && !card.contains("2001:"), "{card}");
        let ports = self.machine.run("ip -brief link show master ovirtmgmt");
        assert!(ports.starts_with("eth0@"), "{ports}");
        assert!(self.machine.run("ip link show dev ovirtmgmt").contains(MAC));
    }

    fn is_not_bridged(&self) {
        self.is_on("eth0");
        assert!(!self.machine.output("ip link show dev ovirtmgmt").status.success());
    }

    /// To the server of addresses it is one and the same host: as which client it came, at which addresses it is.
    fn lease(&self) -> String {
        let leases = self.machine.ask("cut -d' ' -f2,3,5 /run/leases | grep -e ' 10.0.0.' -e ' 2001:'");
        let expected = match (self.way, self.keeper) {
            (Way::Fixed, _) => 0,
            (Way::Dhcp, Keeper::Ifupdown) => 1,
            (Way::Dhcp, Keeper::NetworkManager | Keeper::Networkd) => 2,
        };
        assert_eq!(leases.lines().count(), expected, "{leases}");
        leases
    }

    fn steps(&self, words: &str) -> Output {
        self.machine.output(&format!("{} {words}", self.program.display()))
    }

    /// All that is configured, with its content.
    fn files(&self) -> String {
        // NetworkManager writes its own files anew, with what it had assumed.
        self.machine.run(
            "find /etc/network /etc/systemd/network /etc/NetworkManager /var/lib/dhcp/*ovirtmgmt* -type f \
             ! -name card.nmconnection -exec md5sum {} + 2>/dev/null | sort -k2; \
             nmcli -t -f connection,802-3-ethernet,ipv4,ipv6 connection show card 2>/dev/null | grep -v ^connection.timestamp || :",
        )
    }
}

/// The whole life of a bridge.
fn lives(keeper: Keeper, way: Way) {
    let host = Host::new(keeper, way);
    let (files, lease) = (host.files(), host.lease());

    // Nobody answers on a bridge: it is taken back.
    host.machine.run(
        "nft 'table inet lost { chain input { type filter hook input priority 0; iifname ovirtmgmt ip protocol icmp drop; }; }'",
    );
    let output = host.steps("begin /answers.conf");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the gateway 10.0.0.254 did not answer within 6 s after the change"), "{output:?}");
    assert!(said.contains("everything is as it was before"), "{output:?}");
    host.is_not_bridged();
    assert_eq!((host.files(), host.lease()), (files.clone(), lease.clone()));
    host.machine.run("nft delete table inet lost");
    let output = host.steps("undo");
    assert!(output.status.success(), "{output:?}");

    // It is made, and is there after a boot.
    let output = host.steps("begin /answers.conf");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("WARNING"), "{said}");
    host.is_bridged();
    assert_eq!(host.lease(), lease);
    host.reboot();
    host.is_bridged();
    assert_eq!(host.lease(), lease);

    // It is undone, and that lasts, too.
    let output = host.steps("undo");
    assert!(output.status.success(), "{output:?}");
    host.is_not_bridged();
    assert_eq!((host.files(), host.lease()), (files.clone(), lease.clone()));
    host.reboot();
    host.is_not_bridged();
}

#[test]
fn networkd_keeps_a_bridge_with_fixed_addresses() {
    lives(Keeper::Networkd, Way::Fixed);
}

#[test]
fn networkd_keeps_a_bridge_with_a_lease() {
    lives(Keeper::Networkd, Way::Dhcp);
}

#[test]
fn ifupdown_keeps_a_bridge_with_fixed_addresses() {
    lives(Keeper::Ifupdown, Way::Fixed);
}

#[test]
fn ifupdown_keeps_a_bridge_with_a_lease() {
    lives(Keeper::Ifupdown, Way::Dhcp);
}

#[test]
fn network_manager_keeps_a_bridge_with_fixed_addresses() {
    lives(Keeper::NetworkManager, Way::Fixed);
}

#[test]
fn network_manager_keeps_a_bridge_with_a_lease() {
    lives(Keeper::NetworkManager, Way::Dhcp);
}

#[test]
fn firewalld_has_the_bridge_in_its_cards_zone_until_it_is_undone() {
    let host = Host::new(Keeper::Ifupdown, Way::Fixed);
    let machine = &host.machine;
    machine.start("firewalld", "firewalld --nofork --nopid");
    machine.until("firewall-cmd --state", "running");
    for command in
        ["--zone=internal --add-interface=eth0", "--permanent --zone=internal --add-interface=eth0"]
    {
        machine.run(&format!("firewall-cmd {command}"));
    }
    let zones = || machine.run("firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones");
    let before = zones();
    let output = host.steps("begin /answers.conf");
    assert!(output.status.success(), "{output:?}");
    for options in ["", "--permanent"] {
        assert_eq!(
            machine.run(&format!("firewall-cmd {options} --get-zone-of-interface=ovirtmgmt")),
            "internal\n"
        );
        let ports = machine.run(&format!("firewall-cmd {options} --zone=internal --list-ports"));
        assert_eq!(ports, "5900-6923/tcp 49152-49215/tcp\n");
    }
    // Somebody on the network reaches what is let in, and nothing else.
    let reached = |port: &str| {
        let listen = format!(
            "python3 -c \"import socket; s=socket.create_server((\\\"10.0.0.5\\\", {port})); s.accept()\""
        );
        machine.start("listener", &listen);
        machine.until(&format!("ss -Hltn sport = :{port}"), "LISTEN");
        let status = machine
            .output(&format!("ip netns exec gateway timeout 2 bash -c '</dev/tcp/10.0.0.5/{port}'"))
            .status;
        if !status.success() {
            machine.stop("listener");
        }
        status.success()
    };
    assert!(reached("5900"));
    assert!(!reached("7000"));
    let output = host.steps("undo");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(zones(), before);
}

/// What a guest said in a section.
fn section<'t>(said: &'t str, name: &str) -> &'t str {
    let (_, rest) = said.split_once(&format!("== {name}\n")).unwrap_or_else(|| panic!("no {name} in {said}"));
    rest.split_once("== ").map_or(rest, |(section, _)| section)
}

#[test]
fn a_bridge_over_a_vlan_of_a_bond_leaves_the_bond_alone_and_fails_over_with_it() {
    let said = machine::in_guest(&program(), include_str!("machine/bond-init"), ANSWERS).replace('\r', "");
    let before = section(&said, "before");
    assert!(before.contains("bond0.100@bond0  UP             10.0.0.5/24 2001:db8::5/64"), "{said}");
    assert!(before.ends_with("reached\n"), "{said}");
    // The card that the questions propose is the one with the default route.
    assert!(section(&said, "begin").contains("runs bond0.100: the bridge ovirtmgmt is gone after"), "{said}");
    let made = section(&said, "made");
    for line in [
        "bond0.100@bond0  UP\n",
        "ovirtmgmt        UP             10.0.0.5/24 2001:db8::5/64 fe80::ff:fe00:5/64\n",
        "bond0            UP             10.1.0.5/24 fe80::ff:fe00:5/64\n",
        "default via 10.0.0.254 dev ovirtmgmt",
        "default via 2001:db8::fe dev ovirtmgmt",
        "\nbond0.100@bond0\nreached\n",
    ] {
        assert!(made.contains(line), "{line:?} is not in {said}");
    }
    assert_eq!(section(&said, "the other card"), "reached\n");
    assert!(section(&said, "undo").contains("Taken back: bridge ovirtmgmt over bond0.100"), "{said}");
    assert_eq!(section(&said, "after"), before);
}
