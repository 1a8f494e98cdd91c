//! One sandbox host from outside: start, kill, freeze, run something in it, ask its init.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::layout::{HostNumber, Layout};
use super::procs::{self, Process};
use super::services::{Service, ServiceStatus};
use super::shell::wait_for;
use super::state::{Hypervisor, State};
use super::{cgroup, host_init, init, lun, net};

const SOON: Duration = Duration::from_millis(20);
const START_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(15);

/// One host of one sandbox.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where the sandbox is.
    pub layout: Layout,
    /// Which host.
    pub number: HostNumber,
    cgroup: Option<PathBuf>,
    has_watchdog: bool,
    hypervisor: Hypervisor,
}

impl Host {
    /// Host `number`.
    pub fn new(layout: &Layout, state: &State, number: HostNumber) -> Self {
        Self {
            layout: layout.clone(),
            number,
            cgroup: state.host_cgroup(number),
            has_watchdog: state.watchdog,
            hypervisor: state.hypervisor,
        }
    }

    /// Its init, when it runs.
    pub fn init(&self) -> Option<Process> {
        procs::init(&self.layout, self.number)
    }

    fn running(&self) -> anyhow::Result<Process> {
        self.init().with_context(|| {
            format!(
                "host {0} is not running; start it with: hosted-engine sandbox start-host {0}",
                self.number
            )
        })
    }

    /// Boots it: new namespaces, network, storage, sanlock, and the HA daemons when the host is configured.
    /// Returns once its storage, sanlock and, where it is to be there, VDSM run. A host that runs already is left as it is.
    pub fn start(&self) -> anyhow::Result<()> {
        if self.init().is_some() {
            return Ok(());
        }
        if let Some(dir) = &self.cgroup {
            cgroup::create_host(dir)?;
            cgroup::thaw(dir)?;
        }
        let log = self.layout.log(self.number, "init");
        fs::create_dir_all(log.parent().unwrap_or(Path::new("/")))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new("setsid");
        command.args(["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--"]);
        command.arg(std::env::current_exe().context("cannot tell where this program is")?);
        command.args(["sandbox", "init"]).arg(self.layout.dir()).arg(self.number.to_string());
        if let Some(dir) = &self.cgroup {
            command.env(CGROUP_ENV, dir);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        let mut child = command.spawn().context("cannot run setsid and unshare (util-linux)")?;
        let mut alive = || -> anyhow::Result<()> {
            match child.try_wait()? {
                None => Ok(()),
                Some(status) => bail!("host {} ended at its start ({status}); {}", self.number, self.hint()),
            }
        };
        let process = wait_for(START_PATIENCE, SOON, || {
            alive()?;
            Ok(self.init())
        })?
        .with_context(|| format!("host {} did not start; {}", self.number, self.hint()))?;
        if self.has_watchdog {
            self.start_device(process.pid)?;
        }
        net::plug(&self.layout, self.number, process.pid)?;
        let sanlock = self.layout.host(self.number).sanlock_socket();
        wait_for(START_PATIENCE, SOON, || {
            alive()?;
            Ok(UnixStream::connect(&sanlock).ok().map(|_| ()))
        })?
        .with_context(|| format!("sanlock did not come up on host {}; {}", self.number, self.hint()))?;
        match self.hypervisor {
            Hypervisor::Qemu | Hypervisor::Libvirt => return Ok(()),
            Hypervisor::Vdsm => {}
        }
        let vdsm = self.layout.vdsm_socket(self.number);
        wait_for(START_PATIENCE, SOON, || {
            alive()?;
            Ok(UnixStream::connect(&vdsm).ok().map(|_| ()))
        })?
        .with_context(|| {
            let log = self.layout.log(self.number, Service::Vdsm.name());
            format!("VDSM did not come up on host {}; see {}", self.number, log.display())
        })
    }

    /// The device behind the host's watchdog: outside of the host, so that it is not frozen with it. It ends with the host.
    fn start_device(&self, init: i32) -> anyhow::Result<()> {
        let log = self.layout.log(self.number, "watchdog-device");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new("setsid");
        command.arg("--fork").arg(init::program_dir()?.join(init::WDMD)).args(["device", "--socket"]);
        command.arg(self.layout.watchdog_socket(self.number)).args(["--host", &init.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        let status = command.status().context("cannot run setsid (util-linux)")?;
        anyhow::ensure!(status.success(), "the watchdog's device did not start ({status})");
        Ok(())
    }

    fn hint(&self) -> String {
        format!("see {}", self.layout.log(self.number, "init").display())
    }

    /// Power loss: everything in it ends at once. Returns when nothing of it is left.
    pub fn kill(&self) -> anyhow::Result<()> {
        let Some(init) = self.init() else { return Ok(()) };
        // All of it before a frozen one goes on: nothing may do one thing more.
        for process in procs::of_host(&init) {
            process.signal(Signal::KILL);
        }
        // Frozen processes die only when they thaw.
        cgroup::freeze(&init, self.cgroup.as_deref(), false)?;
        wait_for(END_PATIENCE, SOON, || {
            let left = procs::of_host(&init).iter().any(|process| !process.is_zombie());
            Ok((!left).then_some(()))
        })?
        .with_context(|| format!("some of host {}'s processes do not die", self.number))?;
        lun::deactivate(&self.layout, self.number)
    }

    /// Stops everything in it at once, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        cgroup::freeze(&self.running()?, self.cgroup.as_deref(), frozen)
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        self.init().is_some_and(|init| cgroup::is_frozen(&init, self.cgroup.as_deref()))
    }

    /// A command that runs inside the host, with the host's environment.
    pub fn command(&self, program: &[OsString]) -> anyhow::Result<Command> {
        let init = self.running()?;
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(init.pid.to_string()).args(["-m", "-n", "-u", "-i", "-p", "--"]);
        command.args(program).envs(init::environment(&self.layout)?);
        Ok(command)
    }

    /// Runs `program` inside the host; its output, or what it said when it failed.
    pub fn run(&self, program: &[&str]) -> anyhow::Result<String> {
        let words: Vec<OsString> = program.iter().map(OsString::from).collect();
        let output = self.command(&words)?.stdin(Stdio::null()).output().context("cannot run nsenter")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let also = String::from_utf8_lossy(&output.stdout);
            bail!(
                "{program:?} failed on host {} ({}): {}{}",
                self.number,
                output.status,
                said.trim(),
                also.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Its services, as its init knows them.
    pub fn services(&self) -> anyhow::Result<Vec<ServiceStatus>> {
        let answer = self.ask("status")?;
        serde_json::from_str(&answer).with_context(|| format!("host {}'s init said {answer:?}", self.number))
    }

    /// Starts a service, or has it end and stay away.
    pub fn set_service(&self, service: Service, on: bool) -> anyhow::Result<()> {
        let verb = if on { "start" } else { "stop" };
        let answer = self.ask(&format!("{verb} {}", service.name()))?;
        anyhow::ensure!(answer == "ok", "host {} did not {verb} {}: {answer}", self.number, service.name());
        Ok(())
    }

    /// A service's process on the machine.
    pub fn service_process(&self, service: Service) -> anyhow::Result<Option<Process>> {
        let init = self.running()?;
        let pid = self.services()?.into_iter().find(|status| status.service == service).and_then(|s| s.pid);
        Ok(procs::of_host(&init).into_iter().find(|process| Some(process.inner_pid) == pid))
    }

    fn ask(&self, line: &str) -> anyhow::Result<String> {
        let answer = host_init::ask(&self.layout.init_socket(self.number), line);
        answer.with_context(|| format!("no answer from host {}'s init; is it frozen?", self.number))
    }
}

/// Tells a host's init which control group to enter.
pub const CGROUP_ENV: &str = "OVIRT_HA_SANDBOX_CGROUP";
