//! The note that a move leaves on the former storage: `moved.conf` in the cluster's configuration there, a
//! hosted-engine.conf with the new storage. Tools that do not know it leave it alone.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use clock::{Clock as _, SystemClock};
use ha_config::conf_archive::{self, Archive};
use ha_config::conf_volume::{self, ConfVolume, Write};
use ha_config::shared_file::Lock;
use ha_config::{HostedEngineConf, Paths};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::former;
use crate::deploy::{DeployError, Undo, Undone, World};
use crate::setup::SetupError;

/// Its name in the archive.
const NAME: &str = "moved.conf";
/// How long a look for it may take.
const LOOK: Duration = Duration::from_secs(1);

fn refused(error: impl std::fmt::Display) -> DeployError {
    DeployError::Refused(error.to_string())
}

fn volume(conf: &HostedEngineConf) -> Result<PathBuf, DeployError> {
    conf.conf_volume_path()?.ok_or_else(|| {
        DeployError::Refused(
            "this cluster has no configuration volume on shared storage: nothing there can say where it moved".to_owned(),
        )
    })
}

/// Where the cluster of this storage moved; `None` when it did not.
///
/// # Errors
/// When the configuration there cannot be read.
pub(super) fn read(conf: &HostedEngineConf) -> Result<Option<HostedEngineConf>, DeployError> {
    let archive = conf_volume::read(&volume(conf)?).map_err(refused)?;
    let text = archive.content(NAME).map(|text| String::from_utf8_lossy(text).into_owned());
    Ok(text.map(|text| HostedEngineConf::parse(conf.paths(), &text)))
}

/// Where the cluster whose configuration volume this is has gone, for people; `None` when it did not.
///
/// # Errors
/// When the volume cannot be read.
pub fn left_for(volume: &Path) -> Result<Option<String>, DeployError> {
    let archive = conf_volume::read(volume).map_err(refused)?;
    let Some(text) = archive.content(NAME) else { return Ok(None) };
    Ok(Some(place(&HostedEngineConf::parse(&Paths::default(), &String::from_utf8_lossy(text)))))
}

fn place(to: &HostedEngineConf) -> String {
    let kind = to.domain_type().map_or("", ha_config::DomainType::word);
    let (storage, sd) = (to.storage().unwrap_or("another device"), to.sd_uuid().unwrap_or("unknown"));
    format!("{kind} {storage}, storage domain {sd}")
}

/// Whether the note names this domain.
///
/// # Errors
/// As [`read`].
pub(super) fn is_to(conf: &HostedEngineConf, sd: Uuid) -> Result<bool, DeployError> {
    Ok(read(conf)?.is_some_and(|note| note.sd_uuid().is_ok_and(|uuid| uuid == sd.to_string())))
}

/// The archive with this note, or without any.
fn with(old: &Archive, note: Option<&str>) -> Result<Archive, DeployError> {
    let archive = |error: conf_archive::ArchiveError| DeployError::Setup(SetupError::from(error));
    let mut files = conf_archive::read(&old.encode().map_err(archive)?).map_err(archive)?;
    files.remove(NAME);
    if let Some(note) = note {
        files.insert(NAME.to_owned(), note.as_bytes().to_vec());
    }
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let now = u64::try_from(SystemClock.wall().0).unwrap_or(0);
    Archive::parse(&conf_archive::write(&files, now).map_err(archive)?).map_err(archive)
}

/// Writes the note, or removes it.
fn set(conf: &HostedEngineConf, note: Option<&str>) -> Result<(), DeployError> {
    let path = volume(conf)?;
    let volume = ConfVolume::open(&path).map_err(refused)?;
    if volume.try_lock().map_err(refused)? == Lock::Busy {
        return Err(DeployError::Refused(format!(
            "{}: another host changes the cluster's configuration now: try again",
            path.display()
        )));
    }
    let old = volume.read().map_err(refused)?;
    if old.content(NAME) == note.map(str::as_bytes) {
        return Ok(());
    }
    match volume.write(&old, &with(&old, note)?).map_err(refused)? {
        Write::Done => Ok(()),
        Write::Overtaken => Err(DeployError::Refused(format!(
            "{} was changed by somebody else a moment ago: try again",
            path.display()
        ))),
    }
}

/// Writes it: `text` is the cluster's new hosted-engine.conf.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(world: &World<'_>, text: &str) -> Result<(), DeployError> {
    set(&former(world)?.conf(world.paths), Some(text))
}

/// The note on the former storage, of a move to this domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedFormer {
    /// The new domain.
    pub sd: Uuid,
}

impl Undo for ClosedFormer {
    fn describe(&self) -> String {
        format!("note on the former storage that the cluster moved to the domain {}", self.sd)
    }

    fn describe_undo(&self) -> String {
        "removed, while no host has lost the former storage yet".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        let conf = former(world)?.conf(world.paths);
        if !is_to(&conf, self.sd)? {
            return Ok(Undone::Absent);
        }
        set(&conf, None)?;
        Ok(Undone::TakenBack)
    }

    /// With it goes the proof that it was this move that closed the former storage.
    fn outlives_a_cut(&self) -> bool {
        true
    }
}

/// What a host that has not followed is told; `None` on a host whose cluster did not move, and where storage does not
/// answer soon.
pub fn moved_notice(conf: &HostedEngineConf) -> Option<String> {
    let (tell, told) = mpsc::channel();
    let asked = conf.clone();
    std::thread::spawn(move || {
        // A read of storage that hangs does not come back: nobody may listen any more.
        let _ = tell.send(read(&asked).ok().flatten());
    });
    let to = told.recv_timeout(LOOK).ok().flatten()?;
    Some(format!(
        "The cluster moved to other storage: {}. This host still looks at the former one, from where the engine VM cannot be \
         started any more. Run here: hosted-engine --move-storage --follow",
        place(&to),
    ))
}
