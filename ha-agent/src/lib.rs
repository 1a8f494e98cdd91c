//! The agent of a hosted-engine host: decides where the engine VM runs, and acts on it.
//!
//! [`core`] decides and touches nothing; [`agent`] is the loop around it, which meets the world through [`ports`];
//! [`replay`] feeds recorded observations to the core.

mod addresses;
pub mod agent;
pub mod blocks;
pub mod core;
pub mod engine_conf;
pub mod explain;
pub mod fencer;
pub mod hostname;
pub mod monitors;
pub mod ports;
pub mod replay;
pub mod settings;
mod shared_lease;
