//! Bringing the cluster's configuration from shared storage to this host, with one read of the configuration volume:
//! the VM's description, which /run has lost after each boot, and the copies of hosted-engine.conf and broker.conf.
//!
//! The description in the configuration volume goes to vm.conf.fallback. It becomes vm.conf as well when there is none,
//! or when the one that is there came from an earlier refresh; a vm.conf of another origin (the engine's newer
//! description) stays. Reads shared storage: call it where blocking for long does no harm.

use std::path::PathBuf;

use crate::atomic::{self, Mode};
use crate::cached;
use crate::conf_archive::{self, Archive, ArchiveError};
use crate::conf_volume::{self, VolumeError};
use crate::error::ConfigError;
use crate::hosted_engine::HostedEngineConf;
use crate::vm_conf::VmConf;

/// What a refresh did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// This host has what shared storage has.
    Current,
    /// It has now.
    Updated,
    /// The cluster has no configuration volume: there is nothing to refresh from.
    NoVolume,
}

/// Why this host could not be brought up to date. What it had is still there.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The volume cannot be read: storage fails, or is not there.
    #[error(transparent)]
    Storage(ConfigError),
    /// A file of this host cannot be read or written, or the description is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The volume's content is not usable.
    #[error("{}: {source}", path.display())]
    Archive {
        /// The volume.
        path: PathBuf,
        /// What is wrong.
        source: ArchiveError,
    },
    /// There is no description in it.
    #[error("{}: there is no vm.conf in the configuration volume", .0.display())]
    Missing(PathBuf),
}

impl From<VolumeError> for RefreshError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Storage(error) => Self::Storage(error.into()),
            VolumeError::Archive { path, source } => Self::Archive { path, source },
            VolumeError::Full { path, .. } => {
                Self::Archive { path, source: ArchiveError::TooLong("the archive".to_owned()) }
            }
        }
    }
}

/// Brings the copies of hosted-engine.conf and broker.conf up to date, and nothing else.
pub fn refresh_copies(conf: &HostedEngineConf) -> Result<Refreshed, RefreshError> {
    let Some(volume) = conf.conf_volume_path()? else { return Ok(Refreshed::NoVolume) };
    let changed = cached::store(conf.paths(), &conf_volume::read(&volume)?)?;
    Ok(if changed { Refreshed::Updated } else { Refreshed::Current })
}

/// Brings everything up to date on the host of `conf`. The result tells of the VM's description; `copies` of the rest,
/// which is no reason to call the description out of date.
pub fn refresh_vm_conf(
    conf: &HostedEngineConf,
    copies: impl FnOnce(Result<bool, ConfigError>),
) -> Result<Refreshed, RefreshError> {
    let Some(volume) = conf.conf_volume_path()? else { return Ok(Refreshed::NoVolume) };
    let archive = conf_volume::read(&volume)?;
    copies(cached::store(conf.paths(), &archive));
    refresh_from(conf, volume, &archive)
}

fn refresh_from(
    conf: &HostedEngineConf,
    volume: PathBuf,
    archive: &Archive,
) -> Result<Refreshed, RefreshError> {
    let Some(text) = archive.content(conf_archive::VM_CONF) else {
        return Err(RefreshError::Missing(volume));
    };
    let text = String::from_utf8_lossy(text).into_owned();
    // A description that cannot be used must not replace one that can.
    VmConf::parse(&volume, &text)?.vm_id()?;

    let (active, fallback) = (conf.vm_conf_path(), conf.paths().vm_conf_fallback());
    let read = |path: &PathBuf| match atomic::read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    };
    let (old_active, old_fallback) = (read(&active)?, read(&fallback)?);
    let mut updated = false;
    // Before the fallback: interrupted in between, the next refresh does the rest.
    if old_active.is_none() || (old_active == old_fallback && old_active.as_deref() != Some(&text)) {
        atomic::write(&active, text.as_bytes(), Mode::KeepOr644)?;
        updated = true;
    }
    if old_fallback.as_deref() != Some(&text) {
        atomic::write(&fallback, text.as_bytes(), Mode::KeepOr644)?;
        updated = true;
    }
    Ok(if updated { Refreshed::Updated } else { Refreshed::Current })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;
    use std::fs;

    struct Host {
        conf: HostedEngineConf,
        volume: PathBuf,
        _dir: tempfile::TempDir,
    }

    fn host() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let text = "domainType=nfs\nstorage=a:/b\nsdUUID=s\nconf_image_UUID=i\nconf_volume_UUID=v\n";
        let conf = HostedEngineConf::parse(&paths, text);
        let volume = conf.conf_volume_path().unwrap().unwrap();
        fs::create_dir_all(volume.parent().unwrap()).unwrap();
        fs::create_dir_all(paths.run_dir()).unwrap();
        Host { conf, volume, _dir: dir }
    }

    fn refresh(conf: &HostedEngineConf) -> Result<Refreshed, RefreshError> {
        refresh_vm_conf(conf, |copies| assert!(copies.is_ok(), "{copies:?}"))
    }

    impl Host {
        fn store(&self, vm_conf: &str) {
            fs::write(&self.volume, conf_archive::write(&[("vm.conf", vm_conf.as_bytes())], 0).unwrap())
                .unwrap();
        }

        fn active(&self) -> String {
            fs::read_to_string(self.conf.vm_conf_path()).unwrap()
        }
    }

    #[test]
    fn after_a_boot_and_after_a_change_the_host_has_what_storage_has() {
        let host = host();
        for text in ["vmId=1\n", "vmId=1\nsmp=2\n"] {
            host.store(text);
            assert_eq!(refresh(&host.conf).unwrap(), Refreshed::Updated);
            assert_eq!(host.active(), text);
            assert_eq!(refresh(&host.conf).unwrap(), Refreshed::Current);
        }
    }

    #[test]
    fn the_copies_follow_the_volume_and_keep_passwords_closed() {
        use std::os::unix::fs::PermissionsExt;
        let host = host();
        let paths = host.conf.paths().clone();
        let store = |he: &str, broker: &str| {
            let files = [("vm.conf", "vmId=1\n"), ("hosted-engine.conf", he), ("broker.conf", broker)];
            let files = files.map(|(name, text)| (name, text.as_bytes()));
            fs::write(&host.volume, conf_archive::write(&files, 0).unwrap()).unwrap();
        };
        let texts = || {
            [paths.cached_hosted_engine_conf(), paths.cached_broker_conf()]
                .map(|path| fs::read_to_string(path).unwrap())
        };
        store("a=1\npassword=x\n", "[email]\n");
        assert_eq!(refresh_copies(&host.conf).unwrap(), Refreshed::Updated);
        assert_eq!(refresh_copies(&host.conf).unwrap(), Refreshed::Current);
        assert_eq!(texts(), ["a=1\npassword=x\n", "[email]\n"]);
        let mode = fs::metadata(paths.cached_hosted_engine_conf()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store("a=2\n", "");
        refresh(&host.conf).unwrap();
        assert_eq!(texts(), ["a=2\n", "[email]\n"], "an empty file leaves the copy alone");
    }

    #[test]
    fn a_description_of_another_origin_stays() {
        let host = host();
        host.store("vmId=1\n");
        fs::write(host.conf.vm_conf_path(), "vmId=1\nsmp=8\n").unwrap();
        assert_eq!(refresh(&host.conf).unwrap(), Refreshed::Updated);
        host.store("vmId=1\nsmp=2\n");
        assert_eq!(refresh(&host.conf).unwrap(), Refreshed::Updated);
        assert_eq!(host.active(), "vmId=1\nsmp=8\n");
        assert_eq!(fs::read_to_string(host.conf.paths().vm_conf_fallback()).unwrap(), "vmId=1\nsmp=2\n");
    }

    #[test]
    fn a_bad_volume_changes_nothing() {
        let host = host();
        host.store("vmId=1\n");
        refresh(&host.conf).unwrap();
        host.store("vmId=1\ndevices={broken\n");
        assert!(refresh(&host.conf).unwrap_err().to_string().contains("{broken"));
        fs::write(&host.volume, [0; 4096]).unwrap();
        assert!(refresh(&host.conf).unwrap_err().to_string().contains("nothing was deployed"));
        fs::remove_file(&host.volume).unwrap();
        assert!(refresh(&host.conf).is_err());
        assert_eq!(host.active(), "vmId=1\n");
        let none = HostedEngineConf::parse(host.conf.paths(), "domainType=nfs\n");
        assert_eq!(refresh(&none).unwrap(), Refreshed::NoVolume);
    }
}
