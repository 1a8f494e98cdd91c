//! The management bridge by VDSM, which keeps the host's networks.
//!
//! VDSM puts everything back by itself unless somebody confirms that the host is still reached. Here that is whoever
//! deploys: it confirms once the gateway answers after the change.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vdsm_client::{Client, NetworkCapabilities, code};

use super::{ask, while_};
use crate::deploy::{BridgeOrigin, Call, DeployError, Job, Network, Request, Tools, Undo, Undone, World};

/// How long VDSM waits for the confirmation before it puts the networks back.
const CONNECTIVITY: Duration = Duration::from_mins(2);
/// Between two looks for the gateway.
const LOOK: Duration = Duration::from_secs(1);

/// A network of VDSM's that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdsmNetwork {
    /// Its name, which its bridge has.
    pub name: String,
    /// The network card, bond or VLAN below it.
    pub device: String,
}

fn network<'a>(world: &World<'a>) -> &'a Network {
    match world.request {
        Request::FirstHost(first) => &first.network,
        Request::FurtherHost(further) => &further.network,
    }
}

/// Makes the management bridge, unless VDSM has it already.
///
/// # Errors
/// The device that VDSM does not know; that VDSM put the networks back; or what it says.
pub fn make_bridge(job: &mut Job<'_>) -> Result<(), DeployError> {
    const LOOKING: &str = "looking at the host's networks";
    let wanted = network(&job.world);
    let capabilities =
        ask(&job.world, async |vdsm| vdsm.network_capabilities().await.map_err(while_(LOOKING)))?;
    let name = &wanted.bridge;
    if capabilities.find("networks", name).is_some() {
        return Ok(());
    }
    let device = match &wanted.origin {
        BridgeOrigin::Over(device) => device,
        BridgeOrigin::Adopted if capabilities.find("bridges", name).is_some() => {
            job.world.report.warning(&format!(
                "the bridge {name} is none of VDSM's networks: it is used as it is, and the engine takes it over when \
                 this host is added"
            ));
            return Ok(());
        }
        BridgeOrigin::Adopted => {
            return Err(DeployError::Refused(format!(
                "there is no bridge {name} on this host: name the network card to make it over"
            )));
        }
    };
    let definition = definition(&capabilities, device)?;
    let networks: Map<String, Value> = [(name.clone(), Value::Object(definition))].into_iter().collect();
    let made = VdsmNetwork { name: name.clone(), device: device.clone() };
    job.make(made, |world| {
        ask(world, async |vdsm| set_up(vdsm, world.tools, &networks, wanted.gateway, CONNECTIVITY).await)
    })
}

/// Sets it up, confirms once the gateway answers, and has it stay after a boot.
async fn set_up(
    vdsm: &Client,
    tools: &dyn Tools,
    networks: &Map<String, Value>,
    gateway: Option<IpAddr>,
    patience: Duration,
) -> Result<(), DeployError> {
    const WHAT: &str = "setting the management network up";
    let set = async {
        vdsm.setup_networks(networks, patience).await.map_err(|error| match error.code() {
            Some(code::LOST_CONNECTION) => DeployError::Refused(format!(
                "{WHAT}: the gateway did not answer within {} s, and VDSM has put the networks back; check the gateway's \
                 address and the cable, and try again",
                patience.as_secs()
            )),
            Some(_) | None => while_(WHAT)(error),
        })
    };
    let confirm = async {
        loop {
            // A confirmation before the change does not count with VDSM.
            if gateway.is_none_or(|gateway| answers(tools, gateway)) {
                // One that does not arrive is followed by another.
                let _ = vdsm.confirm_connectivity().await;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        set = set => set?,
        () = confirm => {}
    }
    vdsm.set_safe_network_config().await.map_err(while_("keeping the networks over a boot"))
}

fn answers(tools: &dyn Tools, gateway: IpAddr) -> bool {
    let call = Call::new("ping").args(["-c", "1", "-W", "1"]).arg(gateway.to_string());
    tools.ask(&call.within(Duration::from_secs(5))).is_ok_and(|said| said.code == 0)
}

/// What VDSM is told of a network over `device`: addresses, routes, name servers and frame size as the device has them
/// now. VDSM bridges it unless it is told otherwise, and would take 1500 for a frame size that it is not told.
fn definition(capabilities: &NetworkCapabilities, device: &str) -> Result<Map<String, Value>, DeployError> {
    let text = |port: &Map<String, Value>, key: &str| {
        port.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let truth =
        |port: &Map<String, Value>, key: &str| port.get(key).and_then(Value::as_bool).unwrap_or(false);
    let mut all = Map::new();
    let port = if let Some(vlan) = capabilities.find("vlans", device) {
        let below = text(vlan, "iface").ok_or_else(|| {
            DeployError::Refused(format!("VDSM does not say on what device the VLAN {device} is"))
        })?;
        all.insert("vlan".to_owned(), vlan.get("vlanid").cloned().unwrap_or(Value::Null));
        let kind = if capabilities.find("bondings", &below).is_some() { "bonding" } else { "nic" };
        all.insert(kind.to_owned(), below.into());
        vlan
    } else if let Some(bond) = capabilities.find("bondings", device) {
        all.insert("bonding".to_owned(), device.into());
        bond
    } else if let Some(nic) = capabilities.find("nics", device) {
        all.insert("nic".to_owned(), device.into());
        nic
    } else {
        return Err(DeployError::Refused(format!(
            "VDSM knows no network card, bond or VLAN {device} on this host"
        )));
    };
    if truth(port, "dhcpv4") {
        all.insert("bootproto".to_owned(), "dhcp".into());
    } else if let Some(address) = text(port, "addr") {
        all.insert("ipaddr".to_owned(), address.into());
        for key in ["netmask", "gateway"] {
            all.extend(text(port, key).map(|value| (key.to_owned(), value.into())));
        }
    }
    if truth(port, "dhcpv6") || truth(port, "ipv6autoconf") {
        for key in ["dhcpv6", "ipv6autoconf"] {
            all.insert(key.to_owned(), truth(port, key).into());
        }
    } else {
        let addresses = port.get("ipv6addrs").and_then(Value::as_array).into_iter().flatten();
        let global = addresses.filter_map(Value::as_str).find(|address| !address.starts_with("fe80:"));
        all.extend(global.map(|address| ("ipv6addr".to_owned(), address.into())));
        let gateway = text(port, "ipv6gateway").filter(|gateway| gateway != "::");
        all.extend(gateway.map(|gateway| ("ipv6gateway".to_owned(), gateway.into())));
    }
    let is_default = truth(port, "ipv4defaultroute") || all.contains_key("ipv6gateway");
    all.insert("defaultRoute".to_owned(), is_default.into());
    let servers = capabilities.raw.get("nameservers").filter(|servers| servers.is_array() && is_default);
    all.extend(servers.map(|servers| ("nameservers".to_owned(), servers.clone())));
    let mtu = port.get("mtu").and_then(|mtu| mtu.as_u64().or_else(|| mtu.as_str()?.parse().ok()));
    all.extend(mtu.map(|mtu| ("mtu".to_owned(), mtu.into())));
    Ok(all)
}

impl Undo for VdsmNetwork {
    fn describe(&self) -> String {
        format!("VDSM's network {} over {}", self.name, self.device)
    }

    fn describe_undo(&self) -> String {
        format!("stays: VDSM would take the addresses of {} away with it", self.device)
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let capabilities = ask(world, async |vdsm| {
            vdsm.network_capabilities().await.map_err(while_("looking at the host's networks"))
        })?;
        if capabilities.find("networks", &self.name).is_none() {
            return Ok(Undone::Absent);
        }
        Ok(Undone::LeftAlone(format!(
            "the host would lose the addresses of {} with it; the next deployment uses it as it is",
            self.device
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::deploy::storage::testing::first_host;
    use crate::deploy::storage::vdsm::tests::Host;
    use crate::deploy::testing::Heard;
    use crate::deploy::{self, FirstHost, Journal, Said, Step, StepId, StorageKind, ToolError};

    struct Bridge;

    impl Step for Bridge {
        fn id(&self) -> StepId {
            StepId::Bridge
        }

        fn title(&self) -> String {
            "test".to_owned()
        }

        fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
            make_bridge(job)
        }
    }

    /// Whether the gateway answers.
    struct Gateway(bool);

    impl Tools for Gateway {
        fn ask(&self, call: &Call) -> Result<Said, ToolError> {
            assert_eq!(call.program, "ping");
            Ok(Said { code: i32::from(!self.0), ..Said::default() })
        }
    }

    fn host() -> Host {
        let first = first_host(StorageKind::Nfs, "server:/srv/he");
        let network = Network {
            origin: BridgeOrigin::Over("eth0".to_owned()),
            gateway: Some([192, 0, 2, 1].into()),
            ..first.network.clone()
        };
        Host::on(FirstHost { network, ..first })
    }

    fn seen(world: &World<'_>) -> NetworkCapabilities {
        ask(world, async |vdsm| vdsm.network_capabilities().await.map_err(while_("test"))).unwrap()
    }

    #[test]
    fn the_bridge_is_confirmed_once_the_gateway_answers_and_stays() {
        let host = host();
        let heard = Heard::default();
        let world = host.site.world(&host.request, &Gateway(true), &heard);
        let steps: Vec<Box<dyn Step>> = vec![Box::new(Bridge)];
        let mut journal = Journal::begin(&host.journal(), 0, host.request.clone()).unwrap();
        deploy::run(&steps, world, &mut journal).unwrap();
        let bridge = seen(&world).find("networks", "ovirtmgmt").unwrap().clone();
        let of = |key: &str| bridge[key].clone();
        assert_eq!(
            (of("addr"), of("gateway"), of("ports")),
            ("192.0.2.5".into(), "192.0.2.1".into(), json!(["eth0"]))
        );
        assert_eq!(of("mtu"), 9000);
        let made = VdsmNetwork { name: "ovirtmgmt".to_owned(), device: "eth0".to_owned() };
        assert!(matches!(made.undo(&world).unwrap(), Undone::LeftAlone(_)));
    }

    #[test]
    fn without_an_answer_of_the_gateway_vdsm_puts_the_networks_back() {
        let host = host();
        let heard = Heard::default();
        let world = host.site.world(&host.request, &Gateway(false), &heard);
        let before = seen(&world);
        let definition = definition(&before, "eth0").unwrap();
        let networks: Map<String, Value> =
            [("ovirtmgmt".to_owned(), Value::Object(definition))].into_iter().collect();
        let error = ask(&world, async |vdsm| {
            set_up(vdsm, world.tools, &networks, Some([192, 0, 2, 1].into()), Duration::from_secs(1)).await
        });
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("the gateway did not answer within 1 s, and VDSM has put the networks back"),
            "{error}"
        );
        assert_eq!(seen(&world), before);
        let made = VdsmNetwork { name: "ovirtmgmt".to_owned(), device: "eth0".to_owned() };
        assert_eq!(made.undo(&world).unwrap(), Undone::Absent);
    }

    fn capabilities() -> NetworkCapabilities {
        NetworkCapabilities {
            raw: json!({
                "networks": {}, "bridges": {}, "nameservers": ["192.0.2.53"],
                "nics": {
                    "eth0": {"addr": "192.0.2.5", "netmask": "255.255.255.0", "gateway": "192.0.2.1", "dhcpv4": false,
                             "ipv4defaultroute": true, "ipv6addrs": ["fe80::1/64", "2001:db8::5/64"],
                             "ipv6gateway": "::", "mtu": 9000},
                    "eth1": {"addr": "198.51.100.7", "dhcpv4": true, "ipv4defaultroute": false, "ipv6autoconf": true},
                },
                "bondings": {"bond0": {"addr": ""}},
                "vlans": {"bond0.7": {"iface": "bond0", "vlanid": 7, "addr": "203.0.113.9", "netmask": "255.255.255.0", "mtu": "1500"}},
            }),
        }
    }

    #[test]
    fn the_network_takes_over_what_the_device_has() {
        let of = |device: &str| definition(&capabilities(), device).map(Value::Object);
        assert_eq!(
            of("eth0").unwrap(),
            json!({"nic": "eth0", "ipaddr": "192.0.2.5", "netmask": "255.255.255.0", "gateway": "192.0.2.1",
                   "ipv6addr": "2001:db8::5/64", "defaultRoute": true, "nameservers": ["192.0.2.53"], "mtu": 9000})
        );
        assert_eq!(
            of("eth1").unwrap(),
            json!({"nic": "eth1", "bootproto": "dhcp", "dhcpv6": false, "ipv6autoconf": true, "defaultRoute": false})
        );
        assert_eq!(
            of("bond0.7").unwrap(),
            json!({"bonding": "bond0", "vlan": 7, "ipaddr": "203.0.113.9", "netmask": "255.255.255.0",
                   "defaultRoute": false, "mtu": 1500})
        );
        assert_eq!(of("bond0").unwrap(), json!({"bonding": "bond0", "defaultRoute": false}));
        let error = of("eth9").unwrap_err().to_string();
        assert_eq!(error, "VDSM knows no network card, bond or VLAN eth9 on this host");
    }
}
