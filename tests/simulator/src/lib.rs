//! A deterministic simulator: the shipped agent and broker on simulated hosts, storage, leases, networks and guests, in
//! virtual time, from a seed.
//!
//! ```text
//! scenario file ─┐                         ┌─ agent (shipped) ── ports ─┐
//!                ├─▶ plan ─▶ run ─▶ world ─┤                            ├─ storage, sanlock, VM, clocks (simulated)
//! seed ──────────┘     │                   └─ broker (shipped) ─ ports ─┘
//!                      ▼
//!                   report: log, broken promises ─▶ timeline (text, HTML), shrinking
//! ```
//!
//! [`command`] is the one vocabulary of both ways in; [`invariant`] has the promises that are checked after every
//! event. The rules of the product are nowhere written again: what decides and what writes is the code that ships.

pub mod chart;
pub mod clock;
pub mod command;
pub mod group;
pub mod host;
pub mod html;
pub mod invariant;
mod lockspace;
mod operate;
mod ports;
mod probes;
pub mod recovery;
pub mod run;
pub mod sanlock;
pub mod scenario;
pub mod seeds;
pub mod settings;
pub mod shrink;
pub mod soak;
pub mod storage;
pub mod story;
pub mod summary;
pub mod text;
pub mod track;
pub mod vm;
pub mod world;
