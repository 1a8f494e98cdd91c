//! systemd-networkd.
//!
//! The first `.network` file that matches a link counts, so three files that sort before all others are enough, and
//! whoever wrote the card's own file (the operator, netplan, cloud-init) is not touched:
//!
//! | file | says |
//! | --- | --- |
//! | `05-hosted-engine-BRIDGE.netdev` | the bridge, with the card's hardware address |
//! | `05-hosted-engine-BRIDGE.network` | all settings of the card's file, for the bridge |
//! | `05-hosted-engine-NIC.network` | the card is a port; its `[Link]` section and its VLANs stay with it |

use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_config::Paths;
use serde::{Deserialize, Serialize};

use super::{KeptFile, MadeBridge, take_back_all, write_all};
use crate::deploy::made::MadeFile;
use crate::deploy::network::picture::Picture;
use crate::deploy::network::plan::Nic;
use crate::deploy::services_steps::asked;
use crate::deploy::{Call, DeployError, ToolError, Tools};

/// How long networkd may take to hear of a link that is there.
const HEARD: Duration = Duration::from_secs(10);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(100);

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    files: Vec<KeptFile>,
}

/// Keys of `[Network]` that name what is on top of the card itself, or below which it is.
const OF_THE_CARD: &[&str] = &[
    "VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "IPVTAP", "VXLAN", "Tunnel", "MACsec", "Bond", "Bridge", "VRF",
    "LLDP", "EmitLLDP",
];

/// The files, when networkd runs the card.
pub(super) fn find(
    paths: &Paths,
    tools: &dyn Tools,
    picture: &Picture,
    nic: &Nic,
    bridge: &str,
) -> Result<Option<Files>, DeployError> {
    let call = Call::new("networkctl").args(["--no-pager", "--lines=0", "status"]).arg(&nic.name);
    let status = match tools.ask(&call) {
        Ok(said) if said.code == 0 => said.out,
        // Not installed, or not running.
        Ok(_) | Err(ToolError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(path) = network_file(&status) else { return Ok(None) };
    let mut text = read(&paths.resolve(&path))?;
    for part in drop_ins(paths, &path)? {
        text.push('\n');
        text.push_str(&read(&part)?);
    }
    let kind = picture.link(&nic.name).and_then(|link| link.kind());
    if has_key(&text, "Network", "Bond") || kind == Some("vrf") {
        return Err(DeployError::Refused(format!(
            "{}: {} is in a bond; give the bond itself",
            path.display(),
            nic.name
        )));
    }
    let directory = paths.resolve("/etc/systemd/network");
    let file = |name: String, content: String| {
        KeptFile::New(MadeFile { path: directory.join(name), content: Some(content) })
    };
    Ok(Some(Files {
        files: vec![
            file(format!("05-hosted-engine-{bridge}.netdev"), netdev(nic, bridge)),
            file(
                format!("05-hosted-engine-{bridge}.network"),
                bridge_network(&text, bridge, &Iaids::of(&status)),
            ),
            file(format!("05-hosted-engine-{}.network", nic.name), port_network(&text, &nic.name, bridge)),
        ],
    }))
}

/// The `.network` file that networkd uses for a link, out of `networkctl status`.
fn network_file(status: &str) -> Option<PathBuf> {
    let field = |name: &str| status.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let is_managed = !field("State:").unwrap_or_default().ends_with("(unmanaged)");
    let path = field("Network File:").filter(|path| path.starts_with('/'))?;
    is_managed.then(|| PathBuf::from(path))
}

/// The numbers by which DHCP servers tell the interfaces of one host apart. networkd makes them from the name that udev
/// keeps for a card, which no bridge has: with another number the host would get another address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Iaids {
    v4: Option<u32>,
    v6: Option<u32>,
}

impl Iaids {
    /// Out of `networkctl status`. There is none for a client that tells its hardware address instead.
    fn of(status: &str) -> Self {
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.trim().strip_prefix(name))?.trim();
            let value = value.strip_prefix("IAID:").unwrap_or(value);
            let digits = value.split('/').next()?.trim().strip_prefix("0x")?;
            u32::from_str_radix(digits, 16).ok()
        };
        Self { v4: number("DHCP4 Client ID:"), v6: number("DHCP6 Client IAID:") }
    }

    /// Sections for those protocols for which the file itself says nothing.
    fn sections(&self, text: &str) -> String {
        [("DHCPv4", "DHCP", self.v4), ("DHCPv6", "DHCPv6", self.v6)]
            .into_iter()
            .filter(|(section, former, _)| !has_key(text, section, "IAID") && !has_key(text, former, "IAID"))
            .filter_map(|(section, _, iaid)| Some(format!("\n[{section}]\nIAID={}\n", iaid?)))
            .collect()
    }
}

/// What changes a `.network` file from beside it, in the order in which it counts.
fn drop_ins(paths: &Paths, file: &Path) -> Result<Vec<PathBuf>, DeployError> {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut parts = std::collections::BTreeMap::new();
    // The later directory wins where both have a part of one name.
    for base in ["/usr/lib/systemd/network", "/run/systemd/network", "/etc/systemd/network"] {
        let directory = paths.resolve(base).join(format!("{name}.d"));
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(DeployError::io("read", &directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(DeployError::io("read", &directory))?;
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                parts.insert(entry.file_name(), entry.path());
            }
        }
    }
    Ok(parts.into_values().collect())
}

fn read(path: &Path) -> Result<String, DeployError> {
    std::fs::read_to_string(path).map_err(DeployError::io("read", path))
}

/// The lines of a file, each with the section in which it is; without comments and empty ones.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().map(str::trim).filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return Some((section, ""));
        }
        (!line.is_empty() && !line.starts_with(['#', ';'])).then_some((section, line))
    })
}

fn key(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key.trim())
}

fn has_key(text: &str, section: &str, name: &str) -> bool {
    lines(text).any(|(of, line)| of == section && key(line) == name)
}

const WRITTEN_BY: &str = "# Written by hosted-engine --deploy.\n";

fn netdev(nic: &Nic, bridge: &str) -> String {
    format!(
        "{WRITTEN_BY}[NetDev]\nName={bridge}\nKind=bridge\nMACAddress={}\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n",
        nic.mac
    )
}

/// Each section is repeated as often as it was there: an `[Address]` is one address.
fn bridge_network(text: &str, bridge: &str, iaids: &Iaids) -> String {
    let mut new = format!("{WRITTEN_BY}[Match]\nName={bridge}\n");
    for (section, line) in lines(text) {
        let stays = matches!(section, "" | "Match" | "Link") || section.starts_with("SR-IOV");
        if stays || (section == "Network" && OF_THE_CARD.contains(&key(line))) {
            continue;
        }
        if line.is_empty() {
            new.extend(["\n[", section, "]\n"]);
        } else {
            new.push_str(line);
            new.push('\n');
        }
    }
    new + &iaids.sections(text)
}

fn port_network(text: &str, nic: &str, bridge: &str) -> String {
    let mut new = format!("{WRITTEN_BY}[Match]\nName={nic}\n");
    let mut network = format!("\n[Network]\nBridge={bridge}\nLinkLocalAddressing=no\n");
    for (section, line) in lines(text) {
        match section {
            "Link" if line.is_empty() => new.push_str("\n[Link]\n"),
            // The host may be online without the card's own address from now on.
            "Link" if key(line) != "RequiredForOnline" => {
                new.push_str(line);
                new.push('\n');
            }
            "Network" if OF_THE_CARD.contains(&key(line)) && key(line) != "Bridge" => {
                network.push_str(line);
                network.push('\n');
            }
            _ => {}
        }
    }
    new + &network
}

impl Files {
    pub(super) fn make(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<(), DeployError> {
        write_all(&self.files)?;
        tools.run(&Call::new("networkctl").arg("reload"))?;
        // A link that it had not managed yet is only taken up when it is told so.
        take_up(&Call::new("networkctl").args(["reconfigure", &made.nic.name, &made.bridge]), tools)?;
        // It works in the background: until it is done the gateway says nothing about what it will have done. That it does
        // not call the bridge ready in time is no failure: the gateway tells whether it is.
        tools.ask(&online(&made.bridge))?;
        Ok(())
    }

    pub(super) fn forget(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<Option<String>, DeployError> {
        let left = take_back_all(&self.files)?;
        // Before it reads again: the card's own file may fit the bridge, which has the card's hardware address.
        tools.ask(&Call::new("ip").args(["link", "delete", "dev"]).arg(&made.bridge))?;
        tools.ask(&Call::new("networkctl").arg("reload"))?;
        tools.ask(&Call::new("networkctl").arg("reconfigure").arg(&made.nic.name))?;
        tools.ask(&online(&made.nic.name))?;
        Ok(left)
    }
}

/// Has networkd take links up. The kernel tells it of a bridge that it made a moment ago as it tells everybody: until it
/// has heard, it refuses what it has made itself, and it tells nobody when it has.
fn take_up(call: &Call, tools: &dyn Tools) -> Result<(), DeployError> {
    let end = SystemClock.monotonic().plus(HEARD);
    asked(async {
        loop {
            match tools.run(call) {
                Err(ToolError::Failed { said, .. })
                    if said.contains("not known") && SystemClock.monotonic() < end =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                other => return Ok(other.map(drop)?),
            }
        }
    })?
}

/// Waits until a link has its addresses.
fn online(link: &str) -> Call {
    Call::new("/usr/lib/systemd/systemd-networkd-wait-online")
        .arg(format!("--interface={link}"))
        .arg("--timeout=30")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Recorded;

    /// As `networkctl status` of systemd 252 says it.
    const STATUS: &str =
        "\u{25cf} 2: enp1s0                                                                     
                     Link File: /usr/lib/systemd/network/99-default.link
                  Network File: /run/systemd/network/10-netplan-enp1s0.network
                          Type: ether
                         State: routable (configured)
                  Online state: online                                         
                          Path: pci-0000:01:00.0
";

    const NETWORK: &str = "[Match]\nMACAddress=52:54:00:12:34:56\nName=enp1s0\n\n[Link]\nMTUBytes=9000\nRequiredForOnline=routable\n\n\
                           [Network]\nDHCP=ipv6\nAddress=10.0.0.5/24\n# the router\nGateway=10.0.0.1\nDNS=10.0.0.53\nVLAN=storage\n\n\
                           [Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.2\nMetric=50\n\n[Route]\nDestination=10.8.0.0/16\nGateway=10.0.0.3\n";

    #[test]
    fn the_file_that_counts_is_told_only_for_a_managed_link() {
        let path = PathBuf::from("/run/systemd/network/10-netplan-enp1s0.network");
        assert_eq!(network_file(STATUS), Some(path));
        assert_eq!(network_file(&STATUS.replace("configured", "unmanaged")), None);
        assert_eq!(network_file("  Network File: n/a\n State: off (unmanaged)\n"), None);
    }

    #[test]
    fn all_settings_of_the_card_are_the_bridges_but_what_is_of_the_card() {
        assert_eq!(
            bridge_network(NETWORK, "ovirtmgmt", &Iaids::default()),
            "# Written by hosted-engine --deploy.\n[Match]\nName=ovirtmgmt\n\n[Network]\nDHCP=ipv6\nAddress=10.0.0.5/24\n\
             Gateway=10.0.0.1\nDNS=10.0.0.53\n\n[Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.2\nMetric=50\n\n\
             [Route]\nDestination=10.8.0.0/16\nGateway=10.0.0.3\n"
        );
        assert_eq!(
            port_network(NETWORK, "enp1s0", "ovirtmgmt"),
            "# Written by hosted-engine --deploy.\n[Match]\nName=enp1s0\n\n[Link]\nMTUBytes=9000\n\n[Network]\n\
             Bridge=ovirtmgmt\nLinkLocalAddressing=no\nVLAN=storage\n"
        );
    }

    #[test]
    fn the_bridge_is_the_same_client_of_dhcp_as_the_card_was() {
        let status = "               DHCP4 Client ID: IAID:0x10175c7f/DUID\n             DHCP6 Client IAID: 0xffffffff\n\
                      DHCP6 Client DUID: DUID-EN/Vendor:0000ab11c1105a88e1289d4a\n";
        let iaids = Iaids::of(status);
        assert_eq!(iaids, Iaids { v4: Some(0x1017_5c7f), v6: Some(u32::MAX) });
        let text = "[Network]\nDHCP=yes\n";
        assert_eq!(iaids.sections(text), "\n[DHCPv4]\nIAID=269966463\n\n[DHCPv6]\nIAID=4294967295\n");
        assert_eq!(iaids.sections("[DHCP]\nIAID=7\n[DHCPv6]\nIAID=8\n"), "");
        // A client that goes by its hardware address.
        assert_eq!(Iaids::of("  DHCP4 Client ID: 02:00:00:00:00:05\n"), Iaids::default());
    }

    #[test]
    fn networkd_is_told_to_take_the_bridge_up_and_to_forget_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("05-hosted-engine-ovirtmgmt.netdev");
        let files = Files {
            files: vec![KeptFile::New(MadeFile { path: path.clone(), content: Some("x".to_owned()) })],
        };
        let made = crate::deploy::network::tests::made(super::super::Keeper::Networkd(files.clone()));
        let wait = "/usr/lib/systemd/systemd-networkd-wait-online --interface=ovirtmgmt --timeout=30";
        let unheard = "Failed to reconfigure network interface ovirtmgmt: Link 3 not known\n";
        let tools = Recorded::new(&[
            ("networkctl reload", 0, "", ""),
            ("networkctl reconfigure eth0 ovirtmgmt", 1, "", unheard),
            ("networkctl reconfigure eth0 ovirtmgmt", 0, "", ""),
            (wait, 0, "", ""),
            ("ip link delete dev ovirtmgmt", 0, "", ""),
            ("networkctl reload", 0, "", ""),
            ("networkctl reconfigure eth0", 0, "", ""),
            (&wait.replace("ovirtmgmt", "eth0"), 0, "", ""),
        ]);
        files.make(&made, &tools).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
        assert_eq!(files.forget(&made, &tools).unwrap(), None);
        assert!(!path.exists());
        tools.assert_over();
    }

    #[test]
    fn drop_ins_count_in_the_order_of_their_names() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        for (directory, name, text) in [
            ("run/systemd/network", "20-b.conf", "run"),
            ("etc/systemd/network", "20-b.conf", "etc"),
            ("usr/lib/systemd/network", "10-a.conf", "lib"),
            ("etc/systemd/network", "README", "no part"),
        ] {
            let directory = root.path().join(directory).join("x.network.d");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), text).unwrap();
        }
        let parts = drop_ins(&paths, Path::new("/run/systemd/network/x.network")).unwrap();
        let texts: Vec<String> = parts.iter().map(|part| std::fs::read_to_string(part).unwrap()).collect();
        assert_eq!(texts, ["lib", "etc"]);
    }
}
