//! Python's stdlib client over the Unix socket, as VDSM and the engine's setup tools use it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::fake::Served;

/// Runs one part of `client.py`; gives what it printed.
async fn python(part: &str, socket: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket/client.py");
    let output = Command::new("python3")
        .args(["-B", script, part])
        .arg(socket)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3 must be installed for this test");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{part}: {stdout}{stderr}");
    stdout.into_owned()
}

#[tokio::test]
async fn all_verbs_work_with_http_1_1_and_with_http_1_0() {
    for part in ["verbs", "verbs-http-1.0"] {
        let served = Served::start();
        assert_eq!(python(part, &served.path).await, "13 verbs\n");
        for call in [
            "start_monitor network {\"addr\": Some(\"127.0.0.1\"), \"big\": Some(\"1099511627776\"), \"flag\": \
             Some(\"True\"), \"share\": Some(\"0.5\"), \"tcp_t_port\": None}",
            "stop_monitor network",
            "notify state_transition StartState-ReinitializeFSM {\"hostname\": \"hôst <1> & \\\"2\\\"\"}",
            "start_domain_monitor 1",
            "lock_host_id 1",
            "release_host_id",
            "stop_domain_monitor",
        ] {
            assert!(
                served.broker.called(call),
                "{part}: {call} in {:#?}",
                served.broker.calls.lock().unwrap()
            );
        }
        served.stop().await;
    }
}

#[tokio::test]
async fn faults_are_raised_with_their_texts() {
    let served = Served::start();
    assert_eq!(python("faults", &served.path).await, "faults\n");
    served.stop().await;
}

#[tokio::test]
async fn every_type_of_value_is_understood() {
    let served = Served::start();
    assert_eq!(python("values", &served.path).await, "values\n");
    let calls = served.broker.calls.lock().unwrap().clone();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    for option in [
        r#""int": Some("-7")"#,
        r#""largest int": Some("2147483647")"#,
        r#""i8": Some("2147483648")"#,
        r#""smallest i8": Some("-9223372036854775808")"#,
        r#""true": Some("True")"#,
        r#""false": Some("False")"#,
        r#""double": Some("0.1")"#,
        r#""whole double": Some("3.0")"#,
        r#""large double": Some("1e300")"#,
        r#""text": Some("")"#,
        r#""space": Some(" a  b ")"#,
        r#""nil": None"#,
        r#""signs": Some("é \u{10ffff} <&>]]> \"'\n\t")"#,
        r#""date": Some("20261121T02:07:35")"#,
        r#""<&> é": Some("key")"#,
    ] {
        assert!(call.contains(option), "{option} in {call}");
    }
    served.stop().await;
}

#[tokio::test]
async fn connections_are_kept_or_used_once_and_requests_may_be_packed() {
    let served = Served::start();
    assert_eq!(python("connections", &served.path).await, "connections\n");
    served.stop().await;
}

#[tokio::test]
async fn concurrent_clients_do_not_disturb_each_other() {
    let served = Served::start();
    let rounds = (0..4).map(|_| python("concurrent", &served.path));
    assert_eq!(futures_util::future::join_all(rounds).await, vec!["80 calls\n"; 4]);
    served.stop().await;
}

#[tokio::test]
async fn a_full_cluster_of_2001_blocks_is_read() {
    let served = Served::start();
    *served.broker.blocks.lock().unwrap() = (0..=2000u16)
        .map(|id| {
            let mut block = vec![0; 4096];
            block[..2].copy_from_slice(&id.to_be_bytes());
            (id, block)
        })
        .collect();
    assert_eq!(python("full", &served.path).await, "2001 blocks\n");
    served.stop().await;
}
