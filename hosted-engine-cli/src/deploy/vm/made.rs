//! The running VM as a thing that was made.

use std::path::PathBuf;

use engine_vm::VmError;
use ha_config::HostedEngineConf;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::first_start;
use crate::deploy::made::{Undo, Undone};
use crate::deploy::services_steps::asked;
use crate::deploy::{DeployError, World};

/// The engine VM on this host, with the directory of its first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeVm {
    /// The VM.
    pub vm: Uuid,
    /// Its first start's directory, whose name is the deployment's.
    pub directory: PathBuf,
}

impl Undo for MadeVm {
    fn describe(&self) -> String {
        format!("engine VM {}", self.vm)
    }

    fn describe_undo(&self) -> String {
        "powered off, when it is the VM that this host's hosted-engine.conf names".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let conf = match HostedEngineConf::load(world.paths) {
            Ok(conf) => Some(conf),
            // It is written before the VM starts and goes after it.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let undone = match conf {
            None => Undone::Absent,
            Some(conf) if Uuid::parse_str(conf.vmid()?) != Ok(self.vm) => {
                Undone::LeftAlone(format!("this host's VM is another one, {}", conf.vmid()?))
            }
            Some(_) => {
                let gone = asked(async {
                    match first_start::open(world, &self.directory)?.destroy().await {
                        Ok(()) => Ok(Undone::TakenBack),
                        Err(VmError::NotRunning) => Ok(Undone::Absent),
                        Err(error) => Err(DeployError::Refused(error.to_string())),
                    }
                });
                gone??
            }
        };
        let is_removed = first_start::remove(&self.directory)?;
        Ok(if is_removed && undone == Undone::Absent { Undone::TakenBack } else { undone })
    }

    /// An installation goes on where it is, and a VM that runs is adopted.
    fn outlives_a_cut(&self) -> bool {
        true
    }
}
