//! The verbs' methods against what a VDSM was recorded to answer, and what other releases answer.

use std::future::Future;

use super::*;
use crate::{Allocation, ConnectionStatus, MigrateParams, NewVolume, VmParams};

const VM: &str = "eccb9cb6-affd-4806-8200-708370581227";
const SD: &str = "ce880525-a44b-4248-8b63-d9e11b2f123a";
const POOL: &str = crate::BLANK_UUID;
const IMAGE: &str = "11111111-1111-4111-8111-111111111101";
const VOLUME: &str = "11111111-1111-4111-8111-111111111102";

/// The recorded requests with their results, in order.
fn recorded() -> Vec<(String, Value, Value)> {
    let text = include_str!("../../tests/recorded/session.txt").replace("\\\\", "\\");
    let bodies = text.lines().filter_map(|line| line.strip_suffix("\\0"));
    let bodies = bodies.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (mut requests, mut exchanges) = (Vec::new(), Vec::new());
    for body in bodies {
        match body {
            Value::Array(list) => requests.push(list[0].clone()),
            answer => {
                let request = requests.iter().find(|request| request["id"] == answer["id"]);
                if let (Some(request), Some(result)) = (request, answer.get("result")) {
                    let method = request["method"].as_str().unwrap().to_owned();
                    exchanges.push((method, request["params"].clone(), result.clone()));
                }
            }
        }
    }
    exchanges
}

/// Makes a call, and answers it; tells what was asked and what came of it.
pub(super) async fn exchange<T: Send + 'static, F>(
    call: impl FnOnce(Client) -> F,
    result: Value,
) -> (String, Value, Result<T, CallError>)
where
    F: Future<Output = Result<T, CallError>> + Send + 'static,
{
    let (client, mut place) = Place::with_client();
    let call = tokio::spawn(call(client));
    let mut server = place.welcome("24000,0").await;
    let request = server.request().await;
    server.answer(&request, result).await;
    let method = request["method"].as_str().unwrap().to_owned();
    (method, request["params"].clone(), call.await.unwrap())
}

/// Makes a call that was recorded: asserts that the same is asked, and tells what came of the recorded answer.
async fn replay<T: Send + 'static, F>(method: &str, call: impl FnOnce(Client) -> F) -> T
where
    F: Future<Output = Result<T, CallError>> + Send + 'static,
{
    let all = recorded();
    // The last one: what was asked for first is often not there yet.
    let (_, params, result) = all.iter().rev().find(|(name, ..)| name == method).unwrap();
    let (asked, asked_params, outcome) = exchange(call, result.clone()).await;
    assert_eq!(asked, method);
    assert_eq!(&asked_params, params);
    outcome.unwrap()
}

#[tokio::test(start_paused = true)]
async fn recorded_host_verbs() {
    replay("Host.ping2", |vdsm| async move { vdsm.ping().await }).await;
    let stats = replay("Host.getStats", |vdsm| async move { vdsm.host_stats().await }).await;
    assert_eq!(stats.mem_free, Some(20000));
    assert!(stats.network.values().any(|device| device.state.as_deref() == Some("up")), "{stats:?}");
    let domains =
        replay("Host.getStorageRepoStats", |vdsm| async move { vdsm.storage_repo_stats(&[SD]).await }).await;
    let domain = &domains[SD];
    assert_eq!((domain.valid, domain.acquired, domain.actual), (true, Some(true), Some(true)));
    assert_eq!((domain.delay, domain.last_check), (Some(0.000_312), Some(1.2)));
    assert_eq!((domain.code, domain.version), (Some(0), Some(5)));
    replay("Host.startMonitoringDomain", |vdsm| async move { vdsm.start_monitoring_domain(SD, 1).await })
        .await;
    replay("Host.stopMonitoringDomain", |vdsm| async move { vdsm.stop_monitoring_domain(SD).await }).await;
}

#[tokio::test(start_paused = true)]
async fn recorded_verbs_of_virtual_machines() {
    let stats = replay("VM.getStats", |vdsm| async move { vdsm.vm_stats(VM).await }).await;
    assert_eq!(stats.status.as_deref(), Some("WaitForLaunch"));
    assert_eq!(stats.status_time, Some(2_149_054_066));
    assert_eq!((stats.cpu_user, stats.cpu_sys, stats.cpu_actual), (Some(1.0), Some(1.0), Some(true)));
    assert_eq!(stats.pause_code.as_deref(), Some("NOERR"));
    let [display] = stats.display_info.as_slice() else { panic!("{stats:?}") };
    assert_eq!(display.kind.as_deref(), Some("vnc"));
    assert_eq!((display.port, display.tls_port), (Some(5900), None));

    let xml = format!("<domain><uuid>{VM}</uuid></domain>");
    let created =
        replay("VM.create", |vdsm| async move { vdsm.vm_create(VM, VmParams::Xml(xml)).await }).await;
    assert_eq!(created.status.as_deref(), Some("WaitForLaunch"));
    replay("VM.destroy", |vdsm| async move { vdsm.vm_destroy(VM).await }).await;
}

#[tokio::test(start_paused = true)]
async fn recorded_storage_verbs() {
    let info = replay("StorageDomain.getInfo", |vdsm| async move { vdsm.domain_info(SD).await }).await;
    assert_eq!(info.block_size, Some(512));
    assert_eq!(info.remote_path.as_deref(), Some("127.0.0.1:/exports/he"));
    let stats = replay("StorageDomain.getStats", |vdsm| async move { vdsm.domain_stats(SD).await }).await;
    assert_eq!((stats.disk_total, stats.disk_free), (Some(2), Some(1)));
    let images = replay("StorageDomain.getImages", |vdsm| async move { vdsm.images(SD).await }).await;
    assert_eq!(images.len(), 5);
    let volumes =
        replay("StorageDomain.getVolumes", |vdsm| async move { vdsm.volumes(None, SD, IMAGE).await }).await;
    assert_eq!(volumes, [VOLUME]);
    let volume =
        replay("Volume.getInfo", |vdsm| async move { vdsm.volume_info(POOL, SD, IMAGE, VOLUME).await }).await;
    assert_eq!(volume.description.as_deref(), Some("hosted-engine.metadata"));
    assert_eq!((volume.capacity, volume.ctime), (Some(1_048_576), Some(1_700_000_000)));
    let prepared =
        replay("Image.prepare", |vdsm| async move { vdsm.image_prepare(POOL, SD, IMAGE, VOLUME).await })
            .await;
    assert_eq!(prepared.path, format!("/run/vdsm/storage/{SD}/{IMAGE}/{VOLUME}"));
    let connections = replay("StoragePool.connectStorageServer", |vdsm| async move {
        let connection = json!({
            "connection": "127.0.0.1:/exports/he",
            "user": "kvm",
            "id": "55555555-5555-4555-8555-555555555501",
            "protocol_version": "auto",
        });
        vdsm.connect_storage_server(POOL, 1, vec![connection]).await
    })
    .await;
    let id = "55555555-5555-4555-8555-555555555501".to_owned();
    assert_eq!(connections, [ConnectionStatus { id, status: 0 }]);
}

#[tokio::test(start_paused = true)]
async fn statistics_of_a_virtual_machine_in_other_shapes() {
    for result in [
        json!([{"status": "Down", "exitReason": "4", "exitMessage": "Migration succeeded", "exitCode": 0}]),
        json!({"statsList": [{"status": "Down", "exitReason": 4, "exitMessage": "Migration succeeded", "exitCode": "0"}]}),
    ] {
        let (_, _, stats) = exchange(|vdsm| async move { vdsm.vm_stats(VM).await }, result).await;
        let stats = stats.unwrap();
        assert_eq!((stats.exit_reason, stats.exit_code), (Some(4), Some(0)));
        assert_eq!(stats.exit_message.as_deref(), Some("Migration succeeded"));
        assert_eq!(stats.status_time, None);
    }
    for result in [json!([]), json!([{}, {}]), json!(["Up"]), json!({}), json!(true), json!(null)] {
        let (_, _, stats) = exchange(|vdsm| async move { vdsm.vm_stats(VM).await }, result).await;
        assert!(matches!(stats, Err(CallError::Answer { .. })), "{stats:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_of_virtual_machines_in_both_shapes() {
    for result in [json!([VM]), json!([{"vmId": VM, "status": "Up"}]), json!({"vmList": [VM]})] {
        let (method, params, list) = exchange(|vdsm| async move { vdsm.vm_list().await }, result).await;
        assert_eq!((method.as_str(), params), ("Host.getVMList", json!({"onlyUUID": true})));
        assert_eq!(list.unwrap(), [VM]);
    }
}

#[tokio::test(start_paused = true)]
async fn figures_may_be_texts() {
    let result = json!({
        "memFree": "20000",
        "network": {"ovirtmgmt": {"state": "up"}, "em1": {}},
        "storageDomains": {SD: {"valid": "true", "acquired": "False", "delay": 0.5, "code": "0"}, "status": {"code": 0}},
    });
    let (_, _, stats) = exchange(|vdsm| async move { vdsm.host_stats().await }, result).await;
    let stats = stats.unwrap();
    assert_eq!(stats.mem_free, Some(20000));
    assert_eq!(stats.network["ovirtmgmt"].state.as_deref(), Some("up"));
    assert_eq!(stats.network["em1"].state, None);
    assert_eq!(stats.storage_domains.len(), 1);
    let domain = &stats.storage_domains[SD];
    assert_eq!((domain.valid, domain.acquired, domain.delay), (true, Some(false), Some(0.5)));
}

#[tokio::test(start_paused = true)]
async fn parameters_of_what_was_not_recorded() {
    let (method, params, done) = exchange(
        |vdsm| async move {
            let params = MigrateParams {
                encrypted: Some(true),
                max_bandwidth: Some(100),
                ..MigrateParams::to("host2.example")
            };
            vdsm.vm_migrate(VM, &params).await
        },
        json!(true),
    )
    .await;
    assert_eq!((method.as_str(), done), ("VM.migrate", Ok(())));
    assert_eq!(
        params,
        json!({"vmID": VM, "params": {
            "vmId": VM, "mode": "remote", "method": "online", "dst": "host2.example",
            "encrypted": true, "maxBandwidth": 100,
        }})
    );

    let (method, params, done) = exchange(
        |vdsm| async move { vdsm.vm_shutdown(VM, Duration::from_mins(2), "bye").await },
        json!(true),
    )
    .await;
    assert_eq!((method.as_str(), done), ("VM.shutdown", Ok(())));
    assert_eq!(params, json!({"vmID": VM, "delay": 120, "message": "bye"}));

    let (method, params, task) = exchange(
        |vdsm| async move {
            let new = NewVolume {
                pool: POOL.to_owned(),
                domain: SD.to_owned(),
                image: IMAGE.to_owned(),
                volume: VOLUME.to_owned(),
                size: 20 << 30,
                description: "HostedEngineConfigurationImage".to_owned(),
                allocation: Allocation::Preallocated,
                disk_type: "HECI".to_owned(),
            };
            vdsm.volume_create(&new).await
        },
        json!("task"),
    )
    .await;
    assert_eq!((method.as_str(), task), ("Volume.create", Ok("task".to_owned())));
    assert_eq!(
        params,
        json!({
            "volumeID": VOLUME, "storagepoolID": POOL, "storagedomainID": SD, "imageID": IMAGE,
            "size": "21474836480", "volFormat": 5, "preallocate": 1, "diskType": "HECI",
            "desc": "HostedEngineConfigurationImage", "srcImgUUID": POOL, "srcVolUUID": POOL,
        })
    );
}

#[tokio::test(start_paused = true)]
async fn tasks_and_migrations() {
    let task =
        json!({"taskState": "finished", "taskResult": "success", "code": 0, "message": "", "taskID": "t"});
    let (_, params, status) = exchange(|vdsm| async move { vdsm.task_status("t").await }, task.clone()).await;
    assert_eq!(params, json!({"taskID": "t"}));
    assert!(status.unwrap().is_success());
    let running = json!({"t": task, "u": {"taskState": "running", "taskResult": ""}});
    let (_, _, all) = exchange(|vdsm| async move { vdsm.all_tasks_statuses().await }, running).await;
    let all = all.unwrap();
    assert!(all["t"].is_finished() && !all["u"].is_finished());
    let (_, _, done) = exchange(|vdsm| async move { vdsm.task_clear("t").await }, json!(true)).await;
    assert_eq!(done, Ok(()));

    let progress = json!({"status": {"code": 0, "message": "Migration in progress"}, "progress": 37});
    let (_, _, status) = exchange(|vdsm| async move { vdsm.vm_migration_status(VM).await }, progress).await;
    let status = status.unwrap();
    assert_eq!((status.progress, status.code), (Some(37), Some(0)));
    assert_eq!(status.message.as_deref(), Some("Migration in progress"));
}

#[tokio::test(start_paused = true)]
async fn answers_of_another_kind_are_not_understood() {
    let (_, _, prepared) = exchange(
        |vdsm| async move { vdsm.image_prepare(POOL, SD, IMAGE, VOLUME).await },
        json!({"path": "relative"}),
    )
    .await;
    let error = prepared.unwrap_err().to_string();
    assert_eq!(
        error,
        "VDSM's answer to Image.prepare is not understood: expected an object with a path, got an object"
    );
    let (_, _, images) = exchange(|vdsm| async move { vdsm.images(SD).await }, json!(["x", 1])).await;
    assert!(matches!(images, Err(CallError::Answer { .. })), "{images:?}");
    let (_, _, connections) = exchange(
        |vdsm| async move { vdsm.disconnect_storage_server(POOL, 1, Vec::new()).await },
        json!([{"id": "x"}]),
    )
    .await;
    assert!(matches!(connections, Err(CallError::Answer { .. })), "{connections:?}");
}
