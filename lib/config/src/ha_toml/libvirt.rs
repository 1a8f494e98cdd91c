//! `[libvirt]`: which libvirt daemon runs the VM, and how.

use std::path::PathBuf;

use serde::Deserialize;

use super::Accel;

/// What stands for the destination's name in [`LibvirtTable::migrate_uri`].
pub const HOST: &str = "{host}";

/// `[libvirt]`: only for `hypervisor = "libvirt"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LibvirtTable {
    /// Connection URI of this host's daemon; default `"qemu:///system"`. Another socket is named by `?socket=PATH`.
    pub uri: String,
    /// Connection URI of another host's daemon as this host's daemon reaches it, `{host}` standing for the other host's
    /// name; default `"qemu+tls://{host}/system"`.
    pub migrate_uri: String,
    /// A file with the domain's XML; default: the domain is described from vm.conf.
    pub domain: Option<PathBuf>,
    /// Default `"auto"`.
    pub accel: Accel,
    /// Run the VM although no lock manager protects it: only for one machine, at the operator's risk. Default false.
    pub allow_unprotected: bool,
}

impl Default for LibvirtTable {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".to_owned(),
            migrate_uri: format!("qemu+tls://{HOST}/system"),
            domain: None,
            accel: Accel::default(),
            allow_unprotected: false,
        }
    }
}

impl LibvirtTable {
    /// Says the first value that cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.uri.contains(":/") || self.uri.chars().any(char::is_control) {
            return Err(format!(
                "libvirt.uri = {:?} must be a connection URI, for example \"qemu:///system\"",
                self.uri
            ));
        }
        let uri = &self.migrate_uri;
        if !uri.contains("://") || !uri.contains(HOST) || uri.chars().any(char::is_control) {
            return Err(format!(
                "libvirt.migrate_uri = {uri:?} must be a connection URI with {HOST} where the other host's name \
                 belongs, for example \"qemu+tls://{HOST}/system\""
            ));
        }
        match &self.domain {
            Some(path) if !path.is_absolute() => {
                Err(format!("libvirt.domain = \"{}\" must be an absolute path", path.display()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HaToml, Paths};

    fn error(text: &str) -> String {
        HaToml::parse(&Paths::default(), text).unwrap_err().to_string()
    }

    #[test]
    fn another_daemon_can_be_named() {
        let text = "[vm]\nhypervisor = \"libvirt\"\n[libvirt]\nuri = \"qemu:///system?socket=/run/x/libvirt-sock\"\n\
                    migrate_uri = \"qemu+tcp://{host}:16509/system\"\ndomain = \"/etc/engine.xml\"\nallow_unprotected = true\n";
        let table = HaToml::parse(&Paths::default(), text).unwrap().libvirt;
        assert_eq!(table.uri, "qemu:///system?socket=/run/x/libvirt-sock");
        assert_eq!(table.domain.as_deref(), Some(std::path::Path::new("/etc/engine.xml")));
        assert!(table.allow_unprotected && !LibvirtTable::default().allow_unprotected);
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for (line, key) in [
            ("uri = \"\"", "libvirt.uri"),
            ("uri = \"system\"", "libvirt.uri"),
            ("migrate_uri = \"qemu+tls://host2/system\"", "libvirt.migrate_uri"),
            ("migrate_uri = \"{host}\"", "libvirt.migrate_uri"),
            ("domain = \"engine.xml\"", "libvirt.domain"),
        ] {
            let error = error(&format!("[libvirt]\n{line}\n"));
            assert!(error.contains(key), "{line}: {error}");
        }
    }
}
