//! Finding a cluster on storage, and a place in it: which host ids are in use, by whom, and which is free.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ha_config::KeyValueFile;
use metadata_format::{BLOCK_SIZE, HostBlock, HostId, MAX_HOST_ID, parse_blocks};
use sanlock_client::DeltaRecord;
use uuid::Uuid;

use super::FoundDomain;
use crate::delta_lease;
use crate::setup::volume::{CONFIGURATION, LOCKSPACE, METADATA};
use crate::setup::{SetupError, io};
use crate::shared_file::SharedFile;

/// The domains that carry a hosted engine, complete ones only, in the order of their uuids.
///
/// # Errors
/// When the directory cannot be read.
pub fn carriers(mount: &Path) -> Result<Vec<(Uuid, PathBuf)>, SetupError> {
    let mut all = Vec::new();
    for path in subdirectories(mount)? {
        let uuid = path.file_name().and_then(|name| Uuid::try_parse(name.to_str()?).ok());
        all.extend(uuid.filter(|_| path.join("ha_agent").is_dir()).map(|uuid| (uuid, path)));
    }
    Ok(all)
}

/// The domains with a hosted engine and its configuration.
///
/// # Errors
/// When a directory cannot be read.
pub fn in_directory(mount: &Path) -> Result<Vec<FoundDomain>, SetupError> {
    let mut all = Vec::new();
    for (sd_uuid, path) in carriers(mount)? {
        all.extend(configuration_of(&path)?.map(|configuration| FoundDomain { sd_uuid, configuration }));
    }
    Ok(all)
}

/// The one that is meant: there must be exactly one, or the one with the uuid.
///
/// # Errors
/// When there is none, or several; with what to do.
pub fn the_one(
    found: Vec<FoundDomain>,
    sd_uuid: Option<Uuid>,
    place: &str,
) -> Result<FoundDomain, SetupError> {
    let refused = |text: String| Err(SetupError::Refused(text));
    let all: Vec<String> = found.iter().map(|found| found.sd_uuid.to_string()).collect();
    let mut found = found.into_iter().filter(|found| sd_uuid.is_none_or(|uuid| uuid == found.sd_uuid));
    match (found.next(), found.next(), sd_uuid) {
        (Some(found), None, _) => Ok(found),
        (Some(_), Some(_), _) => refused(format!(
            "there are {} hosted engines on {place}: {}; remove those that are not in use",
            all.len(),
            all.join(", ")
        )),
        (None, _, Some(uuid)) if !all.is_empty() => {
            refused(format!("{place} has no storage domain {uuid}, but {}", all.join(", ")))
        }
        (None, ..) => refused(format!(
            "{place}: there is no hosted engine on this storage; deploy the first host (hosted-engine --deploy \
             without --join)"
        )),
    }
}

/// The configuration volume of a storage domain of files.
///
/// # Errors
/// When a directory or a description cannot be read.
pub fn configuration_of(domain: &Path) -> Result<Option<PathBuf>, SetupError> {
    for image in subdirectories(&domain.join("images"))? {
        for entry in fs::read_dir(&image).map_err(io("read", &image))? {
            let path = entry.map_err(io("read", &image))?.path();
            if path.extension().is_some_and(|extension| extension == "meta")
                && KeyValueFile::load(&path)?.get("DESCRIPTION") == Some(CONFIGURATION)
            {
                return Ok(Some(path.with_extension("")));
            }
        }
    }
    Ok(None)
}

fn subdirectories(path: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).map_err(io("read", path))? {
        let entry = entry.map_err(io("read", path))?;
        if entry.path().is_dir() && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

/// What the storage knows of a host id that is, or was, in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The host's name in its block; `Err` with the reason when the block cannot be read; `None` without a block.
    pub block: Option<Result<String, String>>,
    /// When the host wrote its block, by its own clock and in its words.
    pub last_seen: Option<String>,
    /// Who has the id in the lockspace and has not given it up.
    pub owner: Option<String>,
}

/// The host ids of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(pub BTreeMap<HostId, Seen>);

impl Hosts {
    /// Reads the metadata and the lockspace `hosted-engine`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(metadata: &Path, lockspace: &Path) -> Result<Self, SetupError> {
        let blocks =
            || SharedFile::open(metadata, false)?.read(0, (usize::from(MAX_HOST_ID) + 1) * BLOCK_SIZE);
        let leases = || delta_lease::read_all(&SharedFile::open(lockspace, false)?);
        let blocks = blocks()?;
        Ok(Self::from_storage(&blocks, leases()?))
    }

    /// Those of a domain of files, which may be incomplete still.
    ///
    /// # Errors
    /// As [`Hosts::read`].
    pub fn of_domain(domain: &Path) -> Result<Self, SetupError> {
        let [metadata, lockspace] = [METADATA, LOCKSPACE].map(|name| domain.join("ha_agent").join(name));
        for path in [&metadata, &lockspace] {
            if !path.try_exists().map_err(io("look at", path))? {
                return Ok(Self::default());
            }
        }
        Self::read(&metadata, &lockspace)
    }

    /// With those that have an id in another lockspace of theirs, and have not given it up.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn and_owners_in(mut self, lockspace: &Path) -> Result<Self, SetupError> {
        let leases = delta_lease::read_all(&SharedFile::open(lockspace, false)?)?;
        for (id, lease) in leases.into_iter().filter(|(_, lease)| lease.is_taken()) {
            let nothing = Seen { block: None, last_seen: None, owner: None };
            self.0.entry(id).or_insert(nothing).owner.get_or_insert(lease.owner);
        }
        Ok(self)
    }

    fn from_storage(blocks: &[u8], leases: BTreeMap<HostId, DeltaRecord>) -> Self {
        let mut all: BTreeMap<HostId, Seen> = BTreeMap::new();
        for (id, block) in parse_blocks(blocks) {
            let last_seen = block.as_ref().ok().and_then(written_at);
            let block = block.map(|block| block.hostname).map_err(|error| error.to_string());
            all.insert(id, Seen { block: Some(block), last_seen, owner: None });
        }
        for (id, lease) in leases.into_iter().filter(|(_, lease)| lease.is_taken()) {
            let nothing = Seen { block: None, last_seen: None, owner: None };
            all.entry(id).or_insert(nothing).owner = Some(lease.owner);
        }
        Self(all)
    }

    /// The lowest host id that nobody has or had; `None` when all are taken.
    pub fn lowest_free_id(&self) -> Option<HostId> {
        let with = |is: fn(&Seen) -> bool| self.0.iter().filter(move |(_, seen)| is(seen)).map(|(id, _)| *id);
        let blocks = with(|seen| seen.block.is_some()).collect();
        lowest_free_id(&blocks, &with(|seen| seen.owner.is_some()).collect())
    }

    /// Those but `own`, by name, for people; `None` when there are none.
    pub fn others(&self, own: Option<HostId>) -> Option<String> {
        let others = self.0.iter().filter(|(id, _)| Some(**id) != own);
        let names: Vec<String> = others
            .map(|(id, seen)| match (&seen.block, &seen.owner) {
                (Some(Ok(name)), _) | (_, Some(name)) => format!("host {id} ({name})"),
                (Some(Err(_)) | None, None) => format!("host {id}"),
            })
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Refuses a host id that another host has or may still have. What a host of the name `own_name` left is no obstacle:
    /// it is this host's.
    ///
    /// # Errors
    /// Who has it, when it was last seen, and what to do.
    pub fn refuse_taken(&self, id: HostId, own_name: &str) -> Result<(), SetupError> {
        let Some(seen) = self.0.get(&id) else { return Ok(()) };
        let last = seen.last_seen.as_ref().map_or_else(String::new, |at| format!(", last seen {at}"));
        let free = self.lowest_free_id();
        let another =
            free.map_or_else(|| "another id".to_owned(), |free| format!("another id ({free} is free)"));
        if let Some(owner) = seen.owner.as_deref().filter(|owner| !is_name(owner, own_name)) {
            return Err(SetupError::Refused(format!(
                "host id {id} belongs to the host {owner:?}{last}, which has not given it up; take {another}, or stop that \
                 host's services first (a host that is gone for good: hosted-engine --clean-metadata --host-id={id})"
            )));
        }
        let whose = match &seen.block {
            None => return Ok(()),
            Some(Ok(name)) if name == own_name => return Ok(()),
            Some(Ok(name)) => format!("of the host {name:?}{last}"),
            Some(Err(error)) => format!("that cannot be read ({error})"),
        };
        Err(SetupError::Refused(format!(
            "host id {id} has a block {whose}; take {another}, or have the cluster forget that host first: \
             hosted-engine --clean-metadata --host-id={id}"
        )))
    }
}

/// The I/O time-outs N in seconds with which the hosts of a lockspace renew their leases.
///
/// # Errors
/// When it cannot be read.
pub fn io_timeouts(lockspace: &Path) -> Result<BTreeMap<u16, u16>, SetupError> {
    let leases = delta_lease::read_all(&SharedFile::open(lockspace, false)?)?;
    let held = leases.into_iter().filter(|(_, lease)| lease.is_taken());
    Ok(held.map(|(id, lease)| (id.get(), lease.io_timeout)).collect())
}

/// The lowest host id that has no block and no lease that is held; `None` when there is none.
pub fn lowest_free_id(blocks: &BTreeSet<HostId>, leases: &BTreeSet<HostId>) -> Option<HostId> {
    let mut ids = (1..=MAX_HOST_ID).filter_map(|id| HostId::new(id).ok());
    ids.find(|id| !blocks.contains(id) && !leases.contains(id))
}

/// Without a name of its own sanlock calls itself `<random uuid>.<host name>`.
fn is_name(owner: &str, own: &str) -> bool {
    owner == own || owner.split_once('.').is_some_and(|(_, name)| name == own)
}

/// The wall clock in a block: `timestamp=1234 (Sat Nov 21 17:30:00 2026)`.
fn written_at(block: &HostBlock) -> Option<String> {
    let value = block.extra.lines().find_map(|line| line.strip_prefix("timestamp="))?;
    Some(value.split_once('(')?.1.split_once(')')?.0.to_owned())
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
