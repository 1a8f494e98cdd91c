//! Real sanlock daemons for lab tests: several on one machine, each a "host" of its own, gone when dropped.
//!
//! Runs `sanlock` (Debian package sanlock) without a watchdog in a private run directory, at true speed or,
//! through libfaketime, ten times as fast. All daemons of one test must run at the same speed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use sanlock_client::{Client, Disk, DiskPath, Lockspace, LockspaceName, Resource, ResourceName};
use tempfile::TempDir;

use crate::wait;

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A directory for a lab's storage and run directories, gone when dropped: in memory where that takes direct I/O
/// (Linux 6.6 and later), so that a busy disk does not look like failing storage to a daemon at tenfold speed.
pub fn lab_directory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if let Ok(directory) = tempfile::tempdir_in(memory) {
        let probe = directory.path().join("probe");
        let direct = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(&probe);
        if direct.is_ok() {
            std::fs::remove_file(&probe).context("cannot remove the probe")?;
            return Ok(directory);
        }
    }
    tempfile::tempdir().context("cannot make a temporary directory")
}

/// How fast a daemon's clock runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// As the clock on the wall.
    True,
    /// Ten times as fast, so that all of sanlock's times are a tenth.
    Tenfold,
}

/// One running daemon. Dropping it kills it, as a crash of sanlock would.
#[derive(Debug)]
pub struct SanlockDaemon {
    child: Child,
    run_dir: PathBuf,
}

impl SanlockDaemon {
    /// Starts a daemon whose run directory is `run_dir` (made if missing; its path must be short, as it holds a
    /// socket) and which calls itself `host_name`. Returns once it answers. Its log is `run_dir/daemon.log`.
    pub fn start(run_dir: &Path, host_name: &str, speed: Speed) -> Result<Self> {
        std::fs::create_dir_all(run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
        let log = File::create(run_dir.join("daemon.log")).context("cannot make the daemon's log")?;
        let mut command = Command::new("sanlock");
        command
            .args(["daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-U", "root", "-G", "root"])
            .args(["-L", "-1", "-S", "-1", "-e", host_name])
            .env("SANLOCK_PRIVILEGED", "0")
            .env("SANLOCK_RUN_DIR", run_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if speed == Speed::Tenfold {
            ensure!(Path::new(FAKETIME).exists(), "{FAKETIME} is missing: install the package faketime");
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", "+0 x10").env("DONT_FAKE_MONOTONIC", "0");
        }
        let child = command.spawn().context("cannot start sanlock: install the package sanlock")?;
        let mut daemon = Self { child, run_dir: run_dir.to_owned() };
        let client = daemon.client();
        let answered =
            wait::until("sanlock to answer on its socket", Duration::from_secs(10), || {
                match daemon.child.try_wait() {
                    Ok(None) => client.version().ok().map(|_| true),
                    Ok(Some(_)) | Err(_) => Some(false),
                }
            });
        let log = run_dir.join("daemon.log");
        ensure!(answered, "sanlock ended at once: {}", std::fs::read_to_string(log).unwrap_or_default());
        Ok(daemon)
    }

    /// A client of this daemon.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("sanlock.sock")
    }

    /// Its run directory, for a `SANLOCK_RUN_DIR`.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops its execution, as a frozen host.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).context("cannot signal sanlock")
    }
}

impl Drop for SanlockDaemon {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What libfaketime leaves behind when its program is killed.
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}{}", self.child.id()));
        }
    }
}

/// A file on "shared storage" with a lockspace at offset 0 and room for `resources` leases behind it, all written
/// by `client`'s daemon, with sanlock's time-outs derived from `io_timeout` seconds.
#[derive(Debug, Clone)]
pub struct LeaseFile {
    path: DiskPath,
    lockspace: LockspaceName,
}

/// Bytes of a lockspace or resource with 512-byte sectors.
const AREA: u64 = 1 << 20;

impl LeaseFile {
    /// Makes the file and writes its lockspace.
    pub fn create(
        client: &Client,
        path: &Path,
        lockspace: &str,
        resources: u64,
        io_timeout: u32,
    ) -> Result<Self> {
        File::create(path)
            .and_then(|file| file.set_len(AREA * (1 + resources)))
            .with_context(|| format!("cannot make {}", path.display()))?;
        let file = Self { path: DiskPath::new(path)?, lockspace: LockspaceName::new(lockspace)? };
        let options =
            sanlock_client::WriteLockspaceOptions { io_timeout: Some(io_timeout), ..Default::default() };
        client.write_lockspace(&file.lockspace(0), 0, options)?;
        Ok(file)
    }

    /// The lockspace, with this id for the host.
    pub fn lockspace(&self, host_id: u64) -> Lockspace {
        let disk = Disk { path: self.path.clone(), offset: 0 };
        Lockspace { name: self.lockspace.clone(), host_id, disk }
    }

    /// The lease number `index`, from 1.
    pub fn resource(&self, index: u64) -> Result<Resource> {
        Ok(Resource {
            lockspace: self.lockspace.clone(),
            name: ResourceName::new(format!("lease-{index}"))?,
            disks: vec![Disk { path: self.path.clone(), offset: AREA * index }],
        })
    }
}
