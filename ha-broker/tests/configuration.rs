//! The binary as a process on a host whose files cannot be used: its exit code and its words.

use std::process::Command;

use ha_config::Paths;

#[test]
fn times_that_contradict_each_other_are_refused_with_the_rule() {
    let root = tempfile::tempdir().expect("a directory");
    let paths = Paths::new(root.path());
    for dir in [paths.hosted_engine_conf_dir(), paths.ha_conf_dir()] {
        std::fs::create_dir_all(dir).expect("made");
    }
    std::fs::write(paths.hosted_engine_conf(), "host_id=1\n").expect("written");
    std::fs::write(paths.ha_toml(), "[lease]\nio_timeout = 1\n").expect("written");
    let mut broker = Command::new(env!("CARGO_BIN_EXE_ovirt-ha-broker"));
    let output = broker.arg("--root").arg(root.path()).env_remove("NOTIFY_SOCKET").output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    let rule = "timers.storage_deadline (15 s) must be less than lease.io_timeout (1 s) × 8";
    assert!(stderr.contains(rule) && stderr.lines().count() == 1, "{stderr}");
}
