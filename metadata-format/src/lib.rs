//! The on-disk formats of the hosted-engine metadata file as types. No I/O, no async, no clock.

pub mod engine_status;
pub mod ids;

pub use engine_status::{EngineStatus, Health, VmState};
pub use ids::{HostId, HostIdError, MAX_HOST_ID, Score};
