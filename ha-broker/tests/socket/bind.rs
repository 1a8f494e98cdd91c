//! The socket file: mode, stale ones, second brokers, removal, long paths.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use ha_broker::socket::{SocketError, WriterPolicy, bind};

use crate::fake::Served;

#[tokio::test]
async fn the_file_is_open_to_all_while_served_and_gone_afterwards() {
    let served = Served::start();
    let path = served.path.clone();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let names = |path: &std::path::Path| {
        let mut names: Vec<_> =
            path.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&path), ["broker.socket", "broker.socket.lock"]);
    served.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let bound = bind(&path).unwrap();
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_broker_is_refused_and_the_first_goes_on() {
    let served = Served::start();
    let error = bind(&served.path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another broker is serving"), "{error}");
    assert!(served.client().is_host_alive().await.unwrap().is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_broker_that_takes_no_lock_is_found_by_connecting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.socket");
    let _other = UnixListener::bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.socket");
    std::fs::write(&path, "precious").unwrap();
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let error = bind(&dir.path().join("missing/broker.socket")).unwrap_err().to_string();
    assert!(error.contains("missing/broker.socket.lock"), "{error}");
}

#[tokio::test]
async fn the_file_of_a_successor_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.socket");
    let bound = bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    drop(bound);
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let name = format!("{}/{}/broker.socket", "r".repeat(100), "s".repeat(100));
    let served = Served::start_with(WriterPolicy::default(), &name);
    assert!(served.client().is_host_alive().await.unwrap().is_empty());
    let path = served.path.clone();
    served.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stop_is_over_within_a_second_whatever_clients_do() {
    let served = Served::start();
    let client = served.client();
    // One sleeps on a wake, one waits for a verb that does not end, one never finishes its request.
    let wake = tokio::spawn({
        let client = client.clone();
        async move { client.wake(0, Duration::from_mins(1)).await }
    });
    let lock = tokio::spawn({
        let client = client.clone();
        async move { client.lock_host_id(2000).await }
    });
    let half = tokio::net::UnixStream::connect(&served.path).await.unwrap();
    half.writable().await.unwrap();
    half.try_write(b"POST /RPC2 HT").unwrap();
    served.broker.locking.notified().await;

    let started = tokio::time::Instant::now();
    served.stop().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(lock.await.unwrap().is_err());
    let woken = wake.await.unwrap().unwrap_err().to_string();
    assert!(woken.contains("shutting down") || woken.contains("connection"), "{woken}");
}
