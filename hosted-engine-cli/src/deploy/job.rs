//! Carrying steps out, and taking back what they made.

use ha_config::Paths;
use serde::{Deserialize, Serialize};

use super::journal::{Item, Journal, Outcome};
use super::made::{Made, Undo as _, Undone};
use super::services::Services;
use super::{DeployError, Request, Secrets, Tools};
use crate::cli::OpenVm;
use crate::setup::Report;

/// The steps by the words that stand in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepId {
    /// Directories of this host.
    Directories,
    /// The management bridge.
    Bridge,
    /// The firewall.
    Firewall,
    /// Mount, login, or nothing.
    StorageConnection,
    /// The storage domain with its volumes.
    StorageDomain,
    /// Lockspaces and leases.
    Leases,
    /// The content of the VM's disk.
    Disk,
    /// The cluster's configuration on shared storage.
    SharedConfiguration,
    /// The storage domain that a cluster leaves: nobody can start the VM from it any more.
    CloseFormerDomain,
    /// This host's daemons and its number in the lockspaces of the domain that it leaves.
    LeaveFormerDomain,
    /// This host's files but the main one.
    HostConfiguration,
    /// hosted-engine.conf: with it the host counts as deployed.
    MainConfiguration,
    /// The broker, in global maintenance.
    Broker,
    /// The engine VM's first start, installation, restart.
    EngineVm,
    /// Waiting for the engine's health page.
    EngineAnswers,
    /// The agent takes over.
    HandOver,
}

/// What a step works on.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// This host's places.
    pub paths: &'a Paths,
    /// Programs.
    pub tools: &'a dyn Tools,
    /// What the operator sees, and the log.
    pub report: &'a dyn Report,
    /// Passwords.
    pub secrets: &'a Secrets,
    /// What is to be done.
    pub request: &'a Request,
    /// The host's service manager.
    pub services: &'a dyn Services,
    /// Opens the hypervisor that a host's configuration names.
    pub open_vm: &'a OpenVm,
}

/// One step of a deployment. It holds no state: what later steps need follows from the request.
pub trait Step {
    /// Its word.
    fn id(&self) -> StepId;

    /// What the operator reads when it begins: `Creating Storage Domain`.
    fn title(&self) -> String;

    /// What it makes or changes, for people.
    fn makes(&self) -> &'static str {
        self.id().makes()
    }

    /// How that is taken back, for people.
    fn unmakes(&self) -> &'static str {
        self.id().unmakes()
    }

    /// Does it. Everything that is made or changed goes through [`Job::make`].
    ///
    /// # Errors
    /// What went wrong; the step is then as good as cut.
    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError>;
}

/// A step under way.
pub struct Job<'a> {
    /// What it works on.
    pub world: World<'a>,
    journal: &'a mut Journal,
}

impl Job<'_> {
    /// Writes down that `made` will be made, has it made, writes down that it was.
    ///
    /// # Errors
    /// Of the making, or of the journal.
    pub fn make<T>(
        &mut self,
        made: impl Into<Made>,
        act: impl FnOnce(&World<'_>) -> Result<T, DeployError>,
    ) -> Result<T, DeployError> {
        let number = self.journal.will(made.into())?;
        let result = act(&self.world)?;
        self.journal.did(number)?;
        Ok(result)
    }
}

/// Carries out those of `steps` that are not complete. What is there of a step that was cut, or that undoing did not get to
/// the end of, is taken back first: the step begins anew.
///
/// # Errors
/// Of the first step that fails; what was made stays for `--resume` or `--undo`.
pub fn run(steps: &[Box<dyn Step>], world: World<'_>, journal: &mut Journal) -> Result<(), DeployError> {
    let steps: Vec<&dyn Step> = steps.iter().map(AsRef::as_ref).collect();
    carry_out(&steps, world, journal)?;
    journal.over(Outcome::Deployed)
}

/// The same; the deployment is not over then.
pub(super) fn carry_out(
    steps: &[&dyn Step],
    world: World<'_>,
    journal: &mut Journal,
) -> Result<(), DeployError> {
    let left = journal.story().left_of_incomplete().cloned().collect();
    take_back(&world, journal, left)?;
    for step in steps {
        let id = step.id();
        if journal.story().ended.contains(&id) {
            continue;
        }
        world.report.info(&step.title());
        journal.begin_step(id)?;
        step.run(&mut Job { world, journal: &mut *journal })?;
        journal.end_step(id)?;
    }
    Ok(())
}

/// Takes everything back, the last thing first.
///
/// # Errors
/// Of the first thing that cannot be taken back now; the next try goes on there.
pub fn undo(world: World<'_>, journal: &mut Journal) -> Result<(), DeployError> {
    let left = journal.story().left().cloned().collect();
    take_back(&world, journal, left)?;
    journal.over(Outcome::Undone)
}

fn take_back(world: &World<'_>, journal: &mut Journal, items: Vec<Item>) -> Result<(), DeployError> {
    for item in items {
        journal.undoing(item.number)?;
        let how = item.made.undo(world)?;
        let what = item.made.describe();
        match &how {
            Undone::TakenBack => world.report.info(&format!("Taken back: {what}")),
            Undone::Absent => {}
            Undone::LeftAlone(why) => world.report.warning(&format!("Left alone: {what}: {why}")),
        }
        journal.undone(item.number, how)?;
    }
    Ok(())
}
