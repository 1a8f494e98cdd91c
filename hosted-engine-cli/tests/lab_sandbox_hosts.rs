//! Bare sandbox hosts: namespaces, network, storage and the real sanlock; no HA daemons. Needs root, sanlock,
//! QEMU's program (not run), iproute2 and util-linux.

mod sandbox;

use sandbox::Sandbox;

const GATEWAY: &str = "10.199.77.1";

#[test]
fn three_hosts_come_up_talk_to_each_other_and_leave_nothing() {
    let sandbox = Sandbox::bare("3");
    for host in ["1", "2", "3"] {
        assert!(sandbox.sanlock_answers(host), "sanlock on host {host}");
        assert!(sandbox.pings(host, GATEWAY), "gateway from host {host}");
    }
    assert!(sandbox.pings("1", "host3"), "names of hosts are known");
    sandbox.ok(&["exec", "1", "sh", "-c", "echo shared > $OVIRT_HA_ROOT/storage/x"]);
    assert_eq!(sandbox.ok(&["exec", "2", "sh", "-c", "cat $OVIRT_HA_ROOT/storage/x"]), "shared\n");
    assert_eq!(sandbox.ok(&["exec", "2", "hostname"]), "host2.sandbox.test\n");
    sandbox.ok(&["up", "--bare", "--hosts", "3"]);
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
    sandbox.ok(&["down"]);
}

#[test]
fn a_cut_gateway_is_cut_for_one_host_only() {
    let sandbox = Sandbox::bare("2");
    sandbox.ok(&["cut-gateway", "1"]);
    sandbox.ok(&["cut-gateway", "1"]);
    assert!(!sandbox.pings("1", GATEWAY));
    assert!(sandbox.pings("1", "host2"), "its other traffic goes on");
    assert!(sandbox.pings("2", GATEWAY));
    assert!(sandbox.ok(&["status"]).contains("gateway: cut"));
    sandbox.ok(&["restore-gateway", "1"]);
    sandbox.ok(&["restore-gateway", "1"]);
    assert!(sandbox.pings("1", GATEWAY));
}

#[test]
fn a_host_loses_power_and_boots_again_even_while_its_storage_stalls() {
    let sandbox = Sandbox::bare("2");
    assert!(sandbox.pings("2", "host1"));
    sandbox.ok(&["stall-storage", "1"]);
    sandbox.ok(&["exec", "1", "sh", "-c", "ls $OVIRT_HA_ROOT/storage >/dev/null 2>&1 &"]);
    sandbox.ok(&["kill-host", "1"]);
    assert!(!sandbox.run(&["exec", "1", "true"]).status.success());
    assert!(sandbox.ok(&["status"]).contains("not running"));
    sandbox.ok(&["start-host", "1"]);
    sandbox.ok(&["start-host", "1"]);
    assert!(sandbox.sanlock_answers("1"));
    assert!(sandbox.pings("2", "host1"), "it has the hardware address that the other host knows");
    assert!(sandbox.pings("1", GATEWAY));
    assert!(sandbox.ok(&["status"]).contains("storage: ok"), "a fault does not outlive its host");
}

#[test]
fn a_frozen_host_stands_still_goes_on_and_can_be_killed() {
    let sandbox = Sandbox::bare("2");
    sandbox.ok(&["freeze-host", "2"]);
    assert!(sandbox.ok(&["status"]).contains("frozen"));
    sandbox.ok(&["thaw-host", "2"]);
    assert!(sandbox.sanlock_answers("2"));
    sandbox.ok(&["freeze-host", "2"]);
    sandbox.ok(&["kill-host", "2"]);
    sandbox.ok(&["start-host", "2"]);
    assert!(sandbox.sanlock_answers("2"));
}

#[test]
fn left_overs_of_a_crash_are_cleaned_by_the_next_up() {
    let sandbox = Sandbox::bare("2");
    std::fs::remove_file(sandbox.dir().join("sandbox.json")).expect("the state is lost");
    sandbox.ok(&["up", "--bare", "--hosts", "1"]);
    assert!(sandbox.sanlock_answers("1"));
    assert!(!sandbox.dir().join("h2").exists());
}

#[test]
fn mistakes_are_named() {
    let sandbox = Sandbox::bare("1");
    for (words, part) in [
        (["kill-host", "7"].as_slice(), "no host 7"),
        (&["logs", "1", "nonsense"], "\"nonsense\""),
        (&["kill-daemon", "1", "dnsmasq"], "\"dnsmasq\" is no daemon"),
        (&["kill-vm"], "no engine VM runs"),
    ] {
        let output = sandbox.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{words:?}: {said}");
    }
}
