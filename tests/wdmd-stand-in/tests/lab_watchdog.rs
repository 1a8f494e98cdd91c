//! The real sanlock daemon with its watchdog, played by the stand-in, at tenfold speed: what resets a host, and when. Needs
//! root, sanlock, libfaketime and util-linux.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_tests::sanlock::{LeaseFile, lab_directory};
use ha_tests::wait;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sanlock_client::{AddOptions, Client, RemoveOptions};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wdmd-stand-in");
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// The watchdog's time in sanlock 3.8, a tenth of it.
const FIRES: Duration = Duration::from_secs(6);
/// sanlock's I/O time-out in its own seconds.
const IO_TIMEOUT: u32 = 3;
/// 8 times that, a tenth of it: when a lease that was not renewed is lost.
const LOST: Duration = Duration::from_millis(2400);
/// What a busy machine may be late by.
const SLACK: Duration = Duration::from_secs(2);

/// A host of three processes in namespaces of its own, with the device outside of it. Its /dev/shm is its own as well:
/// libfaketime keeps its state there under the process's number.
struct Host {
    unshare: Child,
    init: Pid,
    device: Child,
    client: Client,
    file: LeaseFile,
    directory: TempDir,
}

fn children(of: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Host {
    fn boot() -> Self {
        let directory = lab_directory().expect("a directory");
        let dir = directory.path();
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/shm/{base} && mount --bind {dir} /run/shm/{base} && \
             mount --rbind /run/shm /dev/shm || exit 1; {PROGRAM} daemon --device {dir}/device --speed 10 2>{dir}/wdmd.log & \
             until [ -S /run/wdmd/wdmd.sock ]; do sleep 0.02; done; \
             LD_PRELOAD={FAKETIME} FAKETIME='+0 x10' DONT_FAKE_MONOTONIC=0 \
             sanlock daemon -D -w 1 -h 0 -l 0 -U root -G root -L -1 -S -1 -e lab 2>{dir}/sanlock.log & \
             wait",
            dir = dir.display(),
            base = dir.file_name().expect("a name").to_string_lossy()
        );
        let log = File::create(dir.join("init.log")).expect("a log");
        let unshare = Command::new("setsid")
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script])
            .env("SANLOCK_PRIVILEGED", "0")
            .env("SANLOCK_RUN_DIR", dir.join("run"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("setsid and unshare of util-linux");
        let init = wait::until("the host's process 1", Duration::from_secs(5), || {
            children(unshare.id()).first().copied().and_then(Pid::from_raw)
        });
        let device = Command::new(PROGRAM)
            .args(["device", "--socket"])
            .arg(dir.join("device"))
            .args(["--host", &init.as_raw_nonzero().to_string()])
            .args(["--fire-after", &FIRES.as_millis().to_string()])
            .spawn()
            .expect("the device");
        let client = Client::new(dir.join("run/sanlock.sock"));
        wait::until("sanlock to answer", Duration::from_secs(10), || client.version().ok());
        let file =
            LeaseFile::create(&client, &dir.join("leases"), "space", 1, IO_TIMEOUT).expect("a lockspace");
        Self { unshare, init, device, client, file, directory }
    }

    fn join(&self) {
        let options = AddOptions { io_timeout: Some(IO_TIMEOUT), is_async: false };
        self.client.add_lockspace(&self.file.lockspace(1), options).expect("joined");
    }

    fn sanlock(&self) -> Pid {
        let init = u32::try_from(self.init.as_raw_nonzero().get()).expect("a process id");
        let is_sanlock = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sanlock")
        };
        let found = children(init).into_iter().find(is_sanlock);
        found.and_then(Pid::from_raw).unwrap_or_else(|| panic!("no sanlock: {}", self.logs()))
    }

    fn lives(&self) -> bool {
        // Its parent may be stopped, too, and not have collected it yet.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.init.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        ["init.log", "wdmd.log", "sanlock.log"].map(read).concat()
    }

    /// How long the host goes on, counted from now.
    fn lasts(&self, at_most: Duration) -> Duration {
        let now = SystemClock.monotonic();
        wait::until("the host to be reset", at_most + SLACK, || (!self.lives()).then_some(()));
        SystemClock.monotonic().saturating_since(now)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = kill_process(self.init, Signal::KILL);
        for child in [&mut self.unshare, &mut self.device] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_host_whose_sanlock_dies_is_reset_before_its_leases_can_be_taken() {
    let host = Host::boot();
    assert_eq!(host.client.settings().expect("settings").uses_watchdog, Some(true));
    host.join();
    kill_process(host.sanlock(), Signal::KILL).expect("killed");
    let lasted = host.lasts(LOST + FIRES);
    assert!(lasted <= LOST + FIRES, "{lasted:?}");
    assert!(lasted >= FIRES.saturating_sub(Duration::from_secs(1)), "not before its time: {lasted:?}");
    assert!(host.logs().contains("sanlock_space:1 has ended and has not renewed itself"), "{}", host.logs());
}

#[test]
fn a_host_that_stands_still_is_reset() {
    let host = Host::boot();
    host.join();
    let group = Pid::from_raw(i32::try_from(host.unshare.id()).expect("a process id")).expect("not 0");
    kill_process_group(group, Signal::STOP).expect("frozen");
    let lasted = host.lasts(FIRES);
    assert!(lasted <= FIRES + SLACK && lasted >= FIRES.saturating_sub(Duration::from_secs(2)), "{lasted:?}");
}

#[test]
fn a_host_that_left_its_lockspace_in_order_is_left_alone() {
    let host = Host::boot();
    host.join();
    let leave = RemoveOptions { is_async: false, unused: false };
    host.client.remove_lockspace(&host.file.lockspace(1), leave).expect("left");
    kill_process(host.sanlock(), Signal::KILL).expect("killed");
    #[allow(clippy::disallowed_methods, reason = "that nothing happens is what is waited for")]
    std::thread::sleep(LOST + FIRES + SLACK);
    assert!(host.lives(), "{}", host.logs());
}
