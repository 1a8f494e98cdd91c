//! The monitors: what this host looks at every few seconds, for itself and for its agent.
//!
//! Each monitor is a [`Probe`] that measures once and a [task](driver) that repeats it on its own schedule and
//! keeps the last result; a [`ProbeFactory`] makes the probes, of the real host or of a simulated one. None can block another: what may hang runs with a deadline, in a thread of its own where
//! the kernel gives no other way. A monitor measures and says; what a result is worth is the agent's to judge.
//!
//! | type | result | options |
//! | --- | --- | --- |
//! | [network] | share of tries that succeeded, `0.0` to `1.0` | `network_test`, `addr`, `tcp_t_address`, `tcp_t_port`, `count`, `delay`, `timeout` |
//! | [ping](network) | `True` when the gateway answers | `addr`, `count`, `delay`, `timeout` |
//! | [mgmt-bridge](bridge) | `True` when the bridge is up | `bridge_name` |
//! | [mem-free](memory) | MB for a VM | – |
//! | [mem-load](memory) | share in use, `0.0000` to `1.0000` | – |
//! | [cpu-load](cpu) | one-minute load average per processor | – |
//! | [cpu-load-no-engine](cpu_no_engine) | busy share without the engine VM's | – |
//! | [engine-health](engine_health) | JSON object `vm`, `health`, `detail`, `reason` | – |
//! | [storage-domain](storage) | `True` when a read succeeds within 10 s | `sd_uuid` |
//!
//! On a host that VDSM manages `mem-free`, `mgmt-bridge` and `storage-domain` are VDSM's own figures: the first as it
//! counts memory for VMs, the last `True` when it finds the domain valid and reads it within 10 s.
//!
//! Options that existing clients also send (`address`, `use_ssl`, `vm_uuid`) are taken and not needed.

pub mod bridge;
pub mod cpu;
pub mod cpu_no_engine;
mod driver;
pub mod engine_health;
mod host_probes;
mod kind;
pub mod memory;
pub mod network;
mod options;
mod probe;
mod set;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;
mod vdsm;

pub use engine_health::{EngineHealth, Liveliness, PageOptions};
pub use host_probes::{HostProbes, Surroundings};
pub use kind::Kind;
pub use options::MonitorError;
pub use probe::{Probe, ProbeFactory, Reading, python_bool};
pub use set::MonitorSet;
