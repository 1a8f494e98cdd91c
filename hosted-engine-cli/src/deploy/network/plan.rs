//! What must be said to `ip` so that a bridge stands over a network card, or stands no more. Pure: the commands follow
//! from how things are now, and so they are right after whatever was cut before.

use serde::{Deserialize, Serialize};

use super::picture::{Address, OddRoute, Picture, Route, Same};

/// Longest name of a link.
const NAME_MAX: usize = 15;

/// A network card before it went into the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its hardware address, which the bridge takes.
    pub mac: String,
    mtu: u32,
    is_up: bool,
    is_without_own_ipv6: bool,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Nic {
    /// Its routers to everywhere.
    pub fn default_gateways(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(Route::default_gateway)
    }

    /// The card with those addresses and routes that are its own: not given for a time by DHCP or by a router.
    #[must_use]
    pub fn without_lent(&self) -> Self {
        let lent = self.addresses.iter().filter(|address| address.is_lent());
        let lent: Vec<&str> = lent.map(Address::local).collect();
        let addresses = self.addresses.iter().filter(|address| !address.is_lent()).cloned().collect();
        let routes = self.routes.iter().filter(|route| !route.is_lent(&lent)).cloned().collect();
        Self { addresses, routes, ..self.clone() }
    }

    /// An IPv4 address that DHCP gave.
    pub fn has_lent_ipv4(&self) -> bool {
        self.addresses.iter().any(|address| address.family == "inet" && address.is_lent())
    }
}

/// Why no bridge can be made over a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Bad name.
    #[error("{0:?} cannot be a bridge's name: give 1 to {NAME_MAX} letters, digits, - or _")]
    Name(String),
    /// No such link.
    #[error("there is no network card {name} on this host; there are: {others}")]
    Missing {
        /// What was asked for.
        name: String,
        /// What there is.
        others: String,
    },
    /// Something else has the bridge's name.
    #[error("{bridge} is there already and is {kind}: choose another name for the bridge, or remove it")]
    Taken {
        /// The name.
        bridge: String,
        /// What it is.
        kind: String,
    },
    /// The bridge is there already, with other cards or with none.
    #[error(
        "the bridge {bridge} is there already, and {nic} is not in it: use the bridge as it is, or add {nic} to it"
    )]
    Elsewhere {
        /// The bridge.
        bridge: String,
        /// The card.
        nic: String,
    },
    /// Part of something.
    #[error(
        "{nic} is in {master}: give {master} itself when it is a bond, take {nic} out of it, or give another card"
    )]
    Enslaved {
        /// The card.
        nic: String,
        /// What it is in.
        master: String,
    },
    /// A kind that no bridge forwards for.
    #[error(
        "{nic} is {kind}, over which no VM can be reached: give an Ethernet card, a bond or a VLAN device"
    )]
    Kind {
        /// The card.
        nic: String,
        /// What it is.
        kind: String,
    },
    /// A bond whose packets come back to the bridge.
    #[error(
        "the bond {nic} works in mode {mode}, which fits no bridge: use active-backup, balance-xor, broadcast or 802.3ad"
    )]
    BondMode {
        /// The bond.
        nic: String,
        /// Its mode.
        mode: String,
    },
    /// Nothing at the other end of the cable.
    #[error("{0} has no link: is its cable plugged in, and is it switched on (ip link set {0} up)?")]
    NoCarrier(String),
    /// Routing by rules.
    #[error(
        "rule {priority} of `ip rule` names {nic}, which would not be right for the bridge: remove it first"
    )]
    Rule {
        /// The card.
        nic: String,
        /// The rule's priority.
        priority: u64,
    },
    /// A route.
    #[error(transparent)]
    Route(#[from] OddRoute),
}

/// Whether a name can be a bridge's.
///
/// # Errors
/// [`Unfit::Name`].
pub fn check_name(bridge: &str) -> Result<(), Unfit> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_good =
        (1..=NAME_MAX).contains(&bridge.len()) && bridge.chars().all(is_plain) && !bridge.starts_with('-');
    if is_good { Ok(()) } else { Err(Unfit::Name(bridge.to_owned())) }
}

/// The card as it is now; [`Err`] when it cannot go into a new bridge. `is_wireless` is known from elsewhere.
pub fn examine(picture: &Picture, name: &str, bridge: &str, is_wireless: bool) -> Result<Nic, Unfit> {
    check_name(bridge)?;
    let nic = || name.to_owned();
    let Some(link) = picture.link(name) else {
        let is_card =
            |link: &&super::picture::Link| link.link_type == "ether" && link.kind() != Some("bridge");
        let others: Vec<&str> = picture.links.iter().filter(is_card).map(|link| link.name.as_str()).collect();
        return Err(Unfit::Missing { name: nic(), others: others.join(", ") });
    };
    if let Some(there) = picture.link(bridge) {
        if there.kind() != Some("bridge") {
            let kind = there
                .kind()
                .map_or_else(|| "a network card".to_owned(), |kind| format!("of the kind {kind}"));
            return Err(Unfit::Taken { bridge: bridge.to_owned(), kind });
        }
        if link.master.as_deref() != Some(bridge) {
            return Err(Unfit::Elsewhere { bridge: bridge.to_owned(), nic: nic() });
        }
    }
    if let Some(master) = &link.master {
        return Err(Unfit::Enslaved { nic: nic(), master: master.clone() });
    }
    let odd_kind = match link.kind() {
        _ if is_wireless => Some("wireless"),
        _ if link.link_type == "loopback" => Some("the loopback"),
        _ if link.link_type != "ether" => Some(link.link_type.as_str()),
        Some("bridge") => Some("a bridge itself"),
        Some(
            kind @ ("macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "tun" | "wireguard" | "dummy" | "ifb"),
        ) => Some(kind),
        _ => None,
    };
    if let Some(kind) = odd_kind {
        return Err(Unfit::Kind { nic: nic(), kind: kind.to_owned() });
    }
    if let Some(mode @ ("balance-rr" | "balance-tlb" | "balance-alb")) = link.bond_mode() {
        return Err(Unfit::BondMode { nic: nic(), mode: mode.to_owned() });
    }
    if !link.has_carrier() {
        return Err(Unfit::NoCarrier(nic()));
    }
    if let Some((_, priority)) = picture.rules.iter().find(|(named, _)| named == name) {
        return Err(Unfit::Rule { nic: nic(), priority: *priority });
    }
    let routes = picture.routes(name);
    for route in &routes {
        route.words(name, bridge)?;
    }
    Ok(Nic {
        name: nic(),
        mac: link.mac.clone(),
        mtu: link.mtu,
        is_up: link.is_up(),
        is_without_own_ipv6: link.is_without_own_ipv6(),
        addresses: picture.addresses(name),
        routes,
    })
}

/// Commands for `ip -batch`. What is of one IP version begins with `-4` or `-6`, as `ip`'s own first argument would.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What may be done already by the kernel or by a network manager: errors do not count.
    pub lenient: Vec<String>,
    /// What must work.
    pub strict: Vec<String>,
}

/// Makes the bridge and puts the card into it, as far as that is not so yet. Addresses follow with [`move_addresses`],
/// then routes with [`move_routes`], each from a new look.
pub fn make_bridge(now: &Picture, nic: &Nic, bridge: &str, mark: &str) -> Batch {
    let name = &nic.name;
    let mut strict = Vec::new();
    let link = now.link(bridge);
    if link.is_none() {
        // No spanning tree and no delay: a new port forwards at once, and the gateway is not lost for 15 s.
        strict.push(format!(
            "link add name {bridge} address {} type bridge stp_state 0 forward_delay 0",
            nic.mac
        ));
    }
    if link.and_then(|link| link.alias.as_deref()) != Some(mark) {
        strict.push(format!("link set dev {bridge} alias {mark}"));
    }
    if nic.is_without_own_ipv6 && !link.is_some_and(super::picture::Link::is_without_own_ipv6) {
        strict.push(format!("link set dev {bridge} addrgenmode none"));
    }
    if now.link(name).is_some_and(|link| link.master.as_deref() != Some(bridge)) {
        strict.push(format!("link set dev {name} master {bridge}"));
    }
    if link.is_none_or(|link| link.mtu != nic.mtu) {
        strict.push(format!("link set dev {bridge} mtu {}", nic.mtu));
    }
    strict.push(format!("link set dev {name} up"));
    strict.push(format!("link set dev {bridge} up"));
    Batch { lenient: Vec::new(), strict }
}

/// Takes addresses and routes from the card, and gives the bridge those addresses that it has not.
pub fn move_addresses(now: &Picture, nic: &Nic, bridge: &str) -> Batch {
    let name = &nic.name;
    let mut lenient = remove_routes(now, name);
    if !now.addresses(name).is_empty() {
        lenient.push(format!("address flush dev {name}"));
    }
    // The bridge makes its own link-local address, from the same hardware address.
    let wanted = nic.addresses.iter().filter(|address| nic.is_without_own_ipv6 || !address.is_link_local());
    Batch { lenient, strict: add_addresses(now, wanted, bridge, name) }
}

/// Gives the bridge those of the card's routes that it has not.
pub fn move_routes(now: &Picture, nic: &Nic, bridge: &str, same: Same) -> Batch {
    Batch { lenient: Vec::new(), strict: add_routes(now, &nic.routes, &nic.name, bridge, same) }
}

/// Takes the card out of the bridge and removes the bridge, as far as they are there.
pub fn remove_bridge(now: &Picture, nic: &Nic, bridge: &str) -> Batch {
    let mut strict = Vec::new();
    if now.link(bridge).is_some() {
        strict.push(format!("link delete dev {bridge}"));
    }
    let link = now.link(&nic.name);
    if nic.is_up && link.is_some_and(|link| !link.is_up()) {
        strict.push(format!("link set dev {} up", nic.name));
    }
    Batch { lenient: Vec::new(), strict }
}

/// Gives the card those of its former addresses that it has not.
pub fn restore_addresses(now: &Picture, nic: &Nic) -> Batch {
    Batch { lenient: Vec::new(), strict: add_addresses(now, nic.addresses.iter(), &nic.name, &nic.name) }
}

/// Gives the card those of its former routes that it has not.
pub fn restore_routes(now: &Picture, nic: &Nic, same: Same) -> Batch {
    Batch { lenient: Vec::new(), strict: add_routes(now, &nic.routes, &nic.name, &nic.name, same) }
}

fn remove_routes(now: &Picture, device: &str) -> Vec<String> {
    let routes = now.routes(device).into_iter().rev();
    routes
        .filter_map(|route| {
            let words = route.words(device, device).ok()?;
            Some(format!("{} route delete {words}", route.version.option()))
        })
        .collect()
}

fn add_addresses<'a>(
    now: &Picture,
    wanted: impl Iterator<Item = &'a Address>,
    device: &str,
    before_on: &str,
) -> Vec<String> {
    let there = now.addresses(device);
    let missing = |address: &Address| {
        let mut commands = address.add(device, before_on);
        match there.iter().find(|other| address.is_same(other)) {
            // Cut between its adding and the change of its flags.
            Some(other) if other.is_unasked() && !address.is_unasked() => {
                commands.split_off(commands.len() - 1)
            }
            Some(_) => Vec::new(),
            None => commands,
        }
    };
    wanted.flat_map(missing).collect()
}

fn add_routes(now: &Picture, wanted: &[Route], before_on: &str, device: &str, same: Same) -> Vec<String> {
    let there = now.routes(device);
    let missing = wanted
        .iter()
        .filter(|route| !there.iter().any(|other| route.is_same(other, before_on, device, same)));
    missing
        .filter_map(|route| {
            // Checked when the card was examined.
            let words = route.words(before_on, device).ok()?;
            Some(format!("{} route add {words}", route.version.option()))
        })
        .collect()
}
