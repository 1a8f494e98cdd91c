//! Watching a host empty itself after local maintenance was set.

use std::time::Duration;

use broker_api::BrokerClient;
use metadata_format::HostId;
use metadata_format::text::printable;
use tokio::time::Instant;

use crate::moving;
use crate::progress::Progress;
use crate::terminal::{Exit, Terminal};

/// The state of an agent whose host is in local maintenance; the VM has left then.
const EMPTY: &str = "LocalMaintenance";
/// The state in which no agent acts.
const HANDS_OFF: &str = "GlobalMaintenance";
/// How long somebody watches: longer than a migration, a shutdown of the guest that is forced in the end, and what lies
/// between them take.
const PATIENCE: Duration = Duration::from_mins(20);

/// How the watching ended.
enum End {
    Empty,
    HandsOff,
    TooLong,
}

/// Shows how the VM leaves this host. Exit code 1 when it has not; the mode stays set in any case.
pub async fn follow(broker: &BrokerClient, id: HostId, terminal: &mut Terminal) -> Exit {
    let mut progress = Progress::new(terminal);
    let begun = Instant::now();
    let mut failed = None;
    let end = moving::watch(broker, |view| {
        let agent = view.document.as_ref()?.agent.as_ref()?;
        if let Some(report) = &agent.migration {
            moving::show(report, &mut progress, terminal);
            if let Some(why) = moving::not_moved(report, Some(id))
                && failed.replace(report.since) != Some(report.since)
            {
                progress.line(&why, terminal);
            }
        }
        match agent.state.as_str() {
            EMPTY => return Some((End::Empty, view.live_hosts_with_vm(Some(id)))),
            HANDS_OFF => return Some((End::HandsOff, Vec::new())),
            state => {
                let why = agent.reasons.first().map(|why| format!(": {}", printable(why.as_bytes(), &[])));
                progress.line(
                    &format!("{}{}", printable(state.as_bytes(), &[]), why.unwrap_or_default()),
                    terminal,
                );
            }
        }
        (begun.elapsed() > PATIENCE).then(|| (End::TooLong, Vec::new()))
    })
    .await;
    drop(progress);
    match end {
        Ok((End::Empty, places)) => {
            let place =
                places.first().map(|place| format!("; the engine VM is on {place}")).unwrap_or_default();
            let seconds = begun.elapsed().as_secs_f64();
            terminal.say(format!("This host is empty and in local maintenance after {seconds:.1} s{place}"));
            Exit::OK
        }
        Ok((End::HandsOff, _)) => {
            terminal.complain(
                "The cluster is in global maintenance now: the engine VM leaves once that has ended",
            );
            Exit::OK
        }
        Ok((End::TooLong, _)) => {
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
