//! Running the programs that the sandbox is put together with (ip, unshare, nsenter, setsid), and waiting for what
//! they bring about. The only place here that polls.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clock::{Clock, SystemClock};

/// Runs a program to its end; its output, or an error with what it said.
pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}; is it installed (iproute2, util-linux)?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip` with the words of `line`.
pub fn ip(line: &str) -> anyhow::Result<String> {
    run("ip", line.split_whitespace())
}

/// Waits a moment. Only for things that nobody announces: another process's state, a host's network.
pub fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "polls other processes' states, each time with a deadline")]
    std::thread::sleep(time);
}

/// Looks every `every` until `look` finds something; `None` when it did not within `patience`.
pub fn wait_for<T>(
    patience: Duration,
    every: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let start = SystemClock.monotonic();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if SystemClock.monotonic().saturating_since(start) >= patience {
            return Ok(None);
        }
        pause(every);
    }
}
