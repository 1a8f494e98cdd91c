//! Where the VM's lease is, and whether the VM is protected by it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::description::{Own, own_disk};
use super::look::Inner;
use crate::domain_xml::{Lease, LeaseTarget};
use crate::lease::{LeaseError, LeaseOwner, LeaseSpec};
use crate::port::{LeaseHolding, VmActivity, VmError};

/// How long VDSM may take to tell where a lease is.
const WHERE: Duration = Duration::from_secs(3);

/// Whether the VM is protected, by what it does and whose the lease is.
///
/// libvirt takes the lease before any guest code runs, gives it back while the guest stands still, and takes the very same
/// version of it again before the guest goes on, or lets it stand.
pub(super) fn holding(activity: VmActivity, owner: Result<LeaseOwner, LeaseError>) -> LeaseHolding {
    let (is_other, detail) = match owner {
        Err(error) => return LeaseHolding::Unknown { detail: error.to_string() },
        Ok(LeaseOwner::ThisHost) => return LeaseHolding::Held,
        Ok(LeaseOwner::Nobody) => (false, "nobody owns the lease".to_owned()),
        Ok(LeaseOwner::Other { detail }) => (true, detail),
    };
    match activity {
        VmActivity::Down => LeaseHolding::NoVm,
        VmActivity::WaitForLaunch | VmActivity::RestoringState | VmActivity::MigrationDestination => {
            LeaseHolding::Pending { detail: format!("{detail}; no guest code runs yet") }
        }
        VmActivity::Paused | VmActivity::PausedByIoError if !is_other => LeaseHolding::Pending {
            detail: format!(
                "{detail}; the guest stands still, and goes on only when the lease is taken again"
            ),
        },
        // Between two hosts it is neither's for a moment, or the other's before VDSM knows.
        VmActivity::MigrationSource | VmActivity::SavingState => {
            LeaseHolding::Unknown { detail: format!("{detail}; it may be being handed over") }
        }
        VmActivity::Paused
        | VmActivity::PausedByIoError
        | VmActivity::PoweringUp
        | VmActivity::Up
        | VmActivity::PoweringDown
        | VmActivity::RebootInProgress => LeaseHolding::Lost { detail },
    }
}

fn unavailable(error: &VmError) -> LeaseError {
    LeaseError::Unavailable(error.to_string())
}

impl Inner {
    /// Whose the VM's lease is, as sanlock says.
    pub async fn lease_owner(&self) -> Result<LeaseOwner, LeaseError> {
        let own = own_disk(&self.conf).map_err(|error| unavailable(&error))?;
        let cached =
            self.memory().lease.clone().filter(|(lease, _)| *lease == own.lease).map(|(_, spec)| spec);
        let guess = match (&own.lease.target, cached) {
            (LeaseTarget::At { path, offset }, _) => {
                Some(self.spec(&own.lease, self.conf.paths().resolve(path), *offset)?)
            }
            (LeaseTarget::FoundByVdsm, Some(spec)) => Some(spec),
            (LeaseTarget::FoundByVdsm, None) => self.beside_the_volume(&own)?,
        };
        let Some(guess) = guess else { return ask(self.told_by_vdsm(&own).await?).await };
        match ask(guess.clone()).await {
            Ok(owner) => {
                self.memory().lease = Some((own.lease, guess));
                Ok(owner)
            }
            // Perhaps the storage is mounted elsewhere than we think.
            Err(error) => match self.told_by_vdsm(&own).await {
                Ok(told) if told != guess => {
                    let owner = ask(told.clone()).await?;
                    self.memory().lease = Some((own.lease, told));
                    Ok(owner)
                }
                Ok(_) | Err(_) => Err(error),
            },
        }
    }

    fn spec(&self, lease: &Lease, path: PathBuf, offset: u64) -> Result<LeaseSpec, LeaseError> {
        // sanlock works in a directory of its own.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path)
                .map_err(|error| LeaseError::Unavailable(format!("{}: {error}", path.display())))
        };
        Ok(LeaseSpec::Sanlock {
            socket: absolute(self.conf.paths().sanlock_socket())?,
            lockspace: lease.lockspace.clone(),
            resource: lease.key.clone(),
            path: absolute(path)?,
            offset,
        })
    }

    /// On file storage a volume's lease is a file beside it. `None` on block storage.
    fn beside_the_volume(&self, own: &Own) -> Result<Option<LeaseSpec>, LeaseError> {
        let unusable = |error: ha_config::ConfigError| LeaseError::Unavailable(error.to_string());
        if self.conf.domain_type().map_err(unusable)?.is_block() {
            return Ok(None);
        }
        let volume = self.conf.volume_path(&own.image, &own.lease.key).map_err(unusable)?;
        let mut path = OsString::from(volume);
        path.push(".lease");
        self.spec(&own.lease, path.into(), 0).map(Some)
    }

    /// VDSM tells a volume's lease with the volume.
    async fn told_by_vdsm(&self, own: &Own) -> Result<LeaseSpec, LeaseError> {
        let lease = &own.lease;
        let asked = self.vdsm.volume_info(&own.pool, &lease.lockspace, &own.image, &lease.key);
        let info = match tokio::time::timeout(WHERE, asked).await {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => {
                return Err(LeaseError::Unavailable(format!(
                    "VDSM does not tell where the lease is: {error}"
                )));
            }
            Err(_) => {
                let secs = WHERE.as_secs();
                return Err(LeaseError::Unavailable(format!(
                    "VDSM did not tell within {secs} s where the lease is"
                )));
            }
        };
        let told = &info.raw["lease"];
        let offset = told["offset"].as_u64().or_else(|| told["offset"].as_str()?.parse().ok());
        let (Some(path), Some(offset)) = (told["path"].as_str(), offset) else {
            return Err(LeaseError::Unavailable(format!("VDSM knows no lease of volume {}", lease.key)));
        };
        self.spec(lease, self.conf.paths().resolve(path), offset)
    }
}

/// Asks sanlock in a thread that may block.
async fn ask(spec: LeaseSpec) -> Result<LeaseOwner, LeaseError> {
    let asked = tokio::task::spawn_blocking(move || spec.owner());
    asked.await.map_err(|error| LeaseError::Unavailable(format!("a task failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [VmActivity; 12] = [
        VmActivity::Down,
        VmActivity::WaitForLaunch,
        VmActivity::PoweringUp,
        VmActivity::Up,
        VmActivity::PoweringDown,
        VmActivity::Paused,
        VmActivity::PausedByIoError,
        VmActivity::MigrationSource,
        VmActivity::MigrationDestination,
        VmActivity::RebootInProgress,
        VmActivity::RestoringState,
        VmActivity::SavingState,
    ];

    fn lost(owner: &LeaseOwner) -> Vec<VmActivity> {
        let is_lost = |activity: &VmActivity| {
            matches!(holding(*activity, Ok(owner.clone())), LeaseHolding::Lost { .. })
        };
        ALL.into_iter().filter(is_lost).collect()
    }

    #[test]
    fn a_guest_that_runs_without_its_lease_has_lost_it() {
        use VmActivity::{Paused, PausedByIoError, PoweringDown, PoweringUp, RebootInProgress, Up};
        assert_eq!(lost(&LeaseOwner::Nobody), [PoweringUp, Up, PoweringDown, RebootInProgress]);
        let other = LeaseOwner::Other { detail: "host 2".to_owned() };
        let with_paused = [PoweringUp, Up, PoweringDown, Paused, PausedByIoError, RebootInProgress];
        assert_eq!(lost(&other), with_paused);
        assert_eq!(lost(&LeaseOwner::ThisHost), []);
        assert_eq!(holding(Up, Ok(LeaseOwner::ThisHost)), LeaseHolding::Held);
    }

    #[test]
    fn a_guest_that_stands_still_takes_it_later() {
        for activity in [VmActivity::Paused, VmActivity::PausedByIoError, VmActivity::WaitForLaunch] {
            assert!(matches!(holding(activity, Ok(LeaseOwner::Nobody)), LeaseHolding::Pending { .. }));
        }
        let error = || Err(LeaseError::Unavailable("no daemon".to_owned()));
        assert!(matches!(holding(VmActivity::Up, error()), LeaseHolding::Unknown { .. }));
        assert!(matches!(
            holding(VmActivity::MigrationSource, Ok(LeaseOwner::Nobody)),
            LeaseHolding::Unknown { .. }
        ));
    }
}
