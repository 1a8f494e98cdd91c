//! The real `fence_redfish`, against tests/redfish-switch.py, which plays the power switch. Needs fence-agents, python3
//! and openssl: etc/sandbox/install-deps test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption must fail the test")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use fencing::{End, FenceError, HostError, HostPower, Kind, Metadata, Power};
use ha_config::{HaToml, Paths};
use metadata_format::HostId;
use tempfile::TempDir;

/// White space, quotes and signs that each layer could stumble over.
const PASSWORD: &str = "p\"a ss'=w#rd\\%";

/// A running switch; ends when dropped, with its standard input.
struct Switch {
    folder: TempDir,
    process: Child,
    port: u16,
}

impl Switch {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/redfish-switch.py");
        private(&folder, "password", PASSWORD);
        let mut process = Command::new("python3")
            .arg(script)
            .arg(folder.path())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 must be installed for this test");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the switch must say its port; is openssl installed?");
        Self { folder, process, port }
    }

    /// An entry of host 2 for this switch, with the password in a file of this name.
    fn entry(&self, password: &str, lines: &str) -> String {
        let path = self.folder.path().join(password);
        format!(
            "[[fencing.host]]\nhost_id = 2\nagent = \"fence_redfish\"\npassword_file = \"{}\"\n{lines}\n\
             [fencing.host.options]\nip = \"127.0.0.1\"\nipport = {}\nusername = \"operator\"\nssl_insecure = true\n",
            path.display(),
            self.port
        )
    }

    /// What it was asked to do to the power, and each change of the power that it told of.
    fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.dedup();
        lines
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn private(folder: &TempDir, name: &str, content: &str) {
    let path = folder.path().join(name);
    fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn host(entries: &[String]) -> HostPower {
    assert!(
        std::path::Path::new("/usr/sbin/fence_redfish").exists(),
        "the package fence-agents must be installed for this test: etc/sandbox/install-deps test"
    );
    let paths = Paths::default();
    let toml = HaToml::parse(&paths, &entries.concat()).unwrap();
    HostPower::of(&toml.fencing, &paths, HostId::new(2).unwrap(), None).unwrap()
}

#[tokio::test]
async fn a_reboot_is_off_confirmed_on_confirmed() {
    let switch = Switch::start(&["--off-takes", "1"]);
    let host = host(&[switch.entry("password", "")]);
    assert_eq!(host.status(&mut |_| {}).await.unwrap(), Power::On);
    let mut said = Vec::new();
    host.reboot(&mut |step| said.push(step.to_string())).await.unwrap();
    let steps: Vec<_> = said.iter().map(|line| line.split(" after").next().unwrap()).collect();
    let asked = |action: &str| format!("{action}: asked fence_redfish at 127.0.0.1");
    assert_eq!(steps, [&asked("off"), "off: confirmed", &asked("on"), "on: confirmed"]);
    assert_eq!(
        switch.requests(),
        ["power? On", "reset ForceOff", "power? PoweringOff", "power? Off", "reset On", "power? On"]
    );
}

#[tokio::test]
async fn a_server_that_is_slower_than_the_agents_patience_is_waited_for() {
    let switch = Switch::start(&["--off-takes", "6"]);
    let entry = switch.entry("password", "") + "power_timeout = 1\n";
    let host = host(&[entry]);
    let mut said = Vec::new();
    host.off(&mut |step| said.push(step.to_string())).await.unwrap();
    assert!(said[1].contains("Timed out waiting to power OFF; looking at the power"), "{said:?}");
    assert!(said.last().unwrap().starts_with("off: confirmed after"), "{said:?}");
    assert_eq!(host.status(&mut |_| {}).await.unwrap(), Power::Off);
}

#[tokio::test]
async fn a_switch_that_does_nothing_is_not_believed() {
    let switch = Switch::start(&["--stuck"]);
    let host = host(&[switch.entry("password", "off_timeout = 8") + "power_timeout = 1\n"]);
    let error = host.off(&mut |_| {}).await.unwrap_err();
    let HostError::Failed { errors, .. } = &error else { panic!("{error}") };
    assert!(matches!(errors[0], FenceError::Failed { end: End::Code(1), .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_password_leads_to_the_next_level_and_is_not_repeated() {
    let switch = Switch::start(&[]);
    private(&switch.folder, "wrong", "hunter2hunter2");
    let host = host(&[switch.entry("wrong", ""), switch.entry("password", "")]);
    let mut said = Vec::new();
    host.off(&mut |step| said.push(step.to_string())).await.unwrap();
    assert!(said.iter().any(|line| line.starts_with("off: level 1 failed")), "{said:?}");
    assert!(!said.concat().contains("hunter2") && !said.concat().contains(PASSWORD), "{said:?}");
    assert_eq!(switch.requests().last().unwrap(), "power? Off");
}

#[tokio::test]
async fn a_switch_that_never_answers_ends_at_the_deadline() {
    let switch = Switch::start(&["--silent"]);
    let host = host(&[switch.entry("password", "status_timeout = 5")]);
    let error = host.status(&mut |_| {}).await.unwrap_err();
    let HostError::Failed { errors, .. } = &error else { panic!("{error}") };
    assert!(matches!(errors[0], FenceError::Deadline { .. }), "{error}");
    assert_eq!(switch.requests(), ["connection"]);
}

#[test]
fn the_metadata_of_real_agents_is_understood() {
    for (agent, needed, choice) in [
        ("fence_redfish", "username", None),
        ("fence_ipmilan", "action", Some("privlvl")),
        ("fence_apc_snmp", "plug", Some("snmp_auth_prot")),
        ("fence_virsh", "plug", None),
    ] {
        let mut process = Command::new(format!("/usr/sbin/{agent}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "the package fence-agents must be installed for this test: etc/sandbox/install-deps test",
            );
        process.stdin.take().unwrap().write_all(b"action=metadata\n").unwrap();
        let output = process.wait_with_output().unwrap();
        let metadata = Metadata::parse(&output.stdout).unwrap();
        assert_eq!(metadata.name, agent);
        assert!(["on", "off", "status", "monitor"].iter().all(|action| metadata.can(action)), "{agent}");
        assert!(metadata.parameter(needed).unwrap().required, "{agent}");
        assert!(metadata.parameter("passwd").unwrap().deprecated, "{agent}");
        let kind = choice.map(|name| &metadata.parameter(name).unwrap().kind);
        assert!(
            kind.is_none_or(|kind| matches!(kind, Kind::Choice(values) if values.len() > 1)),
            "{agent}: {kind:?}"
        );
    }
}
