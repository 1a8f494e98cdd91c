//! A deployment on this host, begun, gone on with or undone; and what is said when it stops.

use std::fmt;

use clock::{Clock as _, SystemClock};
use ha_config::Paths;

use super::journal::{Outcome, Story, Watcher};
use super::log::private_directory;
use super::services::Services;
use super::{
    DeployError, Journal, Request, Secrets, StepId, Tools, Undo as _, World, move_storage, plan, run,
    storage, undo,
};
use crate::cli::OpenVm;
use crate::setup::Report;

/// This host, as far as deploying on it needs it.
#[derive(Clone, Copy)]
pub struct Hands<'a> {
    /// Its places.
    pub paths: &'a Paths,
    /// Its programs.
    pub tools: &'a dyn Tools,
    /// What the operator sees.
    pub report: &'a dyn Report,
    /// Its service manager.
    pub services: &'a dyn Services,
    /// Opens its hypervisor.
    pub open_vm: &'a OpenVm,
}

/// Why and where a deployment, or the undoing of one, stopped.
#[derive(Debug, thiserror::Error)]
pub struct Stopped {
    /// Why.
    #[source]
    pub error: DeployError,
    /// What the journal says now; `None` when nothing was begun.
    pub story: Option<Box<Story>>,
}

impl From<DeployError> for Stopped {
    fn from(error: DeployError) -> Self {
        Self { error, story: None }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(story) = &self.story else { return write!(f, "{}", self.error) };
        match story.cut {
            Some(step) => writeln!(f, "{}: {}", title(&story.request, step), self.error)?,
            None => writeln!(f, "{}", self.error)?,
        }
        let left: Vec<_> = story.left().collect();
        let of_cut: Vec<_> = left.iter().filter(|item| Some(item.step) == story.cut).collect();
        if left.is_empty() {
            writeln!(f, "Nothing was made or changed so far.")?;
        } else {
            let before = left.len() - of_cut.len();
            writeln!(
                f,
                "Made or changed so far: {before} things by complete steps, {} by this one.",
                of_cut.len()
            )?;
            for item in of_cut.iter().rev() {
                let part = if item.is_done { "" } else { " (perhaps not, or in part)" };
                writeln!(f, "  {}{part}", item.made.describe())?;
            }
        }
        f.write_str(if story.request.moves().is_some() { MOVE_WAYS } else { BOTH_WAYS })
    }
}

/// What can be done about a deployment that is not over.
pub const BOTH_WAYS: &str = "Go on at this step:    hosted-engine --deploy --resume\n\
                             Take everything back:  hosted-engine --deploy --undo   (with --plan: show what, do nothing)";

/// What can be done about a move that is not over.
pub const MOVE_WAYS: &str = "Go on at this step:    hosted-engine --move-storage --resume\n\
                             Take everything back:  hosted-engine --move-storage --undo   (with --plan: show what, do \
                             nothing; not once the former storage is closed)";

/// Of a host that is being taken out of its cluster.
pub const UNDEPLOYING: &str = "Taking this host out of its hosted engine was interrupted";
/// What can be done about it.
pub const UNDEPLOY_ON: &str = "go on with hosted-engine --undeploy";

/// A step's title in a request.
pub fn title(request: &Request, id: StepId) -> String {
    let steps = plan::steps(request);
    steps.iter().find(|step| step.id() == id).map_or_else(|| format!("{id:?}"), |step| step.title())
}

impl Hands<'_> {
    /// Deploys.
    ///
    /// # Errors
    /// Why it stopped; a deployment that was begun can be gone on with or undone.
    pub fn begin(
        &self,
        request: Request,
        secrets: &Secrets,
        watcher: Option<Watcher>,
    ) -> Result<(), Stopped> {
        private_directory(&self.paths.setup_state_dir())?;
        let path = move_storage::journal_of(self.paths, &request);
        let mut journal = Journal::begin(&path, SystemClock.wall().0, request)?;
        let kept = secrets.keep(self.paths);
        self.with(&mut journal, watcher, |hands, journal| {
            kept?;
            hands.go_on(journal, secrets)
        })
    }

    /// Goes on with what was interrupted.
    ///
    /// # Errors
    /// As [`Hands::begin`]; also when there is nothing to go on with.
    pub fn resume(&self, watcher: Option<Watcher>) -> Result<(), Stopped> {
        self.resume_at(self.open("go on with")?, watcher)
    }

    /// The same of this journal.
    pub(super) fn resume_at(&self, mut journal: Journal, watcher: Option<Watcher>) -> Result<(), Stopped> {
        let secrets = Secrets::kept(self.paths)?;
        self.with(&mut journal, watcher, |hands, journal| {
            if journal.story().ended.contains(&StepId::StorageConnection) {
                // The host may have been restarted since.
                let request = journal.story().request.clone();
                storage::must_be_connected(&hands.world(&request, &secrets))?;
            }
            hands.go_on(journal, &secrets)
        })
    }

    /// Takes back what an interrupted deployment made or changed.
    ///
    /// # Errors
    /// What cannot be taken back now; trying again goes on there.
    pub fn undo(&self, watcher: Option<Watcher>) -> Result<(), Stopped> {
        self.undo_at(self.open("take back")?, watcher)
    }

    /// The same of this journal.
    pub(super) fn undo_at(&self, mut journal: Journal, watcher: Option<Watcher>) -> Result<(), Stopped> {
        // Undoing needs none; a damaged file must not stand in its way.
        let secrets = Secrets::kept(self.paths).unwrap_or_default();
        self.with(&mut journal, watcher, |hands, journal| {
            let request = journal.story().request.clone();
            undo(hands.world(&request, &secrets), journal)?;
            Secrets::forget(hands.paths)
        })
    }

    fn with(
        &self,
        journal: &mut Journal,
        watcher: Option<Watcher>,
        act: impl FnOnce(&Self, &mut Journal) -> Result<(), DeployError>,
    ) -> Result<(), Stopped> {
        if let Some(watcher) = watcher {
            journal.watch(watcher);
        }
        act(self, journal).map_err(|error| Stopped { error, story: Some(Box::new(journal.story().clone())) })
    }

    fn go_on(&self, journal: &mut Journal, secrets: &Secrets) -> Result<(), DeployError> {
        let request = journal.story().request.clone();
        run(&plan::steps(&request), self.world(&request, secrets), journal)?;
        Secrets::forget(self.paths)
    }

    pub(super) fn world<'w>(&'w self, request: &'w Request, secrets: &'w Secrets) -> World<'w> {
        World {
            paths: self.paths,
            tools: self.tools,
            report: self.report,
            secrets,
            request,
            services: self.services,
            open_vm: self.open_vm,
        }
    }

    fn open(&self, what: &str) -> Result<Journal, DeployError> {
        let journal = Journal::open(&self.paths.deploy_journal())?;
        nothing_to(what, journal.as_ref().map(Journal::story))?;
        journal.ok_or_else(|| DeployError::Refused(format!("there is nothing to {what}")))
    }
}

/// Refuses when there is no deployment that is not over.
pub(super) fn nothing_to(what: &str, story: Option<&Story>) -> Result<(), DeployError> {
    let why = match story.map(|story| story.outcome) {
        Some(None) if story.is_some_and(|story| story.is_undeploying) => {
            return Err(DeployError::Refused(format!("{UNDEPLOYING}: {UNDEPLOY_ON}")));
        }
        Some(None) => return Ok(()),
        None => "no deployment was begun on this host",
        Some(Some(Outcome::Undone)) => "the last deployment of this host was taken back completely",
        Some(Some(Outcome::Deployed)) => {
            "the deployment of this host is complete; hosted-engine --undeploy takes the host out of the cluster"
        }
    };
    Err(DeployError::Refused(format!("there is nothing to {what}: {why}")))
}
