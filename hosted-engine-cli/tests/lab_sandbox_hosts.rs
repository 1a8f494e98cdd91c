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

/// What is active on a host ends with its power, which no process of its own does for it, and on no other host.
#[test]
fn volumes_of_a_shared_lun_are_active_on_each_host_for_itself() {
    const GROUP: &str = "lun=$(readlink -f $OVIRT_HA_ROOT/dev/sandbox-lun) && lvm pvcreate $lun && \
                         lvm vgcreate g $lun && lvm lvcreate --yes --wipesignatures n --size 4m --name v g && \
                         echo shared > $OVIRT_HA_ROOT/dev/g/v && blockdev --flushbufs $OVIRT_HA_ROOT/dev/g/v";
    let sandbox = Sandbox::new();
    sandbox.ok(&["up", "--bare", "--hosts", "2", "--storage", "lvm"]);
    let sh = |host: &str, script: &str| sandbox.ok(&["exec", host, "sh", "-c", script]);
    let has_volume = |host: &str| {
        sandbox.run(&["exec", host, "sh", "-c", "test -b $OVIRT_HA_ROOT/dev/g/v"]).status.success()
    };
    sh("1", GROUP);
    assert!(has_volume("1") && !has_volume("2"));
    sh("2", "lvm lvchange --activate y g/v");
    assert_eq!(sh("2", "head -n 1 $OVIRT_HA_ROOT/dev/g/v"), "shared\n");

    let over_lun = || {
        let lun = sh("2", "readlink -f $OVIRT_HA_ROOT/dev/sandbox-lun");
        sh("2", &format!("losetup --noheadings --output NAME --associated {}", lun.trim())).lines().count()
    };
    assert_eq!(over_lun(), 2);
    sandbox.ok(&["kill-host", "1"]);
    assert_eq!(over_lun(), 1, "the devices of the host without power are gone");
    sandbox.ok(&["start-host", "1"]);
    assert!(!has_volume("1") && has_volume("2"));

    let refused = sandbox.run(&["stall-storage", "2"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("up --storage folder"), "{refused:?}");
    let refused = sandbox.run(&["up", "--bare", "--storage", "lvm", "--hypervisor", "vdsm"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--hypervisor qemu or libvirt"), "{refused:?}");
    sandbox.ok(&["down"]);
    assert_eq!(sandbox.left_overs(), [""; 0]);
}
