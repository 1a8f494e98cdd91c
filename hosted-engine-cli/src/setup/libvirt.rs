//! What libvirt's own files on a host must say, each change told with its reason.

use std::path::PathBuf;

use engine_vm::libvirt::host_setup::{self, Setting};
use ha_config::Paths;
use ha_config::atomic::{self, Mode};
use metadata_format::HostId;

use super::SetupError;
use super::report::Report;

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

/// Makes the changes. True when there were any: the daemon must be restarted to see them, which running VMs outlive.
///
/// # Errors
/// [`SetupError::Config`] with the file that cannot be read or written.
pub fn configure_libvirt(paths: &Paths, host_id: HostId, report: &dyn Report) -> Result<bool, SetupError> {
    let changes = libvirt_changes(paths, host_id)?;
    for LibvirtChange { path, after, settings } in &changes {
        for setting in settings {
            report.info(&format!(
                "{}: {} = {}: {}",
                path.display(),
                setting.key,
                setting.value,
                setting.reason
            ));
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(super::io("create the directory", directory))?;
        }
        atomic::write(path, after.as_bytes(), Mode::KeepOr644)?;
    }
    if !changes.is_empty() {
        report.warning("Restart libvirtd (or virtqemud) so that it reads its files anew; VMs that run go on");
    }
    Ok(!changes.is_empty())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[derive(Default)]
    struct Heard(RefCell<Vec<String>>);

    impl Report for Heard {
        fn info(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
        fn warning(&self, text: &str) {
            self.info(text);
        }
    }

    #[test]
    fn libvirts_files_are_changed_once_and_each_change_has_its_reason() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let qemu_conf = paths.resolve(host_setup::QEMU_CONF);
        std::fs::create_dir_all(qemu_conf.parent().unwrap()).unwrap();
        std::fs::write(&qemu_conf, "user = \"root\"\n").unwrap();
        let (heard, id) = (Heard::default(), HostId::new(3).unwrap());
        assert!(configure_libvirt(&paths, id, &heard).unwrap());
        let heard = heard.0.into_inner();
        assert!(
            heard[0].contains("lock_manager = \"sanlock\": libvirt takes the engine VM's lease"),
            "{heard:?}"
        );
        assert!(heard.last().unwrap().contains("Restart libvirtd"), "{heard:?}");
        let text = std::fs::read_to_string(&qemu_conf).unwrap();
        assert!(
            text.starts_with("user = \"root\"\n") && text.contains("lock_manager = \"sanlock\"\n"),
            "{text}"
        );
        let sanlock = std::fs::read_to_string(paths.resolve(host_setup::QEMU_SANLOCK_CONF)).unwrap();
        assert!(sanlock.contains("host_id = 3\n"), "{sanlock}");

        let again = Heard::default();
        assert!(!configure_libvirt(&paths, id, &again).unwrap());
        assert_eq!(again.0.into_inner().len(), 0);
    }
}
