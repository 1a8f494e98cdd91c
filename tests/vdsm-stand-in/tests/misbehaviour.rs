//! Each misbehaviour, as a client sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{SOON, StandIn};
use tempfile::TempDir;
use vdsm_client::{CallError, Connection, code};

/// Shorter than any delay that is asked for here.
const SHORT: Duration = Duration::from_millis(300);

fn plain() -> (TempDir, StandIn) {
    let root = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(root.path(), &["--plain"]);
    (root, stand_in)
}

/// It answers when it is told to be normal.
async fn recovers(stand_in: &StandIn, client: &vdsm_client::Client) {
    assert_eq!(stand_in.tell("normal"), "ok");
    // A connection that fell silent is given up and made anew.
    let answered = async { while client.call("Host.ping2", json!({}), SHORT).await.is_err() {} };
    tokio::time::timeout(SOON, answered).await.unwrap();
}

#[tokio::test]
async fn over_tls_only_those_are_served_whom_the_authority_knows() {
    let root = tempfile::tempdir().unwrap();
    let make = |pki: &str| {
        let made = Command::new(env!("CARGO_BIN_EXE_vdsm-stand-in"))
            .arg("make-certificates")
            .arg(root.path().join(pki))
            .args(["--name", "host1.sandbox.test"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    make("etc/pki/vdsm");
    let stand_in = StandIn::start(root.path(), &[]);
    stand_in.client().ping().await.unwrap();

    make("other");
    let mut settings = vdsm_client::Settings::new("127.0.0.1", stand_in.address.port(), None);
    settings.tls = Some(vdsm_client::TlsFiles {
        ca: root.path().join("etc/pki/vdsm/certs/cacert.pem"),
        cert: root.path().join("other/certs/vdsmcert.pem"),
        key: root.path().join("other/keys/vdsmkey.pem"),
    });
    let stranger = vdsm_client::Client::new(settings);
    let refused = stranger.call("Host.ping2", json!({}), Duration::from_secs(2)).await.unwrap_err();
    assert!(!matches!(refused, CallError::Server { .. }), "{refused:?}");
}

#[tokio::test]
async fn silence_is_an_unanswered_call() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    assert_eq!(stand_in.tell("silence"), "ok");
    let error = client.call("Host.ping2", json!({}), SHORT).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    recovers(&stand_in, &client).await;
}

#[tokio::test]
async fn half_a_frame_is_no_answer_and_the_connection_is_given_up() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    assert_eq!(stand_in.tell("half-frames"), "ok");
    let error = client.call("Host.ping2", json!({}), SHORT).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. } | CallError::Lost { .. }), "{error:?}");
    recovers(&stand_in, &client).await;
}

#[tokio::test]
async fn a_recovering_server_refuses_everything() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    assert_eq!(stand_in.tell("recovering 60"), "ok");
    let error = client.call("VM.getStats", json!({"vmID": "x"}), SHORT).await.unwrap_err();
    assert_eq!(error.code(), Some(code::RECOVERING), "{error:?}");
    recovers(&stand_in, &client).await;
}

#[tokio::test]
async fn late_answers_are_late() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    assert_eq!(stand_in.tell("delay 600"), "ok");
    let error = client.call("Host.ping2", json!({}), SHORT).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
    client.call("Host.ping2", json!({}), SOON).await.unwrap();
    recovers(&stand_in, &client).await;
}

#[tokio::test]
async fn a_connection_that_ends_in_a_call_leaves_its_outcome_unknown() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    assert_eq!(stand_in.tell("close-in-call"), "ok");
    let error = client.call("Host.ping2", json!({}), SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");
    recovers(&stand_in, &client).await;
}

#[tokio::test]
async fn a_verb_can_be_missing() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    assert_eq!(stand_in.tell("unknown Host.getVMList"), "ok");
    let error = client.vm_list().await.unwrap_err();
    assert_eq!(error.code(), Some(code::UNKNOWN_VERB), "{error:?}");
    recovers(&stand_in, &client).await;
    assert_eq!(client.vm_list().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn without_heart_beats_a_connection_counts_as_dead() {
    let (_root, stand_in) = plain();
    let client = stand_in.client();
    client.ping().await.unwrap();
    let mut connection = client.connection();
    assert_eq!(stand_in.tell("no-heart-beat"), "ok");
    let died = connection.wait_for(|state| matches!(state, Connection::Down { .. }));
    tokio::time::timeout(SOON, died).await.unwrap().unwrap();
    recovers(&stand_in, &client).await;
}

#[test]
fn the_control_socket_names_what_it_does_not_know() {
    let (_root, stand_in) = plain();
    let answer = stand_in.tell("be good");
    assert!(answer.starts_with("error:") && answer.contains("close-in-call"), "{answer}");
    let status: serde_json::Value = serde_json::from_str(&stand_in.tell("status")).unwrap();
    assert_eq!((&status["misbehaviour"]["silence"], &status["vms"]), (&json!(false), &json!([])));
}
