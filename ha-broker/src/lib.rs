//! The broker: watches the host, owns the shared metadata file, holds the host's lease. It decides nothing.

pub mod monitors;
pub mod verbs;
