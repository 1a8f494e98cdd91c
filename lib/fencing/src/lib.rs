//! Power management of hosts with the programs of the fence-agents project (`fence_ipmilan`, `fence_redfish` …).
//!
//! ```text
//!  HostPower ── level 1 ── PowerSwitch, PowerSwitch     all of a level must succeed: two power supplies
//!          └─── level 2 ── PowerSwitch                  used when level 1 failed
//!
//!  PowerSwitch::off:  metadata ─ check options ─ read secrets ─ off ─ status … status ─ confirmed
//! ```
//!
//! An agent's interface is that of the project's `FenceAgentAPI.md`: it reads `name=value` lines from standard input,
//! one of them `action=`, and answers with its exit code. Nothing is ever passed as an argument, which every user of
//! the machine could read. Each run has a deadline, and nothing that an agent started in its process group outlives it.
//!
//! A host counts as off only after a status said so that came after the request. A reboot is off, confirmed off, on,
//! confirmed on; an agent's own `reboot`, which may be a reset line or a cycle too short to end anything, is not used.
//!
//! The agent "sanlock" is no program: it is the reset through storage, in [`StorageReset`].
//!
//! This crate does as it is told. Whether a host should be switched is decided elsewhere.

mod error;
mod host;
mod metadata;
mod options;
mod process;
mod progress;
mod redact;
mod secret_file;
mod storage;
mod switch;

pub use error::{End, FenceError, Said};
pub use host::{HostError, HostPower};
pub use metadata::{Kind, Metadata, MetadataError, Parameter};
pub use options::OptionError;
pub use progress::{Progress, Report};
pub use secret_file::{SecretFileError, read_secret_file};
pub use storage::{StorageReset, StorageResetError};
pub use switch::{AGENT_DIRECTORY, Action, Power, PowerSwitch};

#[cfg(test)]
mod testing;
