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

use super::DeployError;

/// Waits for something of the VM's.
fn wait_for<T>(answer: impl Future<Output = T>) -> Result<T, DeployError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| DeployError::Refused(format!("cannot wait for the VM: {error}")))?;
    let answer = runtime.block_on(answer);
    runtime.shutdown_background();
    Ok(answer)
}
