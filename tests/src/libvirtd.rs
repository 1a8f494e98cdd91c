//! Real libvirt daemons for lab tests: several on one machine, each a "host" of its own with private directories, a host
//! name and a host uuid, gone when dropped, with the QEMUs that they started.
//!
//! Runs `libvirtd` (Debian packages libvirt-daemon-system and libvirt-sanlock) in a mount and a UTS namespace.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// What the daemon is started as, after its directories were put in place of the machine's.
const SCRIPT: &str = "set -e
mount --bind \"$1/run\" /run
mount --bind \"$1/etc\" /etc/libvirt
mount --bind \"$1/lib\" /var/lib/libvirt
mount --bind \"$1/log\" /var/log/libvirt
mount --bind \"$1/cache\" /var/cache/libvirt
mount --bind \"$1/hosts\" /etc/hosts
mount --bind \"$1/resolv\" /etc/resolv.conf
hostname \"$2\"
exec libvirtd --listen --config /etc/libvirt/libvirtd.conf";

/// How a daemon is set up.
#[derive(Debug, Clone)]
pub struct LibvirtSetup {
    /// Its directory (made if missing); sockets are in it, so its path must be short.
    pub directory: PathBuf,
    /// Host id in sanlock's lockspaces, and what makes the host differ from the others.
    pub host_id: u8,
    /// Run directory of the host's sanlock.
    pub sanlock: PathBuf,
    /// `lock_manager` in qemu.conf; none when empty.
    pub lock_manager: &'static str,
}

/// A host's daemon. Dropping it kills it and every QEMU that it started.
#[derive(Debug)]
pub struct Libvirtd {
    child: Option<Child>,
    setup: LibvirtSetup,
}

impl Libvirtd {
    /// Starts the daemon; returns once it answers.
    pub fn start(setup: LibvirtSetup) -> Result<Self> {
        let at = |name: &str| setup.directory.join(name);
        for name in ["run", "etc", "lib", "log", "cache"] {
            let directory = at(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let id = setup.host_id;
        let write = |name: &str, text: String| {
            fs::write(at(name), text).with_context(|| format!("cannot write {name}"))
        };
        // No name service is to be asked: it would be waited for in vain.
        write("resolv", String::new())?;
        write("hosts", "127.0.0.1 localhost lab-1 lab-2 lab-3\n".to_owned())?;
        write(
            "etc/libvirtd.conf",
            format!(
                "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nauth_unix_rw = \"none\"\n\
                 tcp_port = \"{}\"\nlisten_addr = \"127.0.0.1\"\n\
                 host_uuid = \"00000000-1111-4222-8333-00000000000{id}\"\n",
                port(id)
            ),
        )?;
        let lock_manager = match setup.lock_manager {
            "" => String::new(),
            name => format!("lock_manager = \"{name}\"\n"),
        };
        // Without systemd, virtlogd and privileges of a real host.
        write(
            "etc/qemu.conf",
            format!(
                "{lock_manager}user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nsecurity_driver = \"none\"\n\
                 cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\nremember_owner = 0\n\
                 migration_port_min = {}\nmigration_port_max = {}\nremote_display_port_min = {}\nremote_display_port_max = {}\n",
                49_152 + 20 * u16::from(id),
                49_162 + 20 * u16::from(id),
                5_960 + 10 * u16::from(id),
                5_969 + 10 * u16::from(id),
            ),
        )?;
        write(
            "etc/qemu-sanlock.conf",
            format!(
                "auto_disk_leases = 0\nrequire_lease_for_disks = 0\nhost_id = {id}\nuser = \"root\"\ngroup = \"root\"\n"
            ),
        )?;
        let mut daemon = Self { child: None, setup };
        daemon.run()?;
        Ok(daemon)
    }

    fn run(&mut self) -> Result<()> {
        let directory = &self.setup.directory;
        let log = fs::File::create(directory.join("daemon.log")).context("cannot make the daemon's log")?;
        let _ = fs::remove_file(self.socket());
        let child = Command::new("unshare")
            .args(["--mount", "--uts", "--propagation", "private", "sh", "-c", SCRIPT, "libvirtd"])
            .arg(directory)
            .arg(format!("lab-{}", self.setup.host_id))
            .env("SANLOCK_RUN_DIR", &self.setup.sanlock)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start libvirtd: install libvirt-daemon-system and libvirt-sanlock")?;
        self.child = Some(child);
        let uri = self.uri();
        let is_there = wait::until("libvirtd to answer", Duration::from_secs(20), || {
            let has_ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            let answers = || Command::new("virsh").args(["-q", "-c", &uri, "list"]).output();
            if has_ended {
                Some(false)
            } else {
                answers().is_ok_and(|asked| asked.status.success()).then_some(true)
            }
        });
        let log = fs::read_to_string(directory.join("daemon.log")).unwrap_or_default();
        ensure!(is_there, "libvirtd ended at once: {log}");
        Ok(())
    }

    /// Kills the daemon, as a crash would; its QEMUs go on.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors mean that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after a crash.
    pub fn restart(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.setup.directory.join("run/libvirtd.pid"));
        self.run()
    }

    /// Stops its execution, as one that hangs.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let pid = id.and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).context("cannot signal libvirtd")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.setup.directory.join("run/libvirt/libvirt-sock")
    }

    /// The connection URI of its socket.
    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.socket().display())
    }

    /// The connection URI by which other daemons reach it.
    pub fn tcp_uri(&self) -> String {
        format!("qemu+tcp://127.0.0.1:{}/system", port(self.setup.host_id))
    }

    /// Its qemu.conf.
    pub fn qemu_conf(&self) -> PathBuf {
        self.setup.directory.join("etc/qemu.conf")
    }

    /// The processes of its QEMUs.
    pub fn qemus(&self) -> Vec<u32> {
        pids(&self.setup.directory.join("run/libvirt/qemu"))
    }
}

fn port(host_id: u8) -> u16 {
    16_600 + u16::from(host_id)
}

/// What pid files name, if it is a QEMU.
fn pids(directory: &Path) -> Vec<u32> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .filter(|pid| {
            // Empty once it has ended.
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split('\0').next().is_some_and(|program| program.contains("qemu-system"))
        })
        .collect()
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        let qemus = self.qemus();
        self.crash();
        for pid in qemus {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
