//! The sandbox's power switches: the real `fence_redfish` asks a stand-in for the management controller, outside of the hosts,
//! which tells the truth and switches whole hosts. No HA daemons: those power each other off in `lab_cluster`. Needs root,
//! sanlock, iproute2, util-linux, fence-agents, python3 and openssl.

mod sandbox;

use std::os::unix::fs::PermissionsExt;

use sandbox::Sandbox;

/// What host 1 is told of host 2's power.
fn power_of_host_2(sandbox: &Sandbox) -> String {
    let said = sandbox.ok(&["exec", "1", "hosted-engine", "--fence-status", "--host-id=2"]);
    said.lines().last().and_then(|line| line.rsplit(": ").next()).unwrap_or_default().to_owned()
}

fn switch(sandbox: &Sandbox, action: &str) -> String {
    let action = format!("--action={action}");
    // The broker does not run: that host 2 does not run the VM is not known.
    sandbox.ok(&["exec", "1", "hosted-engine", "--fence-host", "--host-id=2", &action, "--yes", "--force"])
}

#[test]
fn a_frozen_host_is_switched_off_for_good_and_on_again() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--bare", "--fencing", "--hosts", "2"]);
    let dir = sandbox.dir();
    for host in ["1", "2"] {
        let file = dir.join(format!("h{host}/etc/ovirt-hosted-engine-ha/fence/sandbox.password"));
        let mode = std::fs::metadata(&file).expect("the password's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    // What switching needs of a deployed host.
    let etc = dir.join("h1/etc");
    std::fs::copy(dir.join("h1/root/ha.toml"), etc.join("ovirt-hosted-engine-ha/ha.toml")).expect("ha.toml");
    let conf = "vmid=0bd4b46e-5ab5-4b6e-8f0c-3f3f0d9d1f6a\nhost_id=1\nconfigured=True\n";
    std::fs::write(etc.join("ovirt-hosted-engine/hosted-engine.conf"), conf).expect("hosted-engine.conf");
    assert_eq!(power_of_host_2(&sandbox), "the power is on");

    sandbox.ok(&["freeze-host", "2"]);
    assert_eq!(power_of_host_2(&sandbox), "the power is on", "a host that stands still has power");
    assert!(switch(&sandbox, "off").contains("off: confirmed"));
    assert_eq!(power_of_host_2(&sandbox), "the power is off");
    assert!(!sandbox.run(&["thaw-host", "2"]).status.success(), "there is nothing to let go on");
    assert!(sandbox.ok(&["status"]).contains("Host 2 (host2.sandbox.test, 10.199.77.102): not running"));
    assert!(sandbox.sanlock_answers("1"), "the other host has its power");

    assert!(switch(&sandbox, "on").contains("on: confirmed"));
    assert_eq!(power_of_host_2(&sandbox), "the power is on");
    sandbox.ok(&["kill-host", "2"]);
    assert_eq!(power_of_host_2(&sandbox), "the power is off", "whoever took it away");

    let requests = std::fs::read_to_string(dir.join("power/requests")).expect("what the switch was asked");
    let resets: Vec<&str> = requests.lines().filter(|line| line.contains("reset")).collect();
    assert_eq!(resets, ["2: reset ForceOff", "2: reset On"]);
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}
