//! Bringing the VM's description from shared storage to this host, where /run is empty after each boot.
//!
//! The description in the configuration volume goes to vm.conf.fallback. It becomes vm.conf as well when there is none,
//! or when the one that is there came from an earlier refresh; a vm.conf of another origin (the engine's newer
//! description) stays. Reads shared storage: call it where blocking for long does no harm.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::atomic::{self, Mode};
use crate::conf_archive::{self, ArchiveError};
use crate::error::{ConfigError, io};
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

/// Brings the VM's description up to date on the host of `conf`.
pub fn refresh_vm_conf(conf: &HostedEngineConf) -> Result<Refreshed, RefreshError> {
    let Some(volume) = conf.conf_volume_path()? else { return Ok(Refreshed::NoVolume) };
    let mut bytes = Vec::new();
    File::open(&volume)
        .and_then(|file| file.take(conf_archive::MAX_BYTES as u64).read_to_end(&mut bytes))
        .map_err(|error| RefreshError::Storage(io("read", &volume)(error)))?;
    let mut files = conf_archive::read(&bytes)
        .map_err(|source| RefreshError::Archive { path: volume.clone(), source })?;
    let Some(text) = files.remove("vm.conf") else { return Err(RefreshError::Missing(volume)) };
    let text = String::from_utf8_lossy(&text).into_owned();
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
            assert_eq!(refresh_vm_conf(&host.conf).unwrap(), Refreshed::Updated);
            assert_eq!(host.active(), text);
            assert_eq!(refresh_vm_conf(&host.conf).unwrap(), Refreshed::Current);
        }
    }

    #[test]
    fn a_description_of_another_origin_stays() {
        let host = host();
        host.store("vmId=1\n");
        fs::write(host.conf.vm_conf_path(), "vmId=1\nsmp=8\n").unwrap();
        assert_eq!(refresh_vm_conf(&host.conf).unwrap(), Refreshed::Updated);
        host.store("vmId=1\nsmp=2\n");
        assert_eq!(refresh_vm_conf(&host.conf).unwrap(), Refreshed::Updated);
        assert_eq!(host.active(), "vmId=1\nsmp=8\n");
        assert_eq!(fs::read_to_string(host.conf.paths().vm_conf_fallback()).unwrap(), "vmId=1\nsmp=2\n");
    }

    #[test]
    fn a_bad_volume_changes_nothing() {
        let host = host();
        host.store("vmId=1\n");
        refresh_vm_conf(&host.conf).unwrap();
        host.store("vmId=1\ndevices={broken\n");
        assert!(refresh_vm_conf(&host.conf).unwrap_err().to_string().contains("{broken"));
        fs::write(&host.volume, [0; 4096]).unwrap();
        assert!(refresh_vm_conf(&host.conf).unwrap_err().to_string().contains("nothing was deployed"));
        fs::remove_file(&host.volume).unwrap();
        assert!(refresh_vm_conf(&host.conf).is_err());
        assert_eq!(host.active(), "vmId=1\n");
        let none = HostedEngineConf::parse(host.conf.paths(), "domainType=nfs\n");
        assert_eq!(refresh_vm_conf(&none).unwrap(), Refreshed::NoVolume);
    }
}
