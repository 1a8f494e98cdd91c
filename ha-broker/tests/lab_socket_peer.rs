//! A user without write access on the broker's socket. Needs root, to become that user, and python3.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "socket/fake.rs"]
#[allow(dead_code, reason = "shared with the tests of the socket, which use all of it")]
mod fake;

use std::os::unix::process::CommandExt;
use std::process::Command;

use fake::Served;
use ha_broker::socket::WriterPolicy;
use ha_config::ha_toml::Writer;

/// `nobody` on every Debian and Red Hat system.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_reader_may_read_and_each_refusal_names_the_user_and_the_verb() {
    let served = Served::start();
    let script = include_str!("socket/client.py");
    let path = served.path.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-c", script, "reader"])
            .arg(path)
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("python3 must be installed, and this test must run as root")
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "reader\n");
    assert!(served.broker.calls.lock().unwrap().is_empty());
    assert!(served.broker.blocks.lock().unwrap().is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_user_that_the_configuration_names_may_write() {
    let served =
        Served::start_with(WriterPolicy::with_writers(&[Writer::Name("nobody".to_owned())]), "broker.socket");
    let script = include_str!("socket/client.py");
    let path = served.path.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-c", script, "verbs"])
            .arg(path)
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("python3 must be installed, and this test must run as root")
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    served.stop().await;
}
