//! Where the VM's lease is.

use std::ffi::OsString;
use std::path::PathBuf;

use super::description::{Own, own_disk};
use super::look::Inner;
use crate::domain_xml::{Lease, LeaseTarget};
use crate::lease::{LeaseError, LeaseOwner, LeaseSpec};
use crate::port::{LeaseOutlook, VmError};

fn unavailable(error: &VmError) -> LeaseError {
    LeaseError::Unavailable(error.to_string())
}

impl Inner {
    /// Whose the VM's lease is, as sanlock says.
    pub async fn lease_owner(&self) -> Result<LeaseOwner, LeaseError> {
        let own = own_disk(&self.conf).map_err(|error| unavailable(&error))?;
        let known =
            self.memory().lease.clone().filter(|(lease, _)| *lease == own.lease).map(|(_, spec)| spec);
        let guess = match (&own.lease.target, known) {
            (LeaseTarget::At { path, offset }, _) => {
                Some(self.spec(&own.lease, self.conf.paths().resolve(path), *offset)?)
            }
            (LeaseTarget::FoundByVdsm, Some(spec)) => Some(spec),
            (LeaseTarget::FoundByVdsm, None) => self.beside_the_volume(&own)?,
        };
        let mut first_error = None;
        if let Some(guess) = &guess {
            match self.locks.owner(guess.clone()).await {
                Ok(owner) => {
                    self.memory().lease = Some((own.lease, guess.clone()));
                    return Ok(owner);
                }
                // Perhaps the storage is mounted elsewhere than we think.
                Err(error) => first_error = Some(error),
            }
        }
        let told = match self.told_by_vdsm(&own).await {
            Ok(told) => told,
            Err(error) => return Err(first_error.unwrap_or(error)),
        };
        let owner = self.locks.owner(told.clone()).await?;
        self.memory().lease = Some((own.lease, told));
        Ok(owner)
    }

    /// What a start would find.
    pub async fn lease_outlook(&self) -> Result<LeaseOutlook, LeaseError> {
        match self.lease_owner().await? {
            LeaseOwner::Nobody | LeaseOwner::ThisHost => return Ok(LeaseOutlook::Free),
            LeaseOwner::Other { .. } => {}
        }
        let Some((_, spec)) = self.memory().lease.clone() else { return Ok(LeaseOutlook::Free) };
        let (watch, watchdog) = (self.owner.clone(), self.times.watchdog);
        let asked = tokio::task::spawn_blocking(move || spec.outlook(&watch, watchdog)).await;
        asked.map_err(|error| LeaseError::Unavailable(format!("a task failed: {error}")))?
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
        let info = match tokio::time::timeout(self.times.connect, asked).await {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => {
                return Err(LeaseError::Unavailable(format!(
                    "VDSM does not tell where the lease is: {error}"
                )));
            }
            Err(_) => {
                let secs = self.times.connect.as_secs();
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
