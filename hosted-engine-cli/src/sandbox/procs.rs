//! Which processes belong to which sandbox host, as the kernel says: read from /proc, never from our own notes, so
//! that leftovers of a crashed sandbox are found too.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::layout::{HostNumber, Layout};

/// One process, as seen from the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id on the machine.
    pub pid: i32,
    /// Its parent's id on the machine.
    pub parent: i32,
    /// Its id in its own namespace.
    pub inner_pid: i32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Identity of its pid namespace.
    pub namespace: String,
    /// The kernel's letter: R, S, D, T, Z, …
    pub state: char,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim).to_owned()
        };
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self {
            pid,
            parent: field("PPid:").parse().ok()?,
            inner_pid: field("NSpid:").split_whitespace().next_back()?.parse().ok()?,
            name: field("Name:"),
            arguments: String::from_utf8_lossy(&arguments)
                .split_terminator('\0')
                .map(str::to_owned)
                .collect(),
            namespace: fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?.display().to_string(),
            state: field("State:").chars().next()?,
        })
    }

    /// True for what is dead and only not yet collected.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether it is still there and runs the same program: one that ends loses its arguments before its directories.
    pub fn goes_on(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.arguments == self.arguments && !now.is_zombie())
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid, signal);
    }

    /// The host whose init this is, if it is one of `layout`'s.
    fn init_of(&self, layout: &Layout) -> Option<HostNumber> {
        let [_, sandbox, init, dir, number] = self.arguments.as_slice() else { return None };
        let ours = sandbox == "sandbox" && init == "init" && layout.dir().as_os_str() == dir.as_str();
        (ours && self.inner_pid == 1 && !self.is_zombie())
            .then(|| number.parse().ok().map(HostNumber))
            .flatten()
    }
}

/// Sends a signal to a process; one that is gone already is no error.
pub fn signal_pid(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The kernel's letter for a process's state; `None` when it is gone.
pub fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// All processes of the machine at this moment.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The inits of a sandbox's running hosts.
pub fn inits(layout: &Layout) -> HashMap<HostNumber, Process> {
    all().into_iter().filter_map(|process| Some((process.init_of(layout)?, process))).collect()
}

/// The init of one host, when the host runs.
pub fn init(layout: &Layout, number: HostNumber) -> Option<Process> {
    inits(layout).remove(&number)
}

/// Everything that runs in the same host as `init`, itself included.
pub fn of_host(init: &Process) -> Vec<Process> {
    all().into_iter().filter(|process| process.namespace == init.namespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_arguments() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        let found = all().into_iter().find(|process| process.pid == me).expect("this test runs");
        assert_eq!(found.arguments.first(), std::env::args().next().as_ref());
        assert!(!found.is_zombie());
    }

    #[test]
    fn a_process_goes_on_until_it_ends_even_if_nobody_has_collected_it() {
        use std::io::{Read as _, Write as _};
        use std::process::Stdio;
        let mut command = std::process::Command::new("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
        // Its answer tells that it is cat by now, arguments and all.
        child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("written");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("answered");
        let pid = i32::try_from(child.id()).expect("a pid");
        let process = Process::read(pid).expect("it runs");
        assert!(process.goes_on());
        child.kill().expect("killed");
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let id = rustix::process::WaitId::Pid(rustix::process::Pid::from_raw(pid).expect("not 0"));
        rustix::process::waitid(id, options).expect("it ends");
        assert!(!process.goes_on());
        child.wait().expect("collected");
        assert!(!process.goes_on());
    }

    #[test]
    fn only_an_init_of_this_very_directory_counts() {
        let layout = Layout::new(std::path::Path::new("/var/lib/sb")).expect("a fine directory");
        let process = |dir: &str, inner_pid| Process {
            pid: 7,
            parent: 1,
            inner_pid,
            name: "hosted-engine".into(),
            arguments: ["hosted-engine", "sandbox", "init", dir, "2"].map(str::to_owned).to_vec(),
            namespace: "pid:[1]".into(),
            state: 'S',
        };
        assert_eq!(process("/var/lib/sb", 1).init_of(&layout), Some(HostNumber(2)));
        assert_eq!(process("/var/lib/sb", 77).init_of(&layout), None);
        assert_eq!(process("/var/lib/sb2", 1).init_of(&layout), None);
    }
}
