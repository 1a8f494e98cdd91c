//! What the agent does for live migrations: sends the VM, gets ready for it, gives either up.

use std::net::IpAddr;
use std::time::Duration;

use engine_vm::{MigrationTarget, Receiver, VmActivity, VmError};
use metadata_format::HostId;
use tracing::warn;

use super::act::Trouble;
use super::{Agent, CALL_DEADLINE};
use crate::core::{ActionResult, Migrates, Migration};

/// Longest time that beginning to send may take (not: the sending).
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that getting ready may take: a hypervisor process starts, some times if ports are taken.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that ending what waits for a VM may take.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// So many ports are tried.
const PORT_TRIES: usize = 5;

impl Agent {
    /// Whether the VM can be moved while it runs, as its adapter says.
    pub(super) fn migrates(&self) -> Migrates {
        match self.ports.vm.receiver() {
            Receiver::Prepared => Migrates::Prepared,
            Receiver::Arranged { .. } => Migrates::Arranged,
            Receiver::Never { why } => Migrates::Never { why },
        }
    }

    /// How far a migration away from here is. It is asked for only while there may be one.
    pub(super) async fn migration(&self) -> Option<Migration> {
        use engine_vm::MigrationProgress as Progress;
        match tokio::time::timeout(CALL_DEADLINE, self.ports.vm.migration_progress()).await {
            Ok(Ok(Progress::Active { transferred, remaining })) => {
                Some(Migration::InProgress { transferred, remaining })
            }
            Ok(Ok(Progress::Completed)) => Some(Migration::Finished),
            Ok(Ok(Progress::Failed { detail })) => Some(Migration::Failed { detail }),
            Ok(Ok(Progress::None)) => None,
            Ok(Err(error)) => {
                warn!("how far the migration is cannot be said: {error}");
                Some(Migration::Unknown)
            }
            Err(_) => Some(Migration::Unknown),
        }
    }

    /// Begins to send the VM to the host `to`.
    pub(super) async fn send_vm(&self, to: HostId) -> Result<(), Trouble> {
        let target = self.target(to).map_err(Trouble::Other)?;
        let vm = self.ports.vm.clone();
        let sent = async {
            match vm.migrate(&target).await {
                // Nothing was sent: not what was asked for.
                Err(VmError::NotRunning) => {
                    Err(VmError::Failed { action: "migrate", detail: VmError::NotRunning.to_string() })
                }
                other => other,
            }
        };
        self.attend(SEND_DEADLINE, sent).await
    }

    /// Where the host `to` receives the VM.
    fn target(&self, to: HostId) -> Result<MigrationTarget, String> {
        let view = self.core.view.as_ref().ok_or("nothing was looked at yet")?;
        match self.ports.vm.receiver() {
            Receiver::Never { why } => Err(why),
            Receiver::Prepared => {
                let uri = view.ready_at(to, self.config.settings.host_id);
                let uri = uri.ok_or_else(|| format!("host {to} is not ready to receive the VM"))?;
                Ok(MigrationTarget { uri: uri.to_owned() })
            }
            Receiver::Arranged { uri } => {
                let block =
                    view.look.hosts.iter().find(|host| host.id == to).and_then(|host| host.block.as_ref());
                let name = &block.ok_or_else(|| format!("host {to} has no readable block"))?.hostname;
                let is_name = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
                if name.is_empty() || !name.chars().all(is_name) {
                    return Err(format!("host {to} is called {name:?}, which is no name to reach it by"));
                }
                Ok(MigrationTarget { uri: uri.replace("{host}", name) })
            }
        }
    }

    /// Gets this host ready to receive the VM.
    pub(super) async fn receive_vm(&self) -> ActionResult {
        let (listen, told) = self.listens_at().await;
        let mut trouble = "no port was tried".to_owned();
        for port in self.config.receives.ports.all().take(PORT_TRIES) {
            let target = MigrationTarget { uri: format!("tcp:{listen}:{port}") };
            let vm = self.ports.vm.clone();
            let mut ready = None;
            let prepared = async {
                ready = Some(vm.prepare_incoming(&target).await?.uri);
                Ok(())
            };
            let result = self.attend(READY_DEADLINE, prepared).await;
            match (result, ready) {
                (Ok(()), Some(uri)) => {
                    let prefix = format!("tcp:{listen}:");
                    let uri =
                        uri.strip_prefix(&prefix).map(|port| format!("tcp:{told}:{port}")).unwrap_or(uri);
                    return ActionResult::Ready { uri };
                }
                (Ok(()), None) => {
                    return ActionResult::Failed { detail: "there is a VM on this host already".to_owned() };
                }
                (Err(error), _) => trouble = format!("{error} (port {port})"),
            }
        }
        warn!("this host cannot get ready to receive the engine VM: {trouble}");
        ActionResult::Failed { detail: trouble }
    }

    /// The address to listen at, and the one to tell the source.
    async fn listens_at(&self) -> (String, String) {
        let in_uri = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let receives = &self.config.receives;
        let address = match &receives.address {
            Some(own) => Some(own.parse().map_or_else(|_| own.clone(), in_uri)),
            None => match self.ports.addresses.of_link(&receives.bridge).await {
                Ok(address) => address.map(in_uri),
                Err(error) => {
                    warn!("the address of this host's bridge {} is not known: {error}", receives.bridge);
                    None
                }
            },
        };
        match address {
            Some(address) => (address.clone(), address),
            // The name may mean the loopback address on this host itself.
            None => ("0.0.0.0".to_owned(), self.config.hostname.clone()),
        }
    }

    /// Ends what waits for a VM. A guest that has begun to run here meanwhile is left alone.
    pub(super) async fn end_arrival(&self) -> Result<(), Trouble> {
        let vm = self.ports.vm.clone();
        let end = async {
            match vm.status().await?.activity {
                VmActivity::MigrationDestination => vm.destroy().await,
                VmActivity::Down => Ok(()),
                other => Err(VmError::Failed {
                    action: "end what waits for the VM",
                    detail: format!("it is {} now", other.word()),
                }),
            }
        };
        self.attend(END_DEADLINE, end).await
    }

    /// Calls the migration off.
    pub(super) async fn cancel_migration(&self) -> Result<(), Trouble> {
        let vm = self.ports.vm.clone();
        self.attend(SEND_DEADLINE, vm.migrate_cancel()).await
    }
}
