//! Starting the launcher and hearing from it.
//!
//! On a host that systemd manages the launcher becomes a unit of its own, so that stopping or restarting the agent's
//! unit, and the sandbox that the unit puts around the agent, do not reach the VM.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

use super::launch::{LaunchFile, Outcome};
use super::run_dir::{LAUNCH, LAUNCH_SOCKET, RunDir};

/// Name of the unit that the VM runs in.
const UNIT: &str = "ovirt-hosted-engine-vm";
/// Longest answer.
const ANSWER_LIMIT: u64 = 64 << 10;
/// A launcher that ended before it answered has that long to be heard: its last word may still be on its way.
const GRACE: Duration = Duration::from_millis(200);

/// How to start the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The program `ovirt-ha-vm-launcher`.
    pub program: PathBuf,
    /// Through `systemd-run`.
    pub with_systemd: bool,
}

impl Launcher {
    /// Beside this program, where the package puts it, or (last) looked up in PATH. With systemd on a real host that
    /// systemd manages.
    pub fn find(is_real_host: bool) -> Self {
        const NAME: &str = "ovirt-ha-vm-launcher";
        let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(NAME));
        let packaged = ["/usr/libexec/ovirt-hosted-engine-ha", "/usr/sbin", "/usr/bin"]
            .map(|dir| Path::new(dir).join(NAME));
        let program = beside.into_iter().chain(packaged).find(|path| path.is_file());
        Self {
            program: program.unwrap_or_else(|| NAME.into()),
            with_systemd: is_real_host && Path::new("/run/systemd/system").is_dir(),
        }
    }

    fn command(&self, launch_file: &Path) -> Command {
        if !self.with_systemd {
            let mut command = Command::new(&self.program);
            command.arg(launch_file);
            return command;
        }
        let mut command = Command::new("systemd-run");
        command
            .args(["--quiet", "--collect", "--service-type=exec"])
            .arg(format!("--unit={UNIT}"))
            .args([
                "--property=Description=The hosted engine's virtual machine",
                "--property=OOMScoreAdjust=-500",
            ])
            .arg("--")
            .arg(&self.program)
            .arg(launch_file);
        command
    }

    /// Runs the launcher with `launch`; returns when it has become QEMU or said why not, at the latest after
    /// `deadline`.
    pub async fn run(&self, dir: &RunDir, launch: &LaunchFile, deadline: Duration) -> io::Result<Outcome> {
        dir.write(LAUNCH, launch)?;
        dir.remove(LAUNCH_SOCKET)?;
        let (path, _directory) = dir.socket(LAUNCH_SOCKET)?;
        let listener = UnixListener::bind(path)?;
        let child = self
            .command(&dir.file(LAUNCH))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("cannot run {}: {e}", self.program.display())))?;
        let heard = tokio::time::timeout(deadline, self.hear(&listener, child)).await;
        dir.remove(LAUNCH_SOCKET)?;
        heard.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the launcher did not answer within {deadline:?}"),
            )
        })?
    }

    async fn hear(&self, listener: &UnixListener, mut child: Child) -> io::Result<Outcome> {
        let stream = tokio::select! {
            biased;
            accepted = listener.accept() => accepted?.0,
            ended = silent_end(&mut child, self.with_systemd) => {
                match tokio::time::timeout(GRACE, listener.accept()).await {
                    Ok(accepted) => accepted?.0,
                    Err(_) => return Ok(Outcome::Failed { detail: ended? }),
                }
            }
        };
        let outcome = read_answer(stream).await?;
        // The child is QEMU now (or gone); the runtime reaps it, or init does when we are gone first.
        drop(child);
        Ok(outcome)
    }
}

/// Waits for the child to end without a word and says so. A `systemd-run` that succeeded says nothing about the unit.
async fn silent_end(child: &mut Child, with_systemd: bool) -> io::Result<String> {
    let mut words = String::new();
    let status = child.wait().await?;
    if let Some(mut stderr) = child.stderr.take() {
        // Whoever was started may have passed the pipe on and still hold it: read what is there, do not wait.
        let mut bytes = vec![0; 4096];
        if let Ok(Ok(length)) = tokio::time::timeout(GRACE, stderr.read(&mut bytes)).await {
            words = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
        }
    }
    if with_systemd && status.success() {
        std::future::pending::<()>().await;
    }
    Ok(format!("the launcher ended ({status}) before it answered: {words}"))
}

async fn read_answer(stream: UnixStream) -> io::Result<Outcome> {
    let mut text = String::new();
    stream.take(ANSWER_LIMIT).read_to_string(&mut text).await?;
    match text.lines().next_back() {
        Some(line) => Ok(serde_json::from_str(line)?),
        None => Ok(Outcome::Failed { detail: "the launcher died before it answered".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(with_systemd: bool) -> Vec<String> {
        let launcher = Launcher { program: "/usr/sbin/ovirt-ha-vm-launcher".into(), with_systemd };
        let command = launcher.command(Path::new("/run/he/launch.json"));
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_vm_leaves_the_session_and_the_service_that_start_it_where_systemd_runs_the_host() {
        assert_eq!(words(false), ["/usr/sbin/ovirt-ha-vm-launcher", "/run/he/launch.json"]);
        let words = words(true);
        let end = words.iter().position(|word| word == "--").expect("options end");
        let (options, launcher) = (&words[..end], &words[end + 1..]);
        assert_eq!(launcher, ["/usr/sbin/ovirt-ha-vm-launcher", "/run/he/launch.json"]);
        assert_eq!(options[0], "systemd-run");
        assert!(options.contains(&"--unit=ovirt-hosted-engine-vm".to_owned()), "{options:?}");
        // A scope would be of the session's own processes, and wait for them; a user's manager ends with its user.
        for bad in ["--scope", "--user", "--wait", "--pty", "--pipe"] {
            assert!(!options.iter().any(|option| option == bad), "{options:?}");
        }
    }
}
