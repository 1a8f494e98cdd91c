//! What to do when index and leases do not agree, record by record. Pure.
//!
//! The index is the truth where it can be read: a record without its resource gets one, a resource without a record is
//! cleared. Only where a record is damaged does the resource say what belongs there, unless the index has that name
//! elsewhere.

use crate::index::{Index, LeaseName, Record, Slot};

/// What is in a lease's place on the volume, as sanlock reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No resource, or a cleared one.
    Nothing,
    /// A resource of this name.
    Resource(LeaseName),
    /// A resource whose name could not be a lease's.
    Foreign(String),
}

/// One change that makes index and leases agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// Write the resource that the record names.
    WriteResource(Slot, LeaseName),
    /// Clear a resource that no record names.
    ClearResource(Slot),
    /// Write a damaged record anew, from the resource in its place.
    WriteRecord(Slot, LeaseName),
    /// Free a record that cannot be read, or that was half made.
    ClearRecord(Slot),
}

/// The changes for one record, in the order in which they are to be done.
///
/// `beyond` is true for a record whose lease would lie beyond the end of the volume.
pub fn mends(index: &Index, slot: Slot, found: &Found, beyond: bool) -> Vec<Mend> {
    let record = index.get(slot);
    if beyond {
        return if matches!(record, Ok(Record::Free)) { Vec::new() } else { vec![Mend::ClearRecord(slot)] };
    }
    match (record, found) {
        (Ok(Record::Free), Found::Nothing) => Vec::new(),
        (Ok(Record::Free), Found::Resource(_) | Found::Foreign(_)) => vec![Mend::ClearResource(slot)],
        (Ok(Record::Used(name)), Found::Resource(other)) if name == *other => Vec::new(),
        (Ok(Record::Used(name)), Found::Nothing | Found::Resource(_) | Found::Foreign(_)) => {
            vec![Mend::WriteResource(slot, name)]
        }
        // It was never answered for: nobody can rely on it.
        (Ok(Record::HalfMade(_)) | Err(_), Found::Nothing) => vec![Mend::ClearRecord(slot)],
        (Ok(Record::HalfMade(_)), Found::Resource(_) | Found::Foreign(_)) | (Err(_), Found::Foreign(_)) => {
            vec![Mend::ClearRecord(slot), Mend::ClearResource(slot)]
        }
        (Err(_), Found::Resource(name)) => {
            if index.find(name).is_none() {
                vec![Mend::WriteRecord(slot, name.clone())]
            } else {
                vec![Mend::ClearRecord(slot), Mend::ClearResource(slot)]
            }
        }
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
