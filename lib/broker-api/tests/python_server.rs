//! Our client against the standard library's XML-RPC server on a Unix socket, which is what the Python broker serves.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use broker_api::status::AgentReport;
use broker_api::xmlrpc::{Value, fault};
use broker_api::{BrokerClient, ClientError};
use metadata_format::Score;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running server; killed when dropped.
struct Python {
    client: BrokerClient,
    _child: Child,
    _dir: TempDir,
}

async fn python() -> Python {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.socket");
    let mut child = Command::new("python3")
        .args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server.py")])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 must be installed for this test");
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).await.unwrap();
    assert_eq!(ready, "ready\n");
    Python { client: BrokerClient::new(path).with_timeout(Duration::from_secs(20)), _child: child, _dir: dir }
}

#[tokio::test]
async fn every_type_goes_there_and_back() {
    let python = python().await;
    let all = Value::Struct(BTreeMap::from([
        ("nil".to_owned(), Value::Nil),
        ("truth".to_owned(), Value::Array(vec![Value::Bool(true), Value::Bool(false)])),
        ("small".to_owned(), Value::Int(-7)),
        (
            "large".to_owned(),
            Value::Array([1 << 31, -(1 << 31), i64::MAX, i64::MIN].map(Value::Int).to_vec()),
        ),
        ("double".to_owned(), Value::Array([0.1, -1e300, 5e-324].map(Value::Double).to_vec())),
        ("text".to_owned(), Value::from("é \u{10ffff} <&>]]> \"'\r\n\t ")),
        ("empty".to_owned(), Value::Array(vec![Value::from(""), Value::Array(vec![]), Value::Bytes(vec![])])),
        ("bytes".to_owned(), Value::Bytes((0..=255).cycle().take(5000).collect())),
        ("date".to_owned(), Value::DateTime("20261121T02:07:35".to_owned())),
        ("<&> é".to_owned(), Value::Struct(BTreeMap::new())),
    ]));
    let mut expected = all.clone();
    // Python writes a carriage return as it is, and XML makes it a line feed.
    if let Value::Struct(members) = &mut expected {
        members.insert("text".to_owned(), Value::from("é \u{10ffff} <&>]]> \"'\n\t "));
    }
    assert_eq!(python.client.call("echo", vec![all]).await.unwrap(), expected);
}

#[tokio::test]
async fn verbs_work_and_nil_and_faults_are_errors() {
    let python = python().await;
    let blocks = python.client.get_stats().await.unwrap();
    assert_eq!(
        blocks.iter().map(|(id, block)| (*id, block.len())).collect::<Vec<_>>(),
        [(0, 4096), (1, 4096)]
    );
    assert_eq!(python.client.is_host_alive().await.unwrap(), [1, 2]);
    assert_eq!(python.client.status_monitor("network").await.unwrap(), None);
    let error = python.client.put_stats(1, &[0; 512]).await.unwrap_err();
    assert!(matches!(error, ClientError::NoResult { .. }), "{error}");
    let error = python.client.release_host_id().await.unwrap_err();
    assert_eq!(error.fault_code(), Some(fault::UNKNOWN_METHOD), "{error}");
}

#[tokio::test]
async fn the_blocks_of_a_full_cluster_arrive_whole() {
    let python = python().await;
    let Value::Struct(blocks) = python.client.call("all_blocks", vec![]).await.unwrap() else {
        panic!("not a struct")
    };
    assert_eq!(blocks.len(), 2001);
    for number in 0..=2000_u16 {
        let byte = u8::try_from(number % 251 + 1).unwrap();
        assert_eq!(blocks[&number.to_string()], Value::Bytes(vec![byte; 4096]), "{number}");
    }
}

#[tokio::test]
async fn our_own_documents_are_known_to_be_unknown() {
    let python = python().await;
    assert_eq!(python.client.status().await.unwrap(), None);
    assert_eq!(python.client.metrics().await.unwrap(), None);
    assert_eq!(python.client.wake(0, Duration::from_secs(1)).await.unwrap(), None);
    let report = AgentReport {
        state: "EngineUp".to_owned(),
        score: Score(0),
        score_terms: Vec::new(),
        reasons: vec!["x".repeat(100_000)],
        timeout_at: None,
        warnings: Vec::new(),
        migration: None,
    };
    assert!(!python.client.put_agent_report(&report).await.unwrap());
    assert!(!python.client.ask_migration(None).await.unwrap());
}
