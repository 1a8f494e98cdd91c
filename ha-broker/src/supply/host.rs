//! The way on a host that VDSM manages.

use std::path::PathBuf;

use async_trait::async_trait;
use ha_config::{HaConf, HostedEngineConf, Paths};
use storage_domain::StorageDomain;

use super::Way;

/// Through VDSM.
pub struct VdsmWay {
    domain: StorageDomain,
    paths: Paths,
    files: Vec<PathBuf>,
}

impl VdsmWay {
    /// For the storage domain of `conf`.
    ///
    /// # Errors
    /// A key that the files' paths need.
    pub fn new(vdsm: vdsm_client::Client, conf: &HostedEngineConf) -> Result<Self, ha_config::ConfigError> {
        Ok(Self {
            domain: StorageDomain::new(vdsm, conf.clone()),
            paths: conf.paths().clone(),
            files: vec![conf.metadata_path()?, conf.lockspace_path()?],
        })
    }
}

#[async_trait]
impl Way for VdsmWay {
    async fn make(&self, on_step: &(dyn Fn(String) + Send + Sync)) -> Result<Vec<String>, String> {
        let ready = self.domain.bring_up(&|step| on_step(step.to_string())).await;
        ready.map(|ready| ready.warnings).map_err(|error| error.to_string())
    }

    async fn look(&self) -> Result<(), String> {
        for file in &self.files {
            std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    async fn is_in_maintenance(&self) -> bool {
        HaConf::load(&self.paths).is_ok_and(HaConf::is_maintenance)
    }
}
