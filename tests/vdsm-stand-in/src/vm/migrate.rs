//! Live migration to another host's stand-in, which is asked, as VDSM asks VDSM, to get ready for it.

use std::sync::Arc;
use std::time::Duration;

use engine_vm::{EngineVm, MigrationProgress, MigrationTarget, VmActivity};
use serde_json::{Map, Value, json};
use vdsm_client::{Client, Settings};

use super::Vms;
use super::description::Description;
use super::exit::{Exit, Reason};
use super::life::Vm;
use crate::{Failure, lock};

/// How long the other side may take to get ready: it starts a QEMU.
const READY: Duration = Duration::from_mins(2);
/// How long it may take to tidy up.
const TIDY: Duration = Duration::from_secs(20);
/// Pause between two looks at the progress: QEMU tells it only when asked.
const LOOK: Duration = Duration::from_millis(200);

/// How far an outgoing migration is.
#[derive(Debug, Clone, Default)]
pub(super) enum Migration {
    /// There was none.
    #[default]
    None,
    /// The other side gets ready.
    Preparing,
    /// Memory is moved: so many percent of it were.
    Moving(u64),
    /// The guest runs there.
    Done,
    /// The guest goes on here.
    Failed(String),
}

impl Migration {
    pub const fn is_preparing(&self) -> bool {
        matches!(self, Self::Preparing | Self::Moving(_))
    }

    /// In percent, while it is under way.
    pub const fn progress(&self) -> Option<u64> {
        match self {
            Self::Preparing => Some(0),
            Self::Moving(percent) => Some(*percent),
            Self::None | Self::Done | Self::Failed(_) => None,
        }
    }

    fn status(&self) -> Value {
        let (code, message, progress) = match self {
            // As VDSM for a VM that never moved.
            Self::None => (0, "No migration in progress".to_owned(), 0),
            Self::Preparing => (0, "Migration in progress".to_owned(), 0),
            Self::Moving(percent) => (0, "Migration in progress".to_owned(), *percent),
            Self::Done => (0, "Migration done".to_owned(), 100),
            Self::Failed(detail) => {
                let failure = Failure::migration(detail);
                (failure.code, failure.message, 0)
            }
        };
        json!({"status": {"code": code, "message": message}, "progress": progress})
    }
}

impl Vm {
    /// `VM.getMigrationStatus`.
    pub fn migration_status(&self) -> Value {
        lock(&self.state).migration.status()
    }

    /// `VM.migrateCancel`.
    pub async fn migrate_cancel(&self) -> Result<Value, Failure> {
        if !lock(&self.state).migration.is_preparing() {
            return Err(Failure::migration("no migration is under way"));
        }
        let qemu = self.qemu().ok_or_else(|| Failure::migration("the VM does not run"))?;
        qemu.migrate_cancel().await.map_err(|error| Failure::migration(&error.to_string()))?;
        Ok(Value::Null)
    }

    fn set_migration(&self, migration: Migration) {
        lock(&self.state).migration = migration;
    }

    /// Moves the guest to `client`'s host, whose QEMU is reached at `address`.
    async fn send(&self, client: &Client, address: &str) -> Result<(), String> {
        let params = json!({"vmID": self.id(), "params": self.description().to_params(), "incomingLimit": 2});
        let ready =
            client.call("VM.migrationCreate", params, READY).await.map_err(|error| error.to_string())?;
        let port = ready["migrationPort"].as_u64().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("the destination gave no port: {ready}"))?;
        let qemu = self.qemu().ok_or("it does not run")?;
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let target = MigrationTarget { uri: format!("tcp:{address}:{port}") };
        qemu.migrate(&target).await.map_err(|error| error.to_string())?;
        loop {
            match qemu.migration_progress().await {
                Ok(MigrationProgress::Completed) => return Ok(()),
                Ok(MigrationProgress::Failed { detail }) => return Err(detail),
                Ok(MigrationProgress::Active { transferred, remaining }) => {
                    let percent = transferred.saturating_mul(100) / (transferred + remaining).max(1);
                    self.set_migration(Migration::Moving(percent.min(99)));
                }
                // Destroyed, as a VM that is down may be at any time.
                Ok(MigrationProgress::None) if self.has_left() => return Ok(()),
                Ok(MigrationProgress::None) if self.is_down() => return Err("the VM ended".to_owned()),
                Ok(MigrationProgress::None) | Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gets ready to receive it; the port at which QEMU listens.
    async fn receive(self: &Arc<Self>) -> Result<u16, String> {
        self.keep(|record| record.is_incoming = true);
        let listen = MigrationTarget { uri: "tcp:0.0.0.0:0".to_owned() };
        let (qemu, _) = self.prepare().await?;
        let target = qemu.prepare_incoming(&listen).await.map_err(|error| error.to_string())?;
        let port = target.uri.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.apply(VmActivity::MigrationDestination);
        port.ok_or_else(|| format!("QEMU listens at {:?}", target.uri))
    }
}

impl Vms {
    /// `VM.migrate`: answers at once and goes on in the background.
    pub fn migrate(&self, id: &str, params: &Map<String, Value>) -> Result<Value, Failure> {
        let vm = self.find(id)?;
        let text = |name: &str| params.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let destination = text("dst").ok_or_else(|| Failure::invalid_parameter("dst", ""))?;
        if text("mode").is_some_and(|mode| mode != "remote") {
            return Err(Failure::migration("only mode \"remote\" is known here"));
        }
        let settings = &self.context.settings;
        let (host, port) = host_and_port(destination, settings.port)?;
        let address = text("dstqemu").unwrap_or(&host).to_owned();
        {
            let mut state = lock(&vm.state);
            if state.activity != VmActivity::Up {
                return Err(Failure::migration(&format!("the VM is not Up but {}", state.activity.word())));
            }
            state.migration = Migration::Preparing;
        }
        vm.apply(VmActivity::Up);
        let client = Client::new(Settings::new(host, port, settings.tls.clone()));
        tokio::spawn(async move {
            match vm.send(&client, &address).await {
                Ok(()) => vm.set_migration(Migration::Done),
                Err(detail) => {
                    tracing::warn!("VM {} did not migrate: {detail}", vm.id());
                    vm.set_migration(Migration::Failed(detail));
                    // What got ready there is of no use any more.
                    let _ = client.call("VM.destroy", json!({"vmID": vm.id()}), TIDY).await;
                }
            }
        });
        Ok(Value::Null)
    }

    /// `VM.migrationCreate`: answers when the VM can arrive.
    pub async fn migration_create(&self, id: &str, params: Map<String, Value>) -> Result<Value, Failure> {
        let description = Description::of_params(&params).map_err(|error| Failure::cannot_create(&error))?;
        let vm = self.add(Some(id.to_owned()), description, |_| {}).await?;
        let ready = vm.receive().await;
        vm.launched();
        match ready {
            Ok(port) => {
                tokio::spawn(vm.clone().follow());
                // VDSM answers 0, and libvirt finds its own way; here QEMU's port goes this way.
                Ok(json!({"params": {"vmId": id, "status": "Migration Destination"}, "migrationPort": port}))
            }
            Err(detail) => {
                tracing::warn!("VM {id} cannot arrive: {detail}");
                vm.down(Exit::new(Reason::MigrationFailed));
                Err(Failure::cannot_create(&detail))
            }
        }
    }
}

/// `host`, `host:port` or `[address]:port`.
fn host_and_port(text: &str, default: u16) -> Result<(String, u16), Failure> {
    let wrong = || Failure::invalid_parameter("dst", text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let ok = |text: &str| host_and_port(text, 54321).unwrap();
        assert_eq!(ok("host2"), ("host2".to_owned(), 54321));
        assert_eq!(ok("host2:1"), ("host2".to_owned(), 1));
        assert_eq!(ok("[fd00::2]:1"), ("fd00::2".to_owned(), 1));
        for wrong in ["", ":1", "host2:x", "[fd00::2"] {
            assert_eq!(host_and_port(wrong, 1).unwrap_err().code, 1000, "{wrong}");
        }
    }
}
