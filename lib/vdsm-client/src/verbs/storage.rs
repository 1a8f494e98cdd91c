//! Verbs about storage: servers, domains, volumes, images, tasks.

use serde_json::{Value, json};

use super::{QUICK, SLOW, misunderstood, object, texts};
use crate::client::Client;
use crate::error::CallError;
use crate::value;

/// The UUID that stands for none: no storage pool, no source image.
pub const BLANK_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// What became of a connection to a storage server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// The connection's UUID, as it was given.
    pub id: String,
    /// 0 if all is well, else the error's number.
    pub status: i64,
}

/// What a storage domain is.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainInfo {
    /// Bytes per block: 512 or 4096. Releases before 4.4 do not tell.
    pub block_size: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The storage pool that it is in.
    pub pools: Vec<String>,
    /// Where a file storage domain is mounted from.
    pub remote_path: Option<String>,
    /// The answer as it came.
    pub raw: Value,
}

/// How full a storage domain is.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainStats {
    /// Its size, in bytes.
    pub disk_total: Option<i64>,
    /// What is free, in bytes.
    pub disk_free: Option<i64>,
    /// The answer as it came.
    pub raw: Value,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeInfo {
    /// A text of its maker's; oVirt's is often a JSON object.
    pub description: Option<String>,
    /// Its virtual size, in bytes.
    pub capacity: Option<i64>,
    /// `RAW` or `COW`.
    pub format: Option<String>,
    /// `OK`, `ILLEGAL` or `INVALID`.
    pub status: Option<String>,
    /// Path of its lease and bytes from the path's start, where it has one.
    pub lease: Option<(String, u64)>,
    /// When it was made, in seconds since 1970.
    pub ctime: Option<i64>,
    /// The answer as it came.
    pub raw: Value,
}

/// How a volume gets its space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// At once.
    Preallocated,
    /// As it is written; raw volumes of file storage only.
    Sparse,
}

/// What volume to create. Raw, a data disk without a source: what the hosted engine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// The storage pool's UUID, or [`BLANK_UUID`].
    pub pool: String,
    /// The storage domain's UUID.
    pub domain: String,
    /// The image's UUID: a new one or of an image that exists.
    pub image: String,
    /// The volume's UUID.
    pub volume: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its description, at most 210 bytes.
    pub description: String,
    /// How it gets its space.
    pub allocation: Allocation,
    /// What it is for, in VDSM's words: `DATA`, `HEMD` (metadata), `HECI` (configuration), …; releases before 4.2 know
    /// only numbers, `2` for data.
    pub disk_type: String,
}

/// A volume that can be opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Its path on the host.
    pub path: String,
    /// The answer as it came.
    pub raw: Value,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStatus {
    /// In VDSM's words; `finished` when it is over.
    pub state: Option<String>,
    /// `success`, `cleanSuccess`, `cleanFailure`, or empty while it runs.
    pub result: Option<String>,
    /// 0, or the error's number.
    pub code: Option<i64>,
    /// What the code means.
    pub message: Option<String>,
    /// The answer as it came.
    pub raw: Value,
}

impl TaskStatus {
    pub(crate) fn of(raw: &Value) -> TaskStatus {
        let text = |name: &str| raw.get(name).and_then(value::text);
        TaskStatus {
            state: text("taskState"),
            result: text("taskResult"),
            code: raw.get("code").and_then(value::integer),
            message: text("message"),
            raw: raw.clone(),
        }
    }

    /// Whether it is over, well or not.
    pub fn is_finished(&self) -> bool {
        self.state.as_deref() == Some("finished")
    }

    /// Whether it is over and went well.
    pub fn is_success(&self) -> bool {
        self.is_finished() && self.result.as_deref() == Some("success")
    }
}

impl Client {
    /// `StoragePool.connectStorageServer`: mounts or logs in. `domain_type`: 1 NFS, 2 Fibre Channel, 3 iSCSI, 6 POSIX,
    /// 7 Gluster. The call goes well even if a connection does not: look at each status.
    pub async fn connect_storage_server(
        &self,
        pool: &str,
        domain_type: u8,
        connections: Vec<Value>,
    ) -> Result<Vec<ConnectionStatus>, CallError> {
        self.storage_server("StoragePool.connectStorageServer", pool, domain_type, connections).await
    }

    /// `StoragePool.disconnectStorageServer`: the opposite.
    pub async fn disconnect_storage_server(
        &self,
        pool: &str,
        domain_type: u8,
        connections: Vec<Value>,
    ) -> Result<Vec<ConnectionStatus>, CallError> {
        self.storage_server("StoragePool.disconnectStorageServer", pool, domain_type, connections).await
    }

    async fn storage_server(
        &self,
        method: &str,
        pool: &str,
        domain_type: u8,
        connections: Vec<Value>,
    ) -> Result<Vec<ConnectionStatus>, CallError> {
        let params = json!({
            "storagepoolID": pool,
            "domainType": domain_type,
            "connectionParams": connections,
        });
        let answer = self.call(method, params, SLOW).await?;
        let expected = "a list of {id, status}";
        let list = answer.get("statuslist").unwrap_or(&answer);
        let list = list.as_array().ok_or_else(|| misunderstood(method, expected, &answer))?;
        list.iter()
            .map(|item| {
                let id = item.get("id").and_then(value::text);
                let status = item.get("status").and_then(value::integer);
                match (id, status) {
                    (Some(id), Some(status)) => Ok(ConnectionStatus { id, status }),
                    (_, None) | (None, Some(_)) => Err(misunderstood(method, expected, item)),
                }
            })
            .collect()
    }

    /// `StorageDomain.getInfo`.
    pub async fn domain_info(&self, sd: &str) -> Result<DomainInfo, CallError> {
        let method = "StorageDomain.getInfo";
        let params = json!({"storagedomainID": sd});
        let answer = self.call(method, params, SLOW).await?;
        let info = answer.get("info").unwrap_or(&answer);
        object(method, info)?;
        let block_size = info.get("block_size").and_then(value::integer);
        Ok(DomainInfo {
            block_size: block_size.and_then(|bytes| u32::try_from(bytes).ok()),
            name: info.get("name").and_then(value::text),
            pools: info
                .get("pool")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(value::text)
                .collect(),
            remote_path: info.get("remotePath").and_then(value::text),
            raw: info.clone(),
        })
    }

    /// `StorageDomain.getStats`. VDSM looks at the storage for it: it learns of domains that were connected since.
    pub async fn domain_stats(&self, sd: &str) -> Result<DomainStats, CallError> {
        let method = "StorageDomain.getStats";
        let params = json!({"storagedomainID": sd});
        let answer = self.call(method, params, SLOW).await?;
        let stats = answer.get("stats").unwrap_or(&answer);
        object(method, stats)?;
        Ok(DomainStats {
            disk_total: stats.get("disktotal").and_then(value::integer),
            disk_free: stats.get("diskfree").and_then(value::integer),
            raw: stats.clone(),
        })
    }

    /// `StorageDomain.getImages`: UUIDs of the images in a storage domain, in VDSM's order.
    pub async fn images(&self, sd: &str) -> Result<Vec<String>, CallError> {
        let method = "StorageDomain.getImages";
        let params = json!({"storagedomainID": sd});
        let answer = self.call(method, params, SLOW).await?;
        texts(method, &answer, "imageslist")
    }

    /// `StorageDomain.getVolumes`: UUIDs of an image's volumes, in VDSM's order. Without a pool it is [`BLANK_UUID`].
    pub async fn volumes(&self, pool: Option<&str>, sd: &str, image: &str) -> Result<Vec<String>, CallError> {
        let method = "StorageDomain.getVolumes";
        let params = json!({
            "storagepoolID": pool.unwrap_or(BLANK_UUID),
            "storagedomainID": sd,
            "imageID": image,
        });
        let answer = self.call(method, params, SLOW).await?;
        texts(method, &answer, "uuidlist")
    }

    /// `Volume.getInfo`.
    pub async fn volume_info(
        &self,
        pool: &str,
        sd: &str,
        image: &str,
        volume: &str,
    ) -> Result<VolumeInfo, CallError> {
        let method = "Volume.getInfo";
        let answer = self.call(method, place(pool, sd, image, volume), SLOW).await?;
        let info = answer.get("info").unwrap_or(&answer);
        object(method, info)?;
        let text = |name: &str| info.get(name).and_then(value::text);
        Ok(VolumeInfo {
            description: text("description"),
            capacity: info.get("capacity").and_then(value::integer),
            format: text("format"),
            status: text("status"),
            lease: info.get("lease").and_then(|lease| {
                let offset = lease.get("offset").and_then(value::integer)?;
                Some((lease.get("path").and_then(value::text)?, u64::try_from(offset).ok()?))
            }),
            ctime: info.get("ctime").and_then(value::integer),
            raw: info.clone(),
        })
    }

    /// `Volume.create`: begins to create it, and answers with the task's UUID: see [`Client::task_status`].
    pub async fn volume_create(&self, new: &NewVolume) -> Result<String, CallError> {
        let method = "Volume.create";
        let params = json!({
            "volumeID": new.volume,
            "storagepoolID": new.pool,
            "storagedomainID": new.domain,
            "imageID": new.image,
            // As text: XML-RPC, from which the verb comes, knows no larger integers than 2 GiB.
            "size": new.size.to_string(),
            "volFormat": RAW,
            "preallocate": match new.allocation {
                Allocation::Preallocated => PREALLOCATED,
                Allocation::Sparse => SPARSE,
            },
            "diskType": new.disk_type,
            "desc": new.description,
            "srcImgUUID": BLANK_UUID,
            "srcVolUUID": BLANK_UUID,
        });
        let answer = self.call(method, params, SLOW).await?;
        let task = answer.get("uuid").unwrap_or(&answer);
        task.as_str().map(str::to_owned).ok_or_else(|| misunderstood(method, "a task's UUID", &answer))
    }

    /// `Image.prepare`: activates a volume and its chain, and tells its path.
    pub async fn image_prepare(
        &self,
        pool: &str,
        sd: &str,
        image: &str,
        volume: &str,
    ) -> Result<Prepared, CallError> {
        let method = "Image.prepare";
        let answer = self.call(method, place(pool, sd, image, volume), SLOW).await?;
        // Releases before 4.0 answer with the path alone.
        let path = answer.get("path").unwrap_or(&answer);
        let path = path
            .as_str()
            .filter(|path| path.starts_with('/'))
            .ok_or_else(|| misunderstood(method, "an object with a path", &answer))?;
        Ok(Prepared { path: path.to_owned(), raw: answer.clone() })
    }

    /// `Image.teardown`: the opposite.
    pub async fn image_teardown(
        &self,
        pool: &str,
        sd: &str,
        image: &str,
        volume: &str,
    ) -> Result<(), CallError> {
        self.call("Image.teardown", place(pool, sd, image, volume), SLOW).await.map(drop)
    }

    /// `Task.getStatus`.
    pub async fn task_status(&self, task: &str) -> Result<TaskStatus, CallError> {
        let method = "Task.getStatus";
        let answer = self.call(method, json!({"taskID": task}), QUICK).await?;
        let status = answer.get("taskStatus").unwrap_or(&answer);
        object(method, status)?;
        Ok(TaskStatus::of(status))
    }

    /// `Task.clear`: forgets a task that is over. Nothing else does.
    pub async fn task_clear(&self, task: &str) -> Result<(), CallError> {
        self.call("Task.clear", json!({"taskID": task}), QUICK).await.map(drop)
    }
}

/// `VolumeFormat` and `VolumeAllocation` by the numbers that every release takes.
const RAW: u8 = 5;
const PREALLOCATED: u8 = 1;
const SPARSE: u8 = 2;

fn place(pool: &str, sd: &str, image: &str, volume: &str) -> Value {
    json!({
        "storagepoolID": pool,
        "storagedomainID": sd,
        "imageID": image,
        "volumeID": volume,
    })
}
