//! A sandbox host's init as the service manager of whatever runs inside of the host.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::Paths;

use super::services::{Service, ServiceStatus};
use super::shell::wait_for;
use crate::deploy::DeployError;
use crate::deploy::services::{ServiceState, Services};

/// How long a daemon may take to end.
const END_PATIENCE: Duration = Duration::from_mins(1);

/// The init of the host that this program runs in.
#[derive(Debug, Clone)]
pub struct HostInit {
    socket: PathBuf,
}

impl HostInit {
    /// Of the host with these paths, when it is a sandbox's.
    pub fn of(paths: &Paths) -> Option<Self> {
        let socket = paths.resolve("/run/init.sock");
        (!paths.is_real_host() && socket.exists()).then_some(Self { socket })
    }

    fn status(&self, service: Service) -> anyhow::Result<Option<ServiceStatus>> {
        let all: Vec<ServiceStatus> = serde_json::from_str(&ask(&self.socket, "status")?)?;
        Ok(all.into_iter().find(|status| status.service == service))
    }

    fn start(&self, service: Service) -> anyhow::Result<()> {
        let answer = ask(&self.socket, &format!("start {}", service.name()))?;
        anyhow::ensure!(answer == "ok", "{answer}");
        Ok(())
    }

    fn stop(&self, service: Service) -> anyhow::Result<()> {
        let answer = ask(&self.socket, &format!("stop {}", service.name()))?;
        anyhow::ensure!(answer == "ok", "{answer}");
        let ended = wait_for(END_PATIENCE, Duration::from_millis(20), || {
            Ok(self.status(service)?.is_none_or(|status| status.pid.is_none()).then_some(()))
        })?;
        anyhow::ensure!(ended.is_some(), "it does not end within {} s", END_PATIENCE.as_secs());
        Ok(())
    }
}

impl Services for HostInit {
    fn state(&self, service: &str) -> Result<Option<ServiceState>, DeployError> {
        let Some(known) = Service::named(service) else { return Ok(None) };
        let status = self.status(known).map_err(|error| refused("look at", service, &error))?;
        // What is to run is started again by itself, and at the next boot.
        Ok(status.map(|status| ServiceState { is_enabled: status.wanted, is_active: status.wanted }))
    }

    fn set(&self, service: &str, wanted: ServiceState) -> Result<(), DeployError> {
        let Some(known) = Service::named(service) else {
            return Err(DeployError::Refused(format!("hosts of the sandbox have no service {service}")));
        };
        let done = if wanted.is_active { self.start(known) } else { self.stop(known) };
        done.map_err(|error| refused("change", service, &error))
    }

    fn restart(&self, service: &str) -> Result<(), DeployError> {
        let Some(known) = Service::named(service) else {
            return Err(DeployError::Refused(format!("hosts of the sandbox have no service {service}")));
        };
        let done = self.stop(known).and_then(|()| self.start(known));
        done.map_err(|error| refused("restart", service, &error))
    }
}

fn refused(action: &str, service: &str, error: &anyhow::Error) -> DeployError {
    DeployError::Refused(format!("cannot {action} the service {service}: {error:#}"))
}

/// Asks an init one line.
pub(super) fn ask(socket: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
