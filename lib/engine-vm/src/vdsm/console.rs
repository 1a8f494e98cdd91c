//! The VM's consoles.

use std::net::IpAddr;
use std::time::Duration;

use vdsm_client::{ConsoleKind as Protocol, DisplayInfo};

use super::look::Inner;
use super::words::activity;
use super::{failed, trouble};
use crate::port::{ConsoleAddress, ConsoleKind, VmActivity, VmError};

const PASSWORD: &str = "set the console password";
const CONSOLE: &str = "tell its console";

impl Inner {
    async fn displays(&self, action: &'static str) -> Result<Vec<(Protocol, DisplayInfo)>, VmError> {
        let stats = self.stats().await.map_err(|error| trouble(action, &error))?;
        if activity(&stats)? == VmActivity::Down {
            return Err(VmError::NotRunning);
        }
        let known = |display: DisplayInfo| match display.kind.as_deref() {
            Some("vnc") => Some((Protocol::Vnc, display)),
            Some("spice") => Some((Protocol::Spice, display)),
            Some(_) | None => None,
        };
        let displays: Vec<_> = stats.display_info.into_iter().filter_map(known).collect();
        if displays.is_empty() {
            return Err(failed(action, "it has no graphical one"));
        }
        Ok(displays)
    }

    /// On every screen that it has. Who is connected stays so.
    pub async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        for (protocol, _) in self.displays(PASSWORD).await? {
            let valid = valid.max(Duration::from_secs(1));
            let set = self.vdsm.vm_set_ticket(&self.vm_id, protocol, password, valid).await;
            // VDSM does not repeat it, and if one ever does it ends here.
            set.map_err(|error| trouble(PASSWORD, &error).without(password))?;
        }
        Ok(())
    }

    pub async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        match kind {
            ConsoleKind::Serial => self.serial().await,
            ConsoleKind::Graphical => self.graphical().await,
        }
    }

    async fn graphical(&self) -> Result<ConsoleAddress, VmError> {
        for (protocol, display) in self.displays(CONSOLE).await? {
            let Some(port) = display.port.or(display.tls_port) else { continue };
            // 0 and 0.0.0.0 are all of this host's addresses.
            let host = match display.address.as_deref() {
                None | Some("" | "0" | "0.0.0.0" | "::") => "localhost",
                Some(address) => address,
            };
            let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
            let address = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let kind = match protocol {
                Protocol::Vnc => "vnc",
                Protocol::Spice => "spice",
            };
            return Ok(ConsoleAddress { kind: kind.to_owned(), address });
        }
        Err(failed(CONSOLE, "its screen has no port yet; ask again in some seconds"))
    }

    /// A VM whose console is a socket has it where ovirt-vmconsole looks for it.
    async fn serial(&self) -> Result<ConsoleAddress, VmError> {
        let stats = self.stats().await.map_err(|error| trouble(CONSOLE, &error))?;
        if activity(&stats)? == VmActivity::Down {
            return Err(VmError::NotRunning);
        }
        let socket = format!("/run/ovirt-vmconsole-console/{}.sock", self.vm_id);
        let socket = self.conf.paths().resolve(socket);
        if socket.exists() {
            return Ok(ConsoleAddress { kind: "serial".to_owned(), address: socket.display().to_string() });
        }
        Err(failed(
            CONSOLE,
            format!(
                "{} is not there; reach the console by libvirt: virsh -c \
                 qemu:///system?authfile=/etc/ovirt-hosted-engine/virsh_auth.conf console {}",
                socket.display(),
                self.vm_id
            ),
        ))
    }
}
