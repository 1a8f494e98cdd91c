//! Waiting for a host that cannot take the engine VM yet.

use std::time::Duration;

use broker_api::{BrokerClient, ClientError};
use metadata_format::HostId;
use tokio::time::Instant;

use crate::status::View;
use crate::terminal::Terminal;

/// From its agent's start until a host counts as live: a minute of being watched, and some looks.
pub const COMES_WITHIN: Duration = Duration::from_secs(90);
/// Pause between looks. Nothing announces that a host counts as live.
const LOOK: Duration = Duration::from_millis(500);

/// What the broker says once another host can take the VM, or when none is coming that could: at once, or after
/// [`COMES_WITHIN`] at the latest.
///
/// # Errors
/// When the broker does not answer.
pub async fn await_taker(
    broker: &BrokerClient,
    this: HostId,
    terminal: &mut Terminal,
) -> Result<View, ClientError> {
    let begun = Instant::now();
    let mut said = Vec::new();
    loop {
        let view = View::fetch(broker).await?;
        let coming = view.coming(this);
        let left = COMES_WITHIN.saturating_sub(begun.elapsed());
        if view.somebody_else_can_run_it(this) || coming.is_empty() || left.is_zero() {
            return Ok(view);
        }
        if said != coming {
            terminal.say(format!(
                "No other host can take the engine VM yet. Waiting for {}, until it was watched for a minute: {} s at most",
                coming.join(", "),
                left.as_secs_f64().ceil()
            ));
            said = coming;
        }
        tokio::time::sleep(LOOK).await;
    }
}
