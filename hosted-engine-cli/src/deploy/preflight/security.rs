//! `SELinux` and `AppArmor`: what they forbid QEMU and sanlock unless told otherwise.

use ha_config::ha_toml::Hypervisor;

use super::{Finding, Host};
use crate::deploy::{Call, StorageKind};

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    if read("/sys/fs/selinux/enforce").trim() == "1" {
        let names = booleans(host.storage().kind);
        let said = host.hear(&Call::new("getsebool").args(names)).unwrap_or_default();
        found.extend(judge_selinux(&said));
    }
    let has_apparmor = read("/sys/module/apparmor/parameters/enabled").trim() == "Y";
    if has_apparmor
        && host.hypervisor() == Hypervisor::Libvirt
        && host.storage().kind != StorageKind::Directory
    {
        found.push(Finding::note(
            "AppArmor confines the VMs of libvirt",
            "when the VM's start fails with \"Permission denied\", see dmesg, and add the mount to /etc/apparmor.d/local/abstractions/libvirt-qemu",
        ));
    }
    found
}

/// What the policy must allow for this kind of storage.
fn booleans(kind: StorageKind) -> &'static [&'static str] {
    match kind {
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 => {
            &["virt_use_sanlock", "virt_use_nfs", "sanlock_use_nfs"]
        }
        StorageKind::Glusterfs => &["virt_use_sanlock", "virt_use_fusefs", "sanlock_use_fusefs"],
        StorageKind::Iscsi | StorageKind::Fc | StorageKind::Directory => &["virt_use_sanlock"],
    }
}

fn judge_selinux(said: &str) -> Option<Finding> {
    let off: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_suffix(" --> off")).collect();
    (!off.is_empty()).then(|| {
        let words: Vec<String> = off.iter().map(|name| format!("{name}=1")).collect();
        Finding::warning(
            format!("SELinux enforces its policy, in which {} is off", off.join(", ")),
            format!("allow it: setsebool -P {}", words.join(" ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_selinux_forbids_is_named_with_the_command_that_allows_it() {
        assert_eq!(judge_selinux("virt_use_sanlock --> on\nvirt_use_nfs --> on\n"), None);
        let found = judge_selinux("virt_use_sanlock --> on\nvirt_use_nfs --> off\nsanlock_use_nfs --> off\n")
            .unwrap();
        assert_eq!(found.advice, "allow it: setsebool -P virt_use_nfs=1 sanlock_use_nfs=1");
    }
}
