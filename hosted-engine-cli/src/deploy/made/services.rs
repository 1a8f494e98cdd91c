//! Services of this host, and what its daemons did for it on shared storage.

use std::fs;
use std::path::PathBuf;

use broker_api::BrokerClient;
use ha_config::{HostedEngineConf, Paths};
use sanlock_client::{Client, RemoveOptions};
use serde::{Deserialize, Serialize};

use super::{Undo, Undone};
use crate::deploy::services::ServiceState;
use crate::deploy::services_steps::asked;
use crate::deploy::{DeployError, World};
use crate::maintenance::set_global;
use crate::setup::LOCKSPACE_NAME;

/// A service that was started or enabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedService {
    /// Its name, without `.service`.
    pub name: String,
    /// How it was before.
    pub before: ServiceState,
    /// Its files were changed too: after they were restored it must read them again.
    pub reads_files: bool,
}

/// A directory that the daemons fill. What was not in it before goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonDirectory {
    /// Where.
    pub path: PathBuf,
    /// Names of what was in it before; `None` when it was not there.
    pub before: Option<Vec<String>>,
}

/// This host's place in the cluster's lockspaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedLockspaces {
    /// Its number.
    pub host_id: u16,
    /// The storage domain, whose name one lockspace has.
    pub sd_uuid: uuid::Uuid,
}

/// Global maintenance, set or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedMaintenance {
    /// What it was before.
    pub before: bool,
    /// What it is now.
    pub after: bool,
}

fn words(state: ServiceState) -> &'static str {
    match (state.is_active, state.is_enabled) {
        (true, true) => "running and enabled",
        (true, false) => "running and not enabled",
        (false, true) => "stopped and enabled",
        (false, false) => "stopped and not enabled",
    }
}

impl Undo for ChangedService {
    fn describe(&self) -> String {
        format!("service {}", self.name)
    }

    fn describe_undo(&self) -> String {
        format!("{}, as it was before", words(self.before))
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let Some(now) = world.services.state(&self.name)? else { return Ok(Undone::Absent) };
        if now != self.before {
            world.services.set(&self.name, self.before)?;
        }
        if self.reads_files && self.before.is_active {
            world.services.restart(&self.name)?;
        } else if now == self.before {
            return Ok(Undone::Absent);
        }
        Ok(Undone::TakenBack)
    }
}

impl Undo for DaemonDirectory {
    fn describe(&self) -> String {
        format!("what the daemons keep in {}", self.path.display())
    }

    fn describe_undo(&self) -> String {
        match &self.before {
            None => "removed with the directory".to_owned(),
            Some(names) if names.is_empty() => "removed".to_owned(),
            Some(names) => format!("removed, but {}", names.join(", ")),
        }
    }

    fn undo(&self, _: &World<'_>) -> Result<Undone, DeployError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Undone::Absent),
            other => other.map_err(DeployError::io("read", &self.path))?,
        };
        let kept = self.before.as_deref().unwrap_or_default();
        let mut is_changed = false;
        for entry in entries {
            let entry = entry.map_err(DeployError::io("read", &self.path))?;
            let path = entry.path();
            if entry.file_name().to_str().is_some_and(|name| kept.iter().any(|kept| kept == name)) {
                continue;
            }
            let kind = entry.file_type().map_err(DeployError::io("look at", &path))?;
            let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(DeployError::io("remove", &path))?;
            is_changed = true;
        }
        if self.before.is_none() {
            fs::remove_dir(&self.path).map_err(DeployError::io("remove the directory", &self.path))?;
            is_changed = true;
        }
        Ok(if is_changed { Undone::TakenBack } else { Undone::Absent })
    }
}

impl Undo for JoinedLockspaces {
    fn describe(&self) -> String {
        format!("host id {} in the lockspaces {LOCKSPACE_NAME} and {}", self.host_id, self.sd_uuid)
    }

    fn describe_undo(&self) -> String {
        "given up in order".to_owned()
    }

    /// Through the broker, which would take them again otherwise. Leaving the storage domain's lockspace ends a VM under it:
    /// where one runs, or where nobody knows, the lock manager is asked itself, and refuses while something holds a lease.
    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let broker = BrokerClient::new(world.paths.broker_socket());
        if world.paths.broker_socket().exists() && vm_is_away(world) {
            let left = asked(async {
                broker.release_host_id().await?;
                broker.stop_domain_monitor().await
            })?;
            if left.is_ok() {
                return Ok(Undone::TakenBack);
            }
        }
        self.leave(world.paths)
    }
}

/// Whether it is known that the engine VM does not run on this host.
fn vm_is_away(world: &World<'_>) -> bool {
    let Ok(conf) = HostedEngineConf::load(world.paths) else { return false };
    // In a runtime from the beginning, for adapters that watch the VM.
    asked(async {
        let Ok(vm) = (world.open_vm)(&conf) else { return false };
        vm.status().await.is_ok_and(|status| !status.exists())
    })
    .unwrap_or(false)
}

impl JoinedLockspaces {
    fn leave(&self, paths: &Paths) -> Result<Undone, DeployError> {
        let client = Client::new(paths.sanlock_socket());
        // No lock manager, no lockspace.
        let Ok(all) = client.get_lockspaces() else { return Ok(Undone::Absent) };
        let domain = self.sd_uuid.to_string();
        let mut undone = Undone::Absent;
        for record in all {
            let name = record.lockspace.name.as_str();
            if record.lockspace.host_id != u64::from(self.host_id)
                || (name != LOCKSPACE_NAME && name != domain)
            {
                continue;
            }
            let options = RemoveOptions { is_async: false, unused: true };
            client.remove_lockspace(&record.lockspace, options).map_err(|error| {
                DeployError::Refused(format!(
                    "cannot leave the lockspace {name}: {error}. If the engine VM runs on this host, move it away first \
                     (hosted-engine --migrate-vm) or shut it down"
                ))
            })?;
            undone = Undone::TakenBack;
        }
        Ok(undone)
    }
}

impl Undo for ChangedMaintenance {
    fn describe(&self) -> String {
        format!("global maintenance {}", if self.after { "set" } else { "ended" })
    }

    fn describe_undo(&self) -> String {
        match (self.before, self.after) {
            (before, after) if before == after => "nothing to do".to_owned(),
            (true, _) => "set again".to_owned(),
            (false, _) => "ended again".to_owned(),
        }
    }

    /// Without a broker nobody acts on it, and nobody can write it: the storage domain goes, or the next broker says so.
    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        if self.before == self.after {
            return Ok(Undone::Absent);
        }
        let socket = world.paths.broker_socket();
        let broker = BrokerClient::new(&socket);
        if !asked(broker.status())?.is_ok_and(|status| status.is_some()) {
            return Ok(Undone::LeftAlone("the broker of this host does not answer".to_owned()));
        }
        match asked(set_global(&broker, self.before, &mut crate::terminal::Terminal::recording()))? {
            Ok(()) => Ok(Undone::TakenBack),
            Err(error) => Ok(Undone::LeftAlone(format!("{error:#}"))),
        }
    }
}
