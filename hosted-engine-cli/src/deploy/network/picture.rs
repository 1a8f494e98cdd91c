//! This host's links, addresses and routes, as `ip -json` tells them, and as `ip` is told to make them again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::deploy::{Call, DeployError, Tools};

/// What `ip` says of a time that has no end.
const FOREVER: u64 = u32::MAX as u64;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Its name.
    #[serde(rename = "ifname")]
    pub name: String,
    flags: Vec<String>,
    /// Largest packet.
    pub mtu: u32,
    /// Hardware address.
    #[serde(rename = "address", default)]
    pub mac: String,
    /// The bridge, bond or team that it is in.
    pub master: Option<String>,
    /// `ether`, `loopback`, `none`, …
    pub link_type: String,
    /// Free text on the link.
    #[serde(rename = "ifalias")]
    pub alias: Option<String>,
    #[serde(rename = "inet6_addr_gen_mode")]
    addr_gen_mode: Option<String>,
    linkinfo: Option<LinkInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    info_data: Option<Value>,
}

impl Link {
    /// `bridge`, `bond`, `vlan`, …; nothing for a card.
    pub fn kind(&self) -> Option<&str> {
        self.linkinfo.as_ref()?.info_kind.as_deref()
    }

    /// Mode of a bond: `active-backup`, `802.3ad`, …
    pub fn bond_mode(&self) -> Option<&str> {
        self.linkinfo.as_ref()?.info_data.as_ref()?.get("mode")?.as_str()
    }

    /// An administrator switched it on.
    pub fn is_up(&self) -> bool {
        self.has("UP")
    }

    /// A cable with somebody at its other end.
    pub fn has_carrier(&self) -> bool {
        self.has("LOWER_UP") && !self.has("NO-CARRIER")
    }

    /// The kernel gives it no link-local IPv6 address: a network manager does, or nobody.
    pub fn is_without_own_ipv6(&self) -> bool {
        self.addr_gen_mode.as_deref() == Some("none")
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }
}

/// IPv4 or IPv6, for `ip -4` and `ip -6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// The option of `ip`.
    pub fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `inet` or `inet6`.
    pub family: String,
    local: String,
    /// The other end, where there is one.
    #[serde(rename = "address", skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    prefixlen: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<String>,
    /// `global`, `link`, …
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
    #[serde(rename = "valid_life_time")]
    valid: u64,
    #[serde(rename = "preferred_life_time")]
    preferred: u64,
    /// The rest: flags, each with `true`.
    #[serde(flatten)]
    flags: serde_json::Map<String, Value>,
}

impl Address {
    /// `10.0.0.1/24`
    pub fn text(&self) -> String {
        format!("{}/{}", self.local, self.prefixlen)
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.get(flag).is_some_and(|value| value == true)
    }

    /// Nobody was asked whether he has it, too.
    pub fn is_unasked(&self) -> bool {
        self.has("nodad")
    }

    /// DHCP or a router gave it: its time is limited, or it is made of a prefix that a router told.
    pub fn is_lent(&self) -> bool {
        self.valid != FOREVER || self.has("dynamic") || self.has("mngtmpaddr")
    }

    /// Without its prefix.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// IPv6 of the link itself.
    pub fn is_link_local(&self) -> bool {
        self.family == "inet6" && self.scope == "link"
    }

    /// Two that are the same to the kernel.
    pub fn is_same(&self, other: &Self) -> bool {
        self.family == other.family && self.local == other.local && self.prefixlen == other.prefixlen
    }

    /// Commands of `ip -batch` that put it on `device`, which has it not. The second one, for IPv6: the address is
    /// usable at once, because its former link had proved that nobody else has it.
    pub fn add(&self, device: &str, before_on: &str) -> Vec<String> {
        let mut words = match &self.peer {
            Some(peer) => vec![self.local.clone(), "peer".to_owned(), format!("{peer}/{}", self.prefixlen)],
            None => vec![self.text()],
        };
        let mut say = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        if let Some(broadcast) = &self.broadcast {
            say("broadcast", broadcast);
        }
        say("dev", device);
        say("scope", &self.scope);
        // A label begins with the link's name, and has 15 bytes at most.
        let label = self.label.as_ref().and_then(|label| label.strip_prefix(before_on)).unwrap_or_default();
        let label = format!("{device}{label}");
        if self.label.is_some() && label != device && label.len() <= 15 {
            say("label", &label);
        }
        if let Some(metric) = self.metric {
            say("metric", &metric.to_string());
        }
        if self.valid != FOREVER {
            say("valid_lft", &self.valid.to_string());
            say("preferred_lft", &self.preferred.to_string());
        }
        let flags = ["noprefixroute", "mngtmpaddr"].into_iter().filter(|flag| self.has(flag));
        words.extend(flags.map(str::to_owned));
        let words = words.join(" ");
        let is_unasked = self.is_unasked();
        if self.family != "inet6" || is_unasked {
            let flag = if is_unasked { " nodad" } else { "" };
            return vec![format!("address add {words}{flag}")];
        }
        vec![format!("address add {words} nodad"), format!("address change {words}")]
    }
}

/// A route, as `ip -json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Of which kind.
    pub version: Version,
    /// All that was told.
    pub told: serde_json::Map<String, Value>,
}

/// When two routes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// In all words.
    Exactly,
    /// To the same place by the same router: network managers choose their own metrics.
    Way,
}

/// A route that cannot be made again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the route to {to} has {what}, which cannot be moved to a bridge")]
pub struct OddRoute {
    to: String,
    what: String,
}

impl Route {
    fn text(&self, key: &str) -> Option<&str> {
        self.told.get(key)?.as_str()
    }

    /// Leads out through this link.
    pub fn is_over(&self, device: &str) -> bool {
        let hops = self.told.get("nexthops").and_then(Value::as_array).into_iter().flatten();
        self.text("dev") == Some(device)
            || hops.filter_map(|hop| hop.get("dev")).any(|dev| dev.as_str() == Some(device))
    }

    fn is_default(&self) -> bool {
        self.text("dst") == Some("default") && self.text("table").is_none_or(|table| table == "main")
    }

    /// The address of its router, when it is the way to everywhere. One that only its link knows says nothing about
    /// another link.
    pub fn default_gateway(&self) -> Option<&str> {
        self.text("gateway").filter(|router| self.is_default() && !router.starts_with("fe80:"))
    }

    /// Where it leads when it is a way to everywhere: routers with the links behind which they are.
    fn default_hops(&self) -> Vec<(IpAddr, String)> {
        let hop = |told: &serde_json::Map<String, Value>| {
            let address = told.get("gateway")?.as_str()?.parse().ok()?;
            Some((address, told.get("dev")?.as_str()?.to_owned()))
        };
        let more = self.told.get("nexthops").and_then(Value::as_array).into_iter().flatten();
        let all = std::iter::once(hop(&self.told)).chain(more.map(|more| hop(more.as_object()?)));
        if self.is_default() { all.flatten().collect() } else { Vec::new() }
    }

    fn metric(&self) -> u64 {
        self.told.get("metric").and_then(Value::as_u64).unwrap_or_default()
    }

    /// DHCP or a router told of it, or it is there for one of these lent addresses, or comes and goes with whichever
    /// address.
    pub fn is_lent(&self, addresses: &[&str]) -> bool {
        matches!(self.text("protocol"), Some("dhcp" | "ra" | "kernel"))
            || self.text("prefsrc").is_some_and(|from| addresses.contains(&from))
    }

    /// The kernel makes it by itself for whatever address is there.
    fn is_kernels_own(&self) -> bool {
        let is_of_link = self.version == Version::V6 && self.text("protocol") == Some("kernel");
        self.text("table") == Some("local")
            || matches!(self.text("type"), Some("local" | "broadcast" | "anycast" | "multicast"))
            || (is_of_link
                && self.text("dst").is_some_and(|to| to.starts_with("fe80::") || to.starts_with("ff00::")))
    }

    /// Its words for `ip route add` when `old` is called `new`.
    ///
    /// # Errors
    /// When something is told of it that this program does not know to repeat.
    pub fn words(&self, old: &str, new: &str) -> Result<String, OddRoute> {
        let to = self.text("dst").unwrap_or("default").to_owned();
        let odd = |what: String| OddRoute { to: to.clone(), what };
        let plain = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(odd(format!("the value {other}"))),
        };
        let device = |name: &str| if name == old { new.to_owned() } else { name.to_owned() };
        let mut words = Vec::new();
        if let Some(kind) = self.text("type").filter(|kind| *kind != "unicast") {
            words.push(kind.to_owned());
        }
        words.push(to.clone());
        let mut hops = Vec::new();
        for (key, value) in &self.told {
            let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
            match key.as_str() {
                // Already said, or what the kernel sees by itself.
                "dst" | "type" | "pref" if key != "pref" || value == "medium" => {}
                "gateway" => say("via", plain(value)?),
                "via" => words.extend(via(value).ok_or_else(|| odd(format!("the router {value}")))?),
                "dev" => say("dev", device(&plain(value)?)),
                "table" => say("table", plain(value)?),
                "protocol" => say("proto", plain(value)?),
                "scope" => say("scope", plain(value)?),
                "metric" => say("metric", plain(value)?),
                "prefsrc" => say("src", plain(value)?),
                "expires" => say("expires", plain(value)?),
                "pref" => say("pref", plain(value)?),
                "tos" => say("tos", plain(value)?),
                "from" => say("from", plain(value)?),
                "metrics" => {
                    for (name, value) in
                        value.as_array().into_iter().flatten().filter_map(Value::as_object).flatten()
                    {
                        words.extend([name.clone(), plain(value)?]);
                    }
                }
                "flags" if is_onlink(value) => words.push("onlink".to_owned()),
                "flags" => {}
                "nexthops" => {
                    for hop in value.as_array().into_iter().flatten() {
                        hops.push("nexthop".to_owned());
                        for (key, value) in hop.as_object().into_iter().flatten() {
                            match key.as_str() {
                                "gateway" => hops.extend(["via".to_owned(), plain(value)?]),
                                "via" => {
                                    hops.extend(
                                        via(value).ok_or_else(|| odd(format!("the router {value}")))?,
                                    );
                                }
                                "dev" => hops.extend(["dev".to_owned(), device(&plain(value)?)]),
                                "weight" => hops.extend(["weight".to_owned(), plain(value)?]),
                                "flags" if is_onlink(value) => hops.push("onlink".to_owned()),
                                "flags" => {}
                                other => return Err(odd(format!("{other:?} in a next hop"))),
                            }
                        }
                    }
                }
                other => return Err(odd(format!("{other:?}"))),
            }
        }
        words.extend(hops);
        Ok(words.join(" "))
    }

    /// The same without what changes by itself.
    fn lasting(&self) -> serde_json::Map<String, Value> {
        let lasting = self.told.iter().filter(|(key, _)| !matches!(key.as_str(), "expires" | "flags"));
        // In one order, whatever the order in which they were told.
        let sorted: std::collections::BTreeMap<_, _> = lasting.collect();
        sorted.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Whether another one, which knows `old` as `new`, is the same.
    pub fn is_same(&self, other: &Self, old: &str, new: &str, same: Same) -> bool {
        let is_way = match same {
            Same::Way => ["dst", "gateway", "via", "table"]
                .iter()
                .all(|key| self.told.get(*key) == other.told.get(*key)),
            Same::Exactly => {
                let own = Self { version: self.version, told: self.lasting() }.words(old, new);
                own == Self { version: other.version, told: other.lasting() }.words(new, new)
            }
        };
        self.version == other.version && is_way
    }
}

fn via(value: &Value) -> Option<[String; 3]> {
    let word = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    Some(["via".to_owned(), word("family")?, word("host")?])
}

fn is_onlink(flags: &Value) -> bool {
    flags.as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "onlink"))
}

/// All of it at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Links.
    pub links: Vec<Link>,
    addresses: Vec<OnLink>,
    routes: Vec<Route>,
    /// Rules of routing that name a link: the link, and the rule's priority.
    pub rules: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct OnLink {
    ifname: String,
    addr_info: Vec<Address>,
}

impl Picture {
    /// Asks `ip`.
    ///
    /// # Errors
    /// When it does not answer, or in another way than it does.
    pub fn look(tools: &dyn Tools) -> Result<Self, DeployError> {
        let mut routes = Vec::new();
        let mut rules = Vec::new();
        for version in [Version::V4, Version::V6] {
            let told: Vec<_> = ask(tools, &[version.option(), "route", "show", "table", "all"])?;
            routes.extend(told.into_iter().map(|told| Route { version, told }));
            let told: Vec<Value> = ask(tools, &[version.option(), "rule", "show"])?;
            for rule in &told {
                let priority = rule.get("priority").and_then(Value::as_u64).unwrap_or_default();
                let links = ["iif", "oif"].iter().filter_map(|key| rule.get(*key)?.as_str());
                rules.extend(links.map(|link| (link.to_owned(), priority)));
            }
        }
        let links = ask(tools, &["-details", "link", "show"])?;
        Ok(Self { links, addresses: ask(tools, &["address", "show"])?, routes, rules })
    }

    /// A link by its name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The links in a bridge.
    pub fn ports<'a>(&'a self, bridge: &'a str) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(move |link| link.master.as_deref() == Some(bridge))
    }

    /// The addresses of a link that are not made by the kernel for a time.
    pub fn addresses(&self, name: &str) -> Vec<Address> {
        let of_link = self.addresses.iter().filter(|link| link.ifname == name);
        let kept = |address: &&Address| !address.has("temporary") && !address.has("dadfailed");
        of_link.flat_map(|link| &link.addr_info).filter(kept).cloned().collect()
    }

    /// All addresses of this host.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = self.addresses.iter().flat_map(|link| &link.addr_info);
        all.filter_map(|address| address.local.parse().ok())
    }

    /// The ways to everywhere, IPv4 before IPv6, the one that is used first: routers and the links behind which they are.
    pub fn default_hops(&self) -> Vec<(IpAddr, String)> {
        let mut routes: Vec<&Route> = self.routes.iter().collect();
        routes.sort_by_key(|route| (route.version == Version::V6, route.metric()));
        routes.into_iter().flat_map(Route::default_hops).collect()
    }

    /// The routes over a link, those that others need first.
    pub fn routes(&self, name: &str) -> Vec<Route> {
        let over = self.routes.iter().filter(|route| route.is_over(name) && !route.is_kernels_own());
        let mut routes: Vec<Route> = over.cloned().collect();
        routes.sort_by_key(|route| {
            ["gateway", "via", "nexthops"].iter().any(|key| route.told.contains_key(*key))
        });
        routes
    }
}

fn ask<T: serde::de::DeserializeOwned>(tools: &dyn Tools, words: &[&str]) -> Result<T, DeployError> {
    let call = Call::new("ip").arg("-json").args(words);
    let said = tools.run(&call)?;
    let text = if said.out.trim().is_empty() { "[]" } else { &said.out };
    // Rows of links of other namespaces and of unknown kinds are empty objects.
    let rows: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| DeployError::Refused(format!("`{call}` answers in an unknown way: {error}")))?;
    let rows = rows.into_iter().filter(|row| row.as_object().is_some_and(|row| !row.is_empty())).collect();
    serde_json::from_value(Value::Array(rows))
        .map_err(|error| DeployError::Refused(format!("`{call}` answers in an unknown way: {error}")))
}
