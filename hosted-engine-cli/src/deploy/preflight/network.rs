//! The management bridge, the gateway, the firewall.

use super::{Finding, Host};
use crate::deploy::firewall::{self, Manager};
use crate::deploy::network::keeper::Keeper;
use crate::deploy::network::picture::{Picture, Route};
use crate::deploy::network::{self, Test, check_adopted, is_wireless, plan, watch};
use crate::deploy::{BridgeOrigin, DeployError};

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let network = network::of(host.request);
    let picture = match Picture::look(host.tools) {
        Ok(picture) => picture,
        Err(error) => return vec![Finding::blocker(error.to_string(), "install iproute2 (iproute)")],
    };
    let mut found = Vec::new();
    let trouble = |text: String| match text.split_once(": ") {
        Some((what, advice)) => Finding::blocker(what, advice),
        None => Finding::blocker(text, "see the documentation of the management bridge"),
    };
    let bridge = match &network.origin {
        BridgeOrigin::Over(nic)
            if picture.link(nic).and_then(|link| link.master.as_ref()) == Some(&network.bridge) =>
        {
            check_adopted(&picture, &network.bridge)
        }
        BridgeOrigin::Adopted => check_adopted(&picture, &network.bridge),
        BridgeOrigin::Over(nic) => plan::examine(&picture, nic, &network.bridge, is_wireless(nic))
            .map_err(|error| error.to_string())
            .and_then(|nic| {
                firewall::check_card(host.tools, &nic.name, &network.bridge)?;
                let keeper = Keeper::find(host.paths, host.tools, &picture, &nic, &network.bridge)
                    .map_err(|error: DeployError| error.to_string())?;
                if keeper == Keeper::Nobody {
                    found.push(Finding::warning(
                        format!("neither NetworkManager, systemd-networkd nor ifupdown runs {}", nic.name),
                        format!("the bridge {} will be gone after a boot unless you make it part of this host's configuration", network.bridge),
                    ));
                }
                Ok(())
            }),
    };
    found.extend(bridge.err().map(trouble));
    let link = match &network.origin {
        BridgeOrigin::Over(nic) => nic,
        BridgeOrigin::Adopted => &network.bridge,
    };
    let routes = picture.routes(link);
    let gateway = routes.iter().find_map(Route::default_gateway);
    found.extend(check_gateway(host, &Test::of(network, gateway)));
    found
}

fn check_gateway(host: &Host<'_>, test: &Test) -> Option<Finding> {
    if *test == Test::Nothing {
        return Some(Finding::warning(
            "there is no network test and no way to a gateway",
            "choose ping, dns or tcp: without a test a host that lost its network keeps the VM",
        ));
    }
    let result = watch::Watch::new(host.paths, test, watch::PATIENCE)
        .map_err(|error| error.to_string())
        .and_then(|mut watch| watch.before());
    let why = result.err()?;
    let what = format!("{} does not answer", test.describe());
    Some(Finding::blocker(what, format!("every host would count as cut off and get no VM; {why}")))
}

pub(super) fn check_firewall(host: &Host<'_>) -> Vec<Finding> {
    let network = network::of(host.request);
    let wanted = firewall::list(&firewall::wanted(host.paths, host.request));
    match Manager::find(host.paths, host.tools, network) {
        Ok(Manager::Nobody) => Vec::new(),
        Ok(Manager::Other(who)) => vec![Finding::warning(who, format!("open these ports there: {wanted}"))],
        Ok(_) if !network.open_firewall => {
            vec![Finding::warning(
                "the firewall is not to be configured",
                format!("open these ports yourself: {wanted}"),
            )]
        }
        Ok(_) => Vec::new(),
        Err(error) => vec![Finding::warning(
            format!("the firewall does not tell what it lets in ({error})"),
            format!("see that these ports are open: {wanted}"),
        )],
    }
}
