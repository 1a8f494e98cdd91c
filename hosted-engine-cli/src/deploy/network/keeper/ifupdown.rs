//! ifupdown: /etc/network/interfaces and what it includes.
//!
//! The card's stanzas become the bridge's, word for word, so that addresses, routes (`up ip route …`) and name servers
//! stay as they were written; the card gets a stanza with what makes the card itself: a bond's or a VLAN's options, the
//! MTU. The bridge is made by `pre-up` lines, which need no further package. `ifdown` runs on the old text and `ifup` on
//! the new one: what the gateway test then sees is what the next boot makes.
//!
//! dhclient names itself to the server by what stands in its file of leases, of which each link has one: the bridge gets
//! a copy of the card's, and with it the card's address.

use std::path::PathBuf;

use ha_config::Paths;
use serde::{Deserialize, Serialize};

use super::{KeptFile, MadeBridge, take_back_all, write_all};
use crate::deploy::made::ChangedFile;
use crate::deploy::network::plan::Nic;
use crate::deploy::{Call, DeployError, Tools};

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stanzas {
    files: Vec<KeptFile>,
    /// dhclient's files of the card and of the bridge.
    #[serde(default)]
    leases: Vec<(PathBuf, PathBuf)>,
}

/// Where dhclient keeps its leases, by IP version.
const LEASES: [&str; 2] = ["/var/lib/dhcp/dhclient", "/var/lib/dhcp/dhclient6"];
/// Beginnings of options that make the card itself; they are of no use to the bridge.
const OF_THE_CARD: &[&str] = &[
    "bond-",
    "bond_",
    "slaves",
    "vlan-raw-device",
    "vlan_raw_device",
    "hwaddress",
    "ethernet-",
    "hardware-",
    "link-",
    "offload-",
];
/// Words with which a stanza begins.
const STANZAS: &[&str] = &[
    "iface",
    "mapping",
    "auto",
    "source",
    "source-directory",
    "rename",
    "template",
    "no-auto-down",
    "no-scripts",
];

/// The changed files, when ifupdown runs the card.
pub(super) fn find(
    paths: &Paths,
    tools: &dyn Tools,
    nic: &Nic,
    bridge: &str,
) -> Result<Option<Stanzas>, DeployError> {
    let mut texts = Vec::new();
    for path in all_files(paths)? {
        let text = std::fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        texts.push((path, text));
    }
    let of_card: String = texts.iter().flat_map(|(_, text)| of_the_card(text, &nic.name)).collect();
    let mut stanzas = Bridged { nic, bridge, of_card: &of_card, is_made: false, is_auto: false };
    let mut files = Vec::new();
    for (path, before) in texts {
        let after = stanzas.text(&before);
        if after != before {
            files.push(KeptFile::Changed(ChangedFile { path, before, after }));
        }
    }
    let is_made = stanzas.is_made;
    if !is_made {
        return Ok(None);
    }
    if tools.ask(&Call::new("ifquery").arg("--list")).is_err() {
        return Err(DeployError::Refused(format!(
            "{} is in /etc/network/interfaces, but ifupdown is not installed: install it, or take the card out of the file",
            nic.name
        )));
    }
    let of = |link: &str| LEASES.map(|file| paths.resolve(format!("{file}.{link}.leases")));
    let leases = of(&nic.name).into_iter().zip(of(bridge)).collect();
    Ok(Some(Stanzas { files, leases }))
}

/// The main file, and those of /etc/network/interfaces.d that it includes.
fn all_files(paths: &Paths) -> Result<Vec<PathBuf>, DeployError> {
    let main = paths.resolve("/etc/network/interfaces");
    let text = match std::fs::read_to_string(&main) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(DeployError::io("read", &main))?,
    };
    let directory = paths.resolve("/etc/network/interfaces.d");
    let mut more = Vec::new();
    if let Ok(entries) = std::fs::read_dir(&directory) {
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if text.lines().any(|line| includes(line, name)) {
                more.push(path);
            }
        }
    }
    more.sort();
    more.insert(0, main);
    Ok(more)
}

/// Whether a line includes a file of that name in interfaces.d.
fn includes(line: &str, name: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["source-directory", path] => {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            path.trim_end_matches('/').ends_with("interfaces.d") && name.chars().all(is_plain)
        }
        ["source", path] => {
            let Some(pattern) =
                path.strip_prefix("/etc/network/").unwrap_or(path).strip_prefix("interfaces.d/")
            else {
                return false;
            };
            match pattern.split_once('*') {
                Some((begin, end)) => {
                    !name.starts_with('.')
                        && name.len() >= begin.len() + end.len()
                        && name.starts_with(begin)
                        && name.ends_with(end)
                }
                None => name == pattern,
            }
        }
        _ => false,
    }
}

/// Lines that the shell of ifupdown reads as one.
fn logical_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            end += line.len();
            if !line.trim_end_matches(['\n', '\r']).ends_with('\\') {
                break;
            }
        }
        let (line, left) = rest.split_at(end);
        rest = left;
        (!line.is_empty()).then_some(line)
    })
}

/// `None` for an option or a comment: it belongs to the stanza above it.
fn stanza<'l>(words: &[&'l str]) -> Option<&'l str> {
    words.first().copied().filter(|word| STANZAS.contains(word) || word.starts_with("allow-"))
}

fn is_of_the_card(option: &str) -> bool {
    OF_THE_CARD.iter().any(|begin| option.starts_with(begin))
}

/// The options in a card's stanzas that make the card itself.
fn of_the_card<'t>(text: &'t str, nic: &str) -> Vec<&'t str> {
    let mut is_card = false;
    let lines = logical_lines(text).filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        if stanza(&words).is_some() {
            is_card = words[0] == "iface" && words.get(1) == Some(&nic);
            return false;
        }
        is_card && words.first().is_some_and(|option| is_of_the_card(option) || *option == "mtu")
    });
    lines.collect()
}

/// Gives a card's stanzas to the bridge.
struct Bridged<'a> {
    nic: &'a Nic,
    bridge: &'a str,
    of_card: &'a str,
    /// There is a stanza that makes the bridge.
    is_made: bool,
    /// The bridge comes up at boot.
    is_auto: bool,
}

impl Bridged<'_> {
    fn text(&mut self, text: &str) -> String {
        let (name, bridge) = (self.nic.name.as_str(), self.bridge);
        let mut new = String::new();
        let mut is_card = false;
        for line in logical_lines(text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                // With hotplug it would come with the card's driver; the bridge comes with the others at boot.
                ["auto" | "allow-auto" | "allow-hotplug", names @ ..] if names.contains(&name) => {
                    is_card = false;
                    let others: Vec<&str> = names.iter().copied().filter(|other| *other != name).collect();
                    if !others.is_empty() {
                        new.extend([words[0], " ", &others.join(" "), "\n"]);
                    }
                    if !self.is_auto {
                        new.extend(["auto ", name, " ", bridge, "\n"]);
                    }
                    self.is_auto = true;
                }
                ["iface", of, rest @ ..] if *of == name => {
                    is_card = true;
                    if !self.is_made {
                        new.extend(["iface ", name, " inet manual\n", self.of_card, "\n"]);
                    }
                    new.extend(["iface ", bridge, " ", &rest.join(" "), "\n"]);
                    if !self.is_made {
                        new.push_str(&making(self.nic, bridge));
                    }
                    self.is_made = true;
                }
                [option, ..] if is_card && is_of_the_card(option) => {}
                ["up" | "down" | "pre-up" | "post-up" | "pre-down" | "post-down", ..] if is_card => {
                    new.push_str(&over_the_bridge(line, name, bridge));
                }
                words => {
                    is_card = is_card && stanza(words).is_none();
                    new.push_str(line);
                }
            }
        }
        new
    }
}

/// A command of a stanza, with the bridge in the place of the card where addresses and routes are made.
fn over_the_bridge(line: &str, nic: &str, bridge: &str) -> String {
    let is_moved = |word| matches!(word, "route" | "rule" | "addr" | "address" | "neigh");
    if !line.split_whitespace().any(is_moved) {
        return line.to_owned();
    }
    let mut new = String::new();
    let mut is_device = false;
    for part in line.split_inclusive(char::is_whitespace) {
        let word = part.trim_end();
        if is_device && word == nic {
            new.extend([bridge, &part[word.len()..]]);
        } else {
            new.push_str(part);
        }
        is_device = if word.is_empty() { is_device } else { word == "dev" };
    }
    new
}

fn making(nic: &Nic, bridge: &str) -> String {
    format!(
        "    # A bridge over {name}, made by hosted-engine --deploy.\n    \
         pre-up ip link show dev {bridge} >/dev/null 2>&1 || ip link add name {bridge} address {mac} type bridge stp_state 0 forward_delay 0\n    \
         pre-up ip link set dev {name} master {bridge} up\n    \
         post-down ip link delete dev {bridge}\n",
        name = nic.name,
        mac = nic.mac
    )
}

impl Stanzas {
    pub(super) fn make(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<(), DeployError> {
        // It complains of what somebody else has taken down before.
        tools.ask(&Call::new("ifdown").arg("--force").arg(&made.nic.name))?;
        write_all(&self.files)?;
        for (of_card, of_bridge) in &self.leases {
            let text = match std::fs::read_to_string(of_card) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(DeployError::io("read", of_card))?,
            };
            let of = |link: &str| format!("interface \"{link}\"");
            let text = text.replace(&of(&made.nic.name), &of(&made.bridge));
            ha_config::atomic::write(of_bridge, text.as_bytes(), ha_config::atomic::Mode::KeepOr644)?;
        }
        for link in [&made.nic.name, &made.bridge] {
            tools.run(&Call::new("ifup").arg(link))?;
        }
        Ok(())
    }

    pub(super) fn forget(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<Option<String>, DeployError> {
        tools.ask(&Call::new("ifdown").arg(&made.bridge))?;
        tools.ask(&Call::new("ip").args(["link", "delete", "dev"]).arg(&made.bridge))?;
        tools.ask(&Call::new("ifdown").arg("--force").arg(&made.nic.name))?;
        let left = take_back_all(&self.files)?;
        for (_, of_bridge) in &self.leases {
            match std::fs::remove_file(of_bridge) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DeployError::io("remove", of_bridge)(error));
                }
                _ => {}
            }
        }
        tools.ask(&Call::new("ifup").arg(&made.nic.name))?;
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_bond_or_a_vlan_stays_with_it() {
        let text = "auto bond0 bond0.100\niface bond0 inet manual\n    bond-slaves eth0 eth1\n    bond-mode 802.3ad\n\n\
                    iface bond0.100 inet static\n    address 10.0.0.5/24\n    vlan-raw-device bond0\n    mtu 9000\n    \
                    up ip route add 10.9.0.0/16 via 10.0.0.2 \\\n        dev bond0.100 metric 5\n    \
                    post-up ethtool -K bond0.100 tso off\n";
        let made = crate::deploy::network::tests::made(super::super::Keeper::Nobody);
        let mut nic = made.nic;
        nic.name = "bond0.100".to_owned();
        let of_card: String = of_the_card(text, &nic.name).concat();
        assert_eq!(of_card, "    vlan-raw-device bond0\n    mtu 9000\n");
        let mut bridged =
            Bridged { nic: &nic, bridge: "ovirtmgmt", of_card: &of_card, is_made: false, is_auto: false };
        let new = bridged.text(text);
        let expected = "auto bond0\nauto bond0.100 ovirtmgmt\niface bond0 inet manual\n    bond-slaves eth0 eth1\n    bond-mode 802.3ad\n\n\
                        iface bond0.100 inet manual\n    vlan-raw-device bond0\n    mtu 9000\n\niface ovirtmgmt inet static\n";
        let rest = "    address 10.0.0.5/24\n    mtu 9000\n    up ip route add 10.9.0.0/16 via 10.0.0.2 \\\n        \
                    dev ovirtmgmt metric 5\n    post-up ethtool -K bond0.100 tso off\n";
        assert_eq!(new, [expected, &making(&nic, "ovirtmgmt"), rest].concat());
    }

    #[test]
    fn only_files_that_are_included_count() {
        let source = "source /etc/network/interfaces.d/*";
        assert!(includes(source, "card") && includes(source, "card.cfg") && !includes(source, ".card.swp"));
        let source = "source interfaces.d/*.cfg";
        assert!(includes(source, "card.cfg") && !includes(source, "card"));
        let directory = "source-directory /etc/network/interfaces.d";
        assert!(includes(directory, "card") && !includes(directory, "card.bak"));
        assert!(!includes("# source /etc/network/interfaces.d/*", "card"));
    }
}
