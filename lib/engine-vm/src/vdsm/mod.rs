//! The vdsm adapter: the engine VM as VDSM, the daemon that manages an oVirt host, runs it.

mod connect;

pub use connect::client_of_host;
