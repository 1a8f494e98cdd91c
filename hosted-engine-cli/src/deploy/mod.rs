//! `hosted-engine --deploy`: from a bare host to a protected engine VM, and back.
//!
//! ```text
//!  answers, questions ─▶ Request ─▶ pre-flight ─▶ preview ─▶ steps ──▶ --vm-status
//!                                                            │  ▲
//!                                         will, did, end ▼  │ --resume
//!                                                         journal ──▶ --undo
//! ```
//!
//! A [`Step`] never makes or changes anything by itself: it asks its [`Job`] to, which writes into the [`Journal`] what
//! will be made, has it made, and writes that it was. So an interrupted deployment is known whatever cut it: the step
//! that was cut is undone and begins anew (`--resume`), or everything is undone backwards (`--undo`). Undoing looks
//! whether a thing is still the one that was made, and leaves alone what is not.

mod args;
mod error;
pub mod firewall;
#[cfg(test)]
mod fixture;
mod job;
mod journal;
mod made;
pub mod network;
pub mod preflight;
mod request;
mod secrets;
pub mod services;
pub mod storage;
#[cfg(test)]
mod testing;
mod tools;

pub use args::DeployArgs;
pub use error::DeployError;
pub use job::{Job, Step, StepId, World, run, undo};
pub use journal::{Journal, Outcome, Story};
pub use made::{Made, Undo, Undone};
pub use request::{
    Boot, BridgeOrigin, Engine, Family, FirstHost, FurtherHost, HostIdentity, Ids, Iscsi, Lun, Network,
    Request, Seed, Storage, StorageKind, Vm, VolumeIds,
};
pub use secrets::Secrets;
pub use tools::{Call, Installed, Said, ToolError, Tools};
