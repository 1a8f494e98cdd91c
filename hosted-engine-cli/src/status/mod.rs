//! `--vm-status`: what every host says about itself, as this host's broker knows it.
//!
//! [`View`] is all that the renderings need; it comes from our broker's status document or, with a broker that has
//! none, from its raw blocks. The renderings are pure.

mod explain;
mod fenced;
mod json;
mod text;
mod view;

use anyhow::Result;
use broker_api::{BrokerClient, ClientError};
use jiff::tz::TimeZone;

pub use self::explain::explain;
pub use self::json::{to_json, to_value};
pub use self::text::to_text;
pub use self::view::{View, Warning, stamp};
use crate::terminal::{Exit, Terminal};

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The layout for people.
    #[default]
    Text,
    /// One object, keyed by host id.
    Json,
    /// Everything that the broker knows, as its own document.
    FullJson,
}

/// `--vm-status`. Exit 1 when the broker cannot be asked, or knows no host yet.
pub async fn show(
    broker: &BrokerClient,
    format: Format,
    with_reasons: bool,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let view = match View::fetch(broker).await {
        Ok(view) => view,
        Err(error) => {
            report_failure(&error, format, terminal);
            return Ok(Exit::FAILED);
        }
    };
    match format {
        Format::Text => {
            let zone = TimeZone::system();
            terminal.print(&to_text(&view, &zone));
            if with_reasons {
                terminal.print(&explain(&view, &zone));
            }
        }
        Format::Json => terminal.say(to_json(&view)?),
        Format::FullJson => {
            let Some(document) = &view.document else {
                terminal.complain("This broker has no status document; use --json");
                return Ok(Exit::FAILED);
            };
            terminal.say(serde_json::to_string_pretty(document)?);
        }
    }
    if view.rows.is_empty() {
        terminal.complain("No host has written its status yet; is ovirt-ha-agent running on any host?");
        return Ok(Exit::FAILED);
    }
    Ok(Exit::OK)
}

fn report_failure(error: &ClientError, format: Format, terminal: &mut Terminal) {
    const SENTENCE: &str = "Cannot connect to the HA daemon, please check the logs.";
    match format {
        Format::Text => terminal.complain(format!("{error}\n{SENTENCE}")),
        // Scripts parse standard output; it must be JSON even then.
        Format::Json | Format::FullJson => {
            terminal.say(serde_json::json!({ "exception": error.to_string() }).to_string());
            terminal.complain(SENTENCE);
        }
    }
}
