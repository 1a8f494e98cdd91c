//! Real QEMU guests under real sanlock leases, through VDSM's dialect: two hosts on this machine. Needs root, QEMU,
//! sanlock and libfaketime, and the program ovirt-ha-vm-launcher beside vdsm-stand-in.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::time::Duration;

use support::lab::{Lab, SD, VM, start, until};
use vdsm_client::{MigrateParams, VmParams, code};

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_runs_on_one_host_at_a_time_and_moves() {
    let mut lab = Lab::new().await;
    let mut events = lab.hosts[0].client.events();
    let created = lab.create(0).await;
    assert_eq!(created.status.as_deref(), Some("WaitForLaunch"));
    let up = lab.status(0, "Up").await;
    assert_eq!(up.display_info.len(), 1, "{up:?}");
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let event = event.vm_status().unwrap();
        assert!(event.notify_time <= up.status_time.unwrap(), "{event:?}");
        told.push(event.status.status.unwrap());
    }
    assert_eq!(told, ["Powering up", "Up"]);
    let again = lab.hosts[0].client.vm_create(VM, VmParams::Xml(Lab::xml())).await.unwrap_err();
    assert_eq!(again.code(), Some(code::VM_EXISTS));

    // Its lease is taken: the other host is refused, and says so until the VM is forgotten.
    lab.create(1).await;
    let down = lab.status(1, "Down").await;
    assert_eq!((down.exit_code, down.exit_reason), (Some(1), Some(1)), "{down:?}");
    assert!(down.exit_message.is_some_and(|text| text.contains("Failed to acquire lock")));
    let exists = lab.hosts[1].client.vm_create(VM, VmParams::Xml(Lab::xml())).await.unwrap_err();
    assert_eq!(exists.code(), Some(code::VM_EXISTS));
    lab.destroy(1).await;

    // Paused, and on.
    lab.hosts[0].client.vm_pause(VM).await.unwrap();
    lab.status(0, "Paused").await;
    lab.hosts[0].client.vm_cont(VM).await.unwrap();
    lab.status(0, "Up").await;
    let kind = vdsm_client::ConsoleKind::Vnc;
    lab.hosts[0].client.vm_set_ticket(VM, kind, "secret", Duration::from_mins(1)).await.unwrap();

    // Killed, the stand-in finds its guest again.
    let root = lab.hosts[0].stand_in.root.clone();
    lab.hosts[0].stand_in.kill();
    lab.hosts[0].stand_in = start(&root);
    lab.hosts[0].client = lab.hosts[0].stand_in.client();
    lab.status(0, "Up").await;
    assert_eq!(lab.hosts[0].client.vm_list().await.unwrap(), [VM]);

    // Live, to the other host.
    let there = lab.hosts[1].stand_in.address.to_string();
    lab.hosts[0].client.vm_migrate(VM, &MigrateParams::to(there)).await.unwrap();
    let left = lab.status(0, "Down").await;
    assert_eq!((left.exit_code, left.exit_reason), (Some(0), Some(4)), "{left:?}");
    lab.status(1, "Up").await;
    let moved = lab.hosts[0].client.vm_migration_status(VM).await.unwrap();
    assert_eq!((moved.code, moved.progress), (Some(0), Some(100)), "{moved:?}");
    lab.destroy(0).await;

    // Destroyed there, it can start here.
    lab.destroy(1).await;
    lab.create(0).await;
    lab.status(0, "Up").await;
    lab.hosts[0].client.vm_shutdown(VM, Duration::ZERO, "bye").await.unwrap();
    lab.status(0, "Powering down").await;
    lab.destroy(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_lockspace_nothing_starts() {
    let lab = Lab::new().await;
    lab.hosts[0].client.stop_monitoring_domain(SD).await.unwrap();
    let stats = lab.hosts[0].client.storage_repo_stats(&[SD]).await.unwrap();
    assert!(stats.is_empty());
    until("the start to be refused", async || {
        lab.create(0).await;
        let mut message = None;
        until("the start to end", async || {
            let stats = lab.hosts[0].client.vm_stats(VM).await.unwrap();
            message = stats.exit_message;
            stats.status.as_deref() != Some("WaitForLaunch")
        })
        .await;
        lab.destroy(0).await;
        message.is_some_and(|text| text == "Failed to acquire lock: No space left on device")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_with_its_lease() {
    let lab = Lab::new().await;
    let client = &lab.hosts[0].client;
    let (image, volume) = ("22222222-2222-4222-8222-222222222201", "22222222-2222-4222-8222-222222222202");
    let pool = "33333333-3333-4333-8333-333333333301";
    client.pool_create(pool, "he", SD).await.unwrap();
    client.pool_connect(pool, 1, SD).await.unwrap();
    let task = client.spm_start(pool).await.unwrap();
    assert!(ended(client, &task).await.is_success());
    let new = vdsm_client::NewVolume {
        pool: pool.to_owned(),
        domain: SD.to_owned(),
        image: image.to_owned(),
        volume: volume.to_owned(),
        size: 1 << 20,
        description: "hosted-engine.metadata".to_owned(),
        allocation: vdsm_client::Allocation::Preallocated,
        disk_type: "HEMD".to_owned(),
    };
    let task = client.volume_create(&new).await.unwrap();
    assert!(ended(client, &task).await.is_success());
    client.task_clear(&task).await.unwrap();
    let info = client.volume_info(vdsm_client::BLANK_UUID, SD, image, volume).await.unwrap();
    assert_eq!((info.description.as_deref(), info.capacity), (Some("hosted-engine.metadata"), Some(1 << 20)));
    let again = client.volume_create(&new).await.unwrap();
    assert_eq!(ended(client, &again).await.code, Some(code::VOLUME_EXISTS));
    client.pool_destroy(pool, 1).await.unwrap();
    assert_eq!(client.domain_info(SD).await.unwrap().pools, Vec::<String>::new());
}

/// How a task ended.
async fn ended(client: &vdsm_client::Client, task: &str) -> vdsm_client::TaskStatus {
    let mut status = None;
    until("the task to end", async || {
        let now = client.task_status(task).await.unwrap();
        let is_finished = now.is_finished();
        status = Some(now);
        is_finished
    })
    .await;
    status.unwrap()
}
