//! The way to the storage domain, and back.

use std::path::PathBuf;

use ha_config::hosted_engine::DomainType;
use ha_config::{HostedEngineConf, Paths};
use vdsm_client::{BLANK_UUID, CallError, Client, ConnectionStatus, DomainInfo, code};

use crate::connections::{Connections, PathForm};
use crate::error::{DomainError, Failure};
use crate::iscsi::{self, Interface};
use crate::link::{Link, Made};
use crate::step::{Step, Volume};

/// Is told of each step before it begins.
pub type OnStep<'a> = &'a (dyn Fn(&Step) + Send + Sync);

/// The storage server is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connected {
    /// What is not as it should be, and does not keep anything from working: paths that failed beside others.
    pub warnings: Vec<String>,
}

/// Everything is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Bytes in a sector of the storage, where VDSM tells: 512 or 4096.
    pub block_size: Option<u32>,
    /// The prepared metadata volume.
    pub metadata: PathBuf,
    /// The prepared lockspace volume.
    pub lockspace: PathBuf,
    /// The prepared configuration volume, where the cluster has one and it could be prepared.
    pub configuration: Option<PathBuf>,
    /// See [`Connected::warnings`].
    pub warnings: Vec<String>,
}

/// This host's storage domain.
#[derive(Clone)]
pub struct StorageDomain {
    vdsm: Client,
    conf: HostedEngineConf,
    interfaces: fn(&Paths) -> Result<Vec<Interface>, String>,
}

impl StorageDomain {
    /// The domain that `conf` names.
    pub fn new(vdsm: Client, conf: HostedEngineConf) -> Self {
        Self { vdsm, conf, interfaces: iscsi::interfaces }
    }

    /// With another list of iSCSI interfaces than the one of `iscsiadm`.
    #[must_use]
    pub fn with_interfaces(mut self, interfaces: fn(&Paths) -> Result<Vec<Interface>, String>) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// Connects the storage server and has VDSM look at the domain. Fine when it is connected already. Good when one of
    /// several iSCSI paths is.
    ///
    /// Waits for `iscsiadm` without yielding, and looks at mount points: call it where that may take a while.
    ///
    /// # Errors
    /// VDSM is not up, refuses, or cannot make any connection; the configuration has not what is needed.
    pub async fn connect(&self, on_step: OnStep<'_>) -> Result<Connected, DomainError> {
        let mut warnings = Vec::new();
        self.wait_for_vdsm(on_step).await?;
        self.check_mount(on_step).await?;
        let connections = self.connections(PathForm::Normal, on_step, &mut warnings)?;
        if !connections.list.is_empty() {
            let step = Step::Connect { what: labels(&connections) };
            on_step(&step);
            let number = connections.domain_type;
            let asked = self.vdsm.connect_storage_server(self.pool(), number, connections.reveal());
            let answer = asked.await.map_err(|error| redacted(&step, &connections, &error))?;
            let failures = failures(&connections, &answer);
            if failures.len() == connections.list.len() {
                return Err(DomainError::NotConnected(failures));
            }
            warnings
                .extend(failures.iter().map(|failure| format!("a path to the storage failed: {failure}")));
            warnings.extend(blacklist_advice(&connections, &answer));
        }
        on_step(&Step::Refresh);
        // Asked for what it does, not for what it says: VDSM builds the domain's tree below /rhev anew.
        if let Err(error) = self.vdsm.domain_stats(self.conf.sd_uuid()?).await {
            tracing::debug!("refreshing the storage domain: {error}");
        }
        Ok(Connected { warnings })
    }

    /// Connects, prepares the volumes of the HA services, and makes the links to them. All of it may be done already.
    ///
    /// Blocks its thread while storage hangs: call it on a thread that nobody waits for.
    ///
    /// # Errors
    /// The step that failed, why, and what to do. Only the configuration volume may be missing: that is a warning.
    pub async fn bring_up(&self, on_step: OnStep<'_>) -> Result<Ready, DomainError> {
        let Connected { mut warnings } = self.connect(on_step).await?;
        on_step(&Step::Find);
        let sd = self.conf.sd_uuid()?;
        let info = self.vdsm.domain_info(sd).await.map_err(|error| match error.code() {
            Some(code::NO_SUCH_DOMAIN) => DomainError::NoDomain { sd: sd.to_owned() },
            Some(_) | None => DomainError::call(&Step::Find, &error),
        })?;
        let (image, uuid) = (self.conf.metadata_image()?, self.conf.metadata_volume()?);
        let metadata = self.prepare(Volume::Metadata, image, uuid, on_step).await?;
        self.link(Volume::Metadata, (image, uuid), &metadata, on_step)?;
        let (image, uuid) = (self.conf.lockspace_image()?, self.conf.lockspace_volume()?);
        let lockspace = self.prepare(Volume::Lockspace, image, uuid, on_step).await?;
        self.link(Volume::Lockspace, (image, uuid), &lockspace, on_step)?;
        let configuration = match (self.conf.conf_image(), self.conf.conf_volume()) {
            (Some(image), Some(uuid)) => {
                let prepared = self.prepare(Volume::Configuration, image, uuid, on_step).await;
                prepared.inspect_err(|error| warnings.push(error.to_string())).ok()
            }
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        Ok(Ready { block_size: info.block_size, metadata, lockspace, configuration, warnings })
    }

    /// Disconnects the storage server. The caller has made sure that nobody here needs it.
    ///
    /// # Errors
    /// VDSM is not up or refuses, or connections stay: something uses them.
    pub async fn disconnect(&self, on_step: OnStep<'_>) -> Result<(), DomainError> {
        self.wait_for_vdsm(on_step).await?;
        let connections = self.connections(PathForm::AsWritten, on_step, &mut Vec::new())?;
        if connections.list.is_empty() {
            return Ok(());
        }
        let step = Step::Disconnect { what: labels(&connections) };
        on_step(&step);
        let number = connections.domain_type;
        let asked = self.vdsm.disconnect_storage_server(self.pool(), number, connections.reveal());
        let answer = asked.await.map_err(|error| redacted(&step, &connections, &error))?;
        let failures = failures(&connections, &answer);
        if failures.is_empty() { Ok(()) } else { Err(DomainError::NotDisconnected(failures)) }
    }

    async fn wait_for_vdsm(&self, on_step: OnStep<'_>) -> Result<(), DomainError> {
        on_step(&Step::Vdsm);
        self.vdsm.ping().await.map_err(|error| DomainError::call(&Step::Vdsm, &error))
    }

    /// The pool's uuid; VDSM has not looked at it for long, and schemas want one.
    fn pool(&self) -> &str {
        self.conf.sp_uuid().unwrap_or(BLANK_UUID)
    }

    fn connections(
        &self,
        form: PathForm,
        on_step: OnStep<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Connections, DomainError> {
        let mut interfaces = Vec::new();
        if self.conf.domain_type()? == DomainType::Iscsi {
            on_step(&Step::Interfaces);
            interfaces = (self.interfaces)(self.conf.paths()).unwrap_or_else(|error| {
                warnings.push(format!("{error}; paths are not bound to interfaces"));
                Vec::new()
            });
        }
        let mut new_id = || uuid::Uuid::new_v4().to_string();
        Ok(Connections::of_host(&self.conf, form, &interfaces, &mut new_id)?)
    }

    /// Releases before 3.6 mounted `server:/path/` under a name of its own; the same storage must not be mounted a second
    /// time beside it.
    async fn check_mount(&self, on_step: OnStep<'_>) -> Result<(), DomainError> {
        if self.conf.domain_type()?.is_block() {
            return Ok(());
        }
        on_step(&Step::Find);
        let Ok(DomainInfo { remote_path: Some(remote), .. }) =
            self.vdsm.domain_info(self.conf.sd_uuid()?).await
        else {
            return Ok(());
        };
        let expected = self.conf.storage_domain_dir()?;
        let sd = expected.file_name().unwrap_or_default();
        let mounts = self.conf.mount_dir()?;
        let actual = mounts.with_file_name(remote.replace('_', "__").replace('/', "_")).join(sd);
        if actual != expected && actual.is_dir() {
            return Err(DomainError::OtherMount { expected, actual });
        }
        Ok(())
    }

    async fn prepare(
        &self,
        volume: Volume,
        image: &str,
        uuid: &str,
        on_step: OnStep<'_>,
    ) -> Result<PathBuf, DomainError> {
        on_step(&Step::Prepare(volume));
        // This host need not be in a storage pool, and with another one than the blank one VDSM wants it to be.
        let prepared = self.vdsm.image_prepare(BLANK_UUID, self.conf.sd_uuid()?, image, uuid).await;
        let prepared = prepared.map_err(|error| DomainError::prepare(volume, image, uuid, &error))?;
        Ok(self.conf.paths().resolve(prepared.path))
    }

    fn link(
        &self,
        volume: Volume,
        (image, uuid): (&str, &str),
        prepared: &std::path::Path,
        on_step: OnStep<'_>,
    ) -> Result<(), DomainError> {
        let Some(name) = volume.link_name() else { return Ok(()) };
        on_step(&Step::Link(name));
        let domain = self.conf.storage_domain_dir()?;
        let is_shared = !self.conf.domain_type()?.is_block();
        let shared = is_shared.then(|| PathBuf::from(format!("../images/{image}/{uuid}")));
        let host = self.conf.host_id()?.map_or(0, metadata_format::HostId::get);
        let link = Link { domain: &domain, name, volume: prepared, shared_target: shared.as_deref(), host };
        match link.ensure()? {
            Made::Kept => tracing::debug!("ha_agent/{name} leads to the {volume}"),
            Made::New => tracing::info!("made the link ha_agent/{name} to the {volume}"),
            Made::Replaced => {
                tracing::warn!("the link ha_agent/{name} led elsewhere; now it leads to the {volume}");
            }
        }
        Ok(())
    }
}

fn labels(connections: &Connections) -> String {
    let labels: Vec<&str> = connections.list.iter().map(|connection| connection.label.as_str()).collect();
    labels.join(", ")
}

/// VDSM's errors may repeat what it was asked.
fn redacted(step: &Step, connections: &Connections, error: &CallError) -> DomainError {
    DomainError::Call { step: step.clone(), problem: connections.redact(&error.to_string()) }
}

/// The connections that are not as they were asked for. One that the answer does not name counts as failed.
fn failures(connections: &Connections, answer: &[ConnectionStatus]) -> Vec<Failure> {
    const UNNAMED: i64 = 100;
    let of = |id: &str| answer.iter().find(|status| status.id == id).map_or(UNNAMED, |status| status.status);
    let all = connections.list.iter().map(|connection| (connection, of(&connection.id)));
    all.filter(|(_, code)| *code != 0)
        .map(|(connection, code)| Failure { label: connection.label.clone(), code })
        .collect()
}

/// How to leave out paths that fail by design, when it is more than one.
fn blacklist_advice(connections: &Connections, answer: &[ConnectionStatus]) -> Option<String> {
    let failed = |id: &str| answer.iter().any(|status| status.id == id && status.status != 0);
    let bound = connections.list.iter().filter(|connection| failed(&connection.id));
    let paths: Vec<&str> = bound.filter_map(|connection| connection.path.as_deref()).collect();
    (paths.len() > 1).then(|| {
        format!(
            "paths that cannot work by design can be left out in hosted-engine.conf: iscsi_paths_blacklist={}",
            paths.join(",")
        )
    })
}
