//! The host's firewall, opened for what the other hosts and the operators need from this one.
//!
//! | who manages it | what is done | undo |
//! | --- | --- | --- |
//! | firewalld | ports that the bridge's zone has not are added, now and permanently; a bridge without a zone comes into its card's; no reload, which would drop what others added for now | exactly these are removed |
//! | nftables, by /etc/nftables.conf | a rule at the head of each input chain that may refuse, now, and in a file that nftables.conf includes | these rules and the file are removed |
//! | nobody: nothing refuses | nothing | |
//! | somebody else (ufw, iptables, rules from elsewhere) | nothing; the operator is told which ports to open | |
//!
//! A table of our own would not do: an accepted packet goes on to the other tables, and one that refuses it wins.

mod firewalld;
mod nftables;
#[cfg(test)]
mod tests;

use std::fmt;

use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, Paths};
use serde::{Deserialize, Serialize};

use super::{DeployError, Job, Network, Request, Step, StepId, Tools, network};
pub use firewalld::OpenedZone;
pub use nftables::OpenedChains;

/// TCP ports, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one; often the same.
    pub last: u16,
}

impl Ports {
    /// Only one.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Some.
    pub const fn range(first: u16, last: u16) -> Self {
        Self { first, last }
    }
}

/// `54321` or `5900-6923`
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// VDSM.
pub const VDSM: Ports = Ports::one(54321);
/// Consoles of VMs.
pub const CONSOLES: Ports = Ports::range(5900, 6923);
/// libvirt over TLS, which migrations between hosts use.
pub const LIBVIRT_TLS: Ports = Ports::one(16514);
/// Where a migrating VM's memory arrives.
pub const MIGRATION: Ports = Ports::range(49152, 49215);

/// What is to be reached on a host with this hypervisor, and what for.
pub fn ports(hypervisor: Hypervisor, migration: Ports) -> Vec<(Ports, &'static str)> {
    let mut ports = vec![(CONSOLES, "consoles of VMs"), (migration, "live migration")];
    match hypervisor {
        Hypervisor::Qemu => {}
        Hypervisor::Libvirt => ports.push((LIBVIRT_TLS, "libvirt")),
        Hypervisor::Vdsm => ports.extend([(LIBVIRT_TLS, "libvirt"), (VDSM, "VDSM")]),
    }
    ports.sort();
    ports
}

/// What the hypervisor of a request needs.
pub fn wanted(paths: &Paths, request: &Request) -> Vec<(Ports, &'static str)> {
    match request {
        Request::FirstHost(first) => {
            let migration = match HaToml::parse(paths, &first.ha_toml) {
                Ok(toml) => {
                    let all = toml.migration.ports.all();
                    Ports::range(*all.start(), *all.end())
                }
                // Refused elsewhere, with its line.
                Err(_) => MIGRATION,
            };
            ports(first.hypervisor, migration)
        }
        Request::FurtherHost(further) => ports(further.hypervisor, MIGRATION),
    }
}

/// Who decides what comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    /// Nothing is refused.
    Nobody,
    /// firewalld, with the bridge's zone.
    Firewalld(firewalld::Zone),
    /// nftables with a file of its own.
    Nftables(nftables::Chains),
    /// Somebody that this program does not know to tell.
    Other(String),
}

impl Manager {
    /// Finds out. Changes nothing.
    ///
    /// # Errors
    /// When a program that is there does not answer.
    pub fn find(paths: &Paths, tools: &dyn Tools, network: &Network) -> Result<Self, DeployError> {
        if let Some(zone) = firewalld::zone(tools, network)? {
            return Ok(Self::Firewalld(zone));
        }
        nftables::find(paths, tools)
    }
}

/// That rules name a card over which a bridge is to be made: they would not be right for the bridge, through which
/// packets come in then.
///
/// # Errors
/// Where they are, and what to do.
pub fn check_card(tools: &dyn Tools, card: &str, bridge: &str) -> Result<(), String> {
    match nftables::rules_of_card(tools, card, bridge) {
        Some(chain) => Err(format!(
            "rules in nftables' chain {chain} name {card}, whose packets come in through {bridge} then: let them name \
             {bridge} as well, as in iifname {{ \"{card}\", \"{bridge}\" }}"
        )),
        None => Ok(()),
    }
}

/// The step.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenFirewall;

impl Step for OpenFirewall {
    fn id(&self) -> StepId {
        StepId::Firewall
    }

    fn title(&self) -> String {
        "Configuring the firewall".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let world = job.world;
        let network = network::of(world.request);
        let wanted = wanted(world.paths, world.request);
        if !network.open_firewall {
            world.report.info(&format!("The firewall is left as it is; the host needs {}", list(&wanted)));
            return Ok(());
        }
        let ports: Vec<Ports> = wanted.iter().map(|(ports, _)| *ports).collect();
        match Manager::find(world.paths, world.tools, network)? {
            Manager::Nobody => world.report.info("No firewall refuses anything on this host"),
            Manager::Firewalld(zone) => firewalld::open(job, zone, &network.bridge, &ports)?,
            Manager::Nftables(chains) => nftables::open(job, chains, &ports)?,
            Manager::Other(who) => world.report.warning(&format!(
                "{who}: it is left as it is. Open these ports there, or what needs them fails later: {}",
                list(&wanted)
            )),
        }
        Ok(())
    }
}

/// `TCP 5900-6923 (consoles of VMs), …`
pub fn list(ports: &[(Ports, &str)]) -> String {
    let each: Vec<String> = ports.iter().map(|(ports, what)| format!("{ports} ({what})")).collect();
    format!("TCP {}", each.join(", "))
}
