//! The management bridge: adopted, or made over a network card.
//!
//! The card's addresses and routes move to the bridge; so does its hardware address, so that neighbours and DHCP servers
//! see no other host. Everything is worked out from what `ip -json` tells ([`picture`], [`plan`]), carried out by a
//! [`guard`] that takes it back when the gateway is lost, and written down for whoever runs the network at the next boot
//! ([`keeper`]). `ip` of iproute2 is on every host that has a network; a library for netlink would know fewer attributes
//! of routes than the program that printed them and reads them back.

mod bridge;
pub mod guard;
pub mod keeper;
#[cfg(test)]
pub(super) mod lab;
pub mod picture;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod watch;

use std::path::Path;

use ha_config::ha_toml::Hypervisor;
use uuid::Uuid;

use super::{BridgeOrigin, DeployError, Job, Network, Request, Step, StepId, World, firewall};
pub use bridge::MadeBridge;
use keeper::Keeper;
use picture::Picture;
pub use watch::Test;

/// The network of either kind of request.
pub fn of(request: &Request) -> &Network {
    match request {
        Request::FirstHost(first) => &first.network,
        Request::FurtherHost(further) => &further.network,
    }
}

/// Whether a card is wireless: an access point takes packets from one hardware address only.
pub fn is_wireless(nic: &str) -> bool {
    // Not under the root: a sandbox's host has the kernel's own.
    let card = Path::new("/sys/class/net").join(nic);
    ["wireless", "phy80211"].iter().any(|name| card.join(name).exists())
}

/// The step.
#[derive(Debug, Clone, Copy, Default)]
pub struct MakeBridge;

impl Step for MakeBridge {
    fn id(&self) -> StepId {
        StepId::Bridge
    }

    fn title(&self) -> String {
        "Configuring the management bridge".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = job.world;
        let network = of(world.request);
        let picture = Picture::look(world.tools)?;
        match &network.origin {
            BridgeOrigin::Adopted => adopt(&world, &picture, &network.bridge),
            BridgeOrigin::Over(nic) => match picture.link(nic).and_then(|link| link.master.as_deref()) {
                Some(master) if master == network.bridge => adopt(&world, &picture, &network.bridge),
                // VDSM keeps the networks of the hosts that it manages.
                _ if world.request.hypervisor() == Hypervisor::Vdsm => super::vdsm::network::make_bridge(job),
                _ => make(job, network, &picture, nic),
            },
        }
    }
}

/// What is wrong with a bridge that is to be used as it is.
pub fn check_adopted(picture: &Picture, bridge: &str) -> Result<(), String> {
    let Some(link) = picture.link(bridge) else {
        return Err(format!(
            "there is no bridge {bridge} on this host: make it, or name the card over which it is to be made"
        ));
    };
    match link.kind() {
        Some("bridge" | "openvswitch") => {}
        other => {
            let kind = other.unwrap_or("a network card");
            return Err(format!(
                "{bridge} is no bridge but {kind}: give another name, or make a bridge over it"
            ));
        }
    }
    if !link.is_up() {
        return Err(format!("the bridge {bridge} is switched off: ip link set {bridge} up"));
    }
    Ok(())
}

fn adopt(world: &World<'_>, picture: &Picture, bridge: &str) -> Result<(), DeployError> {
    check_adopted(picture, bridge).map_err(DeployError::Refused)?;
    if picture.addresses(bridge).iter().all(picture::Address::is_link_local) {
        world
            .report
            .warning(&format!("the bridge {bridge} has no address: this host is not reached through it"));
    }
    world.report.info(&format!("Bridge {bridge} already created"));
    Ok(())
}

fn make(job: &mut Job<'_>, network: &Network, picture: &Picture, nic: &str) -> Result<(), DeployError> {
    let world = job.world;
    let bridge = &network.bridge;
    let nic = plan::examine(picture, nic, bridge, is_wireless(nic))
        .map_err(|error| DeployError::Refused(error.to_string()))?;
    firewall::check_card(world.tools, &nic.name, bridge).map_err(DeployError::Refused)?;
    let keeper = Keeper::find(world.paths, world.tools, picture, &nic, bridge)?;
    let test = Test::of(network, nic.default_gateways().next());
    if test == Test::Nothing {
        world.report.warning(&format!(
            "{} leads to no gateway and no network test is configured: nobody will tell whether the host is still \
             reached, and the change is not taken back by itself",
            nic.name
        ));
    }
    let mark = format!("hosted-engine:{}", Uuid::new_v4());
    let made = MadeBridge { bridge: bridge.clone(), nic, mark, keeper };
    job.make(made.clone(), |world| guard::make(world, &made, &test))?;
    if made.keeper == Keeper::Nobody {
        world.report.warning(&format!(
            "neither NetworkManager, systemd-networkd nor ifupdown runs {}: the bridge {bridge} is gone after the next \
             boot unless you make it part of this host's own network configuration",
            made.nic.name
        ));
    }
    Ok(())
}
