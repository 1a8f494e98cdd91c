use ha_tests::vdsm::{Answer, FakeVdsm};
use serde_json::{Value, json};

use super::super::bridge::MgmtBridge;
use super::*;

/// A client of a VDSM that is not there.
async fn nobody() -> Client {
    let vdsm = FakeVdsm::start(|_, _| Answer::Silence).await.unwrap();
    vdsm.stop();
    vdsm.client()
}

async fn answering(method: &'static str, result: Value) -> FakeVdsm {
    FakeVdsm::start(move |asked, _| {
        if asked == method {
            Answer::Result(result.clone())
        } else {
            Answer::Error(-32601, "no such verb".to_owned())
        }
    })
    .await
    .unwrap()
}

fn storage(vdsm: Client) -> VdsmStorage {
    let options = MonitorOptions::from([("sd_uuid".to_owned(), Some("sd-1".to_owned()))]);
    VdsmStorage::from_options(&options, vdsm).unwrap()
}

#[tokio::test]
async fn memory_is_vdsms_figure() {
    let vdsm = answering("Host.getStats", json!({"memFree": 9728, "network": {}})).await;
    assert_eq!(VdsmMemory(vdsm.client()).measure().await, Ok(Reading::plain(9728)));
    let vdsm = answering("Host.getStats", json!({})).await;
    assert!(VdsmMemory(vdsm.client()).measure().await.unwrap_err().contains("no memFree"));
}

#[tokio::test]
async fn the_bridge_is_up_when_vdsm_says_so() {
    let network = json!({"network": {"ovirtmgmt": {"state": "up"}, "br1": {"state": "down"}, "br2": {}}});
    let vdsm = answering("Host.getStats", network).await;
    for (name, value, word) in [
        ("ovirtmgmt", "True", None),
        ("br1", "False", Some("carrier")),
        ("br2", "False", Some("carrier")),
        ("br3", "False", Some("no bridge 'br3'")),
    ] {
        let links = Box::new(VdsmLinks(vdsm.client()));
        let mut probe = MgmtBridge::from_options(&MonitorOptions::new(), name, links).unwrap();
        let reading = probe.measure().await.unwrap();
        assert_eq!(reading.value, value, "{name}");
        assert_eq!(
            reading.note.is_some_and(|note| note.contains(word.unwrap_or("?"))),
            word.is_some(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_domain_is_good_when_it_is_valid_and_quick() {
    for (domains, value, word) in [
        (json!({"sd-1": {"valid": true, "delay": "0.000273656"}}), "True", ""),
        (json!({"sd-1": {"valid": true, "delay": "10"}}), "True", ""),
        (json!({"sd-1": {"valid": true, "delay": "10.1"}}), "False", "took 10.1 s"),
        (json!({"sd-1": {"valid": true}}), "False", "has not read"),
        (json!({"sd-1": {"valid": false, "delay": "0", "code": 358}}), "False", "not valid (code 358)"),
        (json!({"sd-2": {"valid": true, "delay": "0"}}), "False", "does not monitor"),
        (json!({}), "False", "does not monitor"),
    ] {
        let vdsm = answering("Host.getStorageRepoStats", domains.clone()).await;
        let reading = storage(vdsm.client()).measure().await.unwrap();
        assert_eq!(reading.value, value, "{domains}");
        assert!(reading.note.unwrap_or_default().contains(word), "{domains}");
    }
}

#[tokio::test(start_paused = true)]
async fn vdsm_away_is_no_result() {
    let client = nobody().await;
    for error in [
        VdsmMemory(client.clone()).measure().await.unwrap_err(),
        VdsmLinks(client.clone()).look("ovirtmgmt").await.unwrap_err(),
        storage(client).measure().await.unwrap_err(),
    ] {
        assert!(error.contains("VDSM cannot be reached"), "{error}");
    }
}

#[tokio::test]
async fn the_domain_must_be_named() {
    let client = nobody().await;
    let error = VdsmStorage::from_options(&MonitorOptions::new(), client).err().unwrap();
    assert!(error.to_string().contains("sd_uuid"), "{error}");
}
