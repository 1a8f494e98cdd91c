//! Whether this host was deployed, and `--check-deployed`.
//!
//! As the existing command has it, `vmid` decides. Existing programs ask only whether hosted-engine.conf is there; where
//! the two differ, the command says what is missing.

use std::fmt;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use ha_config::{HostedEngineConf, Paths};

use crate::deploy::{self, BOTH_WAYS, DeployError, Journal, Made, UNDEPLOY_ON, UNDEPLOYING, title};
use crate::terminal::{Exit, Terminal};

/// The sentence that scripts know.
pub const NOT_DEPLOYED: &str = "You must run deploy first";

/// The configuration of a deployed host: one whose `vmid` is set. `None` when the host was never deployed.
///
/// # Errors
/// When the configuration is there and cannot be read.
pub fn configuration(paths: &Paths) -> Result<Option<HostedEngineConf>> {
    match HostedEngineConf::load(paths) {
        Ok(conf) if conf.file().get("vmid").is_some() => Ok(Some(conf)),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).context("Cannot tell whether this host was deployed"),
    }
}

/// A deployment that was begun and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HalfDeploy {
    /// The step that was begun and did not end; `None` between two steps.
    pub cut: Option<String>,
    /// Wall clock, seconds since 1970, of the last line of its journal.
    pub since: i64,
    /// Somebody works on it now.
    pub is_worked_on: bool,
    /// It was complete, and this host is taken out of the cluster.
    pub is_undeploying: bool,
    /// The name of this host, when the deployment has set global maintenance and not ended it again.
    pub keeps_hands_off: Option<String>,
}

impl fmt::Display for HalfDeploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.cut.as_ref().map_or_else(String::new, |step| format!(" at \"{step}\""));
        let at = jiff::Timestamp::from_second(self.since).unwrap_or_default();
        let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
        if self.is_undeploying {
            return if self.is_worked_on {
                write!(f, "This host is taken out of its hosted engine now, since {at}")
            } else {
                write!(f, "{UNDEPLOYING}, at {at}: {UNDEPLOY_ON}")
            };
        }
        if self.is_worked_on {
            write!(f, "The deployment of this host goes on now{step}, since {at}")?;
        } else {
            write!(f, "The deployment of this host was interrupted{step}, at {at}\n{BOTH_WAYS}")?;
        }
        let Some(name) = &self.keeps_hands_off else { return Ok(()) };
        write!(
            f,
            "\nGlobal maintenance was set by hosted-engine --deploy on {name}: it ends when the agents take over"
        )
    }
}

/// Whether a deployment of this host was begun and is not over. Its journal is root's to read: others learn nothing.
///
/// # Errors
/// When the journal is damaged.
pub fn half_deploy(paths: &Paths) -> Result<Option<HalfDeploy>> {
    let path = paths.deploy_journal();
    let story = match Journal::read(&path) {
        Err(DeployError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            return Ok(None);
        }
        other => other?,
    };
    let Some(story) = story.filter(|story| story.outcome.is_none()) else { return Ok(None) };
    let changed = std::fs::metadata(&path)
        .with_context(|| format!("Cannot look at {}", path.display()))
        .map(|meta| std::os::unix::fs::MetadataExt::mtime(&meta))?;
    let cut = story.cut.map(|step| title(&story.request, step));
    // The last change of the mode that was not taken back.
    let mode = story.left().find_map(|item| match &item.made {
        Made::Maintenance(changed) => Some(changed.after),
        _ => None,
    });
    Ok(Some(HalfDeploy {
        cut,
        since: changed,
        is_worked_on: Journal::is_worked_on(&path)?,
        is_undeploying: story.is_undeploying,
        keeps_hands_off: (mode == Some(true)).then(|| story.request.host().name.clone()),
    }))
}

/// What must be known before the rest is believed: a deployment or a move that is not over, a cluster that has moved to other
/// storage.
///
/// # Errors
/// When the journal of a move is damaged.
pub fn warn(conf: &HostedEngineConf, half: Option<HalfDeploy>, terminal: &mut Terminal) -> Result<()> {
    let half = half.map(|half| half.to_string());
    let all = [half, deploy::half_move(conf.paths())?, deploy::moved_notice(conf)];
    all.into_iter().flatten().for_each(|text| terminal.complain(text));
    Ok(())
}

/// `--check-deployed`: exit 0 when it was, 1 when not.
pub fn check(paths: &Paths, terminal: &mut Terminal) -> Result<Exit> {
    let half = half_deploy(paths)?;
    if let Some(half) = half {
        terminal.say("The hosted engine has not been deployed");
        terminal.complain(half.to_string());
        return Ok(Exit::FAILED);
    }
    if configuration(paths)?.is_some() {
        terminal.say("The hosted engine has been deployed");
        return Ok(Exit::OK);
    }
    terminal.say("The hosted engine has not been deployed");
    let file = paths.hosted_engine_conf();
    if file.exists() {
        terminal.complain(format!(
            "{} is there without a vmid: its deployment goes on still, or was interrupted",
            file.display()
        ));
    }
    Ok(Exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::made::ChangedMaintenance;
    use crate::deploy::{Outcome, StepId};

    #[test]
    fn an_interrupted_deployment_is_recognised_and_both_ways_on_are_told() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.setup_state_dir()).unwrap();
        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        std::fs::write(paths.hosted_engine_conf(), "vmid=8b2b\n").unwrap();
        let request = crate::deploy::job_tests::request();
        let mut journal = Journal::begin(&paths.deploy_journal(), 0, request).unwrap();
        journal.begin_step(StepId::Broker).unwrap();
        assert!(half_deploy(&paths).unwrap().unwrap().to_string().contains("goes on now"));
        journal.will(ChangedMaintenance { before: false, after: true }.into()).unwrap();
        drop(journal);
        let mut terminal = Terminal::recording();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::FAILED);
        let said = terminal.recorded().err;
        assert!(
            said.contains("Global maintenance was set by hosted-engine --deploy on h1.example.com"),
            "{said}"
        );
        for part in ["at \"Starting the broker and joining the lockspaces\", at 2", "--resume", "--undo"] {
            assert!(said.contains(part), "{said}");
        }
        let mut journal = Journal::open(&paths.deploy_journal()).unwrap().unwrap();
        journal.will(ChangedMaintenance { before: true, after: false }.into()).unwrap();
        assert!(!half_deploy(&paths).unwrap().unwrap().to_string().contains("Global maintenance"));
        journal.over(Outcome::Deployed).unwrap();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::OK);
    }

    #[test]
    fn a_host_is_deployed_when_its_vmid_is_set() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let mut terminal = Terminal::recording();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::FAILED, "no file");

        std::fs::create_dir_all(paths.hosted_engine_conf_dir()).unwrap();
        std::fs::write(paths.hosted_engine_conf(), "fqdn=e.example\nvmid=\n").unwrap();
        assert_eq!(terminal.recorded().err, "");
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::FAILED, "no vmid");
        assert!(terminal.recorded().err.contains("without a vmid"));

        std::fs::write(paths.hosted_engine_conf(), "vmid=8b2b\n").unwrap();
        assert_eq!(check(&paths, &mut terminal).unwrap(), Exit::OK);
        assert!(terminal.recorded().out.ends_with("has been deployed\n"));
    }
}
