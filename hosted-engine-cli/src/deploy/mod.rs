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

pub mod answers;
mod args;
mod carry_out;
mod command;
pub mod dialogue;
mod error;
pub mod firewall;
#[cfg(test)]
mod fixture;
mod host_files;
mod job;
#[cfg(test)]
pub(crate) mod job_tests;
mod join;
mod journal;
mod log;
mod looking;
pub(crate) mod made;
mod move_storage;
pub mod network;
mod plan;
pub mod preflight;
pub mod preview;
pub mod questions;
mod request;
mod secrets;
pub mod services;
mod services_steps;
pub mod storage;
mod systemd;
#[cfg(test)]
mod testing;
mod tools;
mod undeploy;
pub mod vdsm;
pub mod vm;

pub use args::DeployArgs;
pub use carry_out::{BOTH_WAYS, Hands, Stopped, UNDEPLOY_ON, UNDEPLOYING, title};
pub(crate) use command::confirm;
pub use command::{SUCCESS, deploy, planned, refuse_second, service_manager};
pub use error::DeployError;
pub use job::{Job, Step, StepId, World, run, undo};
pub use journal::{Item, Journal, Moment, Outcome, Story, Watcher};
pub use log::{Logged, Told};
pub use made::{Made, Undo, Undone};
pub use move_storage::{MoveStorageArgs, half_move, move_storage, moved_notice};
pub use plan::steps;
pub use request::{
    Boot, BridgeOrigin, Engine, Family, FirstHost, Former, FurtherHost, HostIdentity, Ids, Iscsi, Lun,
    Network, Request, Seed, Storage, StorageKind, Vm, VolumeIds,
};
pub use secrets::Secrets;
pub use tools::{Call, Installed, Said, ToolError, Tools};
pub use undeploy::{UndeployArgs, undeploy};
