//! An exhaustive check of the shipped decision core: every state that a small cluster can get into, with every
//! order of looks and every combination of a bounded number of faults.
//!
//! `docs/model.md` says what is modelled, what is proven and how to read a counterexample.

pub mod checked;
pub mod cores;
pub mod environment;
pub mod recovery;
pub mod report;
pub mod steps;
pub mod story;
pub mod world;

pub use checked::{Cluster, Mistake, Setup, property};
pub use report::{Report, check};
