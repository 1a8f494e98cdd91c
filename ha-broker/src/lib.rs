//! The broker: watches the host, owns the shared metadata file, holds the host's lease. It decides nothing.

pub mod alive;
pub mod broker;
pub mod daemon;
mod ha_conf;
pub mod lockspace;
pub mod monitors;
mod news;
pub mod notify;
pub mod returned;
pub mod socket;
pub mod spawner;
pub mod supply;
pub mod verbs;
pub mod wake;
pub mod whiteboard;
