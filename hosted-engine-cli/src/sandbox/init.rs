//! Process 1 of a sandbox host: sets the host up inside its own namespaces, starts and supervises its daemons,
//! collects the dead. When it dies, the kernel kills everything in the host at once: that is the power loss.
//!
//! It answers on `run/init.sock`, one line each: `status` (JSON), `start NAME`, `stop NAME`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clock::{Clock, SystemClock};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Signal, WaitOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::layout::{
    ENGINE, ENGINE_FQDN, FILE_SERVER, FILE_SERVER_ADDRESS, GATEWAY, HostNumber, Layout, MAX_HOSTS, NFS_PORT,
};
use super::libvirtd;
use super::lun;
use super::net;
use super::procs::signal_pid;
use super::services::{Service, Table};
use super::state::{Hypervisor, SharedStorage, State};

/// Runs until it is killed. Must be process 1 of fresh pid, mount, net, uts and ipc namespaces.
pub fn run(layout: &Layout, number: HostNumber, cgroup: Option<&Path>) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::getpid().is_init(),
        "`sandbox init` is process 1 of a sandbox host; it is started by `sandbox up` and `sandbox start-host`"
    );
    if let Some(cgroup) = cgroup {
        // Before /sys is mounted anew, which hides the control groups.
        fs::write(cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter the control group {}", cgroup.display()))?;
    }
    let host = Host { layout, number, state: State::load(layout)?, programs: program_dir()? };
    host.prepare_files().context("cannot prepare the host's files")?;
    host.prepare_mounts().context("cannot prepare the host's mounts")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(host.live())
}

/// The stand-in for sanlock's watchdog daemon and its device, which lies beside this program where it was built.
pub(super) const WDMD: &str = "wdmd-stand-in";
/// Where sanlock's library looks for the watchdog's daemon.
const WDMD_SOCKET: &str = "/run/wdmd/wdmd.sock";
/// The stand-in for VDSM, which lies beside this program where it was built.
pub(super) const VDSM: &str = "vdsm-stand-in";

/// Where this program and those beside it are.
pub(super) fn program_dir() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(this.parent().unwrap_or(Path::new("/")).to_owned())
}

struct Host<'a> {
    layout: &'a Layout,
    number: HostNumber,
    state: State,
    programs: PathBuf,
}

impl Host<'_> {
    fn root(&self) -> PathBuf {
        self.layout.host(self.number).root().to_owned()
    }

    /// A boot: what was in /run is gone.
    fn prepare_files(&self) -> anyhow::Result<()> {
        let paths = self.layout.host(self.number);
        let run = self.root().join("run");
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        if self.state.hypervisor == Hypervisor::Vdsm {
            // What VDSM had mounted; links play the mounts, and they would stay.
            let mounts = paths.storage_mounts();
            if mounts.exists() {
                fs::remove_dir_all(&mounts)?;
            }
            // These two VDSM brings along.
            fs::create_dir_all(&mounts)?;
            fs::create_dir_all(paths.prepared_volumes())?;
        }
        // The mount point is made where it will be seen from inside.
        let below_root = self.layout.mountpoint();
        let below_root = below_root.strip_prefix(self.layout.inside().root()).unwrap_or(&below_root);
        let mountpoint = self.root().join(below_root);
        for dir in [
            paths.run_dir(),
            paths.sanlock_run_dir(),
            paths.log_dir(),
            paths.state_dir(),
            paths.ha_conf_dir(),
            paths.hosted_engine_conf_dir(),
            mountpoint,
            self.layout.inside().root().to_owned(),
        ] {
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        if self.state.storage == SharedStorage::Lvm {
            lun::prepare_host(self.layout, self.number)?;
        }
        if self.state.hypervisor == Hypervisor::Libvirt {
            libvirtd::prepare_files(&self.root(), self.number)?;
        }
        let mut hosts = format!(
            "127.0.0.1 localhost\n{FILE_SERVER_ADDRESS} {FILE_SERVER}\n{ENGINE} {ENGINE_FQDN} engine\n\
             {GATEWAY} gateway.sandbox.test gateway\n"
        );
        for number in (1..=MAX_HOSTS).map(HostNumber) {
            // Writing to a String cannot fail.
            let _ = writeln!(hosts, "{} {} host{number}", number.address(), number.name());
        }
        fs::write(self.root().join("etc/hosts"), hosts)?;
        fs::write(self.root().join("etc/hostname"), format!("{}\n", self.number.name()))?;
        // No name server: a name that is not in /etc/hosts is unknown at once.
        fs::write(self.root().join("etc/resolv.conf"), "")?;
        Ok(())
    }

    fn prepare_mounts(&self) -> anyhow::Result<()> {
        rustix::system::sethostname(self.number.name().as_bytes()).context("host name")?;
        if self.state.watchdog {
            // sanlock's library knows its watchdog's daemon by one path.
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", "/run", "tmpfs", flags, None).context("/run")?;
        }
        for name in ["hosts", "hostname", "resolv.conf"] {
            let target = Path::new("/etc").join(name);
            if target.exists() {
                let source = self.root().join("etc").join(name);
                mount_bind(&source, &target).with_context(|| format!("bind {}", target.display()))?;
            }
        }
        // Its storage, which is mounted later, is to be seen by both names.
        let (root, inside) = (self.root(), self.layout.inside());
        mount_bind(&root, &root).with_context(|| format!("bind {}", root.display()))?;
        mount_change(&root, MountPropagationFlags::SHARED).context("share the host's root")?;
        mount_bind(&root, inside.root()).with_context(|| format!("bind {}", inside.root().display()))?;
        if self.state.hypervisor == Hypervisor::Libvirt {
            libvirtd::mount(&self.root())?;
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", flags, None).context("/proc")?;
        mount("sysfs", "/sys", "sysfs", flags, None).context("/sys")?;
        // Lets the daemons ping without raw sockets, as distributions do.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").context("ping_group_range")?;
        Ok(())
    }

    async fn live(&self) -> anyhow::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let mut table = Table::default();
        let socket = self.layout.init_socket(self.number);
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;

        self.wait_for_network().await?;
        if Service::Storage.exists(&self.state) {
            self.start(&mut table, Service::Storage);
            self.wait_for_storage().await?;
        }
        if self.state.watchdog {
            self.start(&mut table, Service::Watchdog);
            self.wait_for_watchdog().await?;
        }
        self.start(&mut table, Service::Sanlock);
        if self.state.hypervisor == Hypervisor::Vdsm {
            self.start(&mut table, Service::Vdsm);
        }
        if self.layout.host(self.number).hosted_engine_conf().exists() {
            if self.state.storage == SharedStorage::Lvm {
                self.connect_storage();
            }
            for service in Service::of_deployed(self.state.hypervisor) {
                self.start(&mut table, *service);
            }
        }
        loop {
            let now = SystemClock.monotonic();
            let due = table.next_due().map(|at| at.saturating_since(now));
            tokio::select! {
                _ = children.recv() => Self::collect(&mut table),
                connection = listener.accept() => {
                    if let Ok((stream, _)) = connection {
                        let _ = tokio::time::timeout(Duration::from_secs(5), self.answer(stream, &mut table)).await;
                    }
                }
                () = tokio::time::sleep(due.unwrap_or(Duration::from_hours(1))) => {
                    for service in table.take_due(SystemClock.monotonic()) {
                        self.start(&mut table, service);
                    }
                }
            }
        }
    }

    /// The cable is plugged in from outside, right after this process exists; nothing announces it.
    async fn wait_for_network(&self) -> anyhow::Result<()> {
        for _ in 0..200 {
            if Path::new("/sys/class/net/eth0").exists() {
                return net::configure_host(self.number).context("cannot configure the host's network");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("nobody plugged eth0 into the switch within 10 s")
    }

    async fn wait_for_storage(&self) -> anyhow::Result<()> {
        let mountpoint = self.layout.mountpoint();
        let marker = format!(" {} ", mountpoint.display());
        for _ in 0..200 {
            if fs::read_to_string("/proc/self/mounts")?.contains(&marker) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = self.layout.log(self.number, Service::Storage.name());
        anyhow::bail!("the storage did not get mounted within 10 s; see {}", log.display())
    }

    /// What `ovirt-ha-storage.service` does at a boot. The daemons start whatever comes of it, and say what is missing.
    fn connect_storage(&self) {
        let connect = || -> anyhow::Result<std::process::Output> {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--connect-storage", "--at-boot"]).envs(environment(self.layout)?);
            command.current_dir("/").stdin(Stdio::null()).output().context("cannot run it")
        };
        match connect() {
            Ok(output) => {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
                say(&format!("hosted-engine --connect-storage ({}): {said}", output.status));
            }
            Err(error) => say(&format!("hosted-engine --connect-storage: {error:#}")),
        }
    }

    async fn wait_for_watchdog(&self) -> anyhow::Result<()> {
        for _ in 0..200 {
            if Path::new(WDMD_SOCKET).exists() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = self.layout.log(self.number, Service::Watchdog.name());
        anyhow::bail!("the watchdog's daemon did not come up within 10 s; see {}", log.display())
    }

    fn start(&self, table: &mut Table, service: Service) {
        if !table.want(service) {
            return;
        }
        match self.spawn(service) {
            Ok(pid) => {
                say(&format!("started {} as {pid}", service.name()));
                table.started(service, pid);
            }
            Err(error) => {
                say(&format!("cannot start {}: {error:#}", service.name()));
                table.failed_to_start(service, format!("{error:#}"), SystemClock.monotonic());
            }
        }
    }

    fn spawn(&self, service: Service) -> anyhow::Result<i32> {
        let paths = self.layout.inside();
        let mut command = match service {
            Service::Storage => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["sandbox", "fs"]);
                command.arg(self.layout.storage()).arg(self.layout.mountpoint());
                command.arg(self.layout.fault_socket(self.number));
                if self.state.hypervisor == Hypervisor::Vdsm {
                    command.args(["--listen", &format!("{FILE_SERVER_ADDRESS}:{NFS_PORT}")]);
                }
                command
            }
            Service::Watchdog => {
                let mut command = Command::new(self.programs.join(WDMD));
                command.args(["daemon", "--socket", WDMD_SOCKET, "--device"]);
                command.arg(self.layout.watchdog_socket(self.number));
                command
            }
            Service::Sanlock => {
                let mut command = Command::new("sanlock");
                // There is no watchdog device behind these hosts, at most a stand-in.
                let watchdog = if self.state.watchdog { "1" } else { "0" };
                command.args(["daemon", "-D", "-w", watchdog, "-U", "root", "-G", "root"]);
                command.args(["-e", &self.number.name()]);
                command
            }
            Service::Vdsm => {
                let mut command = Command::new(self.programs.join(VDSM));
                command.arg("--root").arg(paths.root());
                // Like VDSM on all addresses: other hosts' stand-ins come when a VM migrates.
                command.args(["--listen", "0.0.0.0:54321"]);
                command.arg("--control").arg(self.layout.vdsm_socket(self.number));
                command.args(["--io-timeout", &self.state.io_timeout.to_string()]);
                command
            }
            Service::Libvirtd => libvirtd::command(),
            Service::Broker | Service::Agent => {
                let mut command = Command::new(self.programs.join(service.name()));
                command.arg("--root").arg(paths.root());
                command
            }
        };
        let log = self.layout.log(self.number, service.name());
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        command.envs(environment(self.layout)?);
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
        i32::try_from(child.id()).context("a process id beyond the kernel's range")
    }

    fn collect(table: &mut Table) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => continue,
            };
            let pid = pid.as_raw_nonzero().get();
            if let Some(service) = table.collected(pid, &how, SystemClock.monotonic()) {
                say(&format!("{} ended: {how}", service.name()));
            }
        }
    }

    async fn answer(&self, stream: UnixStream, table: &mut Table) -> anyhow::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).await?;
        let answer = match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("status", "") => serde_json::to_string(&table.statuses())?,
            ("start", name) if let Some(service) = Service::named(name) => {
                self.start(table, service);
                "ok".to_owned()
            }
            ("stop", name) if let Some(service) = Service::named(name) => {
                if let Some(pid) = table.unwant(service) {
                    signal_pid(pid, Signal::TERM);
                }
                "ok".to_owned()
            }
            _ => "error: status, start NAME or stop NAME, with a name of `status`".to_owned(),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
        Ok(())
    }
}

/// What every program of a host finds in its environment.
pub fn environment(layout: &Layout) -> anyhow::Result<Vec<(&'static str, std::ffi::OsString)>> {
    let paths = layout.inside();
    let mut path = program_dir()?.into_os_string();
    path.push(":");
    path.push(layout.programs());
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    Ok(vec![
        (ha_config::ROOT_ENV, paths.root().into()),
        ("SANLOCK_RUN_DIR", paths.sanlock_run_dir().into()),
        // Without it sanlock asks for more locked memory than unprivileged containers may have.
        ("SANLOCK_PRIVILEGED", "0".into()),
        // The machine's own configuration says nothing about a sandbox.
        ("LVM_SYSTEM_DIR", paths.resolve("/etc/lvm").into()),
        ("PATH", path),
    ])
}

fn say(line: &str) {
    // To init.log; there is nobody else to tell when that fails.
    let _ = writeln!(std::io::stderr(), "{} init: {line}", timestamp());
}

/// The time of day, for people.
pub fn timestamp() -> String {
    let now = jiff::Timestamp::from_second(SystemClock.wall().0).unwrap_or_default();
    now.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}
