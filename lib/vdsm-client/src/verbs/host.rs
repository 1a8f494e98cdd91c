//! Verbs about the host.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{QUICK, SLOW, misunderstood, object};
use crate::client::Client;
use crate::error::CallError;
use crate::value;

/// Figures of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostStats {
    /// Free memory, in MiB.
    pub mem_free: Option<i64>,
    /// Network devices by name: bridges, bonds, VLANs and cards.
    pub network: BTreeMap<String, NetworkStats>,
    /// Monitored storage domains by UUID.
    pub storage_domains: BTreeMap<String, DomainStatus>,
    /// The answer as it came.
    pub raw: Value,
}

/// Figures of a network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkStats {
    /// `up` or `down`, in VDSM's words.
    pub state: Option<String>,
}

/// What VDSM's monitor thinks of a storage domain.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainStatus {
    /// Whether the last check went well.
    pub valid: bool,
    /// How long the last read took, in seconds.
    pub delay: Option<f64>,
    /// How long ago the last check was, in seconds.
    pub last_check: Option<f64>,
    /// Whether sanlock holds this host's id in the domain's lockspace.
    pub acquired: Option<bool>,
    /// Whether the last check was made by this VDSM rather than remembered.
    pub actual: Option<bool>,
    /// Number of the last check's error, 0 if there was none; see [`crate::code`].
    pub code: Option<i64>,
    /// Version of the domain's format.
    pub version: Option<i64>,
    /// The answer as it came.
    pub raw: Value,
}

impl DomainStatus {
    pub(crate) fn of(raw: &Value) -> DomainStatus {
        DomainStatus {
            valid: raw.get("valid").and_then(value::truth).unwrap_or(false),
            delay: raw.get("delay").and_then(value::float),
            last_check: raw.get("lastCheck").and_then(value::float),
            acquired: raw.get("acquired").and_then(value::truth),
            actual: raw.get("actual").and_then(value::truth),
            code: raw.get("code").and_then(value::integer),
            version: raw.get("version").and_then(value::integer),
            raw: raw.clone(),
        }
    }
}

fn domains(answer: &Value) -> BTreeMap<String, DomainStatus> {
    // Old releases put the return code of their time among the domains: not an object.
    let entries = answer.as_object().into_iter().flatten();
    entries
        .filter(|(_, status)| status.is_object())
        .filter(|(name, _)| name.as_str() != "status")
        .map(|(name, status)| (name.clone(), DomainStatus::of(status)))
        .collect()
}

impl HostStats {
    fn of(raw: &Value) -> HostStats {
        let devices = raw.get("network").and_then(Value::as_object);
        HostStats {
            mem_free: raw.get("memFree").and_then(value::integer),
            network: devices
                .into_iter()
                .flatten()
                .map(|(name, device)| {
                    let state = device.get("state").and_then(value::text);
                    (name.clone(), NetworkStats { state })
                })
                .collect(),
            storage_domains: raw.get("storageDomains").map(domains).unwrap_or_default(),
            raw: raw.clone(),
        }
    }
}

impl Client {
    /// `Host.ping2`: whether VDSM answers.
    pub async fn ping(&self) -> Result<(), CallError> {
        self.call("Host.ping2", json!({}), QUICK).await.map(drop)
    }

    /// `Host.getStats`.
    pub async fn host_stats(&self) -> Result<HostStats, CallError> {
        let method = "Host.getStats";
        let answer = self.call(method, json!({}), QUICK).await?;
        object(method, &answer)?;
        Ok(HostStats::of(&answer))
    }

    /// `Host.getVMList`: UUIDs of the virtual machines that VDSM knows, in its order.
    pub async fn vm_list(&self) -> Result<Vec<String>, CallError> {
        let method = "Host.getVMList";
        let answer = self.call(method, json!({"onlyUUID": true}), QUICK).await?;
        let list = answer.get("vmList").unwrap_or(&answer);
        let expected = "a list of virtual machines";
        let list = list.as_array().ok_or_else(|| misunderstood(method, expected, &answer))?;
        // A server that does not know the parameter answers with short descriptions.
        list.iter()
            .map(|vm| {
                vm.get("vmId")
                    .unwrap_or(vm)
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| misunderstood(method, expected, vm))
            })
            .collect()
    }

    /// `Host.getAllTasksStatuses`: the storage tasks by UUID. Only the host with the storage pool manager's role has any.
    pub async fn all_tasks_statuses(
        &self,
    ) -> Result<BTreeMap<String, super::storage::TaskStatus>, CallError> {
        let method = "Host.getAllTasksStatuses";
        let answer = self.call(method, json!({}), QUICK).await?;
        let tasks = object(method, answer.get("allTasksStatus").unwrap_or(&answer))?;
        Ok(tasks
            .iter()
            .filter(|(_, task)| task.is_object())
            .map(|(id, task)| (id.clone(), super::storage::TaskStatus::of(task)))
            .collect())
    }

    /// `Host.getStorageRepoStats`: what the monitor thinks of these storage domains, or of all when none is named.
    /// A domain that is not monitored is missing from the answer.
    pub async fn storage_repo_stats(
        &self,
        domains_wanted: &[&str],
    ) -> Result<BTreeMap<String, DomainStatus>, CallError> {
        let method = "Host.getStorageRepoStats";
        let answer = self.call(method, json!({"domains": domains_wanted}), QUICK).await?;
        object(method, &answer)?;
        Ok(domains(&answer))
    }

    /// `Host.startMonitoringDomain`: the monitor joins the domain's lockspace with this host id (1 to 2000) and keeps
    /// it. It returns before that is done: see [`DomainStatus::acquired`].
    pub async fn start_monitoring_domain(&self, sd: &str, host_id: u16) -> Result<(), CallError> {
        let params = json!({"sdUUID": sd, "hostID": host_id});
        self.call("Host.startMonitoringDomain", params, SLOW).await.map(drop)
    }

    /// `Host.stopMonitoringDomain`: leaves the lockspace. Refused with [`crate::code::DOMAIN_IN_POOL`] while the domain
    /// belongs to a connected storage pool.
    pub async fn stop_monitoring_domain(&self, sd: &str) -> Result<(), CallError> {
        let params = json!({"sdUUID": sd});
        self.call("Host.stopMonitoringDomain", params, SLOW).await.map(drop)
    }
}
