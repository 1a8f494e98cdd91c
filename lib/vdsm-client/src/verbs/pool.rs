//! Verbs that make a storage domain and take it away again: volume groups, domains, and the storage pool that VDSM wants
//! around a domain while volumes are made in it.
//!
//! ```text
//!  StorageDomain.create ─▶ StoragePool.create ─▶ StoragePool.connect ─▶ StoragePool.spmStart ─▶ Volume.create …
//!                                                                                                     │
//!                          a domain without a pool ◀── StoragePool.destroy ◀── the same host ◀────────┘
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{QUICK, SLOW, misunderstood, object, texts};
use crate::client::Client;
use crate::error::CallError;
use crate::value;

/// For verbs that join a lockspace: with sanlock's default times that alone takes from 21 s to 80 s, a release after it.
const JOINING: Duration = Duration::from_mins(5);

/// What storage domain to create: of class data, with VDSM's newest format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDomain {
    /// Its UUID.
    pub domain: String,
    /// As in [`Client::connect_storage_server`].
    pub domain_type: u8,
    /// `server:/path` as it was connected, or the volume group's UUID.
    pub arguments: String,
    /// Its name, 50 characters at most.
    pub name: String,
    /// Bytes in a block: 512, 4096, or 0 for what VDSM finds; of block storage 512 only.
    pub block_size: u32,
}

/// Version of the format that [`Client::domain_create`] asks for.
const VERSION: u8 = 5;
/// Class of the domains for VMs.
const DATA: u8 = 1;
/// Version of a new pool's master domain.
const MASTER_VERSION: u8 = 1;

/// Where this host stands in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpmRole {
    /// It does not manage the pool.
    Free,
    /// It is about to.
    Contend,
    /// It does.
    Spm,
}

/// A device that a volume group can be made on.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its identity on every host.
    pub guid: String,
    /// `free`, `used` or `unknown`.
    pub status: Option<String>,
    /// Bytes.
    pub capacity: Option<i64>,
    /// Bytes of a logical block.
    pub logical_block_size: Option<i64>,
    /// The answer as it came.
    pub raw: Value,
}

impl Client {
    /// `Host.getConnectedStoragePools`: UUIDs of the pools that this host is in: none or one.
    pub async fn connected_storage_pools(&self) -> Result<Vec<String>, CallError> {
        let method = "Host.getConnectedStoragePools";
        let answer = self.call(method, json!({}), SLOW).await?;
        texts(method, &answer, "poollist")
    }

    /// `Host.getStorageDomains`: UUIDs of all domains that VDSM sees on what is connected.
    pub async fn storage_domains(&self) -> Result<Vec<String>, CallError> {
        let method = "Host.getStorageDomains";
        let answer = self.call(method, json!({}), SLOW).await?;
        texts(method, &answer, "domlist")
    }

    /// `Host.getDeviceList` of one device; `None` when VDSM does not see it. VDSM tries whether it could be used.
    pub async fn device(&self, guid: &str) -> Result<Option<Device>, CallError> {
        let method = "Host.getDeviceList";
        let params = json!({"guids": [guid], "checkStatus": true});
        let answer = self.call(method, params, SLOW).await?;
        let list = answer.get("devList").unwrap_or(&answer);
        let list = list.as_array().ok_or_else(|| misunderstood(method, "a list of devices", &answer))?;
        let found = list.iter().find(|device| device.get("GUID").and_then(Value::as_str) == Some(guid));
        Ok(found.map(|raw| Device {
            guid: guid.to_owned(),
            status: raw.get("status").and_then(value::text),
            capacity: raw.get("capacity").and_then(value::integer),
            logical_block_size: raw.get("logicalblocksize").and_then(value::integer),
            raw: raw.clone(),
        }))
    }

    /// `Host.getLVMVolumeGroups`: UUIDs of the volume groups, by their names.
    pub async fn volume_groups(&self) -> Result<BTreeMap<String, String>, CallError> {
        let method = "Host.getLVMVolumeGroups";
        let answer = self.call(method, json!({}), SLOW).await?;
        let list = answer.get("vglist").unwrap_or(&answer);
        let list =
            list.as_array().ok_or_else(|| misunderstood(method, "a list of volume groups", &answer))?;
        let text = |group: &Value, name: &str| group.get(name).and_then(value::text);
        Ok(list.iter().filter_map(|group| Some((text(group, "name")?, text(group, "vgUUID")?))).collect())
    }

    /// `LVMVolumeGroup.create` on one device that is free, marked as a domain that is not ready. Gives its UUID.
    pub async fn volume_group_create(&self, name: &str, guid: &str) -> Result<String, CallError> {
        let method = "LVMVolumeGroup.create";
        let params = json!({"name": name, "devlist": [guid], "force": false});
        let answer = self.call(method, params, SLOW).await?;
        let uuid = answer.get("uuid").unwrap_or(&answer);
        uuid.as_str().map(str::to_owned).ok_or_else(|| misunderstood(method, "a UUID", &answer))
    }

    /// `LVMVolumeGroup.remove`, by its UUID.
    pub async fn volume_group_remove(&self, uuid: &str) -> Result<(), CallError> {
        let params = json!({"lvmvolumegroupID": uuid});
        self.call("LVMVolumeGroup.remove", params, SLOW).await.map(drop)
    }

    /// `StorageDomain.create`: on file storage refused while any domain is there already.
    pub async fn domain_create(&self, new: &NewDomain) -> Result<(), CallError> {
        let params = json!({
            "storagedomainID": new.domain,
            "domainType": new.domain_type,
            "typeArgs": new.arguments,
            "name": new.name,
            "domainClass": DATA,
            "version": VERSION,
            "blockSize": new.block_size,
        });
        self.call("StorageDomain.create", params, JOINING).await.map(drop)
    }

    /// `StorageDomain.setDescription`: its name. Only while this host manages the pool of the domain.
    pub async fn domain_set_name(&self, sd: &str, name: &str) -> Result<(), CallError> {
        let params = json!({"storagedomainID": sd, "description": name});
        self.call("StorageDomain.setDescription", params, SLOW).await.map(drop)
    }

    /// `StorageDomain.format`: removes it with all that is in it. One that is in a pool is refused unless `auto_detach`,
    /// one in the pool that this host is connected to always.
    pub async fn domain_format(&self, sd: &str, auto_detach: bool) -> Result<(), CallError> {
        let params = json!({"storagedomainID": sd, "autoDetach": auto_detach});
        self.call("StorageDomain.format", params, JOINING).await.map(drop)
    }

    /// `StoragePool.create` around one domain, its master.
    pub async fn pool_create(&self, pool: &str, name: &str, master: &str) -> Result<(), CallError> {
        let params = json!({
            "storagepoolID": pool,
            "name": name,
            "masterSdUUID": master,
            "masterVersion": MASTER_VERSION,
            "domainList": [master],
            "lockRenewalIntervalSec": null,
            "leaseTimeSec": null,
            "ioOpTimeoutSec": null,
            "leaseRetries": null,
        });
        self.call("StoragePool.create", params, JOINING).await.map(drop)
    }

    /// `StoragePool.connect`: this host becomes a member under its host id, and begins to join the master's lockspace.
    pub async fn pool_connect(&self, pool: &str, host_id: u16, master: &str) -> Result<(), CallError> {
        let params = json!({
            "storagepoolID": pool,
            "hostID": host_id,
            "scsiKey": pool,
            "masterSdUUID": master,
            "masterVersion": MASTER_VERSION,
            "domainDict": {master: "active"},
        });
        self.call("StoragePool.connect", params, JOINING).await.map(drop)
    }

    /// `StoragePool.disconnect`: fine when it is not connected; refused with [`crate::code::IS_SPM`] while this host
    /// manages it.
    pub async fn pool_disconnect(&self, pool: &str, host_id: u16) -> Result<(), CallError> {
        let params = json!({"storagepoolID": pool, "hostID": host_id, "scsiKey": pool, "remove": false});
        self.call("StoragePool.disconnect", params, JOINING).await.map(drop)
    }

    /// `StoragePool.destroy`, by the host that manages it: its domains are in no pool afterwards, and stay.
    pub async fn pool_destroy(&self, pool: &str, host_id: u16) -> Result<(), CallError> {
        let params = json!({"storagepoolID": pool, "hostID": host_id, "scsiKey": pool});
        self.call("StoragePool.destroy", params, JOINING).await.map(drop)
    }

    /// `StoragePool.spmStart`: begins to manage the pool, and answers with the task's UUID: see
    /// [`Client::task_status`].
    pub async fn spm_start(&self, pool: &str) -> Result<String, CallError> {
        let method = "StoragePool.spmStart";
        let params =
            json!({"storagepoolID": pool, "prevID": -1, "prevLver": "-1", "enableScsiFencing": "false"});
        let answer = self.call(method, params, SLOW).await?;
        let task = answer.get("uuid").unwrap_or(&answer);
        task.as_str().map(str::to_owned).ok_or_else(|| misunderstood(method, "a task's UUID", &answer))
    }

    /// `StoragePool.getSpmStatus`; [`crate::code::POOL_UNKNOWN`] when this host is not in the pool.
    pub async fn spm_role(&self, pool: &str) -> Result<SpmRole, CallError> {
        let method = "StoragePool.getSpmStatus";
        let answer = self.call(method, json!({"storagepoolID": pool}), QUICK).await?;
        let status = answer.get("spm_st").unwrap_or(&answer);
        match object(method, status)?.get("spmStatus").and_then(Value::as_str) {
            Some("Free") => Ok(SpmRole::Free),
            Some("Contend") => Ok(SpmRole::Contend),
            Some("SPM") => Ok(SpmRole::Spm),
            Some(_) | None => {
                Err(misunderstood(method, "an object with spmStatus Free, Contend or SPM", status))
            }
        }
    }
}
