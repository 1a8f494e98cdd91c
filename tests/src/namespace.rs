//! Namespaces for tests: root's, or without root those that a user's own namespace allows.

use std::process::{Command, Stdio};

/// `unshare` of util-linux with what it takes to be root inside; arguments that say which namespaces, and the program, are
/// for the caller. [`None`] where this user may not make any, with the reason on standard error: the test is to be skipped.
///
/// # Panics
/// When there is no `unshare`.
pub fn unshare() -> Option<Command> {
    let mut command = Command::new("unshare");
    if rustix::process::geteuid().is_root() {
        return Some(command);
    }
    command.arg("--map-root-user");
    let mut trial = Command::new("unshare");
    let trial = trial.args(["--map-root-user", "--net", "--mount", "true"]).stderr(Stdio::null()).status();
    if trial.expect("unshare of util-linux starts").success() {
        return Some(command);
    }
    eprintln!(
        "skipped: it needs root, or a kernel that lets users make namespaces (user.max_user_namespaces)"
    );
    None
}
