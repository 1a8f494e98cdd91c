//! Finding a cluster on storage: its configuration volume and what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ha_config::{HostedEngineConf, KeyValueFile, Paths, conf_archive};

use super::domain::StorageSpec;
use super::volume::CONFIGURATION;
use super::{SetupError, io};
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
    pub(super) fn files(&self) -> [(&'static str, &[u8]); 6] {
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

/// Reads the cluster's configuration from storage that is mounted on this host.
pub fn find_cluster(paths: &Paths, storage: &StorageSpec) -> Result<ClusterConf, SetupError> {
    let mount = storage.mount_dir(paths);
    let mut found = BTreeMap::new();
    for domain in subdirectories(&mount)?.into_iter().filter(|path| path.join("ha_agent").is_dir()) {
        for image in subdirectories(&domain.join("images"))? {
            if let Some(volume) = configuration_volume(&image)? {
                found.insert(domain.clone(), volume);
            }
        }
    }
    let mut volumes = found.into_iter();
    match (volumes.next(), volumes.next()) {
        (Some((_, volume)), None) => ClusterConf::read(&volume),
        (None, _) => Err(SetupError::Refused(format!(
            "{}: there is no hosted engine on this storage; set up the first host with hosted-engine setup storage",
            mount.display()
        ))),
        (Some((first, _)), Some((second, _))) => Err(SetupError::Refused(format!(
            "there are two hosted engines on this storage, {} and {}; remove the one that is not in use",
            first.display(),
            second.display()
        ))),
    }
}

fn configuration_volume(image: &Path) -> Result<Option<PathBuf>, SetupError> {
    for entry in fs::read_dir(image).map_err(io("read", image))? {
        let path = entry.map_err(io("read", image))?.path();
        if path.extension().is_some_and(|extension| extension == "meta")
            && KeyValueFile::load(&path)?.get("DESCRIPTION") == Some(CONFIGURATION)
        {
            return Ok(Some(path.with_extension("")));
        }
    }
    Ok(None)
}

fn subdirectories(path: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).map_err(io("read", path))? {
        let entry = entry.map_err(io("read", path))?;
        if entry.path().is_dir() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}
