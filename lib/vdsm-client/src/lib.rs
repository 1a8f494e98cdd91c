//! A client of VDSM, oVirt's host daemon: JSON-RPC 2.0 in STOMP 1.2 frames over TLS, on port 54321.
//!
//! [`Client`] keeps one connection for all its clones. [`Client::call`] calls any verb; [`verbs`] has methods for those
//! that the hosted engine needs. [`Client::events`] has what VDSM tells without being asked.
//!
//! ```no_run
//! use std::time::Duration;
//! use vdsm_client::{Client, Settings, TlsFiles};
//!
//! # async fn example() -> Result<(), vdsm_client::CallError> {
//! let tls = TlsFiles {
//!     ca: "/etc/pki/vdsm/certs/cacert.pem".into(),
//!     cert: "/etc/pki/vdsm/certs/vdsmcert.pem".into(),
//!     key: "/etc/pki/vdsm/keys/vdsmkey.pem".into(),
//! };
//! let vdsm = Client::new(Settings::new("localhost", 54321, Some(tls)));
//! println!("{} MiB of memory are free", vdsm.host_stats().await?.mem_free.unwrap_or(0));
//!
//! // A verb without a method of its own:
//! let hardware = vdsm
//!     .call("Host.getHardwareInfo", serde_json::json!({}), Duration::from_secs(30))
//!     .await?;
//! # drop(hardware);
//! # Ok(())
//! # }
//! ```
//!
//! # What a failed call means
//! [`CallError`] tells apart what was certainly not done ([`CallError::Unreachable`]), what VDSM refused
//! ([`CallError::Server`]), and what nobody knows ([`CallError::Lost`], [`CallError::Deadline`]): a request is never sent
//! again by itself once it was sent, because verbs like `VM.create` must not happen twice. The one exception is a
//! server that is [recovering](code::RECOVERING) from a restart and says that it did not execute the request: it is asked
//! again until the call's deadline.
//!
//! # What is logged
//! At debug level each call with method, id and time taken, and the connection's changes. Never parameters or
//! results: they can hold console passwords and storage credentials.

pub mod code;
pub mod frame;
pub mod verbs;

mod client;
mod connection;
mod error;
mod event;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub use client::{Client, Connection};
pub use error::CallError;
pub use event::{Event, VmStatusEvent};
pub use settings::{Settings, TlsFiles};
pub use verbs::host::{DomainStatus, HostStats, NetworkStats};
pub use verbs::network::NetworkCapabilities;
pub use verbs::pool::{Device, NewDomain, SpmRole};
pub use verbs::storage::{
    Allocation, BLANK_UUID, ConnectionStatus, DomainInfo, DomainStats, NewVolume, Prepared, TaskStatus,
    VolumeInfo,
};
pub use verbs::vm::{ConsoleKind, DisplayInfo, MigrateParams, MigrationStatus, VmParams, VmStats};
