//! Running a program to its end or to its deadline: input on standard input, bounded output, and nothing of its process
//! group left behind.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ha_config::Secret;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::error::End;
use crate::metadata::MAX_BYTES;

/// How long what a program had said may still take to arrive after its end: pipes deliver at once, but a process that
/// left the group may keep them open.
const REST: Duration = Duration::from_secs(1);

/// A program that ended by itself.
pub(crate) struct Finished {
    pub(crate) end: End,
    /// Standard output; at most one byte more than [`MAX_BYTES`].
    pub(crate) out: Vec<u8>,
    /// Standard error, likewise.
    pub(crate) err: Vec<u8>,
}

/// Why there is no such end.
pub(crate) enum NotFinished {
    /// It could not be started or watched.
    Io(io::Error),
    /// It was killed at the deadline.
    Deadline { out: Vec<u8>, err: Vec<u8> },
}

impl From<io::Error> for NotFinished {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A process group; everything in it is killed when this is dropped. Its leader is not reaped before that, so that the
/// number cannot have become somebody else's.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody left to kill is what is wanted.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Runs `program` without arguments, with `input` on its standard input. Its environment is the same whoever starts it, so
/// that what works by hand works for a daemon, and no proxy of a login shell gets to see a password.
pub(crate) async fn run(program: &Path, input: &Secret, deadline: Duration) -> Result<Finished, NotFinished> {
    // Before the start, so that no end is missed.
    let mut ends = signal(SignalKind::child())?;
    let mut child = Command::new(program)
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let lost = || io::Error::other("the started program has no number or no pipes");
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(lost)?;
    let group = Group(pid);
    let mut stdin = child.stdin.take().ok_or_else(lost)?;
    let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).ok_or_else(lost)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let in_time = {
        let feed = async move {
            // A program that does not want to read all says why in its own words.
            let _ = stdin.write_all(input.reveal().as_bytes()).await;
        };
        let talk = async { tokio::join!(feed, read(stdout, &mut out), read(stderr, &mut err)) };
        tokio::pin!(talk);
        let mut silent = false;
        let ended = timeout(deadline, async {
            loop {
                // Not reaped yet: see Group.
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
                if waitid(WaitId::Pid(pid), look)?.is_some() {
                    return io::Result::Ok(());
                }
                tokio::select! {
                    biased;
                    _ = ends.recv() => {}
                    _ = &mut talk, if !silent => silent = true,
                }
            }
        })
        .await;
        drop(group);
        if !silent {
            // What it started holds the pipes no longer than this.
            let _ = timeout(REST, &mut talk).await;
        }
        match ended {
            Ok(watched) => watched.map(|()| true)?,
            Err(_) => false,
        }
    };
    if !in_time {
        // The runtime reaps it, also when the kernel does not let go of it now.
        let _ = timeout(REST, child.wait()).await;
        return Err(NotFinished::Deadline { out, err });
    }
    Ok(Finished { end: end(child.wait().await?), out, err })
}

fn end(status: ExitStatus) -> End {
    status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code)
}

/// Reads to the end and keeps the beginning: whoever gets more than [`MAX_BYTES`] knows that there was more.
async fn read(mut pipe: impl AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    // A broken pipe is an end, too.
    while let Ok(len @ 1..) = pipe.read(&mut chunk).await {
        let room = (MAX_BYTES + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..len.min(room)]);
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
