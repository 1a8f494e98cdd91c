//! The broker: watches the host, owns the shared metadata file, holds the host's lease. It decides nothing.

pub mod lockspace;
pub mod socket;
pub mod verbs;
pub mod wake;
pub mod whiteboard;
