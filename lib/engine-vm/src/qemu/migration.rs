//! Live migration: getting ready to receive, sending, and how far it is. The lease's part is in [`handover`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handover::{self, Handover, Phase};
use super::launch::LaunchMode;
use super::look::{Found, Inner, Shared, blocking, failed, unreachable};
use super::run_dir::HANDOVER;
use crate::lease::LeaseError;
use crate::port::{LeaseHolding, MigrationProgress, MigrationTarget, VmActivity, VmError, VmEvent, VmExit};

/// How long the destination may take to accept the connection: four requests of the kernel, which would go on for two
/// minutes by itself. A firewall may drop them without a word.
const CONNECT: Duration = Duration::from_secs(10);
/// QEMU's name of the connection to the destination.
const CONNECTION: &str = "destination";

impl Inner {
    /// Starts a QEMU that waits for the VM at `listen`, without lease and with stopped processors.
    pub async fn receive(inner: &Shared, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        check(&listen.uri)?;
        // Before anything can arrive: what arrives may go on only with the version after this one.
        let lease = inner.settings.lease.clone();
        let version = blocking(move || lease.version()).await?.map_err(no_lease)?;
        let handover = Handover { version, phase: Phase::Arriving };
        let found = inner.launch(LaunchMode::Incoming, Some(&handover)).await?;
        match inner.listen(listen).await {
            Ok(target) => {
                handover::carry_on(inner);
                inner.tell(VmEvent::Changed(VmActivity::MigrationDestination));
                Ok(target)
            }
            Err(error) => {
                inner.end(&found).await?;
                Err(error)
            }
        }
    }

    async fn listen(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        // The disks are opened for writing only when the guest goes on, which is after the lease was taken.
        self.capabilities(&["events", "return-path", "late-block-activate"]).await?;
        let action = "get ready for the migration";
        self.command(action, "migrate-incoming", json!({"uri": listen.uri})).await?;
        let state = self.command(action, "query-migrate", Value::Null).await?;
        let port = state["socket-address"][0]["port"].as_str();
        let uri = match (listen.uri.strip_suffix(":0"), port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => listen.uri.clone(),
        };
        Ok(MigrationTarget { uri })
    }

    /// Starts to send the running VM to `target`; a task follows it from here on.
    pub async fn send(inner: &Shared, target: &MigrationTarget) -> Result<(), VmError> {
        let action = "migrate";
        check(&target.uri)?;
        let found = inner.require()?;
        let pid = found.process.pid;
        let status = inner.look().await?;
        match status.activity {
            VmActivity::Up => {}
            other => return Err(failed(action, format!("it must run, and is: {}", other.word()))),
        }
        if let LeaseHolding::Lost { detail } | LeaseHolding::Unknown { detail } = status.lease {
            return Err(VmError::NoLease { detail });
        }
        let lease = inner.settings.lease.clone();
        let version = blocking(move || lease.held_version(pid)).await?.map_err(no_lease)?;
        let Some(version) = version else {
            return Err(VmError::NoLease { detail: format!("process {pid} does not hold it") });
        };
        inner.capabilities(&["events", "return-path", "auto-converge"]).await?;
        let uri = inner.reach(action, target).await?;
        let handover = Handover { version, phase: Phase::Leaving };
        inner.dir.write(HANDOVER, &handover).map_err(|e| unreachable("note the migration", &e))?;
        if let Err(error) = inner.command(action, "migrate", json!({"uri": uri})).await {
            let phase = Phase::Failed { detail: error.to_string() };
            // Only if QEMU said no. Without its word it may be on its way: then the task finds out.
            if matches!(error, VmError::Failed { .. }) {
                inner
                    .dir
                    .write(HANDOVER, &Handover { version, phase })
                    .map_err(|e| unreachable("note that there is no migration", &e))?;
                return Err(error);
            }
            tracing::warn!(%error, "it is not known whether the migration began");
        }
        handover::carry_on(inner);
        inner.tell(VmEvent::Changed(VmActivity::MigrationSource));
        Ok(())
    }

    /// Connects to a TCP destination, and gives QEMU the connection: its own attempt could neither be limited nor ended.
    /// Returns what QEMU is to be told as destination.
    async fn reach(&self, action: &'static str, target: &MigrationTarget) -> Result<String, VmError> {
        let Some(address) = target.uri.strip_prefix("tcp:") else { return Ok(target.uri.clone()) };
        let late = |_| {
            let seconds = CONNECT.as_secs();
            let why =
                format!("no answer within {seconds} s; does a firewall between the hosts let it through?");
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        };
        let connected = timeout(CONNECT, TcpStream::connect(address)).await.unwrap_or_else(late);
        // QEMU expects it like its own ones.
        let connection = connected
            .and_then(TcpStream::into_std)
            .and_then(|stream| stream.set_nonblocking(false).map(|()| OwnedFd::from(stream)))
            .map_err(|e| failed(action, format!("cannot reach the destination at {address}: {e}")))?;
        self.pass(action, CONNECTION, connection.as_fd()).await?;
        Ok(format!("fd:{CONNECTION}"))
    }

    async fn capabilities(&self, wanted: &[&str]) -> Result<(), VmError> {
        let list: Vec<Value> = wanted.iter().map(|name| json!({"capability": name, "state": true})).collect();
        let arguments = json!({ "capabilities": list });
        self.command("prepare the migration", "migrate-set-capabilities", arguments).await.map(drop)
    }

    /// How far the migration from here, or to here, is.
    pub async fn progress(&self) -> Result<MigrationProgress, VmError> {
        let handover = Handover::load(&self.dir);
        let Some(found) = self.find()?.filter(|found| found.is_qemu) else {
            return Ok(match (self.exit()?, handover.map(|handover| handover.phase)) {
                (Some(VmExit::MigratedAway), _) => MigrationProgress::Completed,
                (_, Some(Phase::Failed { detail })) => MigrationProgress::Failed { detail },
                (Some(VmExit::StartFailed { detail }), Some(Phase::Arriving)) => {
                    MigrationProgress::Failed { detail }
                }
                _ => MigrationProgress::None,
            });
        };
        match handover.map(|handover| handover.phase) {
            None => Ok(MigrationProgress::None),
            Some(Phase::Done) => Ok(MigrationProgress::Completed),
            Some(Phase::Failed { detail }) => Ok(MigrationProgress::Failed { detail }),
            Some(Phase::Leaving | Phase::Arriving) => self.moved(&found).await,
        }
    }

    async fn moved(&self, found: &Found) -> Result<MigrationProgress, VmError> {
        let state = self.command("tell how the migration goes", "query-migrate", Value::Null).await;
        let state = match state {
            Err(VmError::NotRunning) if found.process.has_ended().unwrap_or(false) => Value::Null,
            other => other?,
        };
        let bytes = |name: &str| state["ram"][name].as_u64().unwrap_or(0);
        Ok(MigrationProgress::Active { transferred: bytes("transferred"), remaining: bytes("remaining") })
    }
}

fn no_lease(error: LeaseError) -> VmError {
    match error {
        LeaseError::Unsupported => {
            VmError::Unsupported { adapter: "qemu", action: "migrate a VM whose lease is a locked file" }
        }
        LeaseError::Held(detail) | LeaseError::Missing(detail) | LeaseError::Unavailable(detail) => {
            VmError::NoLease { detail }
        }
    }
}

/// QEMU would also run programs and open files: only sockets are meant here.
fn check(uri: &str) -> Result<(), VmError> {
    let is_socket =
        ["tcp:", "unix:"].iter().any(|kind| uri.strip_prefix(kind).is_some_and(|s| !s.is_empty()));
    if is_socket && !uri.chars().any(char::is_control) {
        return Ok(());
    }
    Err(failed("migrate", format!("{uri:?} is no target; use tcp:HOST:PORT or unix:PATH")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_are_targets() {
        assert!(check("tcp:host2:49152").is_ok());
        assert!(check("unix:/run/x.sock").is_ok());
        for uri in ["exec:rm -rf /", "file:/etc/passwd", "fd:3", "tcp:", "", "unix:/a\nb"] {
            let error = check(uri).unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT"), "{uri:?}: {error}");
        }
    }
}
