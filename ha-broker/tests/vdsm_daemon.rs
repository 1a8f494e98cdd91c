//! The broker's program on a host that VDSM manages, before VDSM is up and after: a scripted VDSM, storage in a
//! directory, file locks.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use broker_api::BrokerClient;
use broker_api::status::{StatusDocument, StorageState};
use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const SD: &str = "6c2d6f2e-0000-4000-8000-000000000001";

fn domain(root: &Path) -> PathBuf {
    root.join("rhev/data-center/mnt/a.example:_he").join(SD)
}

fn make_host(root: &Path, vdsm: &FakeVdsm) {
    for dir in ["etc/ovirt-hosted-engine", "etc/ovirt-hosted-engine-ha"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let conf = format!(
        "fqdn=engine.example.org\nhost_id=1\nsdUUID={SD}\ndomainType=nfs\nstorage=a.example:/he\nconnectionUUID=c\n\
         bridge=ovirtmgmt\nvm_disk_id=a\nvm_disk_vol_id=b\nvmid=c\nvdsm_use_ssl=false\nmetadata_image_UUID=md\n\
         metadata_volume_UUID=md-vol\nlockspace_image_UUID=ls\nlockspace_volume_UUID=ls-vol\n"
    );
    fs::write(root.join("etc/ovirt-hosted-engine/hosted-engine.conf"), conf).unwrap();
    let toml = format!(
        "[vm]\nhypervisor = \"vdsm\"\n\n[vdsm]\naddress = \"{}\"\n\n[lease]\nadapter = \"file\"\n",
        vdsm.address()
    );
    fs::write(root.join("etc/ovirt-hosted-engine-ha/ha.toml"), toml).unwrap();
    for (image, size) in [("md", 2001 * 4096), ("ls", 1 << 20)] {
        let image_dir = domain(root).join("images").join(image);
        fs::create_dir_all(&image_dir).unwrap();
        fs::File::create(image_dir.join(format!("{image}-vol"))).unwrap().set_len(size).unwrap();
    }
}

/// VDSM when it is up. It answers with paths as on a host without a root prefix.
fn up(root: &Path, method: &str, params: &Value) -> Answer {
    Answer::Result(match method {
        "Host.ping2" | "Host.startMonitoringDomain" => json!(true),
        "Host.getStats" => json!({"memFree": 9728, "network": {"ovirtmgmt": {"state": "up"}}}),
        "Host.getStorageRepoStats" => json!({SD: {"valid": true, "delay": "0.0003", "acquired": true}}),
        "StoragePool.connectStorageServer" => json!([{"id": "c", "status": 0}]),
        "StorageDomain.getStats" => json!({}),
        "StorageDomain.getInfo" => json!({"block_size": 512, "remotePath": "a.example:/he"}),
        "Image.prepare" => {
            let image = params["imageID"].as_str().unwrap();
            let prepared = root.join("run/vdsm/storage").join(SD);
            fs::create_dir_all(&prepared).unwrap();
            // It may be there already.
            let _ = std::os::unix::fs::symlink(domain(root).join("images").join(image), prepared.join(image));
            json!({"path": format!("/run/vdsm/storage/{SD}/{image}/{image}-vol")})
        }
        _ => return Answer::Error(-32601, "no such verb".to_owned()),
    })
}

struct Broker(Child);

impl Broker {
    fn start(root: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovirt-ha-broker"));
        let command = command.arg("--root").arg(root).env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until `wanted` gives something; a broker tells of nothing by itself but to waiting agents.
async fn until<T>(what: &str, client: &BrokerClient, wanted: impl Fn(&StatusDocument) -> Option<T>) -> T {
    let mut seen = None;
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(Some(status)) = client.status().await {
                if let Some(found) = wanted(&status) {
                    return found;
                }
                seen = Some(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    asked.unwrap_or_else(|_| panic!("waited in vain for {what}: {seen:?}"))
}

#[tokio::test]
async fn the_socket_answers_before_vdsm_does() {
    let root = tempfile::tempdir().unwrap();
    let recovering =
        |_: &str, _: &Value| Answer::Error(99, "Recovering from crash or Initializing".to_owned());
    let vdsm = FakeVdsm::start(recovering).await.unwrap();
    make_host(root.path(), &vdsm);
    let broker = Broker::start(root.path());
    let client = BrokerClient::new(root.path().join("run/ovirt-hosted-engine-ha/broker.socket"));

    // Before it asks VDSM it looks at the files, for a moment.
    let connecting = |status: &StatusDocument| match &status.storage {
        StorageState::Connecting { step, .. } => (step == "VDSM to answer").then_some(()),
        StorageState::Starting
        | StorageState::Good { .. }
        | StorageState::Stuck { .. }
        | StorageState::Failed { .. } => None,
    };
    until("the broker to wait for VDSM", &client, connecting).await;
    assert!(client.get_stats().await.unwrap().is_empty());
    let refused = client.put_stats(0, b"maintenance=1").await.unwrap_err().to_string();
    assert!(refused.contains("waiting for VDSM to answer"), "{refused}");
    assert!(client.metrics().await.unwrap().unwrap().contains(r#"{state="connecting"} 1"#));
    let options = BTreeMap::new();
    client.start_monitor("mem-free", &options).await.unwrap();
    assert!(!domain(root.path()).join("ha_agent").exists());

    let files = root.path().to_owned();
    vdsm.rescript(move |method, params| up(&files, method, params));
    let good = |status: &StatusDocument| matches!(status.storage, StorageState::Good { .. }).then_some(());
    until("storage", &client, good).await;
    client.put_stats(0, b"maintenance=1").await.unwrap();
    assert!(client.get_stats().await.unwrap().contains_key(&0));
    client.start_domain_monitor(1).await.unwrap();
    let memory = |status: &StatusDocument| {
        status.monitors.get("mem-free").and_then(|row| row.value.clone()).filter(|value| value == "9728")
    };
    until("the free memory as VDSM has it", &client, memory).await;
    drop(broker);
}
