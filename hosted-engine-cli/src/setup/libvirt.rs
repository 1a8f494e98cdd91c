//! What libvirt's own files on this host must say, where libvirt runs the engine VM: put in, each with its reason told.

use engine_vm::libvirt::host_setup::{QEMU_CONF, QEMU_SANLOCK_CONF, apply, qemu_conf, qemu_sanlock_conf};
use ha_config::Paths;
use ha_config::atomic::{self, Mode};
use metadata_format::HostId;

use super::SetupError;
use super::report::Report;

/// Changes what must be changed, and nothing else. A host that says it all already is left as it is.
pub(super) fn configure_libvirt(
    paths: &Paths,
    host_id: HostId,
    report: &dyn Report,
) -> Result<(), SetupError> {
    let mut touched = false;
    for (file, settings) in
        [(QEMU_CONF, qemu_conf()), (QEMU_SANLOCK_CONF, qemu_sanlock_conf(host_id.get().into()))]
    {
        let path = paths.resolve(file);
        let text = match atomic::read_text(&path) {
            Err(error) if error.is_not_found() && file == QEMU_CONF => {
                return Err(SetupError::Refused(format!(
                    "{} is missing, but [vm] hypervisor of ha.toml is \"libvirt\": install libvirt with its QEMU driver and \
                     its sanlock lock manager (Debian: libvirt-daemon-system and libvirt-sanlock), or choose another \
                     hypervisor",
                    path.display()
                )));
            }
            Err(error) if error.is_not_found() => String::new(),
            other => other?,
        };
        let (text, changed) = apply(&text, &settings);
        if changed.is_empty() {
            continue;
        }
        touched = true;
        report.info(&format!("Changing {}", path.display()));
        for setting in changed {
            report.info(&format!("  {} = {}: {}", setting.key, setting.value, setting.reason));
        }
        atomic::write(&path, text.as_bytes(), Mode::KeepOr644)?;
    }
    if touched {
        report.info(
            "libvirt's daemon reads them when it starts; its VMs go on meanwhile: systemctl restart libvirtd",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use super::*;

    #[derive(Default)]
    struct Said(RefCell<Vec<String>>);

    impl Report for Said {
        fn info(&self, text: &str) {
            self.0.borrow_mut().push(text.to_owned());
        }
        fn warning(&self, text: &str) {
            self.info(text);
        }
    }

    fn configure(root: &std::path::Path) -> Result<Vec<String>, SetupError> {
        let said = Said::default();
        configure_libvirt(&Paths::new(root), HostId::new(7).unwrap(), &said)?;
        Ok(said.0.into_inner())
    }

    #[test]
    fn each_change_is_told_with_its_reason_and_made_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/libvirt")).unwrap();
        let qemu = root.path().join("etc/libvirt/qemu.conf");
        fs::write(&qemu, "user = \"root\"\n").unwrap();

        let said = configure(root.path()).unwrap();
        let all = qemu_conf().into_iter().chain(qemu_sanlock_conf(7));
        for setting in all {
            let line = format!("  {} = {}: {}", setting.key, setting.value, setting.reason);
            assert!(said.contains(&line), "{line:?} in {said:?}");
        }
        assert!(said.last().unwrap().ends_with("restart libvirtd"), "{said:?}");
        let text = fs::read_to_string(&qemu).unwrap();
        assert!(
            text.starts_with("user = \"root\"\n") && text.contains("lock_manager = \"sanlock\""),
            "{text}"
        );
        let sanlock = fs::read_to_string(root.path().join("etc/libvirt/qemu-sanlock.conf")).unwrap();
        assert!(sanlock.contains("\nhost_id = 7\n"), "{sanlock}");

        assert_eq!(configure(root.path()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_host_without_libvirt_is_told_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let error = configure(root.path()).unwrap_err().to_string();
        for part in ["etc/libvirt/qemu.conf is missing", "libvirt-sanlock"] {
            assert!(error.contains(part), "{part:?} in {error}");
        }
    }
}
