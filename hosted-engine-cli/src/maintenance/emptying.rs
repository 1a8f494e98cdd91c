//! Watching a host empty itself after local maintenance was set.

use std::time::Duration;

use broker_api::BrokerClient;
use broker_api::status::MigrationPhase;
use metadata_format::HostId;
use metadata_format::text::printable;
use tokio::time::Instant;

use crate::moving;
use crate::progress::Progress;
use crate::status::View;
use crate::terminal::{Exit, Terminal};

/// The state of an agent whose host is in local maintenance; the VM has left then.
const EMPTY: &str = "LocalMaintenance";
/// The state in which no agent acts.
const HANDS_OFF: &str = "GlobalMaintenance";
/// How long somebody watches: longer than a migration, a shutdown of the guest that is forced in the end, and what lies
/// between them take.
const PATIENCE: Duration = Duration::from_mins(20);
/// How long somebody watches on for the row of the host that the VM moved to: its agent's next write, and this broker's
/// next read of it.
const ARRIVAL: Duration = Duration::from_secs(15);

/// How the watching ended.
enum End {
    /// With where the VM is, as far as that is known.
    Empty(String),
    HandsOff,
    TooLong,
}

/// Shows how the VM leaves this host. Exit code 1 when it has not; the mode stays set in any case.
pub async fn follow(broker: &BrokerClient, id: HostId, terminal: &mut Terminal) -> Exit {
    let mut progress = Progress::new(terminal);
    let begun = Instant::now();
    let (mut failed, mut moved_to, mut empty_since) = (None, None, None);
    let end = moving::watch(broker, |view| {
        let agent = view.document.as_ref()?.agent.as_ref()?;
        if let Some(report) = &agent.migration {
            moving::show(report, &mut progress, terminal);
            if let Some(why) = moving::not_moved(report, Some(id))
                && failed.replace(report.since) != Some(report.since)
            {
                progress.line(&why, terminal);
            }
            if report.phase == MigrationPhase::Done {
                moved_to = Some(moving::destination(report));
            }
        }
        match agent.state.as_str() {
            EMPTY => {
                let since: Instant = *empty_since.get_or_insert_with(Instant::now);
                return whereabouts(view, id, moved_to.as_deref(), since.elapsed()).map(End::Empty);
            }
            HANDS_OFF => return Some(End::HandsOff),
            state => {
                let why = agent.reasons.first().map(|why| format!(": {}", printable(why.as_bytes(), &[])));
                progress.line(
                    &format!("{}{}", printable(state.as_bytes(), &[]), why.unwrap_or_default()),
                    terminal,
                );
            }
        }
        (begun.elapsed() > PATIENCE).then_some(End::TooLong)
    })
    .await;
    drop(progress);
    match end {
        Ok(End::Empty(whereabouts)) => {
            let seconds = begun.elapsed().as_secs_f64();
            terminal.say(format!(
                "This host is empty and in local maintenance after {seconds:.1} s; {whereabouts}"
            ));
            Exit::OK
        }
        Ok(End::HandsOff) => {
            terminal.complain(
                "The cluster is in global maintenance now: the engine VM leaves once that has ended",
            );
            Exit::OK
        }
        Ok(End::TooLong) => {
            terminal.complain(format!(
                "Local maintenance stays set, and after {} minutes the engine VM is still here; \
                 hosted-engine --vm-status --explain shows why",
                PATIENCE.as_secs() / 60
            ));
            Exit::FAILED
        }
        Err(error) => {
            terminal.complain(format!(
                "Local maintenance stays set; how the engine VM leaves is not known: {error:#}"
            ));
            Exit::FAILED
        }
    }
}

/// Where the VM is, which has left the host `id`; `moved_to` when a live migration took it there. `None` while that
/// host's row is still to come.
fn whereabouts(view: &View, id: HostId, moved_to: Option<&str>, waited: Duration) -> Option<String> {
    let place = view.live_hosts_with_vm(Some(id)).into_iter().next();
    Some(match (moved_to, place) {
        (Some(_), Some(place)) => format!("the engine VM has moved to {place}"),
        (None, Some(place)) => format!("the engine VM is on {place}"),
        (Some(_), None) if waited < ARRIVAL => return None,
        (Some(to), None) => format!(
            "the engine VM has moved to {to}, whose row does not show it after {} s: see hosted-engine --vm-status",
            ARRIVAL.as_secs()
        ),
        (None, None) => "no live host shows the engine VM up".to_owned(),
    })
}
