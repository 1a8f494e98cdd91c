//! firewalld, through `firewall-cmd`.

use serde::{Deserialize, Serialize};

use super::Ports;
use crate::deploy::made::{Undo, Undone};
use crate::deploy::{BridgeOrigin, Call, DeployError, Job, Network, ToolError, Tools, World};

/// Ports that a zone did not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedZone {
    /// The zone.
    pub zone: String,
    /// Opened until firewalld's next start.
    pub now: Vec<Ports>,
    /// Opened from its next start on.
    pub permanent: Vec<Ports>,
    /// The bridge, where it came into the zone.
    #[serde(default)]
    pub joined: Option<Joined>,
}

/// A bridge in a zone in which it was not before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    bridge: String,
    /// Until firewalld's next start.
    now: bool,
    /// From its next start on.
    permanent: bool,
}

/// The zone that a bridge is in, or is to be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    /// It is its card's: the bridge itself is in none yet.
    is_cards: bool,
    is_cards_for_good: bool,
}

/// The zone of the bridge; [`None`] when firewalld does not run.
pub(super) fn zone(tools: &dyn Tools, network: &Network) -> Result<Option<Zone>, DeployError> {
    match tools.ask(&Call::new("firewall-cmd").arg("--state")) {
        Ok(said) if said.code == 0 => {}
        // Not running (252), or not installed.
        Ok(_) | Err(ToolError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let zone_of = |is_permanent: bool, link: &str| -> Result<Option<String>, DeployError> {
        let call = Call::new("firewall-cmd").args(is_permanent.then_some("--permanent"));
        let said = tools.ask(&call.arg(format!("--get-zone-of-interface={link}")))?;
        Ok(Some(said.out.trim().to_owned()).filter(|zone| said.code == 0 && !zone.is_empty()))
    };
    if let Some(name) = zone_of(false, &network.bridge)? {
        return Ok(Some(Zone { name, is_cards: false, is_cards_for_good: false }));
    }
    // What is let in to the host comes in through the bridge from now on, which no zone may know.
    if let BridgeOrigin::Over(card) = &network.origin
        && let Some(name) = zone_of(false, card)?
    {
        let is_cards_for_good = zone_of(true, card)?.is_some_and(|zone| zone == name);
        return Ok(Some(Zone { name, is_cards: true, is_cards_for_good }));
    }
    let default = tools.run(&Call::new("firewall-cmd").arg("--get-default-zone"))?;
    Ok(Some(Zone { name: default.out.trim().to_owned(), is_cards: false, is_cards_for_good: false }))
}

/// One question or change, for now or for good: of `port=54321/tcp`, `interface=ovirtmgmt`.
fn command(zone: &str, is_permanent: bool, verb: &str, what: &str) -> Call {
    let call = Call::new("firewall-cmd").args(is_permanent.then_some("--permanent"));
    call.arg(format!("--zone={zone}")).arg(format!("--{verb}-{what}"))
}

fn port(ports: Ports) -> String {
    format!("port={ports}/tcp")
}

pub(super) fn open(job: &mut Job<'_>, zone: Zone, bridge: &str, ports: &[Ports]) -> Result<(), DeployError> {
    let Zone { name: zone, is_cards, is_cards_for_good } = zone;
    let tools = job.world.tools;
    let closed = |is_permanent: bool| -> Result<Vec<Ports>, DeployError> {
        let mut closed = Vec::new();
        for ports in ports {
            // 0 for yes, 1 for no.
            if tools.ask(&command(&zone, is_permanent, "query", &port(*ports)))?.code != 0 {
                closed.push(*ports);
            }
        }
        Ok(closed)
    };
    let joined =
        is_cards.then(|| Joined { bridge: bridge.to_owned(), now: true, permanent: is_cards_for_good });
    let opened = OpenedZone { zone: zone.clone(), now: closed(false)?, permanent: closed(true)?, joined };
    if opened.each().next().is_none() {
        job.world.report.info(&format!("firewalld's zone {zone} is open already"));
        return Ok(());
    }
    job.make(opened.clone(), |world| {
        for (is_permanent, what) in opened.each() {
            world.tools.run(&command(&zone, is_permanent, "add", &what))?;
        }
        Ok(())
    })
}

impl OpenedZone {
    /// The bridge first: the ports are of use in its zone only.
    fn each(&self) -> impl Iterator<Item = (bool, String)> {
        let joined = self.joined.iter().flat_map(|joined| {
            let each =
                [(false, joined.now), (true, joined.permanent)].into_iter().filter(|(_, is_so)| *is_so);
            each.map(|(is_permanent, _)| (is_permanent, format!("interface={}", joined.bridge)))
        });
        let now = self.now.iter().map(|ports| (false, port(*ports)));
        joined.chain(now).chain(self.permanent.iter().map(|ports| (true, port(*ports))))
    }
}

impl Undo for OpenedZone {
    fn describe(&self) -> String {
        let mut all: Vec<String> = self.now.iter().chain(&self.permanent).map(Ports::to_string).collect();
        all.sort();
        all.dedup();
        let ports = (!all.is_empty()).then(|| format!("TCP ports {}", all.join(", ")));
        let bridge = self.joined.as_ref().map(|joined| format!("the bridge {}", joined.bridge));
        let both: Vec<String> = bridge.into_iter().chain(ports).collect();
        format!("{} in firewalld's zone {}", both.join(", "), self.zone)
    }

    fn describe_undo(&self) -> String {
        "closed again".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let is_running = match world.tools.ask(&Call::new("firewall-cmd").arg("--state")) {
            Ok(said) => said.code == 0,
            Err(ToolError::Missing { .. }) => {
                return Ok(Undone::LeftAlone("firewalld is not installed any more".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        if !is_running {
            let why = "firewalld does not run, and only then tells what it has: systemctl start firewalld, and try again";
            return Err(DeployError::Refused(why.to_owned()));
        }
        let mut undone = Undone::Absent;
        for (is_permanent, what) in self.each() {
            if world.tools.ask(&command(&self.zone, is_permanent, "query", &what))?.code == 0 {
                world.tools.run(&command(&self.zone, is_permanent, "remove", &what))?;
                undone = Undone::TakenBack;
            }
        }
        Ok(undone)
    }
}
