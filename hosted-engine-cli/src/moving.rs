//! Watching the engine VM leave this host, by what this host's agent reports to its broker.

use std::time::Duration;

use anyhow::{Result, bail};
use broker_api::BrokerClient;
use broker_api::status::{MigrationPhase, MigrationReport};
use metadata_format::HostId;
use tokio::time::Instant;

use crate::progress::{Progress, percent};
use crate::status::View;
use crate::terminal::Terminal;

/// Pause between looks: how far a migration is, nobody announces.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the broker may be away or the agent silent before nobody waits any more: longer than a restart of both
/// takes.
const SILENCE: Duration = Duration::from_mins(1);

/// Said when this host's agent is not there.
pub const NO_AGENT: &str = "This host's agent has not spoken for 60 s: see systemctl status ovirt-ha-agent";

/// `name (id)` of the host that a report names.
pub fn destination(report: &MigrationReport) -> String {
    let name = metadata_format::text::printable(report.hostname.as_bytes(), &[]);
    format!("{name} (id {})", report.to)
}

/// How a migration away from the host `this` goes or went, in a sentence; `since` is when it began, in words.
pub fn sentence(report: &MigrationReport, this: Option<HostId>, since: &str) -> String {
    let to = destination(report);
    match &report.phase {
        MigrationPhase::Asked => {
            format!("This host moves the engine VM to {to} since {since}: that host gets ready")
        }
        MigrationPhase::Sending { transferred, remaining } => {
            let share = percent(*transferred, *remaining);
            format!("This host moves the engine VM to {to} since {since}: {share} % of its memory is sent")
        }
        MigrationPhase::Done => format!("The engine VM moved from this host to {to}"),
        MigrationPhase::Failed { .. } => not_moved(report, this).unwrap_or_default(),
    }
}

/// That the VM stayed on the host `this`, and why; `None` when it did not fail.
pub fn not_moved(report: &MigrationReport, this: Option<HostId>) -> Option<String> {
    let MigrationPhase::Failed { detail } = &report.phase else { return None };
    let detail = metadata_format::text::printable(detail.as_bytes(), &[]);
    // A request that names no host is refused in this host's name.
    let is_refusal = this == Some(report.to);
    let place = if is_refusal { String::new() } else { format!(" to {}", destination(report)) };
    Some(format!("The engine VM was not moved{place}: {detail}"))
}

/// Shows how far it is; nothing of one that has ended.
pub fn show(report: &MigrationReport, progress: &mut Progress, terminal: &mut Terminal) {
    let to = destination(report);
    match &report.phase {
        MigrationPhase::Asked => progress.line(&format!("{to} gets ready for the engine VM"), terminal),
        MigrationPhase::Sending { transferred, remaining } => {
            progress.bytes(&format!("Moving the engine VM to {to}"), *transferred, *remaining, terminal);
        }
        MigrationPhase::Done | MigrationPhase::Failed { .. } => {}
    }
}

/// Looks at the broker's document until `step` finds an end. An error when the broker or the agent is silent for too
/// long.
pub async fn watch<T>(broker: &BrokerClient, mut step: impl FnMut(&View) -> Option<T>) -> Result<T> {
    let mut heard = Instant::now();
    loop {
        match View::fetch(broker).await {
            Ok(view) => {
                if view.document.as_ref().is_some_and(|document| document.agent.is_some()) {
                    heard = Instant::now();
                }
                if let Some(end) = step(&view) {
                    return Ok(end);
                }
                if heard.elapsed() > SILENCE {
                    bail!("{NO_AGENT}");
                }
            }
            Err(error) if heard.elapsed() > SILENCE => return Err(error.into()),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a row of another live host says that the VM is up there.
pub fn is_elsewhere(view: &View, this: HostId) -> bool {
    !view.live_hosts_with_vm(Some(this)).is_empty()
}
