//! Bridge, network test, firewall.

use super::{Choice, Form, Preset, Question, Section, When, check, keys};

const BASE: Question = Question { section: Section::Network, ..Question::BASE };
const FIRST_HOST: When = When { words: "on the first host", holds: |known| !known.is_join() };
const TCP: When = When {
    words: "for the test tcp",
    holds: |known| !known.is_join() && known.is(keys::NETWORK_TEST, "tcp"),
};

/// The questions about the network.
pub(super) const QUESTIONS: &[Question] = &[
    Question {
        key: keys::FORCE_IPV4,
        label: "IPv4 only",
        prompt: "Use IPv4 where a name has both?",
        explanation: "The same as --4.",
        form: Form::Bool,
        preset: Preset::Fixed("no"),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::FORCE_IPV6,
        label: "IPv6 only",
        prompt: "Use IPv6 where a name has both?",
        explanation: "The same as --6.",
        form: Form::Bool,
        preset: Preset::Fixed("no"),
        check: |known, text| {
            if text == super::YES && known.is_yes(keys::FORCE_IPV4) {
                return Err(format!("only one of {} and {} may be yes", keys::FORCE_IPV4, keys::FORCE_IPV6));
            }
            Ok(text.to_owned())
        },
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::BRIDGE,
        label: "Bridge name",
        prompt: "Please specify the management bridge",
        explanation: "A bridge of this name on every host connects the engine VM with the hosts' network. One that is \
            there is used as it is.",
        preset: Preset::From("ovirtmgmt; where there is none, the bridge with the default route", |known| {
            let routed = known.gateway().map(|gateway| gateway.nic.as_str());
            let routed = routed.filter(|name| known.has_bridge(name) && !known.has_bridge("ovirtmgmt"));
            Some(routed.unwrap_or("ovirtmgmt").to_owned())
        }),
        when: FIRST_HOST,
        check: |_, text| check::interface(text),
        is_quiet: true,
        ..BASE
    },
    Question {
        key: keys::NIC,
        label: "Bridge interface",
        prompt: "Please indicate a nic to set the management bridge on",
        explanation: "The bridge is made over this card and takes over its addresses, routes and name servers. If \
            this host loses its gateway by it, everything is put back as it was.",
        preset: Preset::From("the card with the default route, or the only one", |known| {
            let routed = known.gateway().map(|gateway| gateway.nic.as_str());
            let nics: Vec<_> = known.facts.nics.iter().filter(|nic| nic.can_be_bridged).collect();
            match nics.as_slice() {
                [only] => Some(only.name.clone()),
                nics => nics.iter().find(|nic| Some(nic.name.as_str()) == routed).map(|nic| nic.name.clone()),
            }
        }),
        when: When {
            words: "where the bridge is not there yet",
            holds: |known| known.bridge().is_some_and(|bridge| !known.has_bridge(bridge)),
        },
        choices: |known| {
            let nics = known.facts.nics.iter().filter(|nic| nic.can_be_bridged);
            nics.map(|nic| Choice { value: nic.name.clone(), about: String::new() }).collect()
        },
        check: |known, text| {
            if known.bridge() == Some(text) {
                return Err(format!("{text} cannot be the bridge and its card"));
            }
            check::interface(text)
        },
        is_of_host: true,
        ..BASE
    },
    Question {
        key: keys::NETWORK_TEST,
        label: "Network test",
        prompt: "Please specify how the network is to be tested",
        explanation: "Each host tests its network every 10 s; one that fails is no place for the engine VM. ping: the \
            gateway answers. dns: a name server of this host does. tcp: a TCP port can be connected. none: no test.",
        form: Form::Word(&["ping", "dns", "tcp", "none"]),
        preset: Preset::Fixed("ping"),
        when: FIRST_HOST,
        ..BASE
    },
    Question {
        key: keys::GATEWAY,
        label: "Gateway address",
        prompt: "Please indicate the gateway IP address",
        explanation: "The gateway of the management network, by an address that answers pings. It may be empty for \
            other network tests than ping.",
        preset: Preset::From("the default gateway", |known| {
            known.gateway().map(|gateway| gateway.address.to_string())
        }),
        when: FIRST_HOST,
        check: |known, text| {
            if text.is_empty() {
                if known.is(keys::NETWORK_TEST, "ping") {
                    return Err("the network test ping needs a gateway".to_owned());
                }
                return Ok(String::new());
            }
            let text = check::address(text)?;
            if known.facts.addresses.iter().any(|address| address.to_string() == text) {
                return Err(format!("{text} is this host's own address: it would always answer"));
            }
            Ok(text)
        },
        if_empty: Some("none"),
        ..BASE
    },
    Question {
        key: keys::TCP_ADDRESS,
        label: "TCP test address",
        prompt: "Please specify the host to connect to",
        explanation: "A name or an address outside this cluster that is up when the network is.",
        when: TCP,
        check: |_, text| check::host(text),
        ..BASE
    },
    Question {
        key: keys::TCP_PORT,
        label: "TCP test port",
        prompt: "Please specify the port to connect to",
        explanation: "A port on which that host listens, for example 22 or 443.",
        form: Form::Integer(1, 65535),
        when: TCP,
        ..BASE
    },
    Question {
        key: keys::OPEN_FIREWALL,
        label: "Open the firewall",
        prompt: "Do you want to configure the host's firewall?",
        explanation: "Opens the ports of the VM's consoles and of migration where firewalld or nftables manage the \
            firewall. With no, do it yourself.",
        form: Form::Bool,
        preset: Preset::Fixed("yes"),
        ..BASE
    },
];
