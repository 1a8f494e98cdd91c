//! firewalld, through `firewall-cmd`.

use serde::{Deserialize, Serialize};

use super::Ports;
use crate::deploy::made::{Undo, Undone};
use crate::deploy::{Call, DeployError, Job, ToolError, Tools, World};

/// Ports that a zone did not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedZone {
    /// The zone.
    pub zone: String,
    /// Opened until firewalld's next start.
    pub now: Vec<Ports>,
    /// Opened from its next start on.
    pub permanent: Vec<Ports>,
}

/// The zone of the bridge; [`None`] when firewalld does not run.
pub(super) fn zone(tools: &dyn Tools, bridge: &str) -> Result<Option<String>, DeployError> {
    match tools.ask(&Call::new("firewall-cmd").arg("--state")) {
        Ok(said) if said.code == 0 => {}
        // Not running (252), or not installed.
        Ok(_) | Err(ToolError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let own = tools.ask(&Call::new("firewall-cmd").arg(format!("--get-zone-of-interface={bridge}")))?;
    if own.code == 0 && !own.out.trim().is_empty() {
        return Ok(Some(own.out.trim().to_owned()));
    }
    let default = tools.run(&Call::new("firewall-cmd").arg("--get-default-zone"))?;
    Ok(Some(default.out.trim().to_owned()))
}

/// One question or change, for now or for good.
fn command(zone: &str, is_permanent: bool, what: &str, ports: Ports) -> Call {
    let call = Call::new("firewall-cmd").args(is_permanent.then_some("--permanent"));
    call.arg(format!("--zone={zone}")).arg(format!("--{what}-port={ports}/tcp"))
}

pub(super) fn open(job: &mut Job<'_>, zone: &str, ports: &[Ports]) -> Result<(), DeployError> {
    let tools = job.world.tools;
    let closed = |is_permanent: bool| -> Result<Vec<Ports>, DeployError> {
        let mut closed = Vec::new();
        for ports in ports {
            // 0 for yes, 1 for no.
            if tools.ask(&command(zone, is_permanent, "query", *ports))?.code != 0 {
                closed.push(*ports);
            }
        }
        Ok(closed)
    };
    let opened = OpenedZone { zone: zone.to_owned(), now: closed(false)?, permanent: closed(true)? };
    if opened.now.is_empty() && opened.permanent.is_empty() {
        job.world.report.info(&format!("firewalld's zone {zone} is open already"));
        return Ok(());
    }
    job.make(opened.clone(), |world| {
        for (is_permanent, ports) in opened.each() {
            world.tools.run(&command(zone, is_permanent, "add", ports))?;
        }
        Ok(())
    })
}

impl OpenedZone {
    fn each(&self) -> impl Iterator<Item = (bool, Ports)> {
        let now = self.now.iter().map(|ports| (false, *ports));
        now.chain(self.permanent.iter().map(|ports| (true, *ports)))
    }
}

impl Undo for OpenedZone {
    fn describe(&self) -> String {
        let mut all: Vec<String> = self.each().map(|(_, ports)| ports.to_string()).collect();
        all.sort();
        all.dedup();
        format!("TCP ports {} in firewalld's zone {}", all.join(", "), self.zone)
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
        for (is_permanent, ports) in self.each() {
            if world.tools.ask(&command(&self.zone, is_permanent, "query", ports))?.code == 0 {
                world.tools.run(&command(&self.zone, is_permanent, "remove", ports))?;
                undone = Undone::TakenBack;
            }
        }
        Ok(undone)
    }
}
