//! The operator's command `hosted-engine`: shows the cluster, starts and stops the engine VM, sets maintenance,
//! sets up, repairs, runs the sandbox, and rehearses failures in the simulator.
//!
//! It speaks to the broker's socket, through `engine-vm` to the hypervisor, and through `fencing` to power switches. It
//! decides nothing about where the VM runs: that is the agents' work. Only set-up, repair, backup and restore
//! open shared storage themselves.

pub mod backup;
pub mod cli;
pub mod console;
pub mod delta_lease;
pub mod deploy;
pub mod deployed;
pub mod doctor;
pub mod fence;
mod hidden_input;
pub mod lease_status;
pub mod leases;
pub mod liveliness;
pub mod maintenance;
pub mod migrate;
pub mod moving;
pub mod password;
pub mod progress;
pub mod repair;
pub mod sandbox;
pub mod saved;
pub mod setup;
pub mod shared_config;
pub mod simulate;
pub mod status;
pub mod storage;
pub mod terminal;
pub mod vm;

pub use ha_config::shared_file;
