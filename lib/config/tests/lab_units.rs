//! systemd itself reads the units, without systemd having to run. Needs `systemd-analyze` and `systemd-sysusers`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn etc() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../etc")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// The units in a directory of their own, with programs that exist here.
fn units() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for (name, command) in [
        ("ovirt-ha-broker.service", "ovirt-ha-broker"),
        ("ovirt-ha-agent.service", "ovirt-ha-agent"),
        ("ovirt-ha-storage.service", "hosted-engine --connect-storage --at-boot"),
    ] {
        let unit = fs::read_to_string(etc().join("systemd").join(name)).unwrap();
        let line = format!("ExecStart=/usr/sbin/{command}\n");
        assert_eq!(unit.matches(&line).count(), 1, "{name} starts {command}");
        let path = dir.path().join(name);
        fs::write(&path, unit.replace(&line, "ExecStart=/bin/true\n")).unwrap();
        units.push(path);
    }
    // Named in After= only or by Documentation=, and not on every machine.
    fs::write(dir.path().join("sanlock.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    (dir, units)
}

#[test]
fn systemd_understands_every_line() {
    let (dir, units) = units();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&units)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
        .output()
        .expect("systemd-analyze is installed");
    // Unknown keys are warnings only: any output is a failure.
    assert_eq!((text(&output).as_str(), output.status.success()), ("", true));
}

#[test]
fn units_are_hardened() {
    let (_dir, units) = units();
    for (unit, worst) in units.iter().zip(["30", "70"]) {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", &format!("--threshold={worst}")])
            .arg(unit)
            .output()
            .expect("systemd-analyze is installed");
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn units_restart_and_leave_the_vm_alone() {
    for name in ["ovirt-ha-broker.service", "ovirt-ha-agent.service"] {
        let unit = fs::read_to_string(etc().join("systemd").join(name)).unwrap();
        for line in ["Type=notify", "Restart=always", "StartLimitIntervalSec=0", "WatchdogSec="] {
            assert!(unit.contains(line), "{name}: {line}");
        }
        // systemd would remove it, with a running VM's sockets in it, when the unit stops.
        assert!(!unit.contains("\nRuntimeDirectory="), "{name}");
    }
    let agent = fs::read_to_string(etc().join("systemd/ovirt-ha-agent.service")).unwrap();
    assert!(agent.contains("\nKillMode=process\n") && agent.contains("\nOOMPolicy=continue\n"));
}

#[test]
fn the_way_to_storage_comes_before_the_broker_and_is_seen_by_it() {
    let unit = |name: &str| fs::read_to_string(etc().join("systemd").join(name)).unwrap();
    let (broker, storage) = (unit("ovirt-ha-broker.service"), unit("ovirt-ha-storage.service"));
    for key in ["Wants=", "After="] {
        let line = broker.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.contains("ovirt-ha-storage.service"), "{line}");
    }
    // What the host logs in to and joins into one path by itself comes first.
    let after = storage.lines().find(|line| line.starts_with("After=")).unwrap();
    for unit in ["network-online.target", "iscsid.service", "iscsi.service", "multipathd.service"] {
        assert!(after.contains(unit), "{unit}");
    }
    // Each of these gives a service mounts that nobody else sees.
    for key in
        ["ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "ReadWritePaths", "ReadOnlyPaths"]
    {
        assert!(!storage.contains(&format!("\n{key}=")), "{key}");
    }
    assert!(storage.contains("\nKillMode=process\n"), "GlusterFS's client is a process of the unit");
}

#[test]
fn users_and_directories_can_be_made() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    for (tool, arguments, file) in [
        ("systemd-sysusers", &[][..], "sysusers.d/ovirt-hosted-engine-ha.conf"),
        ("systemd-tmpfiles", &["--create"][..], "tmpfiles.d/ovirt-hosted-engine-ha.conf"),
    ] {
        let output = Command::new(tool)
            .args(arguments)
            .arg(format!("--root={}", root.path().display()))
            .arg(etc().join(file).canonicalize().unwrap())
            .output()
            .unwrap_or_else(|error| panic!("{tool} is installed: {error}"));
        assert!(output.status.success(), "{tool}: {}", text(&output));
    }
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.contains("vdsm:x:36:"), "{users}");
    assert!(root.path().join("run/ovirt-hosted-engine-ha/qemu").is_dir());
}
