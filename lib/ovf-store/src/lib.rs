//! The engine's own description of its VM, from the storage domain's `OVF_STORE` disks.
//!
//! The engine keeps two disks in each storage domain with a tar archive of the OVF files of all VMs there, renewed when
//! a VM's settings change. Before each start the engine VM's description is made from there, so that what was changed
//! in the engine (memory, CPUs, disks) holds from the next start on.
//!
//! - [`store`]: where it is, and reading it; [`description`], [`archive`]: the disks' labels and content.
//! - [`xml`], [`parse`]: OVF text to [`EngineVm`].
//! - [`vm_conf`]: [`EngineVm`] to vm.conf, the form that all the existing tools read.
//! - [`engine_xml`]: the libvirt domain that newer engines put into the OVF.
//!
//! Nothing of an OVF's content is logged: it may hold the root password of cloud-init and the TPM's data.

pub mod archive;
pub mod description;
pub mod engine_xml;
mod error;
mod note;
pub mod parse;
pub mod store;
pub mod vm;
pub mod vm_conf;
pub mod xml;

pub use error::OvfError;
pub use note::Note;
pub use store::{OvfStore, StoreError};
pub use vm::EngineVm;
