//! Looking at a process that is not our child: is it still the one we mean, has it ended, what has it used.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::launch::ProcessRecord;

/// What /proc tells of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// User and system time in clock ticks, all threads.
    cpu_ticks: u64,
    /// Start time in clock ticks since boot.
    start_ticks: u64,
}

/// The kernel's id of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start time of process `pid` in clock ticks since boot; `None` when there is none.
pub fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.start_ticks))
}

fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(&text).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"))
        }),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in brackets, may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
}

/// The VM's process, pinned: what is asked or done through this can never hit another process.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process of `record` if it still exists. A process that has ended and was not yet reaped is gone, but not
    /// before its last thread has.
    pub fn find(record: &ProcessRecord) -> io::Result<Option<Self>> {
        if boot_id()? != record.boot_id {
            return Ok(None);
        }
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let this = Self { pid: record.pid, pidfd };
        // Pinned first, compared then: the id cannot change hands in between.
        if start_ticks(record.pid)? != Some(record.start_ticks) || this.has_ended()? {
            return Ok(None);
        }
        Ok(Some(this))
    }

    /// True when the process and all its threads have ended.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    /// Returns when it has ended.
    pub async fn ended(&self) -> io::Result<()> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&self.pidfd, 0)?;
        // SAFETY: `OwnedFd` gives the same descriptor at each call and closes it only when it is dropped, which is
        // after the `AsyncFd` that owns it took it out of the reactor.
        let watched =
            unsafe { tokio::io::unix::AsyncFd::register_with_interest(copy, tokio::io::Interest::READABLE) }?;
        let _ready = watched.readable().await?;
        Ok(())
    }

    /// Sends SIGKILL. No error when it has ended already.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// True once the process is QEMU with this VM: the launcher's arguments do not name the VM.
    pub fn is_vm(&self, record: &ProcessRecord) -> io::Result<bool> {
        let wanted = record.uuid.to_string();
        match fs::read(format!("/proc/{}/cmdline", self.pid)) {
            Ok(text) => Ok(text.split(|byte| *byte == 0).any(|arg| arg == wanted.as_bytes())),
            Err(e) if gone(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Processor time used, all threads.
    pub fn cpu_time(&self) -> io::Result<Option<Duration>> {
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(stat(self.pid)?.map(|stat| {
            Duration::from_secs(stat.cpu_ticks / per_second)
                + Duration::from_millis(stat.cpu_ticks % per_second * 1000 / per_second)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::launch::LaunchMode;
    use uuid::Uuid;

    fn record(pid: u32) -> ProcessRecord {
        ProcessRecord {
            pid,
            start_ticks: start_ticks(pid).unwrap().unwrap(),
            boot_id: boot_id().unwrap(),
            uuid: Uuid::nil(),
            mode: LaunchMode::Run,
        }
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194304 1 0 0 0 70 30 0 0 20 0 5 0 123456 1 1";
        assert_eq!(parse_stat(text), Some(Stat { cpu_ticks: 100, start_ticks: 123_456 }));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn a_recycled_process_id_is_not_taken_for_ours() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let right = record(child.id());
        let later = ProcessRecord { start_ticks: right.start_ticks + 1, ..right.clone() };
        let last_boot = ProcessRecord { boot_id: "other".to_owned(), ..right.clone() };
        assert!(Process::find(&later).unwrap().is_none());
        assert!(Process::find(&last_boot).unwrap().is_none());
        let process = Process::find(&right).unwrap().unwrap();
        assert!(!process.is_vm(&right).unwrap());
        process.kill().unwrap();
        // Ended, not reaped: gone.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(process.ended()).unwrap();
        assert!(Process::find(&right).unwrap().is_none());
        child.wait().unwrap();
        assert!(Process::find(&right).unwrap().is_none());
    }
}
