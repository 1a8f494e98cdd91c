//! The questions to VDSM as they go over the wire, and answers of older and newer releases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use clock::Monotonic;
use ha_config::{HostedEngineConf, Paths, conf_archive};
use ha_tests::vdsm::{Answer, FakeVdsm};
use ovf_store::{OvfStore, StoreError};
use serde_json::{Value, json};

const OVF: &str = include_str!("fixtures/engine-4.5.ovf");
const VM: &str = "5b1d6a0e-93c4-4f57-8a6e-0d2f7c9be113";
const DOMAIN: &str = "d0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6";
const POOL: &str = "00000000-0000-0000-0000-000000000000";
const DESCRIPTION: &str =
    "{\"Updated\":true,\"Disk Description\":\"OVF_STORE\",\"Last Updated\":\"Sat Nov 21 10:00:00 UTC 2026\"}";

fn answer(method: &str, params: &Value) -> Answer {
    assert_eq!(params["storagedomainID"], DOMAIN);
    let image = params["imageID"].as_str();
    Answer::Result(match (method, image) {
        ("StorageDomain.getImages", None) => json!(["disk", "store", "torn"]),
        ("StorageDomain.getVolumes", Some("torn")) => json!({"uuidlist": ["torn-volume"]}),
        ("StorageDomain.getVolumes", Some(image)) => json!([format!("{image}-volume")]),
        ("Volume.getInfo", Some("disk")) => json!({"description": "", "capacity": "1"}),
        ("Volume.getInfo", Some("store")) => json!({"description": DESCRIPTION}),
        ("Volume.getInfo", Some("torn")) => return Answer::refusal(201),
        ("Image.prepare", Some("store")) => json!({"path": "/run/vdsm/storage/store"}),
        other => panic!("{other:?} was not expected"),
    })
}

#[tokio::test]
async fn the_four_verbs_lead_to_the_description() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("run/vdsm/storage")).unwrap();
    let name = format!("{VM}.ovf");
    let archive = conf_archive::write(&[(&name, OVF.as_bytes())], 0).unwrap();
    std::fs::write(dir.path().join("run/vdsm/storage/store"), archive).unwrap();
    let text = format!("vmid={VM}\nsdUUID={DOMAIN}\nspUUID={POOL}\n");
    let conf = HostedEngineConf::parse(&Paths::new(dir.path()), &text);

    let vdsm = FakeVdsm::start(answer).await.unwrap();
    let mut store = OvfStore::new(vdsm.client(), &conf).unwrap();
    let vm = store.read(Monotonic::from_secs(1)).await.unwrap();
    assert_eq!((vm.memory_mib, vm.cpu.count()), (8192, 8));
    let calls = vdsm.calls();
    assert_eq!(calls[0], ("StorageDomain.getImages".into(), json!({"storagedomainID": DOMAIN})));
    let volume = json!({
        "storagepoolID": POOL, "storagedomainID": DOMAIN, "imageID": "store", "volumeID": "store-volume",
    });
    for method in ["Volume.getInfo", "Image.prepare"] {
        assert!(calls.contains(&(method.to_owned(), volume.clone())), "{method}: {calls:?}");
    }
    assert_eq!(vdsm.count("StorageDomain.getVolumes"), 3);

    // The domain is not there any more: nothing is known, so nothing is said to be missing.
    vdsm.rescript(|_, _| Answer::refusal(358));
    let mut other = OvfStore::new(vdsm.client(), &conf).unwrap();
    let error = other.read(Monotonic::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Vdsm(_)) && error.to_string().contains("358"), "{error}");
}
