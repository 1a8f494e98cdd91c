//! What libvirt's own files on a host must say, each change told with its reason.

use std::path::PathBuf;

use engine_vm::libvirt::host_setup::{self, Setting};
use ha_config::Paths;
use ha_config::atomic;
use metadata_format::HostId;

use super::SetupError;

/// What a file of libvirt's must say that it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtChange {
    /// The file.
    pub path: PathBuf,
    /// Its text then.
    pub after: String,
    /// What changes.
    pub settings: Vec<Setting>,
}

/// What must change so that libvirt on this host takes leases from sanlock. Everything else in its files stays as it is.
///
/// # Errors
/// [`SetupError::Config`] with the file that cannot be read.
pub fn libvirt_changes(paths: &Paths, host_id: HostId) -> Result<Vec<LibvirtChange>, SetupError> {
    let mut changes = Vec::new();
    for (name, settings) in [
        (host_setup::QEMU_CONF, host_setup::qemu_conf()),
        (host_setup::QEMU_SANLOCK_CONF, host_setup::qemu_sanlock_conf(u64::from(host_id.get()))),
    ] {
        let path = paths.resolve(name);
        let text = match atomic::read_text(&path) {
            Err(error) if error.is_not_found() => String::new(),
            other => other?,
        };
        let (after, differing) = host_setup::apply(&text, &settings);
        let settings: Vec<Setting> = differing.into_iter().cloned().collect();
        if !settings.is_empty() {
            changes.push(LibvirtChange { path, after, settings });
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_files_are_changed_once_and_each_change_has_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let qemu_conf = paths.resolve(host_setup::QEMU_CONF);
        std::fs::create_dir_all(qemu_conf.parent().unwrap()).unwrap();
        std::fs::write(&qemu_conf, "user = \"root\"\n").unwrap();
        let id = HostId::new(3).unwrap();
        let changes = libvirt_changes(&paths, id).unwrap();
        let lock = &changes[0].settings[0];
        assert_eq!((lock.key, lock.value.as_str()), ("lock_manager", "\"sanlock\""));
        assert!(lock.reason.contains("libvirt takes the engine VM's lease"), "{}", lock.reason);
        for change in &changes {
            std::fs::create_dir_all(change.path.parent().unwrap()).unwrap();
            std::fs::write(&change.path, &change.after).unwrap();
        }
        let text = std::fs::read_to_string(&qemu_conf).unwrap();
        assert!(
            text.starts_with("user = \"root\"\n") && text.contains("lock_manager = \"sanlock\"\n"),
            "{text}"
        );
        let sanlock = std::fs::read_to_string(paths.resolve(host_setup::QEMU_SANLOCK_CONF)).unwrap();
        assert!(sanlock.contains("host_id = 3\n"), "{sanlock}");
        assert_eq!(libvirt_changes(&paths, id).unwrap(), []);
    }
}
