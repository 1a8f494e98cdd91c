//! The `xleases` volume of a storage domain: a sanlock resource for each VM that was given a lease of its own, and
//! the index that says where each of them is. Format version 1, as VDSM writes it.
//!
//! [`index`] is the format: bytes in, facts out, no I/O. [`LeasesVolume`] carries changes out in the order that leaves
//! a usable volume whenever it is interrupted. What reads and writes, and who writes sanlock's resources, is given to
//! it: [`Storage`] is this host's file or device, [`Resources`] its sanlock daemon ([`SanlockResources`]).
//!
//! VDSM changes the volume on one host of a data centre only, its storage pool manager, and has no lock for it. Ours is
//! a sanlock lease in the slot that the format reserves: see [`SanlockResources::exclude`].

mod file;
pub mod index;
mod rebuild;
mod sanlock;
mod volume;

pub use file::{ReadOnly, grid_of_index, open_to_read};
pub use index::{Index, IndexError, LeaseName, Metadata, Record, RecordError, Slot};
pub use rebuild::{Found, Mend, mends};
pub use sanlock::{ExcludeError, SanlockResources};
pub use volume::{Lease, LeasesVolume, Resources, Storage, VolumeError};
