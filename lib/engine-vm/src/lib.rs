//! The port to the engine VM, and its adapters.
//!
//! One trait, [`EngineVm`], says what the broker, the agent and the operator's command may ask of a
//! hypervisor. Adapters promise two things above all: a VM never starts without its lease, and a status is
//! either true or an error, never a guess.

pub mod domain_xml;
mod follower;
pub mod indexed_lease;
pub mod lease;
pub mod libvirt;
mod of_host;
mod outlook;
pub mod port;
pub mod qemu;
mod under_libvirt;
pub mod vdsm;

pub use of_host::of_host;

pub use port::{
    ConsoleAddress, ConsoleKind, CpuUse, EngineVm, LeaseHolding, LeaseOutlook, MigrationProgress,
    MigrationTarget, OwnerLife, Receiver, StartMode, VmActivity, VmError, VmEvent, VmExit, VmStatus,
};
