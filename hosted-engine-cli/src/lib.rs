//! The operator's command `hosted-engine`.

pub mod delta_lease;
pub mod repair;
pub mod sandbox;
pub mod setup;
pub mod shared_file;
