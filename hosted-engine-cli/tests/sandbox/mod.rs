//! A sandbox for tests: in a directory of its own, gone with the test.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A sandbox, taken down when dropped.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    /// Hosts, network, storage and sanlock, no HA daemons.
    pub fn bare(hosts: &str) -> Self {
        let sandbox = Self::new();
        sandbox.ok(&["up", "--bare", "--hosts", hosts]);
        sandbox
    }

    /// None of its hosts runs yet.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").expect("a temporary directory") }
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
            .args(["sandbox", "--dir"])
            .arg(self.dir())
            .args(words)
            .output()
            .expect("hosted-engine runs")
    }

    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn pings(&self, host: &str, to: &str) -> bool {
        self.run(&["exec", host, "ping", "-c1", "-W1", to]).status.success()
    }

    pub fn sanlock_answers(&self, host: &str) -> bool {
        self.run(&["exec", host, "sanlock", "client", "status"]).status.success()
    }

    pub fn left_overs(&self) -> Vec<String> {
        let dir = self.dir().display().to_string();
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&dir) {
                left.push(command);
            }
        }
        let tag = dir.trim_start_matches('/').replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        for place in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let path = Path::new(place).join(format!("ovirt-ha.{tag}"));
            if path.exists() {
                left.push(path.display().to_string());
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
        // A LUN stays while any volume on it does.
        for device in std::fs::read_dir("/sys/block").expect("/sys/block").flatten() {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            left.extend(file.contains(&dir).then(|| device.path().display().to_string()));
        }
        if self.dir().exists() {
            left.push(dir);
        }
        left
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}
