//! The sandbox's faulty file system against the real kernel. Needs root and /dev/fuse.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clock::{Clock, SystemClock};
use hosted_engine_cli::sandbox::faultfs::{Mode, ask, tell};

const O_DIRECT: i32 = 0o40000;

/// One mount, unmounted and its process ended when dropped.
struct Mount {
    dir: tempfile::TempDir,
    server: Child,
}

impl Mount {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["source", "mnt"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let server = Command::new(env!("CARGO_BIN_EXE_hosted-engine"))
            .args(["sandbox", "fs"])
            .args([dir.path().join("source"), dir.path().join("mnt"), dir.path().join("control")])
            .spawn()
            .expect("the file system starts");
        let mount = Self { dir, server };
        let marker = mount.path("").display().to_string();
        let marker = format!(" {} ", marker.trim_end_matches('/'));
        until("the file system is mounted", || {
            fs::read_to_string("/proc/self/mounts").expect("mounts").contains(&marker)
        });
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    fn source(&self, name: &str) -> PathBuf {
        self.dir.path().join("source").join(name)
    }

    fn set(&self, mode: Mode) {
        let control = self.dir.path().join("control");
        tell(&control, mode).expect("the mode is set");
        assert_eq!(ask(&control).expect("an answer"), mode);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Its end fails every request that still waits.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("umount").arg("-l").arg(self.dir.path().join("mnt")).status();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "nothing announces another process's state; bounded by a deadline"
)]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = SystemClock.monotonic();
    while !holds() {
        let waited = SystemClock.monotonic().saturating_since(start);
        assert!(waited < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn direct(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(O_DIRECT)
        .open(path)
        .expect("O_DIRECT works")
}

/// A buffer that `O_DIRECT` takes: 4096 bytes at a multiple of 4096.
#[repr(align(4096))]
struct Aligned([u8; 4096]);

/// A process that reads one block of `path` past every cache.
fn reader(path: &Path) -> Child {
    Command::new("dd")
        .arg(format!("if={}", path.display()))
        .args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct"])
        .stderr(Stdio::null())
        .spawn()
        .expect("dd runs")
}

#[test]
fn direct_io_reaches_the_folder_and_other_writers_are_seen_at_once() {
    let mount = Mount::new();
    let file = direct(&mount.path("disk"));
    file.write_all_at(&Aligned([7; 4096]).0, 8192).expect("a direct write");
    assert_eq!(fs::read(mount.source("disk")).expect("the folder's file")[8192..], [7; 4096]);

    File::options()
        .write(true)
        .open(mount.source("disk"))
        .and_then(|other| other.write_all_at(&[9; 4096], 8192))
        .expect("another host writes");
    let mut block = Aligned([0; 4096]);
    file.read_exact_at(&mut block.0, 8192).expect("a direct read");
    assert_eq!(block.0, [9; 4096]);
}

#[test]
fn what_set_up_does_with_files_works() {
    let mount = Mount::new();
    fs::create_dir_all(mount.path("sd/images/one")).expect("directories");
    fs::create_dir(mount.path("sd/ha_agent")).expect("a directory");
    fs::write(mount.path("sd/images/one/new"), b"text").expect("a file");
    fs::rename(mount.path("sd/images/one/new"), mount.path("sd/images/one/volume")).expect("a new name");
    std::os::unix::fs::symlink("../images/one/volume", mount.path("sd/ha_agent/link")).expect("a link");
    assert_eq!(fs::read(mount.path("sd/ha_agent/link")).expect("through the link"), b"text");
    let file = File::options().write(true).open(mount.path("sd/images/one/volume")).expect("open");
    file.set_len(1 << 20).expect("a new size");
    file.sync_all().expect("sync");
    assert_eq!(fs::metadata(mount.source("sd/images/one/volume")).expect("metadata").len(), 1 << 20);
    let mut names: Vec<_> = fs::read_dir(mount.path("sd"))
        .expect("a listing")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["ha_agent", "images"]);
    fs::remove_dir_all(mount.path("sd")).expect("removal");
    assert!(!mount.source("sd").exists());
}

#[test]
fn eio_and_read_only_fail_at_once_and_end_when_told() {
    let mount = Mount::new();
    fs::write(mount.path("file"), b"text").expect("a file");
    let open = File::options().read(true).write(true).open(mount.path("file")).expect("open");
    mount.set(Mode::Eio);
    let code = |result: std::io::Result<usize>| result.expect_err("a failure").raw_os_error();
    assert_eq!(code(open.read_at(&mut [0; 4], 0)), Some(5));
    assert_eq!(code(open.write_at(b"more", 0)), Some(5));
    mount.set(Mode::ReadOnly);
    assert_eq!(open.read_at(&mut [0; 4], 0).expect("reads work"), 4);
    assert_eq!(code(open.write_at(b"more", 0)), Some(30));
    mount.set(Mode::Ok);
    assert_eq!(open.write_at(b"more", 0).expect("writes work again"), 4);
    assert_eq!(fs::read(mount.source("file")).expect("the folder's file"), b"more");
}

#[test]
fn a_stalled_request_ends_when_storage_resumes() {
    let mount = Mount::new();
    fs::write(mount.source("file"), [1; 4096]).expect("a file");
    mount.set(Mode::Hang);
    let mut waiting = reader(&mount.path("file"));
    until("dd waits", || state(&waiting) == Some('D') || state(&waiting) == Some('S'));
    assert!(waiting.try_wait().expect("dd's state").is_none());
    mount.set(Mode::Ok);
    assert!(waiting.wait().expect("dd ends").success());
}

#[test]
fn a_process_that_waits_for_stalled_storage_can_be_killed_and_writes_nothing_later() {
    let mount = Mount::new();
    fs::write(mount.path("file"), [1; 4096]).expect("a file");
    let path = mount.path("file").display().to_string();
    // Opened before the stall, so that the write itself is what hangs.
    let mut writer = Command::new("sh")
        .args(["-c", &format!("exec 3<>{path}; echo ready; read go; dd if=/dev/zero bs=4096 count=1 >&3")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs");
    let mut ready = [0; 6];
    std::io::Read::read_exact(writer.stdout.as_mut().expect("a pipe"), &mut ready).expect("sh is ready");
    mount.set(Mode::Hang);
    std::io::Write::write_all(writer.stdin.as_mut().expect("a pipe"), b"go\n").expect("sh goes on");
    let children = format!("/proc/{0}/task/{0}/children", writer.id());
    let mut dd = String::new();
    until("dd waits in the kernel's file system for its write", || {
        dd = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        !dd.is_empty() && fs::read_to_string(format!("/proc/{dd}/comm")).is_ok_and(|name| name == "dd\n") && {
            let call = fs::read_to_string(format!("/proc/{dd}/syscall")).unwrap_or_default();
            // write(1, …)
            call.starts_with("1 0x1 ")
        }
    });
    assert!(Command::new("kill").args(["-9", &dd]).status().expect("kill runs").success());
    writer.wait().expect("sh ends, so dd was collected");
    mount.set(Mode::Ok);
    assert_eq!(fs::read(mount.path("file")).expect("the file"), [1; 4096]);
}

#[test]
fn slow_storage_answers_later_and_not_one_after_the_other() {
    let mount = Mount::new();
    fs::write(mount.source("file"), [1; 4096]).expect("a file");
    let files: Vec<File> = (0..4).map(|_| File::open(mount.path("file")).expect("open")).collect();
    mount.set(Mode::Delay(Duration::from_millis(400)));
    let start = SystemClock.monotonic();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(move || file.read_at(&mut [0; 512], 0).expect("a late read"));
        }
    });
    let took = SystemClock.monotonic().saturating_since(start);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_millis(1200), "{took:?}");
}

fn state(child: &Child) -> Option<char> {
    state_of(&child.id().to_string())
}

fn state_of(pid: &str) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}
