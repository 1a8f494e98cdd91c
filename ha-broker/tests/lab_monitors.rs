//! The monitors with real peers: ICMP and a bridge in a network namespace of their own, and a liveliness page
//! behind a private CA. Needs root, iproute2 and openssl.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ha_broker::monitors::Probe;
use ha_broker::monitors::bridge::{KernelLinks, Link, Links};
use ha_broker::monitors::engine_health::{HealthPage, Liveliness, PageOptions};
use ha_broker::monitors::network::{Network, PingTry, Try};

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().expect("a program")).args(words).status();
    assert!(status.expect("the program starts").success(), "{command}");
}

/// Runs one of this file's ignored tests in a new network namespace, which goes when it ends.
fn in_namespace(test: &str) {
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .status();
    assert!(status.expect("unshare starts; needs root").success(), "{test} failed in its namespace");
}

#[test]
fn a_bridge_is_seen_in_all_its_states() {
    in_namespace("inside_bridge");
}

#[test]
fn a_gateway_answers_over_both_families_and_one_that_cannot_be_reached_is_named() {
    in_namespace("inside_ping");
}

#[tokio::test]
#[ignore = "runs in a namespace, started by a_bridge_is_seen_in_all_its_states"]
async fn inside_bridge() {
    let look = async || KernelLinks.look("ovirtmgmt").await.expect("rtnetlink answers");
    assert_eq!(look().await, Link::Missing);
    run("ip link add ovirtmgmt type bridge");
    assert_eq!(look().await, Link::Off);
    run("ip link set ovirtmgmt up");
    run("ip link add p0 type veth peer name p1");
    run("ip link set p0 master ovirtmgmt");
    assert_eq!(look().await, Link::NoCarrier);
    run("ip link set p0 up");
    run("ip link set p1 up");
    // The kernel works a carrier's arrival off in the background.
    for _ in 0..100 {
        if look().await == Link::Up {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the bridge has a port with a carrier and is {:?}", look().await);
}

#[tokio::test]
#[ignore = "runs in a namespace, started by a_gateway_answers_over_both_families_and_one_that_cannot_be_reached_is_named"]
async fn inside_ping() {
    run("ip link set lo up");
    assert_eq!(PingTry::new("127.0.0.1").attempt().await, Ok(()));
    assert_eq!(PingTry::new("::1").attempt().await, Ok(()));
    let error = PingTry::new("192.0.2.1").attempt().await.expect_err("there is no route");
    assert!(error.contains("192.0.2.1"), "{error}");

    let options = |addr: &str| {
        [("addr", addr), ("delay", "0.01"), ("timeout", "0.5")]
            .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
            .into()
    };
    let resolv_conf = "/etc/resolv.conf".into();
    let mut network = Network::from_options(&options("127.0.0.1"), resolv_conf).expect("good options");
    assert_eq!(network.measure().await.expect("a result").value, "1.0");
    let mut ping = Network::ping(&options("192.0.2.1")).expect("good options");
    assert_eq!(ping.measure().await.expect("a result").value, "False");

    // A gateway that swallows all: the other end of a cable that nobody listens at.
    run("ip link add c0 type veth peer name c1");
    run("ip addr add 198.51.100.2/24 dev c0");
    run("ip link set c0 up");
    run("ip link set c1 up");
    let mut network = Network::from_options(&options("198.51.100.1"), "/x".into()).expect("good options");
    let reading = network.measure().await.expect("a result");
    assert_eq!(reading.value, "0.0");
    assert!(reading.note.expect("says why").contains("no answer within 0.5 s"));
}

/// An HTTPS server, killed when dropped.
struct TlsServer(Child);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn the_page_is_believed_over_https_only_with_the_engines_ca() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = "req -x509 -newkey rsa:2048 -nodes -days 2";
    for arguments in [
        format!("{key} -subj /CN=lab-ca -keyout ca.key -out ca.pem"),
        format!(
            "{key} -subj /CN=lab -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE"
        ),
    ] {
        let made = openssl(directory.path(), &arguments).status().expect("openssl starts: install it");
        assert!(made.success(), "{arguments}");
    }
    let good = "DB Up!Welcome to Health Status!";
    std::fs::write(directory.path().join("health"), good).expect("a page");
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let serve = format!("s_server -accept 127.0.0.1:{free} -cert cert.pem -key key.pem -WWW -quiet");
    let _server = TlsServer(openssl(directory.path(), &serve).spawn().expect("openssl starts"));

    let page = |ca: Option<&str>| {
        HealthPage::new(&PageOptions {
            urls: vec![format!("https://127.0.0.1:{free}/health")],
            expected: good.to_owned(),
            timeout: Duration::from_secs(5),
            ca: ca.map(|name| directory.path().join(name)),
        })
        .expect("good options")
    };
    let trusting = page(Some("ca.pem"));
    let mut last = Ok(());
    // The server needs a moment before it listens.
    for _ in 0..100 {
        last = trusting.check().await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last, Ok(()));
    let error = page(None).check().await.expect_err("an unknown CA");
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}
