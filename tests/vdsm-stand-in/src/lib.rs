//! A stand-in for VDSM in tests: speaks its dialect on the wire and runs real QEMU guests under real sanlock leases.
//!
//! It exists because VDSM itself needs a whole oVirt host. What it answers, and how, follows recorded exchanges with
//! VDSM's own server; what it does not know it refuses by name instead of making something up. On request it misbehaves
//! in the ways that clients must survive. It is a test program and is never installed.
//!
//! ```text
//!  clients ── TLS or plain ── stomp (frames, subscriptions) ── rpc (JSON-RPC) ── verbs ─┬─ storage (file domains, sanlock)
//!                                        ▲                        ▲                     └─ vm (QEMU, sanlock)
//!                                        └──── misbehaviour ◄─────┴── control socket
//! ```

pub mod args;
pub mod certificates;
pub mod control;
mod failure;
mod host_stats;
pub mod misbehaviour;
pub mod network;
mod parameters;
mod python_json;
mod rpc;
pub mod server;
mod stomp;
pub mod storage;
mod verbs;
pub mod vm;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use failure::Failure;

/// Locks. A panic elsewhere does not make what is guarded here unusable: every change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
