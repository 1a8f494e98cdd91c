//! The vdsm adapter: the engine VM as VDSM, the daemon that manages an oVirt host, runs it.
//!
//! ```text
//!        VM.create           libvirt takes the lease         guest runs
//!  Down ───────────► WaitForLaunch ───────────────► Powering up ────────► Up ◄──► Paused (lease given back)
//!   ▲                     │ refused, or failed          │                  │
//!   └─────────────────────┴─────────────────────────────┴──────────────────┘
//!     LeaseRefused, StartFailed           Orderly, Crashed, MigratedAway
//! ```
//!
//! What the VM does is VDSM's word; whether it owns its lease is sanlock's ([`crate::lease`]). VDSM remembers a VM that is
//! down until somebody destroys it, and how it ended with it. When VDSM cannot be asked nobody knows, and a call whose
//! outcome was lost with the connection is never repeated: a look decides what came of it. The VM itself outlives VDSM's
//! restarts and ours.

mod adapter;
pub(crate) mod connect;
mod console;
mod description;
mod exit;
mod follow;
mod lease;
mod look;
mod migration;
mod start;
mod words;

#[cfg(test)]
mod tests;

pub use adapter::VdsmVm;
pub use connect::{client, client_of_host};
pub use description::check_description;

use vdsm_client::{CallError, code};

use crate::port::VmError;

/// VDSM refused, did not answer, or cannot be reached; `action` names what it was asked to do.
fn trouble(action: &'static str, error: &CallError) -> VmError {
    match error {
        CallError::Server { code: code::NO_SUCH_VM | code::VM_IS_DOWN, .. } => VmError::NotRunning,
        CallError::Server { code: code::RECOVERING, .. }
        | CallError::Unreachable { .. }
        | CallError::Deadline { .. }
        | CallError::Lost { .. }
        | CallError::Answer { .. } => VmError::Unreachable { detail: error.to_string() },
        CallError::Server { .. } => failed(action, error.to_string()),
    }
}

fn failed(action: &'static str, detail: impl Into<String>) -> VmError {
    VmError::Failed { action, detail: detail.into() }
}

/// True when VDSM may have done what it was asked.
fn is_unsure(error: &CallError) -> bool {
    match error {
        CallError::Deadline { .. } | CallError::Lost { .. } | CallError::Answer { .. } => true,
        CallError::Unreachable { .. } | CallError::Server { .. } => false,
    }
}
