//! The monitors that need the kernel's help: real ICMP, and a bridge in a network namespace of its own. Needs root.

use std::process::Command;

use ha_broker::monitors::Probe;
use ha_broker::monitors::bridge::{KernelLinks, Link, Links};
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
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
