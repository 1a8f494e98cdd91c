//! The engine VM: its disk, its first start, the installation in it, the engine's answer.
//!
//! Steps here wait for the VM in a runtime of their own: they are carried out by a thread that drives none.

mod answers;
mod fill;
mod first_start;
pub mod image;
mod made;
mod operator;
mod register;
mod run;
#[cfg(test)]
mod scripted;
mod seed;
mod start;
#[cfg(test)]
mod testing;

pub use answers::AwaitEngine;
pub use fill::FillDisk;
pub use made::MadeVm;
pub use operator::{AtTerminal, Operator};
pub(super) use run::ensure;
pub use seed::check as check_seed;
pub use start::StartEngineVm;
