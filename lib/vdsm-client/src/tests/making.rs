//! The verbs that make storage domains and networks: what is sent, and answers of several releases.

use super::verbs::exchange as asked;
use super::*;
use crate::verbs::pool::NewDomain;
use crate::{SpmRole, code};

const SD: &str = "ce880525-a44b-4248-8b63-d9e11b2f123a";
const POOL: &str = "5e2b1d3c-0f3b-4d8c-9e57-1d2f3a4b5c6d";

#[tokio::test(start_paused = true)]
async fn a_domain_and_its_pool() {
    let new = NewDomain {
        domain: SD.to_owned(),
        domain_type: 1,
        arguments: "nfs:/he".to_owned(),
        name: "hosted_storage".to_owned(),
        block_size: 0,
    };
    let (method, params, done) =
        asked(|vdsm| async move { vdsm.domain_create(&new).await }, Value::Null).await;
    assert_eq!((method.as_str(), done), ("StorageDomain.create", Ok(())));
    assert_eq!(
        params,
        json!({"storagedomainID": SD, "domainType": 1, "typeArgs": "nfs:/he", "name": "hosted_storage",
               "domainClass": 1, "version": 5, "blockSize": 0})
    );

    let (method, params, done) =
        asked(|vdsm| async move { vdsm.pool_create(POOL, "he", SD).await }, json!(true)).await;
    assert_eq!((method.as_str(), done), ("StoragePool.create", Ok(())));
    assert_eq!(
        params,
        json!({"storagepoolID": POOL, "name": "he", "masterSdUUID": SD, "masterVersion": 1, "domainList": [SD],
               "lockRenewalIntervalSec": null, "leaseTimeSec": null, "ioOpTimeoutSec": null, "leaseRetries": null})
    );

    let (method, params, _) =
        asked(|vdsm| async move { vdsm.pool_connect(POOL, 3, SD).await }, json!(true)).await;
    assert_eq!(method, "StoragePool.connect");
    assert_eq!(
        params,
        json!({"storagepoolID": POOL, "hostID": 3, "scsiKey": POOL, "masterSdUUID": SD, "masterVersion": 1,
               "domainDict": {SD: "active"}})
    );

    for (answer, role) in [
        (json!({"spmStatus": "SPM", "spmId": 1, "spmLver": 2}), Some(SpmRole::Spm)),
        (json!({"spm_st": {"spmStatus": "Free", "spmId": -1, "spmLver": -1}}), Some(SpmRole::Free)),
        (json!({"spmStatus": "Contend"}), Some(SpmRole::Contend)),
        (json!({"spmStatus": "?"}), None),
    ] {
        let (method, params, found) = asked(|vdsm| async move { vdsm.spm_role(POOL).await }, answer).await;
        assert_eq!((method.as_str(), params), ("StoragePool.getSpmStatus", json!({"storagepoolID": POOL})));
        assert_eq!(found.ok(), role);
    }

    for answer in [json!([POOL]), json!({"poollist": [POOL]})] {
        let (.., pools) = asked(|vdsm| async move { vdsm.connected_storage_pools().await }, answer).await;
        assert_eq!(pools, Ok(vec![POOL.to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_and_its_volume_group() {
    let list = json!([{"GUID": "36001", "status": "used"}, {"GUID": "36002", "status": "free",
                       "capacity": "64424509440", "logicalblocksize": "512"}]);
    let (method, params, device) = asked(|vdsm| async move { vdsm.device("36002").await }, list).await;
    assert_eq!(
        (method.as_str(), params),
        ("Host.getDeviceList", json!({"guids": ["36002"], "checkStatus": true}))
    );
    let device = device.unwrap().unwrap();
    assert_eq!(
        (device.status.as_deref(), device.capacity, device.logical_block_size),
        (Some("free"), Some(60 << 30), Some(512))
    );
    let (.., none) = asked(|vdsm| async move { vdsm.device("36003").await }, json!([])).await;
    assert_eq!(none, Ok(None));

    let (method, params, uuid) =
        asked(|vdsm| async move { vdsm.volume_group_create(SD, "36002").await }, json!("VG-1")).await;
    assert_eq!((method.as_str(), uuid), ("LVMVolumeGroup.create", Ok("VG-1".to_owned())));
    assert_eq!(params, json!({"name": SD, "devlist": ["36002"], "force": false}));
    let answer = json!([{"name": SD, "vgUUID": "VG-1", "size": "1"}, {"name": "root"}]);
    let (.., groups) = asked(|vdsm| async move { vdsm.volume_groups().await }, answer).await;
    assert_eq!(groups.unwrap().into_iter().collect::<Vec<_>>(), [(SD.to_owned(), "VG-1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn networks() {
    let answer = json!({"bridges": {"ovirtmgmt": {"ports": ["eth0"]}}, "nics": {}});
    let (method, _, capabilities) =
        asked(|vdsm| async move { vdsm.network_capabilities().await }, answer).await;
    assert_eq!(method, "Host.getNetworkCapabilities");
    let capabilities = capabilities.unwrap();
    assert!(capabilities.find("bridges", "ovirtmgmt").is_some());
    assert!(capabilities.find("nics", "eth0").is_none());

    let (method, params, _) = asked(
        |vdsm| async move {
            let networks = json!({"ovirtmgmt": {"nic": "eth0", "bootproto": "dhcp"}});
            vdsm.setup_networks(networks.as_object().unwrap(), Duration::from_mins(2)).await
        },
        json!(true),
    )
    .await;
    assert_eq!(method, "Host.setupNetworks");
    assert_eq!(
        params,
        json!({"networks": {"ovirtmgmt": {"nic": "eth0", "bootproto": "dhcp"}}, "bondings": {},
               "options": {"connectivityCheck": 1, "connectivityTimeout": 120}})
    );
    assert_eq!(code::LOST_CONNECTION, 10);
}
