//! The bridge in real network namespaces, made by a real guard process. Needs iproute2 and util-linux.
//!
//! ```text
//!  namespace of the test             namespace of the gateway
//!   eth0 ───────────────────────────── gw0   10.0.0.254, 2001:db8::fe
//!   10.0.0.5, .6, 192.168.7.1, 2001:db8::5, with routes of all kinds
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ha_config::{Paths, Secret};

use super::bridge::MadeBridge;
use super::guard::{self, Guard};
use super::keeper::Keeper;
use super::picture::{Address, Picture, Route};
use super::watch::Test;
use super::{MakeBridge, plan};
use crate::deploy::fixture::Fixture;
use crate::deploy::testing::Heard;
use crate::deploy::tools::Said;
use crate::deploy::{BridgeOrigin, Call, Installed, Journal, Network, Step, ToolError, Tools, job};

/// The test's root directory, for its guards.
const ROOT: &str = "HOSTED_ENGINE_TEST_ROOT";
/// Patience of the guards here: the gateway answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(2);
const GATEWAY: &str = "10.0.0.254";

fn test_program(test: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    Ok(command)
}

/// Runs one of the ignored tests in a new network namespace, which goes when it ends.
pub(crate) fn in_namespace(test: &str) {
    let Some(mut unshare) = ha_tests::namespace::unshare() else { return };
    let inner = test_program(test).expect("this test");
    let status = unshare.args(["--net", "--"]).arg(inner.get_program()).args(inner.get_args()).status();
    assert!(status.expect("unshare starts").success(), "{test} failed in its namespace");
}

pub(super) fn own_program(paths: &Paths) -> std::io::Result<Command> {
    let mut command = test_program("deploy::network::lab::the_guard")?;
    command.env(ROOT, paths.root());
    Ok(command)
}

fn kill_at(root: &Path) -> PathBuf {
    root.join("kill-at")
}

/// A guard that is killed by its Nth command, when a file says so; the commands of a batch count each for itself.
#[test]
#[ignore = "the process of the guard, started by own_program for the other tests here"]
fn the_guard() {
    let root = PathBuf::from(std::env::var(ROOT).expect("a test started it"));
    let kill_at = kill_at(&root);
    let left = fs::read_to_string(&kill_at).ok().map(|text| text.parse().unwrap());
    if left.is_some() {
        fs::remove_file(&kill_at).unwrap();
    }
    let cut = fs::read_to_string(root.join("cut-gateway")).ok();
    let tools = Mortal { left: AtomicU32::new(left.unwrap_or(u32::MAX)), cut };
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    guard::serve(&Paths::new(root), &tools, socket, PATIENCE).unwrap();
}

/// Runs so many commands, and not one more.
struct Mortal {
    left: AtomicU32,
    /// Runs this, too, with the first command that changes anything.
    cut: Option<String>,
}

impl Tools for Mortal {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let Some(input) = &call.input else { return Installed.ask(call) };
        if let Some(cut) = &self.cut {
            run(cut);
        }
        let commands: Vec<&str> = input.reveal().lines().collect();
        let left = self.left.load(Ordering::Relaxed);
        let number = u32::try_from(commands.len()).unwrap();
        if number < left {
            self.left.store(left - number, Ordering::Relaxed);
            return Installed.ask(call);
        }
        let some: String = commands[..left as usize].iter().flat_map(|command| [*command, "\n"]).collect();
        Installed.ask(&call.clone().input(Secret::new(some))).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        unreachable!("nobody survives that");
    }
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output =
        Command::new(words.next().expect("a program")).args(words).output().expect("the program starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host with one card, its gateway, and a deployment.
struct Host {
    gateway: Child,
    fixture: Fixture,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its namespace goes with it.
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

impl Host {
    fn new() -> Self {
        let mut gateway = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(gateway.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let mut fixture = Fixture::new();
        fixture.set_network(Network {
            bridge: "ovirtmgmt".to_owned(),
            origin: BridgeOrigin::Over("eth0".to_owned()),
            gateway: Some(GATEWAY.parse().unwrap()),
            test: "ping".to_owned(),
            tcp_target: None,
            open_firewall: false,
        });
        let host = Self { gateway, fixture };
        run(&format!("ip link add eth0 type veth peer name gw0 netns {}", host.gateway.id()));
        for command in [
            "ip address add 10.0.0.254/24 dev gw0",
            "ip address add 2001:db8::fe/64 dev gw0 nodad",
            "ip link set dev gw0 up",
        ] {
            host.at_gateway(command);
        }
        for command in [
            "ip link set dev lo up",
            "ip link set dev eth0 address 02:00:00:00:00:05 mtu 1400 up",
            "ip address add 10.0.0.5/24 broadcast + dev eth0",
            "ip address add 10.0.0.6/24 dev eth0 label eth0:1",
            "ip address add 192.168.7.1/30 dev eth0 noprefixroute",
            "ip address add 2001:db8::5/64 dev eth0 nodad",
            "ip address add 2001:db8:1::5/64 dev eth0 nodad preferred_lft 3000 valid_lft 4000",
            "ip route add default via 10.0.0.254 metric 50",
            "ip route add 192.168.7.0/30 dev eth0 proto kernel scope link src 192.168.7.1 metric 100",
            "ip route add 10.9.0.0/16 via 10.0.0.254 dev eth0 proto static table 100 src 10.0.0.6 mtu 1300",
            "ip route add 10.8.0.0/16 nexthop via 10.0.0.253 dev eth0 weight 2 nexthop via 10.0.0.254 dev eth0",
            "ip route add 172.16.0.0/12 via 10.77.0.1 dev eth0 onlink",
            "ip route add 10.10.0.0/16 via inet6 2001:db8::fe dev eth0",
            "ip -6 route add default via 2001:db8::fe dev eth0 proto static metric 20",
            "ip -6 route add 2001:db8:9::/48 via 2001:db8::fe dev eth0 src 2001:db8::5",
        ] {
            run(command);
        }
        // The kernel proves in the background that nobody else has the card's own address.
        let deadline = "timeout 10 sh -c";
        let status = Command::new("sh")
            .args(["-c", &format!("{deadline} 'until ip -6 address show dev eth0 scope link -tentative | grep -q fe80; do :; done'")])
            .status();
        assert!(status.unwrap().success());
        host
    }

    fn root(&self) -> &Path {
        self.fixture.paths.root()
    }

    fn in_gateway(&self, command: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net {command}", self.gateway.id())
    }

    fn at_gateway(&self, command: &str) {
        run(&self.in_gateway(command));
    }

    fn journal(&self) -> PathBuf {
        self.fixture.paths.deploy_journal()
    }

    /// Deploys nothing but the bridge.
    fn deploy(&self, report: &Heard) -> Result<(), crate::deploy::DeployError> {
        let world = self.fixture.world(&Installed, report);
        let mut journal = Journal::begin(&self.journal(), 0, self.fixture.request.clone()).unwrap();
        let steps: Vec<Box<dyn Step>> = vec![Box::new(MakeBridge)];
        job::run(&steps, world, &mut journal)
    }

    fn undo(&self) {
        let report = Heard::default();
        let mut journal = Journal::open(&self.journal()).unwrap().unwrap();
        job::undo(self.fixture.world(&Installed, &report), &mut journal).unwrap();
    }

    fn made() -> MadeBridge {
        let picture = Picture::look(&Installed).unwrap();
        let nic = plan::examine(&picture, "eth0", "ovirtmgmt", false).unwrap();
        MadeBridge { bridge: "ovirtmgmt".to_owned(), nic, mark: "test".to_owned(), keeper: Keeper::Nobody }
    }
}

/// What must be the same before and after: order and remaining times are not part of it.
#[derive(Debug, PartialEq)]
struct Seen {
    addresses: Vec<String>,
    routes: Vec<String>,
    links: Vec<String>,
}

fn seen(device: &str) -> Seen {
    let picture = Picture::look(&Installed).unwrap();
    let mut addresses: Vec<String> = picture
        .addresses(device)
        .iter()
        .flat_map(|address: &Address| address.add("X", device))
        .map(|text| text.split(" valid_lft").next().unwrap().to_owned())
        .collect();
    let mut routes: Vec<String> = picture
        .routes(device)
        .iter()
        .map(|route: &Route| format!("{} {}", route.version.option(), route.words(device, "X").unwrap()))
        .map(|text| text.split(" expires").next().unwrap().to_owned())
        .collect();
    addresses.sort();
    routes.sort();
    let links = picture.links.iter().filter(|link| link.name != "eth0" || device == "eth0");
    let links =
        links.map(|link| format!("{} {} {} {:?}", link.name, link.mac, link.mtu, link.master)).collect();
    Seen { addresses, routes, links }
}

#[test]
fn addresses_and_routes_move_to_the_bridge_and_come_back_as_they_were() {
    in_namespace("deploy::network::lab::inside_move");
}

#[test]
fn a_bridge_behind_which_the_gateway_is_lost_is_taken_back() {
    in_namespace("deploy::network::lab::inside_lost");
}

#[test]
fn a_guard_that_is_killed_at_any_command_leaves_nothing() {
    in_namespace("deploy::network::lab::inside_killed_guard");
}

#[test]
fn the_bridge_goes_when_the_deployment_ends_before_it_keeps_it() {
    in_namespace("deploy::network::lab::inside_ended_deployment");
}

#[test]
fn undoing_that_is_killed_at_any_command_can_be_done_again() {
    in_namespace("deploy::network::lab::inside_killed_undo");
}

#[test]
#[ignore = "runs in a namespace, started by addresses_and_routes_move_to_the_bridge_and_come_back_as_they_were"]
fn inside_move() {
    let host = Host::new();
    let before = seen("eth0");
    assert_eq!((before.addresses.len(), before.routes.len()), (7, 11), "{before:#?}");
    let report = Heard::default();
    host.deploy(&report).unwrap();
    let heard = report.all();
    assert_eq!(heard[0], "Configuring the management bridge");
    assert!(heard[1].contains("is gone after the next boot"), "{heard:?}");
    let moved = seen("ovirtmgmt");
    assert_eq!((&moved.addresses, &moved.routes), (&before.addresses, &before.routes));
    let left = seen("eth0");
    assert_eq!((left.addresses.len(), left.routes.len()), (0, 0), "{left:#?}");
    assert_eq!(
        left.links[1..],
        ["eth0 02:00:00:00:00:05 1400 Some(\"ovirtmgmt\")", "ovirtmgmt 02:00:00:00:00:05 1400 None"]
    );
    let details = run("ip -details link show ovirtmgmt");
    assert!(details.contains("forward_delay 0 ") && details.contains("stp_state 0 "), "{details}");
    run("ping -c1 -W2 10.0.0.254");
    run("ping -c1 -W2 2001:db8::fe");

    // A second deployment finds it and leaves it.
    let again = Heard::default();
    host.deploy(&again).unwrap();
    assert_eq!(again.all(), ["Configuring the management bridge", "Bridge ovirtmgmt already created"]);
    fs::rename(host.journal().with_extension("journal.old"), host.journal()).unwrap();

    // Somebody uses it.
    run("ip link add vnet0 type veth peer name vnet1");
    run("ip link set dev vnet0 master ovirtmgmt");
    let undone = host.made_in_journal().take_back(&Installed).unwrap();
    assert!(
        matches!(&undone, crate::deploy::Undone::LeftAlone(why) if why.contains("vnet0 uses it")),
        "{undone:?}"
    );
    run("ip link delete dev vnet0");
    host.undo();
    assert_eq!(seen("eth0"), before);
}

impl Host {
    fn made_in_journal(&self) -> MadeBridge {
        let story = Journal::read(&self.journal()).unwrap().unwrap();
        match &story.items[0].made {
            crate::deploy::Made::Bridge(made) => made.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
#[ignore = "runs in a namespace, started by a_bridge_behind_which_the_gateway_is_lost_is_taken_back"]
fn inside_lost() {
    let host = Host::new();
    let before = seen("eth0");
    fs::write(host.root().join("cut-gateway"), host.in_gateway("ip address flush dev gw0 to 10.0.0.254"))
        .unwrap();
    let error = host.deploy(&Heard::default()).unwrap_err().to_string();
    assert!(error.contains("the gateway 10.0.0.254 did not answer within 2 s after the change"), "{error}");
    assert!(error.ends_with("everything is as it was before"), "{error}");
    assert_eq!(seen("eth0"), before);
    // Now it does not answer from the beginning.
    host.undo();
    let error = host.deploy(&Heard::default()).unwrap_err().to_string();
    assert!(error.contains("nothing was changed") && error.contains("10.0.0.254 does not answer"), "{error}");
    assert_eq!(seen("eth0"), before);
}

#[test]
#[ignore = "runs in a namespace, started by a_guard_that_is_killed_at_any_command_leaves_nothing"]
fn inside_killed_guard() {
    let host = Host::new();
    let before = seen("eth0");
    for command in 1.. {
        fs::write(kill_at(host.root()), command.to_string()).unwrap();
        let deployed = host.deploy(&Heard::default());
        if let Err(error) = deployed {
            assert!(error.to_string().contains("the bridge is taken back"), "{error}");
            assert_eq!(seen("eth0"), before, "killed at command {command}");
            host.undo();
            assert_eq!(seen("eth0"), before);
            continue;
        }
        assert!(command > 25, "{command} commands");
        assert!(Picture::look(&Installed).unwrap().link("ovirtmgmt").is_some());
        return;
    }
}

#[test]
#[ignore = "runs in a namespace, started by the_bridge_goes_when_the_deployment_ends_before_it_keeps_it"]
fn inside_ended_deployment() {
    let host = Host::new();
    let before = seen("eth0");
    let made = Host::made();
    let guard = Guard::start(&host.fixture.paths).unwrap();
    guard.order_and_leave(&made, &Test::Ping(GATEWAY.to_owned()));
    // The guard holds it until all is taken back.
    let lock = fs::File::open(host.fixture.paths.setup_state_dir().join("network.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(seen("eth0"), before);
}

#[test]
#[ignore = "runs in a namespace, started by undoing_that_is_killed_at_any_command_can_be_done_again"]
fn inside_killed_undo() {
    let host = Host::new();
    let before = seen("eth0");
    let made = Host::made();
    for command in 1.. {
        made.make(&Installed).unwrap();
        let report = Heard::default();
        let world = host.fixture.world(&Installed, &report);
        fs::write(kill_at(host.root()), command.to_string()).unwrap();
        // The guard dies, and the deployment does it itself.
        guard::take_back(&world, &made).unwrap();
        assert_eq!(seen("eth0"), before, "killed at command {command}");
        if kill_at(host.root()).exists() || command > 30 {
            return;
        }
    }
}
