//! The hosts' power switches: a stand-in for a management controller, one process outside of the hosts, which the real
//! `fence_redfish` talks to over the sandbox's network. Off is the end of a host's init, on is its boot.
//!
//! The agents of all hosts are told to power dead hosts off, and get the controller's password in a file of their own.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use ha_config::Paths;
use rustix::process::Signal;

use super::host::Host;
use super::layout::{HostNumber, Layout, POWER};
use super::procs::{self, Process};
use super::shell::wait_for;
use super::state::State;

/// Plays the controller. It is written beside its files when a sandbox wants it, so that installed programs have it, too.
const CONTROLLER: &str = include_str!("../../../tests/redfish-switch.py");
/// The password's place on a host.
const PASSWORD_FILE: &str = "/etc/ovirt-hosted-engine-ha/fence/sandbox.password";
/// Seconds that a host must be dead for before it is powered off: with `io_timeout` 3 that comes before its lease is free.
const GRACE: u64 = 3;
/// What the sandbox needs for it: programs, and their packages.
pub(super) const PROGRAMS: [(&str, &str); 3] =
    [("fence_redfish", "fence-agents"), ("python3", "python3"), ("openssl", "openssl")];

/// What a controller does to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deed {
    /// Print On or Off
    Status,
    /// Boot it
    On,
    /// Everything on it ends at once
    Off,
}

/// Does it, or prints the host's power.
pub fn carry_out(host: &Host, deed: Deed) -> anyhow::Result<()> {
    match deed {
        Deed::Status => println!("{}", if host.init().is_some() { "On" } else { "Off" }),
        Deed::On => host.start()?,
        Deed::Off => host.kill()?,
    }
    Ok(())
}

/// Starts the controller, which needs the network's switch.
pub fn start(layout: &Layout, state: &State) -> anyhow::Result<()> {
    let dir = layout.power();
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    write_secret(&layout.power_password(), &new_password()?)?;
    let script = controller(layout);
    fs::write(&script, CONTROLLER).with_context(|| format!("cannot write {}", script.display()))?;
    let log = fs::File::create(dir.join("controller.log"))?;
    let mut command = Command::new("setsid");
    command.args(["--fork", "nsenter", &format!("--net=/run/netns/{}", layout.tag()), "--"]);
    command.arg("python3").arg(&script).arg(&dir).args(["--listen", &format!("{POWER}:443"), "--stay"]);
    command.arg("--systems").args(state.numbers().map(|number| number.to_string())).arg("--power");
    command.arg(std::env::current_exe().context("cannot tell where this program is")?);
    command.args(["sandbox", "--dir"]).arg(layout.dir()).arg("power");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
    let mut child = command.spawn().context("cannot run setsid (util-linux)")?;
    let mut port = String::new();
    if let Some(said) = child.stdout.take() {
        BufReader::new(said).read_line(&mut port)?;
    }
    child.wait()?;
    anyhow::ensure!(
        !port.is_empty(),
        "the power switches did not start; see {}/controller.log",
        dir.display()
    );
    Ok(())
}

/// Ends the controller of a sandbox, if it runs.
pub fn stop(layout: &Layout) -> anyhow::Result<()> {
    let script = controller(layout);
    let is_ours = |process: &Process| process.arguments.iter().any(|word| Path::new(word) == script);
    let gone = || {
        let left: Vec<Process> = procs::all().into_iter().filter(is_ours).collect();
        for process in &left {
            process.signal(Signal::KILL);
        }
        Ok(left.iter().all(Process::is_zombie).then_some(()))
    };
    wait_for(Duration::from_secs(5), Duration::from_millis(20), gone)?
        .context("the power switches do not end")
}

/// What the controller was asked, a line for each request: `2: reset ForceOff`.
pub fn requests(layout: &Layout) -> Vec<String> {
    // Until the first request there is none.
    let text = fs::read_to_string(layout.power().join("requests")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The line of [`requests`] for a host that is switched off.
pub fn off_request(host: HostNumber) -> String {
    format!("{host}: reset ForceOff")
}

/// The part of `ha.toml` with all hosts' switches; the same on every host.
pub fn settings(state: &State) -> String {
    if !state.fencing {
        return String::new();
    }
    let mut text = format!("\n[fencing]\nenabled = true\ngrace = {GRACE}\n");
    for number in state.numbers() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[fencing.host]]\nhost_id = {number}\nagent = \"fence_redfish\"\npassword_file = \"{PASSWORD_FILE}\"\n\
             [fencing.host.options]\nip = \"{POWER}\"\nusername = \"operator\"\n\
             systems_uri = \"/redfish/v1/Systems/{number}\"\nssl_insecure = true\n"
        );
    }
    text
}

/// Gives a host the controller's password.
pub fn install_password(layout: &Layout, paths: &Paths) -> anyhow::Result<()> {
    let (from, to) = (layout.power_password(), paths.resolve(PASSWORD_FILE));
    let password = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
    if let Some(dir) = to.parent() {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
    }
    write_secret(&to, password.trim_end())
}

fn controller(layout: &Layout) -> PathBuf {
    layout.power().join("redfish-switch.py")
}

fn new_password() -> anyhow::Result<String> {
    let mut random = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("/dev/urandom")?;
    Ok(random.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Writes a file that nobody else can read at any moment.
fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened
        .and_then(|mut file| writeln!(file, "{text}"))
        .with_context(|| format!("cannot write {}", file.display()))
}
