//! `NetworkManager`.
//!
//! The bridge gets a profile with the hardware address and all IP settings of the card's profile, DHCP included; the
//! card's own profile becomes that of a port. Bonds and VLAN devices keep their profile, whose members refer to it.

use serde::{Deserialize, Serialize};

use super::MadeBridge;
use crate::deploy::network::plan::Nic;
use crate::deploy::{Call, DeployError, ToolError, Tools};

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiles {
    /// UUID of the card's profile.
    card: String,
    /// Those of its settings which become the bridge's: property and value.
    settings: Vec<(String, String)>,
    /// As which client of DHCP the card came, for the bridge alone.
    #[serde(default)]
    client: Vec<(String, String)>,
    /// Name of the bridge's profile, which was not there before.
    bridge: String,
    /// Whether the card's profile comes up at boot.
    is_automatic: bool,
}

/// Settings of an IP version that are carried over.
const SETTINGS: &[&str] = &[
    "method",
    "dns",
    "dns-search",
    "dns-options",
    "dns-priority",
    "addresses",
    "gateway",
    "routes",
    "route-metric",
    "route-table",
    "routing-rules",
    "ignore-auto-routes",
    "ignore-auto-dns",
    "dhcp-client-id",
    "dhcp-duid",
    "dhcp-iaid",
    "dhcp-timeout",
    "dhcp-send-hostname",
    "dhcp-hostname",
    "dhcp-fqdn",
    "dhcp-hostname-flags",
    "dhcp-reject-servers",
    "dhcp-vendor-class-identifier",
    "replace-local-rule",
    "link-local",
    "auto-route-ext-gw",
    "mtu",
    "never-default",
    "may-fail",
    "required-timeout",
    "dad-timeout",
    "ip6-privacy",
    "addr-gen-mode",
    "token",
    "ra-timeout",
];

/// Settings of the connection itself that go with its addresses. The zone is the firewall's: packets come in through the
/// bridge from now on.
const OF_CONNECTION: &[&str] = &["zone", "metered", "mdns", "llmnr", "dns-over-tls", "stable-id"];

/// How long a profile may take to come up: DHCP needs a moment.
const UP: &str = "25";

fn nmcli() -> Call {
    Call::new("nmcli")
}

/// The profiles, when `NetworkManager` runs the card.
pub(super) fn find(tools: &dyn Tools, nic: &Nic, bridge: &str) -> Result<Option<Profiles>, DeployError> {
    let call = nmcli().args(["-g", "GENERAL.STATE,GENERAL.CON-UUID", "device", "show"]).arg(&nic.name);
    let device = match tools.ask(&call) {
        Ok(said) if said.code == 0 => said.out,
        // Not installed, or not running.
        Ok(_) | Err(ToolError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut lines = device.lines();
    let state = lines.next().unwrap_or_default();
    let Some(card) = lines.next().filter(|uuid| !uuid.is_empty() && state.starts_with("100")) else {
        // Unmanaged, or not connected: somebody else gave the card its addresses.
        return Ok(None);
    };
    let call = nmcli().args(["-t", "-e", "no", "-f", "connection,ipv4,ipv6", "connection", "show"]).arg(card);
    let text = tools.run(&call)?.out;
    let all: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let of =
        |name: &str| all.iter().find(|(property, _)| *property == name).map_or("", |(_, value)| value.trim());
    let is_carried = |property: &str| {
        let setting = property.strip_prefix("ipv4.").or_else(|| property.strip_prefix("ipv6."));
        setting.is_some_and(|setting| SETTINGS.contains(&setting))
            || property.strip_prefix("connection.").is_some_and(|name| OF_CONNECTION.contains(&name))
    };
    // The method last: `manual` is refused as long as there is no address.
    let mut settings: Vec<_> = all
        .iter()
        .filter(|(property, value)| is_carried(property) && !value.trim().is_empty() && *value != "--")
        .map(|(property, value)| ((*property).to_owned(), value.trim().to_owned()))
        .collect();
    settings.sort_by_key(|(property, _)| property.ends_with(".method"));
    let name = format!("hosted-engine-{bridge}");
    if tools.ask(&nmcli().args(["-g", "connection.uuid", "connection", "show"]).arg(&name))?.code == 0 {
        return Err(DeployError::Refused(format!(
            "NetworkManager has a profile {name} already: use it (nmcli connection up {name}) and start again, or \
             remove it (nmcli connection delete {name})"
        )));
    }
    let is_automatic = of("connection.autoconnect") != "no";
    let client = client(tools, nic, |property| !of(property).is_empty())?;
    Ok(Some(Profiles { card: card.to_owned(), settings, client, bridge: name, is_automatic }))
}

/// What the card told DHCP servers of itself, where its profile leaves that to `NetworkManager`: some of it is made of the
/// link's name or of the profile, and as another client the host would get another address.
fn client(
    tools: &dyn Tools,
    nic: &Nic,
    is_said: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, DeployError> {
    let call = nmcli().args(["-t", "-e", "no", "-f", "DHCP4,DHCP6", "device", "show"]).arg(&nic.name);
    let said = tools.run(&call)?.out;
    let known = [("dhcp_client_identifier", "ipv4.dhcp-client-id"), ("iaid", "ipv6.dhcp-iaid")];
    let told = |option: &str| {
        let mut options = said.lines().filter_map(|line| line.split_once("]:")?.1.split_once(" = "));
        options.find(|(name, _)| *name == option).map(|(_, value)| value.trim().to_owned())
    };
    let missing = known.into_iter().filter(|(_, property)| !is_said(property));
    Ok(missing.filter_map(|(option, property)| Some((property.to_owned(), told(option)?))).collect())
}

impl Profiles {
    fn settings(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().flat_map(|(property, value)| [property.as_str(), value.as_str()])
    }

    pub(super) fn make(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<(), DeployError> {
        let add = nmcli()
            .args(["connection", "add", "type", "bridge", "con-name"])
            .arg(&self.bridge)
            .args([
                "ifname",
                &made.bridge,
                "connection.autoconnect",
                if self.is_automatic { "yes" } else { "no" },
            ])
            .args(["connection.autoconnect-slaves", "1", "bridge.stp", "no", "bridge.forward-delay", "0"])
            .args(["bridge.mac-address", &made.nic.mac])
            .args(self.client.iter().flat_map(|(property, value)| [property, value]))
            .args(self.settings());
        tools.run(&add)?;
        let modify = nmcli().args(["connection", "modify"]).arg(&self.card);
        tools.run(&modify.args(["connection.master", &made.bridge, "connection.slave-type", "bridge"]))?;
        for profile in [&self.bridge, &self.card] {
            tools.run(&nmcli().args(["-w", UP, "connection", "up"]).arg(profile))?;
        }
        Ok(())
    }

    pub(super) fn forget(&self, _: &MadeBridge, tools: &dyn Tools) -> Result<Option<String>, DeployError> {
        let modify = nmcli().args(["connection", "modify"]).arg(&self.card);
        let modify =
            modify.args(["connection.master", "", "connection.slave-type", ""]).args(self.settings());
        let said = tools.ask(&modify)?;
        // Not there when it was cut before it was added.
        tools.ask(&nmcli().args(["connection", "delete"]).arg(&self.bridge))?;
        tools.ask(&nmcli().args(["-w", UP, "connection", "up"]).arg(&self.card))?;
        Ok((said.code != 0)
            .then(|| format!("the profile {} of NetworkManager: {}", self.card, said.err.trim())))
    }
}
