//! VDSM's domain monitor: it watches a storage domain and holds this host's id in the domain's lockspace, which carries
//! the leases of VMs. The lockspace is VDSM's: it is joined and left through VDSM only.
//!
//! ```text
//! None ── startMonitoringDomain ──▶ Pending ── VDSM joined the lockspace ──▶ Acquired
//!   ▲                                                                           │
//!   └────────────── stopMonitoringDomain, unless the domain is in a pool ◀──────┘
//! ```

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vdsm_client::{CallError, Client, code};

/// VDSM tells nothing by itself: it is asked this often while it joins.
const LOOK: Duration = Duration::from_secs(1);

/// How far VDSM is with a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitoring {
    /// Not monitored.
    None,
    /// Monitored, and its lockspace is not joined yet, or not any more.
    Pending,
    /// The lockspace is joined.
    Acquired,
}

/// What a request to leave came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// VDSM stops monitoring the domain; it leaves the lockspace unless a VM here has its lease in it.
    Stopped,
    /// The domain is in a storage pool that this host is connected to: the engine says when it is left.
    Pool,
}

/// Why the lockspace is not joined.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A call to VDSM failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It takes too long.
    #[error(
        "VDSM has not joined the lockspace of storage domain {sd} with host id {host_id} within {} s: another host may \
         use the id, or sanlock waits until an earlier holder is surely dead; sanlock client host_status -s {sd} tells",
        waited.as_secs()
    )]
    Late {
        /// The domain's uuid.
        sd: String,
        /// The id.
        host_id: u16,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// How far VDSM is with domain `sd`.
///
/// # Errors
/// VDSM cannot be asked.
pub async fn monitoring(vdsm: &Client, sd: &str) -> Result<Monitoring, CallError> {
    let all = vdsm.storage_repo_stats(&[sd]).await?;
    Ok(match all.get(sd) {
        None => Monitoring::None,
        Some(status) if status.acquired == Some(true) => Monitoring::Acquired,
        Some(_) => Monitoring::Pending,
    })
}

/// Has VDSM monitor `sd` with this host's id, and waits until the lockspace is joined, `patience` at most.
///
/// # Errors
/// VDSM cannot be asked or refuses, or does not get there; it goes on trying by itself then.
pub async fn hold(vdsm: &Client, sd: &str, host_id: u16, patience: Duration) -> Result<(), MonitorError> {
    let begun = Instant::now();
    if monitoring(vdsm, sd).await? == Monitoring::None {
        vdsm.start_monitoring_domain(sd, host_id).await?;
    }
    while monitoring(vdsm, sd).await? != Monitoring::Acquired {
        let waited = begun.elapsed();
        if waited >= patience {
            return Err(MonitorError::Late { sd: sd.to_owned(), host_id, waited });
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Has VDSM stop monitoring `sd`; does not wait for it. Fine when it is not monitored. The caller has made sure that the
/// engine VM does not run here.
///
/// # Errors
/// VDSM cannot be asked or refuses.
pub async fn leave(vdsm: &Client, sd: &str) -> Result<Left, CallError> {
    if monitoring(vdsm, sd).await? == Monitoring::None {
        return Ok(Left::Stopped);
    }
    match vdsm.stop_monitoring_domain(sd).await {
        Ok(()) => Ok(Left::Stopped),
        Err(error) if error.code() == Some(code::DOMAIN_IN_POOL) => Ok(Left::Pool),
        Err(error) => Err(error),
    }
}
