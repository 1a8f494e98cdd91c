//! Our own client against our own server: every verb, every document, every kind of error.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::status::{AgentReport, MigrationRequest, ScoreTerm};
use broker_api::xmlrpc::{Value, fault};
use broker_api::{BrokerClient, ClientError};
use metadata_format::{HostId, Score};

use crate::fake::Served;

#[tokio::test]
async fn every_verb_reaches_the_broker_and_its_answer_comes_back() {
    let served = Served::start();
    let client = served.client();

    let options =
        BTreeMap::from([("addr".to_owned(), Some("10.0.0.1".to_owned())), ("port".to_owned(), None)]);
    assert_eq!(client.start_monitor("network", &options).await.unwrap(), "network");
    assert!(served.broker.called("start_monitor network {\"addr\": Some(\"10.0.0.1\"), \"port\": None}"));
    assert_eq!(client.status_monitor("network").await.unwrap(), None);
    assert_eq!(client.status_monitor("mgmt-bridge").await.unwrap().as_deref(), Some("True"));
    let health = client.status_monitor("engine-health").await.unwrap().unwrap();
    assert_eq!(health, "{\"vm\": \"up\", \"detail\": \"<Ü & \\\"q\\\">\"}");
    client.stop_monitor("network").await.unwrap();
    assert!(served.broker.called("stop_monitor network"));

    assert_eq!(client.get_stats().await.unwrap(), BTreeMap::new());
    let block: Vec<u8> = (0..=255).chain([0; 768]).collect();
    client.put_stats(1, &block).await.unwrap();
    client.put_stats(0, &[0; 4096]).await.unwrap();
    assert_eq!(client.get_stats().await.unwrap(), BTreeMap::from([(0, vec![0; 4096]), (1, block)]));

    let all: Vec<u16> = (1..=2000).collect();
    client.push_hosts_state(&all).await.unwrap();
    assert_eq!(client.is_host_alive().await.unwrap(), all);

    let options = BTreeMap::from([("hostname".to_owned(), "h1".to_owned())]);
    assert!(client.notify("state_transition", "A-B", &options).await.unwrap());
    assert!(!client.notify("other", "A-B", &options).await.unwrap());
    assert!(served.broker.called("notify other A-B {\"hostname\": \"h1\"}"));

    client.start_domain_monitor(3).await.unwrap();
    client.lock_host_id(3).await.unwrap();
    client.release_host_id().await.unwrap();
    client.stop_domain_monitor().await.unwrap();
    for call in ["start_domain_monitor 3", "lock_host_id 3", "release_host_id", "stop_domain_monitor"] {
        assert!(served.broker.called(call), "{call}");
    }
    served.stop().await;
}

#[tokio::test]
async fn failures_are_faults_that_say_what_and_why() {
    let served = Served::start();
    let client = served.client();
    let fault_of = |error: ClientError| match error {
        ClientError::Fault { code, message, .. } => (code, message),
        other => panic!("{other}"),
    };

    let error = client.reset_lockspace().await.unwrap_err();
    assert_eq!(fault_of(error), (fault::LOCKSPACE, "host 2 is live in it".to_owned()));
    let error = client.put_stats(7, &[1]).await.unwrap_err();
    assert_eq!(fault_of(error), (fault::NOT_HELD, "host id 7 is not held by this host".to_owned()));
    let error = client.put_stats(8, &[1]).await.unwrap_err();
    assert_eq!(fault_of(error), (fault::STORAGE, "storage stuck since 04:05:06".to_owned()));
    let error = client.call("nosuch", Vec::new()).await.unwrap_err();
    let text = "<class 'Exception'>:method \"nosuch\" is not supported".to_owned();
    assert_eq!(fault_of(error), (fault::UNKNOWN_METHOD, text));

    for (verb, params, text) in [
        ("lock_host_id", vec![], "lock_host_id(host_id): got 0 arguments"),
        ("get_stats", vec![Value::Nil], "get_stats(): got 1 arguments"),
        ("lock_host_id", vec![Value::Int(0)], "host_id is Int(0); a host id is a number from 1 to 2000"),
        ("put_stats", vec![Value::Int(2001), Value::Bytes(vec![1])], "a number from 0 to 2000"),
        (
            "put_stats",
            vec![Value::Int(1), Value::Bytes(vec![1; 4097])],
            "data has 4097 bytes; a block has at most 4096",
        ),
        ("put_stats", vec![Value::Int(1), Value::Int(1)], "data is an integer instead of base64"),
        ("push_hosts_state", vec![Value::from("1|2")], "alive_hosts is not an array of host ids"),
        ("notify", vec![Value::from("a"), Value::Nil, Value::Nil], "detail is nil instead of a text"),
    ] {
        let (code, message) = fault_of(client.call(verb, params).await.unwrap_err());
        assert_eq!(code, fault::BAD_ARGUMENT, "{message}");
        assert!(message.contains(text), "{message}");
    }
    served.stop().await;
}

#[tokio::test]
async fn the_json_documents_and_the_metrics_are_served() {
    let served = Served::start();
    let client = served.client();
    assert_eq!(client.status().await.unwrap().unwrap().global_maintenance, Some(true));
    let report = AgentReport {
        state: "EngineUp".to_owned(),
        score: Score(2400),
        score_terms: vec![ScoreTerm { name: "base".to_owned(), points: 2400, reason: "base".to_owned() }],
        reasons: vec!["the engine is healthy".to_owned()],
        timeout_at: None,
        warnings: Vec::new(),
        migration: None,
    };
    assert!(client.put_agent_report(&report).await.unwrap());
    assert_eq!(client.status().await.unwrap().unwrap().agent, Some(report));
    let two = HostId::new(2).ok();
    for to in [two, None] {
        assert!(client.ask_migration(to).await.unwrap());
        let request = client.status().await.unwrap().unwrap().migration_request;
        assert_eq!(request, Some(MigrationRequest { to, asked_at: 1 }));
    }
    assert_eq!(client.metrics().await.unwrap().unwrap(), "# TYPE up gauge\nup 1\n");
    served.stop().await;
}

#[tokio::test]
async fn wake_returns_on_an_event_or_after_its_time() {
    let served = Served::start();
    let client = served.client();
    let short = client.wake(0, Duration::from_millis(10)).await.unwrap().unwrap();
    assert_eq!(short.counter, 0);
    let long = tokio::spawn({
        let client = client.clone();
        async move { client.wake(0, Duration::from_mins(1)).await }
    });
    served.broker.wakes.send_replace(5);
    assert_eq!(long.await.unwrap().unwrap().unwrap().counter, 5);
    // The counter is past that already.
    assert_eq!(client.wake(4, Duration::from_mins(1)).await.unwrap().unwrap().counter, 5);
    served.stop().await;
}

#[tokio::test]
async fn a_missing_broker_is_named_with_its_socket() {
    let client = BrokerClient::new("/nonexistent/broker.socket");
    let error = client.get_stats().await.unwrap_err();
    assert!(error.is_connect());
    let text = error.to_string();
    assert!(text.contains("/nonexistent/broker.socket") && text.contains("systemctl"), "{text}");
}

#[tokio::test]
async fn a_silent_broker_ends_in_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent");
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    let error =
        BrokerClient::new(&path).with_timeout(Duration::from_millis(50)).get_stats().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("get_stats within 0.05 s"), "{error}");
}
