//! The cluster's configuration, as it is in its volume.

use std::path::Path;

use ha_config::{HostedEngineConf, Paths, conf_archive};

use super::SetupError;
use crate::shared_file::SharedFile;

/// The cluster's configuration files, as they are on shared storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConf {
    /// hosted-engine.conf without a host id.
    pub hosted_engine_conf: String,
    /// vm.conf.
    pub vm_conf: String,
    /// broker.conf.
    pub broker_conf: String,
    /// ha.toml; empty on a cluster that another tool set up.
    pub ha_toml: String,
    /// answers.conf.
    pub answers: String,
}

impl ClusterConf {
    pub(crate) fn files(&self) -> [(&'static str, &[u8]); 6] {
        [
            ("version", env!("CARGO_PKG_VERSION").as_bytes()),
            ("fhanswers.conf", self.answers.as_bytes()),
            ("hosted-engine.conf", self.hosted_engine_conf.as_bytes()),
            ("broker.conf", self.broker_conf.as_bytes()),
            ("vm.conf", self.vm_conf.as_bytes()),
            ("ha.toml", self.ha_toml.as_bytes()),
        ]
    }

    /// Reads a configuration volume.
    pub fn read(volume: &Path) -> Result<Self, SetupError> {
        let bytes = SharedFile::open(volume, false)?.read(0, conf_archive::MAX_BYTES)?;
        let mut files = conf_archive::read(&bytes)?;
        let mut take = |name: &str| {
            files
                .remove(name)
                .map(|content| String::from_utf8_lossy(&content).into_owned())
                .unwrap_or_default()
        };
        let conf = Self {
            hosted_engine_conf: take("hosted-engine.conf"),
            vm_conf: take("vm.conf"),
            broker_conf: take("broker.conf"),
            ha_toml: take("ha.toml"),
            answers: take("fhanswers.conf"),
        };
        for (name, text) in [("hosted-engine.conf", &conf.hosted_engine_conf), ("vm.conf", &conf.vm_conf)] {
            if text.trim().is_empty() {
                return Err(SetupError::Refused(format!("{}: there is no {name} in it", volume.display())));
            }
        }
        Ok(conf)
    }

    /// Its hosted-engine.conf as if it were the file of the host with these paths.
    pub fn parsed(&self, paths: &Paths) -> HostedEngineConf {
        HostedEngineConf::parse(paths, &self.hosted_engine_conf)
    }
}
