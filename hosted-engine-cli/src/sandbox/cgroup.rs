//! Control groups, for one thing only: freezing a whole host at once. Where the machine does not let us make any,
//! the host's processes are stopped one by one instead.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::Signal;

use super::layout::Layout;
use super::procs::{self, Process};

/// Makes the sandbox's directory in the machine's cgroup v2 tree; `None` where that is impossible.
pub fn create(layout: &Layout) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let tree = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(at))
    })?;
    let dir = tree.join(layout.tag());
    fs::create_dir_all(&dir).ok()?;
    dir.join("cgroup.freeze").exists().then_some(dir)
}

/// Makes one host's group.
pub fn create_host(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the control group {}", dir.display()))
}

/// Removes the groups of a sandbox, which must be empty by now.
pub fn remove(dir: &Path) -> anyhow::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir).with_context(|| format!("cannot remove the control group {}", dir.display()))
}

/// Stops or continues everything in a host.
pub fn freeze(init: &Process, dir: Option<&Path>, frozen: bool) -> anyhow::Result<()> {
    if let Some(dir) = dir {
        let file = dir.join("cgroup.freeze");
        return fs::write(&file, if frozen { "1" } else { "0" })
            .with_context(|| format!("cannot write {}", file.display()));
    }
    let signal = if frozen { Signal::STOP } else { Signal::CONT };
    for process in procs::of_host(init) {
        process.signal(signal);
    }
    Ok(())
}

/// Lets a group go on, whoever is in it.
pub fn thaw(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join("cgroup.freeze");
    fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
}

/// Whether [`freeze`] is in force.
pub fn is_frozen(init: &Process, dir: Option<&Path>) -> bool {
    match dir {
        Some(dir) => fs::read_to_string(dir.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1"),
        None => init.state == 'T',
    }
}
