//! The `xleases` volume of a storage domain: a sanlock resource for each VM that was given a lease of its own, and
//! the index that says where each of them is. Format version 1, as VDSM writes it.
//!
//! [`index`] is the format: bytes in, facts out, no I/O. [`LeasesVolume`] carries changes out in the order that leaves
//! a usable volume whenever it is interrupted. What reads and writes, and who writes sanlock's resources, is given to
//! it; see [`Storage`] and [`Resources`].
//!
//! There is no lock in the format. VDSM changes the volume on one host of a data centre only, its storage pool manager;
//! whoever changes it otherwise must have made sure that nobody else does.

pub mod index;
mod rebuild;
mod volume;

pub use index::{Index, IndexError, LeaseName, Metadata, Record, RecordError, Slot};
pub use rebuild::{Found, Mend, mends};
pub use volume::{Lease, LeasesVolume, Resources, Storage, VolumeError};
