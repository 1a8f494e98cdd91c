//! Whether the VM is protected: by libvirt's configuration before a start, by sanlock's word before guest code runs and at
//! each look.

use std::fs;
use std::path::Path;

use super::host_setup::LockManager;
use super::look::Inner;
use super::settings::LibvirtSettings;
use crate::lease::{LeaseError, LeaseOwner, LeaseSpec};
use crate::port::{LeaseHolding, VmActivity, VmError};
use crate::under_libvirt;

/// What to do about a libvirt that does not protect its VMs.
pub(super) const ADVICE: &str = "set lock_manager = \"sanlock\" in /etc/libvirt/qemu.conf (the package libvirt-sanlock or \
                                 libvirt-lock-sanlock must be there) and restart libvirtd";

/// Said wherever the operator's insistence matters.
const INSISTED: &str = "allow_unprotected is set in [libvirt] of ha.toml: nothing keeps the engine VM from running on two \
                        hosts at once";

/// What sanlock knows of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Registration {
    /// It holds the lease.
    Holds,
    /// It is registered, so that the lease can be taken for it, and does not hold it.
    Known,
    /// Nothing: no lock manager stands behind it.
    Unknown {
        /// sanlock's word.
        detail: String,
    },
}

/// Asks sanlock about process `pid`.
fn registration(spec: &LeaseSpec, pid: u32) -> Result<Registration, LeaseError> {
    match spec.holding(pid) {
        LeaseHolding::Held => Ok(Registration::Holds),
        LeaseHolding::Lost { detail } if is_registered(spec, pid)? => {
            tracing::trace!(detail, "QEMU is registered with sanlock and does not hold its lease");
            Ok(Registration::Known)
        }
        LeaseHolding::Lost { detail } => Ok(Registration::Unknown { detail }),
        LeaseHolding::Unknown { detail } | LeaseHolding::Pending { detail } => {
            Err(LeaseError::Unavailable(detail))
        }
        LeaseHolding::NoVm => Err(LeaseError::Unavailable(format!("there is no process {pid}"))),
    }
}

fn is_registered(spec: &LeaseSpec, pid: u32) -> Result<bool, LeaseError> {
    let Some((client, _)) = spec.client() else { return Ok(false) };
    match client.inquire_pid(pid) {
        Ok(_) => Ok(true),
        Err(error) if error.refusal() == Some(sanlock_client::Refusal::NoSuchProcess) => Ok(false),
        Err(error) => Err(LeaseError::Unavailable(error.to_string())),
    }
}

/// Refuses a daemon whose configuration says that it protects nothing. One that cannot be read says nothing: sanlock
/// itself is asked later in any case.
pub(super) fn check_daemon(settings: &LibvirtSettings) -> Result<(), VmError> {
    if settings.allow_unprotected {
        tracing::warn!("{INSISTED}");
        return Ok(());
    }
    if !settings.is_local() {
        return Ok(());
    }
    match fs::read_to_string(&settings.qemu_conf) {
        Ok(text) => check_text(&text, &settings.qemu_conf),
        Err(error) => {
            tracing::debug!(%error, "{} tells nothing", settings.qemu_conf.display());
            Ok(())
        }
    }
}

fn check_text(text: &str, path: &Path) -> Result<(), VmError> {
    let found = match LockManager::of(text) {
        LockManager::Sanlock => return Ok(()),
        LockManager::None => "has no lock_manager".to_owned(),
        LockManager::Other(name) => format!("has lock_manager = {name:?}"),
    };
    Err(VmError::NoLease {
        detail: format!("{} {found}, so that libvirt would take no lease for it; {ADVICE}", path.display()),
    })
}

impl Inner {
    /// QEMU's process as the daemon notes it; `None` when that is not to be seen from here.
    pub fn pid(&self) -> Option<u32> {
        if !self.settings.is_local() {
            return None;
        }
        let is_pid_file = |path: &Path| path.extension().is_some_and(|extension| extension == "pid");
        let files = fs::read_dir(self.settings.pid_dir()).ok()?.flatten().map(|entry| entry.path());
        files.filter(|path| is_pid_file(path)).find_map(|path| {
            let pid: u32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            // The file may be of another VM, or of an earlier process.
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let is_vm = |word: &[u8]| word.eq_ignore_ascii_case(self.settings.uuid.as_bytes());
            arguments.split(|byte| *byte == 0).any(is_vm).then_some(pid)
        })
    }

    /// Whose the lease is, as sanlock says.
    pub async fn lease_owner(&self) -> Result<LeaseOwner, LeaseError> {
        let spec = self.settings.lease.clone();
        in_background(move || spec.owner()).await
    }

    /// What sanlock knows of QEMU's process.
    pub async fn registration(&self, pid: u32) -> Result<Registration, LeaseError> {
        let spec = self.settings.lease.clone();
        in_background(move || registration(&spec, pid)).await
    }

    /// Whether the VM is protected.
    pub async fn holding(&self, activity: VmActivity, pid: Option<u32>) -> LeaseHolding {
        if activity == VmActivity::Down {
            return LeaseHolding::NoVm;
        }
        let holding = self.holding_of(activity, pid).await;
        match holding {
            LeaseHolding::Lost { detail } | LeaseHolding::Unknown { detail }
                if self.settings.allow_unprotected =>
            {
                tracing::warn!(detail, "{INSISTED}");
                // Another host's VM is not to be told to stay out: there the lease may protect one.
                match self.lease_owner().await {
                    Ok(LeaseOwner::Other { detail }) => LeaseHolding::Lost { detail },
                    Ok(LeaseOwner::Nobody | LeaseOwner::ThisHost) | Err(_) => {
                        LeaseHolding::Unknown { detail: format!("{INSISTED} ({detail})") }
                    }
                }
            }
            other => other,
        }
    }

    async fn holding_of(&self, activity: VmActivity, pid: Option<u32>) -> LeaseHolding {
        let Some(pid) = pid else {
            return under_libvirt::holding(activity, self.lease_owner().await);
        };
        match self.registration(pid).await {
            Ok(Registration::Holds) => LeaseHolding::Held,
            Ok(Registration::Known) => {
                let owner = match self.lease_owner().await {
                    Ok(LeaseOwner::ThisHost) => Ok(LeaseOwner::Other {
                        detail: format!("another process of this host owns the lease, not QEMU ({pid})"),
                    }),
                    other => other,
                };
                under_libvirt::holding(activity, owner)
            }
            // Registered just before its first guest code runs.
            Ok(Registration::Unknown { detail }) if activity == VmActivity::WaitForLaunch => {
                LeaseHolding::Pending { detail: format!("{detail}; no guest code runs yet") }
            }
            Ok(Registration::Unknown { detail }) => LeaseHolding::Lost { detail },
            Err(error) => LeaseHolding::Unknown { detail: error.to_string() },
        }
    }
}

/// Waits for questions to sanlock, which have deadlines of their own.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LeaseError> + Send + 'static,
) -> Result<T, LeaseError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LeaseError::Unavailable(format!("a task failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_without_sanlock_is_refused_with_what_to_do() {
        let check = |text: &str| check_text(text, Path::new("/etc/libvirt/qemu.conf"));
        assert!(check("lock_manager = \"sanlock\"\n").is_ok());
        for text in ["", "#lock_manager = \"sanlock\"\n", "lock_manager = \"lockd\"\n"] {
            let error = check(text).unwrap_err();
            assert!(matches!(error, VmError::NoLease { .. }), "{error}");
            let error = error.to_string();
            assert!(
                error.contains("/etc/libvirt/qemu.conf") && error.contains("restart libvirtd"),
                "{error}"
            );
        }
        assert!(check("lock_manager = \"lockd\"\n").unwrap_err().to_string().contains("\"lockd\""));
    }
}
