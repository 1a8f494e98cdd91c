//! The operator's command `hosted-engine`.

pub mod delta_lease;
pub mod setup;
pub mod shared_file;
