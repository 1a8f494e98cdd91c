//! The verbs: their names, their parameters in order, and who carries them out.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Failure;
use crate::host_stats;
use crate::parameters::Arguments;
use crate::rpc::Server;
use crate::storage::{NewDomain, NewVolume, Storage};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Ping,
    HostStats,
    VmList,
    AllVmStats,
    VmStats,
    VmCreate,
    VmDestroy,
    VmShutdown,
    VmPause,
    VmCont,
    VmUpdateDevice,
    VmMigrate,
    VmMigrateCancel,
    VmMigrationStatus,
    VmMigrationCreate,
    NetworkCapabilities,
    SetupNetworks,
    ConfirmConnectivity,
    KeepNetworks,
    Storage(StorageCall),
}

/// What can be asked of storage, and may hang with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StorageCall {
    TasksStatuses,
    RepoStats,
    StartMonitoring,
    StopMonitoring,
    Connect,
    Disconnect,
    Devices,
    Groups,
    GroupCreate,
    GroupRemove,
    Domains,
    DomainCreate,
    DomainFormat,
    DomainDescription,
    Pools,
    PoolCreate,
    PoolConnect,
    PoolDisconnect,
    PoolDestroy,
    SpmStart,
    SpmStatus,
    DomainInfo,
    DomainStats,
    Images,
    Volumes,
    VolumeInfo,
    VolumeCreate,
    ImagePrepare,
    ImageTeardown,
    TaskStatus,
    TaskClear,
}

/// A verb by its name on the wire.
#[derive(Debug)]
pub(crate) struct Verb {
    name: &'static str,
    /// For requests whose parameters have no names.
    pub parameters: &'static [&'static str],
    call: Call,
}

const fn verb(name: &'static str, parameters: &'static [&'static str], call: Call) -> Verb {
    Verb { name, parameters, call }
}

const VERBS: &[Verb] = &[
    verb("Host.ping", &[], Call::Ping),
    verb("Host.ping2", &[], Call::Ping),
    verb("Host.getStats", &[], Call::HostStats),
    verb("Host.getVMList", &["fullStatus", "vmList", "onlyUUID"], Call::VmList),
    verb("Host.getAllVmStats", &[], Call::AllVmStats),
    verb("Host.getNetworkCapabilities", &[], Call::NetworkCapabilities),
    verb("Host.setupNetworks", &["networks", "bondings", "options"], Call::SetupNetworks),
    verb("Host.confirmConnectivity", &[], Call::ConfirmConnectivity),
    verb("Host.setSafeNetworkConfig", &[], Call::KeepNetworks),
    verb("Host.getAllTasksStatuses", &[], Call::Storage(StorageCall::TasksStatuses)),
    verb("Host.getStorageRepoStats", &["domains"], Call::Storage(StorageCall::RepoStats)),
    verb("Host.startMonitoringDomain", &["sdUUID", "hostID"], Call::Storage(StorageCall::StartMonitoring)),
    verb("Host.stopMonitoringDomain", &["sdUUID"], Call::Storage(StorageCall::StopMonitoring)),
    verb(
        "StoragePool.connectStorageServer",
        &["storagepoolID", "domainType", "connectionParams"],
        Call::Storage(StorageCall::Connect),
    ),
    verb(
        "StoragePool.disconnectStorageServer",
        &["storagepoolID", "domainType", "connectionParams"],
        Call::Storage(StorageCall::Disconnect),
    ),
    verb("Host.getConnectedStoragePools", &[], Call::Storage(StorageCall::Pools)),
    verb(
        "Host.getDeviceList",
        &["storageType", "guids", "checkStatus", "refresh"],
        Call::Storage(StorageCall::Devices),
    ),
    verb("Host.getLVMVolumeGroups", &["storageType"], Call::Storage(StorageCall::Groups)),
    verb(
        "LVMVolumeGroup.create",
        &["lvmvolumegroupID", "name", "devlist", "force"],
        Call::Storage(StorageCall::GroupCreate),
    ),
    verb("LVMVolumeGroup.remove", &["lvmvolumegroupID"], Call::Storage(StorageCall::GroupRemove)),
    verb(
        "Host.getStorageDomains",
        &["storagepoolID", "domainClass", "storageType", "remotePath"],
        Call::Storage(StorageCall::Domains),
    ),
    verb(
        "StorageDomain.create",
        &[
            "storagedomainID",
            "domainType",
            "typeArgs",
            "name",
            "domainClass",
            "version",
            "blockSize",
            "maxHosts",
        ],
        Call::Storage(StorageCall::DomainCreate),
    ),
    verb(
        "StorageDomain.format",
        &["storagedomainID", "autoDetach"],
        Call::Storage(StorageCall::DomainFormat),
    ),
    verb(
        "StorageDomain.setDescription",
        &["storagedomainID", "description"],
        Call::Storage(StorageCall::DomainDescription),
    ),
    verb(
        "StoragePool.create",
        &[
            "storagepoolID",
            "name",
            "masterSdUUID",
            "masterVersion",
            "domainList",
            "lockRenewalIntervalSec",
            "leaseTimeSec",
            "ioOpTimeoutSec",
            "leaseRetries",
        ],
        Call::Storage(StorageCall::PoolCreate),
    ),
    verb(
        "StoragePool.connect",
        &["storagepoolID", "hostID", "scsiKey", "masterSdUUID", "masterVersion", "domainDict"],
        Call::Storage(StorageCall::PoolConnect),
    ),
    verb(
        "StoragePool.disconnect",
        &["storagepoolID", "hostID", "scsiKey", "remove"],
        Call::Storage(StorageCall::PoolDisconnect),
    ),
    verb(
        "StoragePool.destroy",
        &["storagepoolID", "hostID", "scsiKey"],
        Call::Storage(StorageCall::PoolDestroy),
    ),
    verb(
        "StoragePool.spmStart",
        &["storagepoolID", "prevID", "prevLver", "enableScsiFencing", "maxHostID", "domVersion"],
        Call::Storage(StorageCall::SpmStart),
    ),
    verb("StoragePool.getSpmStatus", &["storagepoolID"], Call::Storage(StorageCall::SpmStatus)),
    verb("StorageDomain.getInfo", &["storagedomainID"], Call::Storage(StorageCall::DomainInfo)),
    verb("StorageDomain.getStats", &["storagedomainID"], Call::Storage(StorageCall::DomainStats)),
    verb("StorageDomain.getImages", &["storagedomainID"], Call::Storage(StorageCall::Images)),
    verb(
        "StorageDomain.getVolumes",
        &["storagedomainID", "storagepoolID", "imageID"],
        Call::Storage(StorageCall::Volumes),
    ),
    verb(
        "Volume.getInfo",
        &["volumeID", "storagepoolID", "storagedomainID", "imageID"],
        Call::Storage(StorageCall::VolumeInfo),
    ),
    verb(
        "Volume.create",
        &[
            "volumeID",
            "storagepoolID",
            "storagedomainID",
            "imageID",
            "size",
            "volFormat",
            "preallocate",
            "diskType",
            "desc",
            "srcImgUUID",
            "srcVolUUID",
            "initialSize",
        ],
        Call::Storage(StorageCall::VolumeCreate),
    ),
    verb(
        "Image.prepare",
        &["storagepoolID", "storagedomainID", "imageID", "volumeID", "allowIllegal"],
        Call::Storage(StorageCall::ImagePrepare),
    ),
    verb(
        "Image.teardown",
        &["storagepoolID", "storagedomainID", "imageID", "volumeID"],
        Call::Storage(StorageCall::ImageTeardown),
    ),
    verb("Task.getStatus", &["taskID"], Call::Storage(StorageCall::TaskStatus)),
    verb("Task.clear", &["taskID"], Call::Storage(StorageCall::TaskClear)),
    verb("VM.getStats", &["vmID"], Call::VmStats),
    verb("VM.create", &["vmID", "vmParams"], Call::VmCreate),
    verb("VM.destroy", &["vmID", "gracefulAttempts"], Call::VmDestroy),
    verb("VM.shutdown", &["vmID", "delay", "message", "reboot", "timeout", "force"], Call::VmShutdown),
    verb("VM.pause", &["vmID"], Call::VmPause),
    verb("VM.cont", &["vmID"], Call::VmCont),
    verb("VM.updateDevice", &["vmID", "params"], Call::VmUpdateDevice),
    verb("VM.migrate", &["vmID", "params"], Call::VmMigrate),
    verb("VM.getMigrationStatus", &["vmID"], Call::VmMigrationStatus),
    verb("VM.migrateCancel", &["vmID"], Call::VmMigrateCancel),
    verb("VM.migrationCreate", &["vmID", "params", "incomingLimit"], Call::VmMigrationCreate),
];

/// The verb of this name.
pub(crate) fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// Carries a verb out.
pub(crate) async fn call(server: &Server, verb: &Verb, arguments: Arguments) -> Result<Value, Failure> {
    let vms = &server.vms;
    match verb.call {
        // No network here outlives the stand-in.
        Call::Ping | Call::KeepNetworks => Ok(Value::Null),
        Call::HostStats => {
            let count = vms.count();
            on_storage(server, move |storage| Ok(host_stats::read(&storage.repo_stats(&[]), count))).await
        }
        Call::VmList => {
            let is_full = arguments.get("onlyUUID").and_then(Value::as_bool) == Some(false);
            Ok(if is_full { vms.statuses() } else { json!(vms.ids()) })
        }
        Call::AllVmStats => Ok(vms.all_stats()),
        Call::VmStats => Ok(json!([vms.find(&arguments.text("vmID")?)?.stats()])),
        Call::VmCreate => {
            let params = arguments.object("vmParams")?;
            let id = arguments.get("vmID").and_then(Value::as_str).map(str::to_owned);
            vms.create(id, params).await
        }
        Call::VmDestroy => vms.destroy(&arguments.text("vmID")?).await,
        Call::VmShutdown => vms.find(&arguments.text("vmID")?)?.shutdown(),
        Call::VmPause => vms.find(&arguments.text("vmID")?)?.pause().await,
        Call::VmCont => vms.find(&arguments.text("vmID")?)?.cont().await,
        Call::VmUpdateDevice => {
            vms.find(&arguments.text("vmID")?)?.update_device(&arguments.object("params")?).await
        }
        Call::VmMigrate => vms.migrate(&arguments.text("vmID")?, &arguments.object("params")?),
        Call::VmMigrateCancel => vms.find(&arguments.text("vmID")?)?.migrate_cancel().await,
        Call::VmMigrationStatus => Ok(vms.find(&arguments.text("vmID")?)?.migration_status()),
        Call::VmMigrationCreate => {
            vms.migration_create(&arguments.text("vmID")?, arguments.object("params")?).await
        }
        Call::NetworkCapabilities => Ok(server.networks.capabilities()),
        Call::SetupNetworks => {
            let parts = ["networks", "bondings", "options"].map(|name| arguments.object(name));
            let [networks, bondings, options] = parts;
            server.networks.set_up(&networks?, &bondings?, &options?).await.map(|()| Value::Null)
        }
        Call::ConfirmConnectivity => {
            server.networks.confirm();
            Ok(Value::Null)
        }
        Call::Storage(call) => storage(server, call, arguments).await,
    }
}

/// Runs something that may hang with the storage.
async fn on_storage(
    server: &Server,
    work: impl FnOnce(&Arc<Storage>) -> Result<Value, Failure> + Send + 'static,
) -> Result<Value, Failure> {
    let storage = server.storage.clone();
    let joined = tokio::task::spawn_blocking(move || work(&storage)).await;
    joined.unwrap_or_else(|error| Err(Failure::internal(&error.to_string())))
}

async fn storage(server: &Server, call: StorageCall, arguments: Arguments) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Handle::current();
    on_storage(server, move |storage| {
        let text = |name: &str| arguments.text(name);
        let domain = || storage.domain(&arguments.text("storagedomainID")?);
        match call {
            StorageCall::TasksStatuses => Ok(storage.tasks()),
            StorageCall::RepoStats => Ok(storage.repo_stats(&arguments.texts("domains")?)),
            StorageCall::StartMonitoring => {
                let known = host_id(&arguments)?;
                let _entered = runtime.enter();
                storage.start_monitoring(&text("sdUUID")?, known);
                Ok(Value::Null)
            }
            StorageCall::StopMonitoring => storage.stop_monitoring(&text("sdUUID")?).map(|()| Value::Null),
            StorageCall::Connect => {
                storage.connect(domain_type(&arguments)?, &arguments.list("connectionParams")?)
            }
            StorageCall::Disconnect => {
                storage.disconnect(domain_type(&arguments)?, &arguments.list("connectionParams")?)
            }
            StorageCall::Devices => Ok(storage.devices(&arguments.texts("guids")?)),
            StorageCall::Groups => Ok(storage.volume_groups()),
            StorageCall::GroupCreate => {
                storage.create_group(&text("name")?, &arguments.texts("devlist")?).map(Value::from)
            }
            StorageCall::GroupRemove => {
                storage.remove_group(&text("lvmvolumegroupID")?).map(|()| Value::Null)
            }
            StorageCall::Domains => Ok(json!(storage.domains())),
            StorageCall::DomainCreate => {
                storage.create_domain(&new_domain(&arguments)?).map(|()| Value::Null)
            }
            StorageCall::DomainFormat => {
                let detaches = arguments.get("autoDetach").is_some_and(is_true);
                storage.format(&text("storagedomainID")?, detaches).map(|()| Value::Null)
            }
            StorageCall::DomainDescription => storage
                .set_description(&text("storagedomainID")?, &text("description")?)
                .map(|()| Value::Null),
            StorageCall::Pools => Ok(json!(storage.connected_pools())),
            StorageCall::PoolCreate => {
                let domains = arguments.texts("domainList")?;
                storage
                    .create_pool(&text("storagepoolID")?, &text("masterSdUUID")?, &domains)
                    .map(|()| Value::Null)
            }
            StorageCall::PoolConnect => {
                let host_id = host_id(&arguments)?;
                storage
                    .connect_pool(&text("storagepoolID")?, host_id, &text("masterSdUUID")?)
                    .map(|()| Value::Null)
            }
            StorageCall::PoolDisconnect => {
                storage.disconnect_pool(&text("storagepoolID")?).map(|()| Value::Null)
            }
            StorageCall::PoolDestroy => storage
                .destroy_pool(&text("storagepoolID")?, arguments.number("hostID")?)
                .map(|()| Value::Null),
            StorageCall::SpmStart => storage.start_spm(&text("storagepoolID")?, runtime).map(Value::from),
            StorageCall::SpmStatus => storage.spm_status(&text("storagepoolID")?),
            StorageCall::DomainInfo => domain()?.info(),
            StorageCall::DomainStats => domain()?.stats(),
            StorageCall::Images => Ok(json!(domain()?.images()?)),
            StorageCall::Volumes => {
                let image = arguments.get("imageID").map(|_| text("imageID")).transpose()?;
                Ok(json!(domain()?.volumes(&image.unwrap_or_default())?))
            }
            StorageCall::VolumeInfo => domain()?.volume_info(&text("imageID")?, &text("volumeID")?),
            StorageCall::VolumeCreate => storage.create_volume(new_volume(&arguments)?).map(Value::from),
            StorageCall::ImagePrepare => {
                let path =
                    storage.prepare(&text("storagedomainID")?, &text("imageID")?, &text("volumeID")?)?;
                Ok(json!({"path": path}))
            }
            StorageCall::ImageTeardown => {
                storage.teardown(&text("storagedomainID")?, &text("imageID")?).map(|()| Value::Null)
            }
            StorageCall::TaskStatus => storage.task(&text("taskID")?),
            StorageCall::TaskClear => storage.clear_task(&text("taskID")?).map(|()| Value::Null),
        }
    })
    .await
}

fn host_id(arguments: &Arguments) -> Result<u16, Failure> {
    let number = arguments.number("hostID")?;
    let known = u16::try_from(number).ok().filter(|id| (1..=2000).contains(id));
    known.ok_or_else(|| Failure::invalid_parameter("hostID", &number.to_string()))
}

/// A truth value, or its name.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

fn new_domain(arguments: &Arguments) -> Result<NewDomain, Failure> {
    let number = |name, default| match arguments.get(name) {
        Some(_) => arguments.number(name),
        None => Ok(default),
    };
    Ok(NewDomain {
        id: arguments.text("storagedomainID")?,
        domain_type: domain_type(arguments)?,
        connection: arguments.text("typeArgs")?,
        name: arguments.text("name")?,
        class: arguments.number("domainClass")?,
        version: number("version", 0)?,
        block_size: number("blockSize", 512)?,
    })
}

/// VDSM takes the number or its name.
fn domain_type(arguments: &Arguments) -> Result<i64, Failure> {
    match arguments.require("domainType")?.as_str() {
        Some("NFS") => Ok(1),
        Some("FCP") => Ok(2),
        Some("ISCSI") => Ok(3),
        Some("POSIXFS") => Ok(6),
        Some("GLUSTERFS") => Ok(7),
        _ => arguments.number("domainType"),
    }
}

fn new_volume(arguments: &Arguments) -> Result<NewVolume, Failure> {
    let named = |name: &str, known: &[(&str, i64)]| match arguments.get(name).and_then(Value::as_str) {
        Some(word) => match known.iter().find(|(known, _)| *known == word) {
            Some((_, number)) => Ok(*number),
            None => arguments.number(name),
        },
        None => arguments.number(name),
    };
    let size = arguments.number("size")?;
    Ok(NewVolume {
        pool: arguments.text("storagepoolID")?,
        domain: arguments.text("storagedomainID")?,
        image: arguments.text("imageID")?,
        volume: arguments.text("volumeID")?,
        capacity: u64::try_from(size).map_err(|_| Failure::invalid_parameter("size", &size.to_string()))?,
        format: named("volFormat", &[("COW", 4), ("RAW", 5)])?,
        allocation: named("preallocate", &[("PREALLOCATED", 1), ("SPARSE", 2)])?,
        description: arguments.text("desc")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_stands_twice() {
        for (place, verb) in VERBS.iter().enumerate() {
            assert!(VERBS[place + 1..].iter().all(|other| other.name != verb.name), "{}", verb.name);
        }
    }
}
