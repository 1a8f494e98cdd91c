//! What the adapter tells the launcher, and what the launcher answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lease::LeaseSpec;
use crate::port::VmExit;

/// How the VM was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchMode {
    /// It runs at once, under its lease.
    Run,
    /// Its processors wait for the operator; it has its lease.
    Paused,
    /// It waits for a migration, and has no lease before it may run.
    Incoming,
}

/// A tap device to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// The bridge that it joins.
    pub bridge: String,
    /// Text in the arguments that stands for the descriptor's number.
    pub placeholder: String,
}

/// The launch file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFile {
    /// The run directory: also QEMU's working directory.
    pub run_dir: PathBuf,
    /// QEMU.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The VM's identity.
    pub uuid: Uuid,
    /// How it starts.
    pub mode: LaunchMode,
    /// What protects it.
    pub lease: LeaseSpec,
    /// Its tap devices.
    pub taps: Vec<Tap>,
}

/// The launcher's answer: one JSON line on the launch socket. After [`Outcome::Executing`] the socket closes when
/// the process has become QEMU; a second line instead says that it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Everything is in place.
    Executing {
        /// The process.
        pid: u32,
    },
    /// There is one already in this run directory.
    AlreadyExists {
        /// Its process, 0 when it is not known.
        pid: u32,
    },
    /// The lease is another's.
    LeaseHeld {
        /// The lock manager's words, and the owner.
        detail: String,
    },
    /// The lease cannot be had.
    NoLease {
        /// What is missing.
        detail: String,
    },
    /// Something else.
    Failed {
        /// What, and what to do.
        detail: String,
    },
}

/// Who the VM's process is. Process ids come round again; together with the start time and the boot they do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, from /proc.
    pub start_ticks: u64,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The VM.
    pub uuid: Uuid,
    /// How it was started.
    pub mode: LaunchMode,
}

/// How a VM ended, and which one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Its process; `None` when it never became one.
    pub process: Option<ProcessRecord>,
    /// How it ended.
    pub exit: VmExit,
}
