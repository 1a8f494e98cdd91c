//! The agent of a hosted-engine host: decides where the engine VM runs, and acts on it.
//!
//! [`core`] decides and touches nothing; [`replay`] feeds it recorded observations.

pub mod core;
pub mod replay;
pub mod wall;
