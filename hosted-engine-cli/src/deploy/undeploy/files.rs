//! What deployment made on the host: by its journal what is still as it was made; without one what every deployment makes,
//! where it is as deployment writes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clock::{Clock as _, SystemClock};
use ha_config::{Paths, atomic};

use super::facts::Member;
use crate::deploy::carry_out::Hands;
use crate::deploy::host_files::host_files;
use crate::deploy::made::{DaemonDirectory, Made, Undo as _, Undone};
use crate::deploy::services_steps::{AGENT, BROKER};
use crate::deploy::{DeployError, Item, Journal, Secrets, StepId, Story, World};
use crate::deployed;
use crate::setup::ClusterConf;

/// What becomes of a thing that deployment made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is undone as if the deployment were.
    TakenBack,
    /// Leaving the cluster has seen to it.
    Done,
    /// It stays, and why.
    Stays(&'static str),
}

fn fate(item: &Item) -> Fate {
    match item.step {
        StepId::StorageDomain | StepId::Disk | StepId::Leases | StepId::SharedConfiguration => {
            return Fate::Stays("the storage domain is the cluster's");
        }
        StepId::Bridge => {
            return Fate::Stays("other VMs may use the bridge, and connections through it go on");
        }
        StepId::Directories
        | StepId::Firewall
        | StepId::StorageConnection
        | StepId::CloseFormerDomain
        | StepId::LeaveFormerDomain
        | StepId::HostConfiguration
        | StepId::MainConfiguration
        | StepId::Broker
        | StepId::EngineVm
        | StepId::EngineAnswers
        | StepId::HandOver => {}
    }
    match &item.made {
        Made::Service(service) if service.name == AGENT || service.name == BROKER => Fate::Done,
        Made::Lockspaces(_) => Fate::Done,
        Made::Maintenance(_) => Fate::Stays("the cluster's mode is the operator's business"),
        _ => Fate::TakenBack,
    }
}

/// What will be removed and what stays, for people.
pub(super) fn plan(paths: &Paths, story: Option<&Story>) -> Vec<String> {
    let Some(story) = story else {
        return vec![
            "no journal of a deployment is here: removed is what is as deployment writes it, the storage stays connected"
                .to_owned(),
            format!("{} is removed; a copy is kept", paths.hosted_engine_conf().display()),
        ];
    };
    let words = |item: &Item| match fate(item) {
        Fate::TakenBack => Some(format!("{}: {}", item.made.describe(), item.made.describe_undo())),
        Fate::Done => None,
        Fate::Stays(why) => Some(format!("stays: {}: {why}", item.made.describe())),
    };
    story.left().filter_map(words).collect()
}

/// Copies that were kept of what was overwritten on shared storage outlive the daemons' directory.
pub(super) fn keep_copies(hands: &Hands<'_>) -> Result<(), DeployError> {
    let from = hands.paths.backup_dir();
    let to = kept(hands.paths, "backup");
    match fs::rename(&from, &to) {
        Ok(()) => {
            hands.report.info(&format!(
                "The copies of what was overwritten on shared storage are in {}",
                to.display()
            ));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DeployError::io("move", &from)(error)),
    }
}

/// A name for what is kept, of this second.
fn kept(paths: &Paths, name: &str) -> PathBuf {
    paths.setup_state_dir().join(format!("{name}.{}", SystemClock.wall().0))
}

/// What the journal has, the last thing first.
pub(super) fn by_journal(hands: &Hands<'_>, journal: &mut Journal) -> Result<(), DeployError> {
    let (request, secrets) = (journal.story().request.clone(), Secrets::default());
    let world = World {
        paths: hands.paths,
        tools: hands.tools,
        report: hands.report,
        secrets: &secrets,
        request: &request,
        services: hands.services,
        open_vm: hands.open_vm,
    };
    let left: Vec<Item> = journal.story().left().cloned().collect();
    for item in left {
        let what = item.made.describe();
        let how = match fate(&item) {
            Fate::Stays(why) => Undone::LeftAlone(why.to_owned()),
            Fate::Done => Undone::TakenBack,
            Fate::TakenBack => {
                journal.undoing(item.number)?;
                let how = item.made.undo(&world)?;
                match &how {
                    Undone::TakenBack => hands.report.info(&format!("Taken back: {what}")),
                    Undone::Absent => {}
                    Undone::LeftAlone(why) => hands.report.warning(&format!("Left alone: {what}: {why}")),
                }
                how
            }
        };
        journal.undone(item.number, how)?;
    }
    Ok(())
}

/// Without a journal.
pub(super) fn known(hands: &Hands<'_>, member: Option<&Member>) -> Result<(), DeployError> {
    let paths = hands.paths;
    let reachable = member.filter(|member| member.hosts.is_ok());
    let cluster = reachable.and_then(|member| ClusterConf::read(&member.conf.conf_volume_path().ok()??).ok());
    let written = cluster.map(|cluster| {
        let answers = (paths.answers_conf(), cluster.answers.clone());
        host_files(paths, &cluster).into_iter().chain([answers]).collect::<Vec<_>>()
    });
    if written.is_none() {
        hands.report.warning("The cluster's configuration cannot be read: this host's copies of it stay");
    }
    for (path, text) in written.unwrap_or_default() {
        match atomic::read_text(&path) {
            Ok(now) if now == text => {
                remove(&path)?;
                hands.report.info(&format!("Removed {}", path.display()));
            }
            Ok(_) => hands.report.warning(&format!("Left alone: {}: somebody changed it", path.display())),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    for path in [paths.state_dir(), paths.run_dir()] {
        // The directories are the package's.
        let daemons = DaemonDirectory { path: path.clone(), before: Some(Vec::new()) };
        if daemons.empty()? == Undone::TakenBack {
            hands.report.info(&format!("Removed what the daemons kept in {}", path.display()));
        }
    }
    hands.report.info(
        "The storage stays connected, and what libvirt's files say stays: it is not known who wanted that \
         (hosted-engine --disconnect-storage works as long as this host is deployed)",
    );
    Ok(())
}

/// With it the host counts as deployed: it goes in any case, and a copy is kept of one that somebody changed.
pub(super) fn main_configuration(hands: &Hands<'_>) -> Result<(), DeployError> {
    let path = hands.paths.hosted_engine_conf();
    let is_deployed =
        deployed::configuration(hands.paths).map_err(|error| DeployError::Refused(format!("{error:#}")))?;
    if is_deployed.is_none() {
        return Ok(());
    }
    let copy = kept(hands.paths, "hosted-engine.conf");
    let directory = hands.paths.setup_state_dir();
    fs::create_dir_all(&directory).map_err(DeployError::io("create the directory", &directory))?;
    let text = atomic::read_text(&path)?;
    atomic::write(&copy, text.as_bytes(), atomic::Mode::Private)?;
    remove(&path)?;
    hands.report.info(&format!("Removed {}; a copy is {}", path.display(), copy.display()));
    Ok(())
}

fn remove(path: &Path) -> Result<(), DeployError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(DeployError::io("remove", path)(error)),
        _ => Ok(atomic::sync_directory_of(path)?),
    }
}
