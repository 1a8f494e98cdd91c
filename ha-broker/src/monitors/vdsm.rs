//! What VDSM says about its host, for the monitors that ask it where it manages the host: free memory as VDSM counts it
//! for VMs, the bridges that it set up, the storage domains that it watches. VDSM away means no result.

use async_trait::async_trait;
use vdsm_client::{CallError, Client, DomainStatus};

use super::bridge::{Link, Links};
use super::options::{MonitorError, Options};
use super::probe::{Probe, Reading, python_bool};
use super::storage::MAX_DELAY;
use crate::verbs::MonitorOptions;

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn words(error: CallError) -> String {
    error.to_string()
}

/// `mem-free`: `memFree` of `Host.getStats`, in MB.
pub struct VdsmMemory(pub Client);

#[async_trait]
impl Probe for VdsmMemory {
    async fn measure(&mut self) -> Result<Reading, String> {
        let stats = self.0.host_stats().await.map_err(words)?;
        let free = stats.mem_free.ok_or("VDSM's answer to Host.getStats has no memFree")?;
        Ok(Reading::plain(free))
    }
}

/// The links of `Host.getStats`.
pub struct VdsmLinks(pub Client);

#[async_trait]
impl Links for VdsmLinks {
    async fn look(&self, name: &str) -> Result<Link, String> {
        let stats = self.0.host_stats().await.map_err(words)?;
        Ok(match stats.network.get(name) {
            None => Link::Missing,
            Some(link) if link.state.as_deref() == Some("up") => Link::Up,
            Some(_) => Link::NoCarrier,
        })
    }
}

/// `storage-domain`: VDSM's monitor of the domain finds it valid, and reads it within [`MAX_DELAY`].
pub struct VdsmStorage {
    vdsm: Client,
    sd: String,
}

impl VdsmStorage {
    /// Asks about the domain that the option `sd_uuid` names.
    ///
    /// # Errors
    /// When the option is missing.
    pub fn from_options(given: &MonitorOptions, vdsm: Client) -> Result<Self, MonitorError> {
        let sd = Options::new("storage-domain", given).needed("sd_uuid", "the storage domain's id")?;
        Ok(Self { vdsm, sd: sd.to_owned() })
    }

    /// What is wrong with the domain.
    fn trouble(&self, status: Option<&DomainStatus>) -> Option<String> {
        let sd = &self.sd;
        let Some(status) = status else {
            return Some(format!("VDSM does not monitor storage domain {sd}"));
        };
        if !status.valid {
            let code = status.code.map(|code| format!(" (code {code})")).unwrap_or_default();
            return Some(format!(
                "VDSM finds storage domain {sd} not valid{code}: check the storage; /var/log/vdsm/vdsm.log says more"
            ));
        }
        match status.delay {
            Some(delay) if delay <= MAX_DELAY.as_secs_f64() => None,
            Some(delay) => Some(format!("VDSM took {delay:.1} s to read storage domain {sd}")),
            None => Some(format!("VDSM has not read storage domain {sd} yet")),
        }
    }
}

#[async_trait]
impl Probe for VdsmStorage {
    async fn measure(&mut self) -> Result<Reading, String> {
        let all = self.vdsm.storage_repo_stats(&[&self.sd]).await.map_err(words)?;
        let note = self.trouble(all.get(&self.sd));
        Ok(Reading::noted(python_bool(note.is_none()), note))
    }
}

#[cfg(test)]
#[path = "vdsm_tests.rs"]
mod tests;
