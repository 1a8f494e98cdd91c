//! For tests: an agent that is a shell script, with a switch that is a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ha_config::ha_toml::FencingHost;
use ha_config::{HaToml, Paths};
use tempfile::TempDir;

use crate::progress::Progress;

pub(crate) const METADATA: &str = r#"<?xml version="1.0" ?>
<!DOCTYPE resource-agent>
<resource-agent name="fence_toy" shortdesc="Plays &lt;a&gt; switch" >
<longdesc>A <b>toy</b></longdesc>
<parameters>
	<parameter name="action" unique="0" required="1"><content type="string" /></parameter>
	<parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string" /></parameter>
	<parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string" /></parameter>
	<parameter name="ipport" required="0"><content type="integer" default="623" /></parameter>
	<parameter name="username" required="0"><content type="string" /></parameter>
	<parameter name="password" required="0"><content type="string" /></parameter>
	<parameter name="community" required="0"><content type="string" /></parameter>
	<parameter name="plug" required="0"><content type="string" /></parameter>
	<parameter name="ssl" required="0"><content type="boolean" /></parameter>
	<parameter name="auth" required="0"><content type="select"><option value="md5" /><option value="p&amp;w" /></content></parameter>
	<parameter name="power_wait" required="0"><content type="second" default="0" /></parameter>
</parameters>
<actions>
	<action name="on" automatic="0"/><action name="off" /><action name="status" /><action name="monitor" />
</actions>
</resource-agent>
"#;

/// What the agent does unless a test says otherwise. `$dir/power` is the switch.
const BEHAVIOUR: &str = r#"
dir=${0%/*}
input=$(cat)
action=$(printf '%s\n' "$input" | sed -n 's/^action=//p')
printf '%s\n--\n' "$input" >>"$dir/log"
metadata() { cat "$dir/metadata.xml"; }
monitor() { :; }
on() { echo on >"$dir/power"; }
off() { echo off >"$dir/power"; }
status() {
    case $(cat "$dir/power") in
    on) echo "Status: ON"; exit 0 ;;
    *) echo "Status: OFF"; exit 2 ;;
    esac
}
"#;

/// An agent in a directory of its own.
pub(crate) struct Toy {
    pub(crate) program: PathBuf,
    folder: TempDir,
}

impl Toy {
    /// An agent whose functions `metadata`, `monitor`, `on`, `off` and `status` are replaced by those in `changes`. Its
    /// power is on.
    pub(crate) fn new(changes: &str) -> Self {
        let toy = Self::with_script(&format!("{BEHAVIOUR}\n{changes}\n$action\n"));
        std::fs::write(toy.file("metadata.xml"), METADATA).unwrap();
        std::fs::write(toy.file("power"), "on\n").unwrap();
        toy
    }

    /// A program that is just this script.
    pub(crate) fn with_script(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("fence_toy");
        // Written by another process: one that a parallel test forks off this one could keep the file open for writing,
        // and the kernel starts no such file.
        let mut writer = Command::new("/bin/sh")
            .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
        assert!(writer.wait().unwrap().success());
        Self { program, folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn power(&self) -> String {
        std::fs::read_to_string(self.file("power")).unwrap().trim().to_owned()
    }

    /// What it was asked for so far, without its metadata.
    pub(crate) fn actions(&self) -> Vec<String> {
        let log = self.log();
        let actions = log.lines().filter_map(|line| line.strip_prefix("action="));
        actions.filter(|action| *action != "metadata").map(str::to_owned).collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// A file that only its owner can read.
    pub(crate) fn private_file(&self, name: &str, content: &str) -> PathBuf {
        private_file(&self.folder, name, content)
    }

    /// The text of an entry of host 2 that has this agent.
    pub(crate) fn entry(&self, lines: &str) -> String {
        entry_text(self.program.to_str().unwrap(), lines)
    }
}

fn entry_text(agent: &str, lines: &str) -> String {
    format!("[[fencing.host]]\nhost_id = 2\nagent = {agent:?}\n{lines}\n")
}

/// An entry of `[[fencing.host]]`.
pub(crate) fn entry(agent: &str, lines: &str) -> FencingHost {
    let toml = HaToml::parse(&Paths::default(), &entry_text(agent, lines)).unwrap();
    toml.fencing.host.into_iter().next().unwrap()
}

pub(crate) fn private_file(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Progress as its lines, without how long a confirmation took and without the folder's name.
pub(crate) fn lines(steps: &[Progress], folder: &Path) -> Vec<String> {
    let folder = format!("{}/", folder.display());
    let line = |step: &Progress| match step {
        Progress::Confirmed { action, .. } => format!("{action}: confirmed"),
        other => other.to_string().replace(&folder, ""),
    };
    steps.iter().map(line).collect()
}
