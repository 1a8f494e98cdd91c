//! The binary as a process: its exit codes, its words when it cannot work, and a quick end.

use std::process::{Child, Command, Output, Stdio};

fn agent(root: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ovirt-ha-agent"));
    command.arg("--root").arg(root).env_remove("OVIRT_HA_ROOT").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finished(output: std::io::Result<Output>) -> (Option<i32>, String) {
    let output = output.expect("the agent runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Kills the process when a test fails before its end.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONF: &str = "fqdn=engine.example\nhost_id=1\nvmid=1b6b2b7e-0000-4000-8000-000000000001\n\
    vm_disk_id=disk\nvm_disk_vol_id=volume\nstorage=/storage\ndomainType=posixfs\nsdUUID=domain\n\
    gateway=192.0.2.1\nbridge=ovirtmgmt\n";

fn configured(ha_toml: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let paths = ha_config::Paths::new(root.path());
    std::fs::create_dir_all(paths.hosted_engine_conf_dir()).expect("made");
    std::fs::create_dir_all(paths.ha_conf_dir()).expect("made");
    std::fs::write(paths.hosted_engine_conf(), CONF).expect("written");
    std::fs::write(paths.ha_toml(), ha_toml).expect("written");
    root
}

#[test]
fn a_host_that_is_not_set_up_is_told_so_with_an_exit_code_of_its_own() {
    let root = tempfile::tempdir().expect("a directory");
    let (code, stderr) = finished(agent(root.path()).output());
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("hosted-engine.conf does not exist; run `hosted-engine --deploy`"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn a_wrong_key_in_ha_toml_is_named_with_its_line() {
    let root = configured("[timers]\nlop = 5\n");
    let (code, stderr) = finished(agent(root.path()).output());
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("ha.toml:2:") && stderr.contains("did you mean loop?"), "{stderr}");
}

#[test]
fn times_that_contradict_each_other_are_refused_with_the_rule() {
    let root = configured("[timers]\nloop = 25\n");
    let (code, stderr) = finished(agent(root.path()).output());
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("timers.loop (25 s) × 3 must be at most timers.host_alive (60 s)"), "{stderr}");
    assert!(stderr.contains("raise timers.host_alive, or lower timers.loop"), "{stderr}");
}

#[cfg(not(feature = "libvirt"))]
#[test]
fn a_hypervisor_without_an_adapter_is_named() {
    let root = configured("[vm]\nhypervisor = \"libvirt\"\n");
    let (code, stderr) = finished(agent(root.path()).output());
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("hypervisor = \"libvirt\" is not available in this build"), "{stderr}");
    assert!(stderr.contains("the packages have it"), "{stderr}");
}

#[test]
fn without_a_broker_it_waits_says_so_and_ends_at_once_when_told() {
    use std::io::BufRead as _;
    let root = configured("");
    let mut guard = Guard(agent(root.path()).spawn().expect("the agent starts"));
    let stderr = guard.0.stderr.take().expect("piped");
    // Ends with the process, should the line never come.
    let mut lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("cannot connect to the broker's socket")));

    let pid = rustix::process::Pid::from_child(&guard.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let rest: Vec<_> = lines.collect();
    let status = guard.0.wait().expect("waited for");
    assert!(status.success(), "{status}: {rest:?}");
    assert!(rest.iter().any(|line| line.contains("the agent has stopped")), "{rest:?}");
    let log = std::fs::read_to_string(ha_config::Paths::new(root.path()).agent_log()).expect("a log");
    assert!(log.contains("agent of host 1"), "{log}");
}
