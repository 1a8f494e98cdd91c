//! Looking up, making, removing and listing leases, and mending the volume.
//!
//! Each change is made in the order that leaves a usable volume when it is interrupted: a lease is written before its
//! record, and the record goes before the lease is cleared. At worst a lease is left that no record names, which takes
//! no place and which a rebuild clears.

use std::io;

use sanlock_client::{GridSize, Owner, PAXOS_RECORD_BYTES, PaxosRecord};

use crate::index::{INDEX_BYTES, Index, IndexError, LeaseName, Metadata, Record, RecordError, Slot};
use crate::rebuild::{Found, Mend, mends};

/// The volume's bytes.
pub trait Storage {
    /// Bytes in the volume.
    fn size(&self) -> io::Result<u64>;
    /// Reads `len` bytes at `offset`, past any cache of this host; both are multiples of the sector.
    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Writes whole sectors; returns once they were read back.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// The lock manager, as far as it is needed to make and clear leases.
pub trait Resources {
    /// Writes a free lease `name` at `offset` of the volume, whatever is there.
    fn write(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String>;
    /// Marks that there is none at `offset`, whatever is there.
    fn clear(&self, lockspace: &str, offset: u64) -> Result<(), String>;
    /// Whether the owner that a lease's record names may still hold it. True when that cannot be told.
    fn may_hold(&self, lockspace: &str, owner: Owner) -> Result<bool, String>;
    /// Takes the lease `name` at `offset` for this process, without waiting: until [`Self::give_back`] nobody else has it.
    fn take(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String>;
    /// Gives a lease back that [`Self::take`] took.
    fn give_back(&self, lockspace: &str, name: &LeaseName, offset: u64) -> Result<(), String>;
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The volume cannot be read or written.
    #[error("cannot {action} the xleases volume: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The error.
        source: io::Error,
    },
    /// Its index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A format or rebuild began and did not end.
    #[error("the lease index was being changed when its host stopped: rebuild it")]
    Interrupted,
    /// It is there already.
    #[error("there is a lease {0} already")]
    Exists(LeaseName),
    /// It is not there.
    #[error("there is no lease {0}")]
    Missing(LeaseName),
    /// Every place is taken.
    #[error("the xleases volume has no free place: enlarge it, or remove leases")]
    Full,
    /// A host may hold the lease that would be overwritten.
    #[error(
        "host {host_id} may hold the lease {name:?} in place {slot} (offset {offset}): stop its holder first, or wait until \
         that host's leases are free (see --lease-status)",
        slot = slot.number(),
        host_id = owner.host_id
    )]
    Held {
        /// Its place.
        slot: Slot,
        /// Its byte offset in the volume.
        offset: u64,
        /// The name in its record.
        name: String,
        /// Who.
        owner: Owner,
    },
    /// The lock manager refused, or could not be asked.
    #[error("the lock manager: {0}")]
    Resources(String),
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> VolumeError {
    move |source| VolumeError::Io { action, source }
}

/// A lease and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub name: LeaseName,
    /// The lockspace whose members may take it.
    pub lockspace: String,
    /// Byte offset in the volume.
    pub offset: u64,
    /// Who has it, or had it when it died; `None` when it is free.
    pub owner: Option<Owner>,
}

/// An open xleases volume.
#[derive(Debug)]
pub struct LeasesVolume<S, R> {
    storage: S,
    resources: R,
    grid: GridSize,
    index: Index,
}

impl<S: Storage, R: Resources> LeasesVolume<S, R> {
    /// Reads the index.
    ///
    /// # Errors
    /// When it cannot be read or used; [`VolumeError::Interrupted`] when it must be rebuilt first.
    pub fn open(storage: S, resources: R, grid: GridSize) -> Result<Self, VolumeError> {
        let volume = Self::open_to_mend(storage, resources, grid)?;
        if volume.index.metadata().is_updating { Err(VolumeError::Interrupted) } else { Ok(volume) }
    }

    /// The same for [`Self::rebuild`]: an interrupted index is no error.
    ///
    /// # Errors
    /// When it cannot be read, or its head is damaged.
    pub fn open_to_mend(storage: S, resources: R, grid: GridSize) -> Result<Self, VolumeError> {
        let bytes = storage.read(grid.align_bytes(), INDEX_BYTES).map_err(io_error("read"))?;
        let index = Index::parse(&bytes)?;
        Ok(Self { storage, resources, grid, index })
    }

    /// Writes an index without leases, whatever index is there. `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`VolumeError::Held`] before anything is written; the lockspace's name does not fit, or the volume cannot be
    /// written.
    pub fn format(
        storage: S,
        resources: R,
        grid: GridSize,
        lockspace: &str,
        now: u64,
    ) -> Result<Self, VolumeError> {
        let metadata = Metadata { lockspace: lockspace.to_owned(), modified: now, is_updating: true };
        let mut volume = Self { storage, resources, grid, index: Index::empty(metadata)? };
        let size = volume.size()?;
        for slot in Slot::all().take_while(|slot| slot.fits(size, grid)) {
            volume.refuse_held(slot)?;
        }
        volume.write_all(now)?;
        Ok(volume)
    }

    /// The index as it was read and changed since.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Finds a lease.
    ///
    /// # Errors
    /// [`VolumeError::Missing`], or the volume cannot be read.
    pub fn lookup(&self, name: &LeaseName) -> Result<Lease, VolumeError> {
        match self.index.find(name) {
            Some((slot, Record::Used(_))) => self.lease(slot, name.clone()),
            Some((_, Record::HalfMade(_) | Record::Free)) | None => Err(VolumeError::Missing(name.clone())),
        }
    }

    /// All leases, and the records that cannot be read.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub fn list(&self) -> Result<(Vec<Lease>, Vec<RecordError>), VolumeError> {
        let (mut leases, mut damaged) = (Vec::new(), Vec::new());
        let size = self.size()?;
        for slot in Slot::all().take_while(|slot| slot.fits(size, self.grid)) {
            match self.index.get(slot) {
                Ok(Record::Used(name)) => leases.push(self.lease(slot, name)?),
                Ok(Record::Free | Record::HalfMade(_)) => {}
                Err(error) => damaged.push(error),
            }
        }
        Ok((leases, damaged))
    }

    /// Makes a lease.
    ///
    /// # Errors
    /// [`VolumeError::Exists`], [`VolumeError::Full`], or storage or the lock manager failed.
    pub fn add(&mut self, name: &LeaseName) -> Result<Lease, VolumeError> {
        let slot = match self.index.find(name) {
            Some((_, Record::Used(_))) => return Err(VolumeError::Exists(name.clone())),
            // Never answered for: it is made anew where it stands.
            Some((slot, Record::HalfMade(_) | Record::Free)) => slot,
            None => self.index.first_free(self.size()?, self.grid).ok_or(VolumeError::Full)?,
        };
        self.write_resource(slot, name)?;
        self.write_record(slot, Some(name))?;
        self.lease(slot, name.clone())
    }

    /// Removes a lease. It is held while its record goes, so that nobody takes it between the look and the removal.
    ///
    /// # Errors
    /// [`VolumeError::Missing`], [`VolumeError::Held`], or storage or the lock manager failed.
    pub fn remove(&mut self, name: &LeaseName) -> Result<(), VolumeError> {
        let (slot, _) = self.index.find(name).ok_or_else(|| VolumeError::Missing(name.clone()))?;
        self.refuse_held(slot)?;
        let is_its_own = self.record_of(slot)?.is_some_and(|record| record.resource == name.as_str());
        let (lockspace, offset) = (self.index.metadata().lockspace.clone(), slot.lease_offset(self.grid));
        if is_its_own {
            self.resources.take(&lockspace, name, offset).map_err(VolumeError::Resources)?;
        }
        let written = self.write_record(slot, None);
        if is_its_own {
            self.resources.give_back(&lockspace, name, offset).map_err(VolumeError::Resources)?;
        }
        written?;
        self.clear_resource(slot)
    }

    /// Makes index and leases agree; gives what was changed. Interrupted, it can be done again.
    ///
    /// # Errors
    /// As [`Self::remove`]; before anything is written when a lease that must go may be held.
    pub fn rebuild(&mut self, now: u64) -> Result<Vec<Mend>, VolumeError> {
        let size = self.size()?;
        let mut todo = Vec::new();
        for slot in Slot::all() {
            let beyond = !slot.fits(size, self.grid);
            let found = if beyond { Found::Nothing } else { self.found(slot)? };
            todo.extend(mends(&self.index, slot, &found, beyond));
        }
        for mend in &todo {
            if let Mend::WriteResource(slot, _) | Mend::ClearResource(slot) = mend {
                self.refuse_held(*slot)?;
            }
        }
        let metadata = Metadata { is_updating: true, ..self.index.metadata().clone() };
        self.index.set_metadata(metadata)?;
        self.write_head()?;
        for mend in &todo {
            match mend {
                Mend::WriteResource(slot, name) => self.write_resource(*slot, name)?,
                Mend::ClearResource(slot) => self.clear_resource(*slot)?,
                Mend::WriteRecord(slot, name) => self.index.set(*slot, Some(name), self.grid),
                Mend::ClearRecord(slot) => self.index.set(*slot, None, self.grid),
            }
        }
        self.write_all(now)?;
        Ok(todo)
    }

    fn size(&self) -> Result<u64, VolumeError> {
        self.storage.size().map_err(io_error("tell the size of"))
    }

    fn lease(&self, slot: Slot, name: LeaseName) -> Result<Lease, VolumeError> {
        let owner = self.record_of(slot)?.and_then(|record| record.owner);
        let lockspace = self.index.metadata().lockspace.clone();
        Ok(Lease { name, lockspace, offset: slot.lease_offset(self.grid), owner })
    }

    /// What sanlock keeps in a lease's place.
    fn record_of(&self, slot: Slot) -> Result<Option<PaxosRecord>, VolumeError> {
        let sector = self.grid.sector_bytes() as usize;
        debug_assert!(sector >= PAXOS_RECORD_BYTES, "a record fits into any sector");
        let bytes = self.storage.read(slot.lease_offset(self.grid), sector).map_err(io_error("read"))?;
        Ok(PaxosRecord::parse(&bytes))
    }

    fn found(&self, slot: Slot) -> Result<Found, VolumeError> {
        Ok(match self.record_of(slot)? {
            None => Found::Nothing,
            Some(record) if record.resource.is_empty() => Found::Nothing,
            Some(record) => match LeaseName::new(&record.resource) {
                Ok(name) => Found::Resource(name),
                Err(_) => Found::Foreign(record.resource),
            },
        })
    }

    /// Fails when a host may hold what is in this place.
    fn refuse_held(&self, slot: Slot) -> Result<(), VolumeError> {
        let Some(record) = self.record_of(slot)? else { return Ok(()) };
        let Some(owner) = record.owner else { return Ok(()) };
        let lockspace = &self.index.metadata().lockspace;
        if self.resources.may_hold(lockspace, owner).map_err(VolumeError::Resources)? {
            return Err(VolumeError::Held {
                slot,
                offset: slot.lease_offset(self.grid),
                name: record.resource,
                owner,
            });
        }
        Ok(())
    }

    fn write_resource(&self, slot: Slot, name: &LeaseName) -> Result<(), VolumeError> {
        self.refuse_held(slot)?;
        let offset = slot.lease_offset(self.grid);
        let lockspace = &self.index.metadata().lockspace;
        self.resources.write(lockspace, name, offset).map_err(VolumeError::Resources)
    }

    fn clear_resource(&self, slot: Slot) -> Result<(), VolumeError> {
        self.refuse_held(slot)?;
        let offset = slot.lease_offset(self.grid);
        self.resources.clear(&self.index.metadata().lockspace, offset).map_err(VolumeError::Resources)
    }

    /// Writes one record's sector; what is in memory changes only once it is on storage.
    fn write_record(&mut self, slot: Slot, lease: Option<&LeaseName>) -> Result<(), VolumeError> {
        let mut changed = self.index.clone();
        changed.set(slot, lease, self.grid);
        let (start, sector) = changed.sector(slot, self.grid);
        let at = self.grid.align_bytes() + start as u64;
        self.storage.write(at, sector).map_err(io_error("write"))?;
        self.index = changed;
        Ok(())
    }

    fn write_head(&self) -> Result<(), VolumeError> {
        let sector = self.grid.sector_bytes() as usize;
        let head = &self.index.bytes()[..sector];
        self.storage.write(self.grid.align_bytes(), head).map_err(io_error("write"))
    }

    /// Writes the whole index: first with the mark that it is being changed, last its head without.
    fn write_all(&mut self, now: u64) -> Result<(), VolumeError> {
        self.storage.write(self.grid.align_bytes(), self.index.bytes()).map_err(io_error("write"))?;
        let lockspace = self.index.metadata().lockspace.clone();
        self.index.set_metadata(Metadata { lockspace, modified: now, is_updating: false })?;
        self.write_head()
    }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
