//! What VDSM's own configuration says that a deployment must know.
//!
//! VDSM reads `/etc/vdsm/vdsm.conf`, then every `*.conf` of `/usr/lib/vdsm/vdsm.conf.d`, `/run/vdsm/vdsm.conf.d` and
//! `/etc/vdsm/vdsm.conf.d` in the order of their names, whatever their directory. The last word on a key counts.

use std::path::PathBuf;

use crate::atomic;
use crate::error::Result;
use crate::ini::Ini;
use crate::paths::Paths;

/// Directories of parts, in the order that counts among files of one name.
const PARTS: [&str; 3] = ["/usr/lib/vdsm/vdsm.conf.d", "/run/vdsm/vdsm.conf.d", "/etc/vdsm/vdsm.conf.d"];

/// The file that has VDSM do without KVM (`fake_kvm_support = true` in `[vars]`); `None` where VDSM wants KVM, which is its
/// default.
///
/// # Errors
/// A file that cannot be read, or that VDSM would refuse.
pub fn fake_kvm(paths: &Paths) -> Result<Option<PathBuf>> {
    let mut found = None;
    for path in files(paths) {
        let text = match atomic::read_text(&path) {
            Err(error) if error.is_not_found() => continue,
            other => other?,
        };
        let ini = Ini::parse(&path, &text)?;
        for entry in ini.section("vars").filter(|entry| entry.key == "fake_kvm_support") {
            found = match entry.value.to_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => Some(path.clone()),
                "0" | "no" | "false" | "off" => None,
                _ => return Err(ini.bad_value(entry, "true or false")),
            };
        }
    }
    Ok(found)
}

/// All files, in VDSM's order. A directory that cannot be read has none for VDSM, either.
fn files(paths: &Paths) -> Vec<PathBuf> {
    let entries = PARTS.iter().filter_map(|part| std::fs::read_dir(paths.resolve(part)).ok());
    let mut parts: Vec<PathBuf> = entries
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    // Stable: among equal names the directories' order stays.
    parts.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    std::iter::once(paths.vdsm_conf()).chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_word_on_kvm_counts_and_its_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        assert_eq!(fake_kvm(&paths).unwrap(), None, "no file");
        let write = |name: &str, text: &str| {
            let path = paths.resolve(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let conf = write("/etc/vdsm/vdsm.conf", "[vars]\nssl = true\n");
        assert_eq!(fake_kvm(&paths).unwrap(), None);
        fs::write(&conf, "[vars]\nfake_kvm_support = True\n[addresses]\nfake_kvm_support = false\n").unwrap();
        assert_eq!(fake_kvm(&paths).unwrap(), Some(conf.clone()));
        write("/etc/vdsm/vdsm.conf.d/10-site.conf", "[vars]\nfake_kvm_support: off\n");
        assert_eq!(fake_kvm(&paths).unwrap(), None);
        let last = write("/usr/lib/vdsm/vdsm.conf.d/50-vendor.conf", "[vars]\nFAKE_KVM_SUPPORT=yes\n");
        write("/run/vdsm/vdsm.conf.d/90-other.conf.old", "[vars]\nfake_kvm_support=no\n");
        assert_eq!(fake_kvm(&paths).unwrap(), Some(last));

        fs::write(&conf, "[vars]\nfake_kvm_support = maybe\n").unwrap();
        let error = fake_kvm(&paths).unwrap_err().to_string();
        assert!(error.contains("vdsm.conf:2") && error.contains("maybe"), "{error}");
        fs::write(&conf, "fake_kvm_support = true\n").unwrap();
        assert!(fake_kvm(&paths).unwrap_err().to_string().contains("before the first [section]"));
    }
}
