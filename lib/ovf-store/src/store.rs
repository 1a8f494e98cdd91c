//! Finding the `OVF_STORE` volumes through VDSM, and reading the engine VM's description from the best one.
//!
//! ```text
//!            ┌────────────── known, younger than 30 min ──────────────┐
//!            │                                                        ▼
//!  read ─────┤                                            the OVF from its path ──▶ EngineVm
//!            │                                  not there any more │      │ storage fails
//!            │                                                     ▼      ▼
//!            └─ unknown, or old ──▶ scan: all volumes' descriptions      error; it stays known
//!               (not again within   │
//!               5 min of a scan     ├─ best first: prepare, read ──▶ known
//!               that found none)    └─ none usable ──▶ error, said again until the next scan
//! ```
//!
//! A scan asks VDSM one question for each volume of the domain, which is why it is rare. Prepared volumes stay prepared:
//! other users of the domain, the existing release among them, may need them.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use clock::Monotonic;
use ha_config::shared_file::{SharedFile, UNIT};
use ha_config::{ConfigError, HostedEngineConf};
use uuid::Uuid;
use vdsm_client::{BLANK_UUID, CallError, Client};

use crate::archive::{self, ArchiveError, Bytes};
use crate::description::Description;
use crate::error::OvfError;
use crate::vm::EngineVm;

/// Shortest time between two scans that find nothing.
pub const SCAN_EVERY: Duration = Duration::from_mins(5);
/// A volume is used this long before it is compared with the others again: the engine may be writing to another one now.
pub const RESCAN_EVERY: Duration = Duration::from_mins(30);

/// What is asked of VDSM. Errors mean that nothing is known of what was asked.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// The images of a storage domain.
    async fn images(&self, domain: &str) -> Result<Vec<String>, CallError>;
    /// The volumes of an image.
    async fn volumes(&self, pool: &str, domain: &str, image: &str) -> Result<Vec<String>, CallError>;
    /// A volume's description.
    async fn description(
        &self,
        pool: &str,
        domain: &str,
        volume: &VolumeId,
    ) -> Result<Option<String>, CallError>;
    /// Makes a volume readable, and tells where.
    async fn prepare(&self, pool: &str, domain: &str, volume: &VolumeId) -> Result<PathBuf, CallError>;
}

#[async_trait]
impl Volumes for Client {
    async fn images(&self, domain: &str) -> Result<Vec<String>, CallError> {
        Client::images(self, domain).await
    }

    async fn volumes(&self, pool: &str, domain: &str, image: &str) -> Result<Vec<String>, CallError> {
        Client::volumes(self, Some(pool), domain, image).await
    }

    async fn description(
        &self,
        pool: &str,
        domain: &str,
        volume: &VolumeId,
    ) -> Result<Option<String>, CallError> {
        Ok(self.volume_info(pool, domain, &volume.image, &volume.volume).await?.description)
    }

    async fn prepare(&self, pool: &str, domain: &str, volume: &VolumeId) -> Result<PathBuf, CallError> {
        let prepared = self.image_prepare(pool, domain, &volume.image, &volume.volume).await?;
        Ok(prepared.path.into())
    }
}

/// A volume of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeId {
    /// The image's uuid.
    pub image: String,
    /// The volume's uuid.
    pub volume: String,
}

impl std::fmt::Display for VolumeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.image, self.volume)
    }
}

/// Why there is no description of the engine VM. Until there is one again, the last good one holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// VDSM does not say what is in the storage domain.
    #[error("the OVF_STORE was not looked for: {0}")]
    Vdsm(#[from] CallError),
    /// No volume has the description of one.
    #[error(
        "there is no OVF_STORE in the storage domain {domain} yet: the engine makes it once it manages the domain; \
         until then settings that are changed in the engine do not reach the VM's next start"
    )]
    NotFound {
        /// The storage domain.
        domain: String,
    },
    /// No volume can be used.
    #[error("no OVF_STORE can be used ({}): update the storage domain's OVFs in the engine", list(.0))]
    Unusable(Vec<(VolumeId, ReadError)>),
    /// The volume in use cannot be read now.
    #[error("the OVF_STORE {0} cannot be read: {1}")]
    Storage(VolumeId, String),
}

fn list(all: &[(VolumeId, ReadError)]) -> String {
    let all: Vec<String> = all.iter().map(|(volume, why)| format!("{volume}: {why}")).collect();
    all.join("; ")
}

/// Why one volume cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// VDSM does not make it readable.
    #[error(transparent)]
    Prepare(#[from] CallError),
    /// It is not where it was.
    #[error("{0} is gone")]
    Gone(PathBuf),
    /// The archive in it, or the reading of it.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The OVF is no text.
    #[error("the OVF is not UTF-8")]
    Encoding,
    /// The OVF is not usable.
    #[error(transparent)]
    Ovf(#[from] OvfError),
}

#[derive(Debug, Clone)]
struct Known {
    volume: VolumeId,
    path: PathBuf,
    since: Monotonic,
}

/// The `OVF_STORE` of the hosted engine's storage domain.
pub struct OvfStore<V> {
    vdsm: V,
    conf: HostedEngineConf,
    pool: String,
    domain: String,
    vm: Uuid,
    known: Option<Known>,
    failed: Option<(Monotonic, StoreError)>,
}

impl<V: Volumes> OvfStore<V> {
    /// That of the cluster of `conf`. Asks nothing yet.
    pub fn new(vdsm: V, conf: &HostedEngineConf) -> Result<Self, ConfigError> {
        let id = conf.vmid()?;
        let vm = Uuid::parse_str(id).map_err(|error| ConfigError::Relation {
            path: conf.file().path().to_owned(),
            reason: format!("vmid={id:?} is not the VM's uuid: {error}"),
        })?;
        Ok(Self {
            vdsm,
            pool: conf.sp_uuid().unwrap_or(BLANK_UUID).to_owned(),
            domain: conf.sd_uuid()?.to_owned(),
            vm,
            conf: conf.clone(),
            known: None,
            failed: None,
        })
    }

    /// The engine VM's description as it is now. May take minutes when VDSM is slow, and for ever when storage hangs.
    pub async fn read(&mut self, now: Monotonic) -> Result<EngineVm, StoreError> {
        let is_fresh = |known: &&Known| now.saturating_since(known.since) < RESCAN_EVERY;
        if let Some(known) = self.known.as_ref().filter(is_fresh) {
            match self.read_at(known.path.clone()).await {
                Ok(vm) => return Ok(vm),
                Err(ReadError::Archive(ArchiveError::Storage(why))) => {
                    return Err(StoreError::Storage(known.volume.clone(), why));
                }
                // The engine has another one now: look for it at once.
                Err(_) => self.known = None,
            }
        } else if let Some((at, error)) = &self.failed
            && now.saturating_since(*at) < SCAN_EVERY
        {
            return Err(error.clone());
        }
        self.scan(now).await
    }

    async fn scan(&mut self, now: Monotonic) -> Result<EngineVm, StoreError> {
        let candidates = match (self.candidates().await, &self.known) {
            (Ok(candidates), _) => candidates,
            // It is old, and it still is the best that is known.
            (Err(error), Some(known)) => {
                return self.read_at(known.path.clone()).await.map_err(|_| StoreError::Vdsm(error));
            }
            (Err(error), None) => return Err(StoreError::Vdsm(error)),
        };
        let mut unusable = Vec::new();
        for (_, volume) in candidates {
            match self.prepare_and_read(&volume).await {
                Ok((path, vm)) => {
                    tracing::info!("the engine VM's description is read from the OVF_STORE {volume}");
                    self.known = Some(Known { volume, path, since: now });
                    self.failed = None;
                    return Ok(vm);
                }
                Err(why) => unusable.push((volume, why)),
            }
        }
        let error = if unusable.is_empty() {
            StoreError::NotFound { domain: self.domain.clone() }
        } else {
            StoreError::Unusable(unusable)
        };
        self.known = None;
        self.failed = Some((now, error.clone()));
        Err(error)
    }

    /// The volumes of `OVF_STORE` disks, best first.
    async fn candidates(&self) -> Result<Vec<(Description, VolumeId)>, CallError> {
        let (pool, domain) = (&self.pool, &self.domain);
        let mut candidates = Vec::new();
        for image in self.vdsm.images(domain).await? {
            for volume in unless_refused(self.vdsm.volumes(pool, domain, &image).await)?.unwrap_or_default() {
                let volume = VolumeId { image: image.clone(), volume };
                let text = unless_refused(self.vdsm.description(pool, domain, &volume).await)?.flatten();
                let description = text.and_then(|text| Description::parse(&text, domain));
                candidates.extend(description.map(|description| (description, volume)));
            }
        }
        // Stable: of equal ones VDSM's first.
        candidates.sort_by(|(left, _), (right, _)| right.cmp(left));
        Ok(candidates)
    }

    async fn prepare_and_read(&self, volume: &VolumeId) -> Result<(PathBuf, EngineVm), ReadError> {
        let path = self.vdsm.prepare(&self.pool, &self.domain, volume).await?;
        let path = self.conf.paths().resolve(path);
        let vm = self.read_at(path.clone()).await?;
        Ok((path, vm))
    }

    async fn read_at(&self, path: PathBuf) -> Result<EngineVm, ReadError> {
        let name = format!("{}.ovf", self.vm);
        let read = tokio::task::spawn_blocking(move || {
            let file = match SharedFile::open(&path, false).map_err(ConfigError::from) {
                Ok(file) => file,
                Err(error) if error.is_not_found() => return Err(ReadError::Gone(path)),
                Err(error) => return Err(ArchiveError::Storage(error.to_string()).into()),
            };
            Ok(archive::read(&Units(file), &name)?)
        });
        let bytes = read.await.map_err(|error| ArchiveError::Storage(error.to_string()))??;
        let text = String::from_utf8(bytes).map_err(|_| ReadError::Encoding)?;
        let vm = EngineVm::parse(&text)?;
        vm.require_id(self.vm)?;
        Ok(vm)
    }
}

/// What one image or volume is, when VDSM says that it is not there (any more) or is of no use. Other failures are of
/// the whole question.
fn unless_refused<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::Server { .. }) => Ok(None),
        Err(
            error @ (CallError::Unreachable { .. }
            | CallError::Deadline { .. }
            | CallError::Lost { .. }
            | CallError::Answer { .. }),
        ) => Err(error),
    }
}

/// Direct I/O reads whole units only.
struct Units(SharedFile);

impl Bytes for Units {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, String> {
        let unit = UNIT as u64;
        let skipped = usize::try_from(offset % unit).unwrap_or(0);
        let mut bytes =
            self.0.read(offset - offset % unit, skipped + len).map_err(|error| error.to_string())?;
        bytes.drain(..skipped.min(bytes.len()));
        bytes.truncate(len);
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
