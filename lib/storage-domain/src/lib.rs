//! The hosted engine's storage domain, through VDSM: connecting its storage server, preparing its volumes, the links
//! to them, and the domain monitor that joins the domain's lockspace.
//!
//! ```text
//! VDSM answers ─▶ server connected ─▶ domain refreshed, found ─▶ volumes prepared ─▶ links lead to them
//! ```
//!
//! [`StorageDomain::bring_up`] goes this way from the beginning each time; what is done already stays as it is. Each
//! step has a name that is told before it begins, so that an operator sees what is waited for, and a deadline. It only
//! fails and says why: whether to try again, and when, is the caller's.
//!
//! It never mounts, logs in or activates anything itself, never formats or extends anything, and touches nothing on the
//! storage but the links. Passwords go to VDSM and nowhere else.

pub mod connections;
mod domain;
mod error;
pub mod iscsi;
pub mod link;
mod monitor;
mod status;
mod step;

pub use domain::{Connected, Ready, StorageDomain};
pub use error::{DomainError, Failure};
pub use monitor::{Left, MonitorError, Monitoring, hold, leave, monitoring};
pub use step::{Step, Volume};
