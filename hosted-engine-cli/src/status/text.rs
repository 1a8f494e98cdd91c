//! The layout for people: the one that operators and their scripts know, line by line.

use std::fmt::Write as _;

use broker_api::status::{GoodRow, HostRow};
use jiff::tz::TimeZone;
use metadata_format::HostId;
use metadata_format::python::{bool_word, to_json};
use metadata_format::text::printable;

use super::fenced;
use super::view::safe;
use super::{View, Warning};

const GLOBAL_BANNER: &str = "\n\n!! Cluster is in GLOBAL MAINTENANCE mode !!\n\n";

/// The whole text. Warnings stand before the rows, so that nobody believes old rows.
pub fn to_text(view: &View, zone: &TimeZone) -> String {
    let mut text = String::new();
    let banner = if view.global_maintenance == Some(true) { GLOBAL_BANNER } else { "" };
    text.push_str(banner);
    for warning in &view.warnings {
        let sentence = safe(&warning.sentence(zone));
        if *warning == Warning::NoWatchdog {
            // So it was set up: nothing has happened that must be shouted.
            put(&mut text, format_args!("\n{sentence}\n"));
        } else {
            put(&mut text, format_args!("\n!! {sentence} !!\n"));
        }
    }
    for sentence in fenced::sentences(view, zone) {
        put(&mut text, format_args!("\nFencing: {}\n", safe(&sentence)));
    }
    if let Some(sentence) = view.moving(zone) {
        put(&mut text, format_args!("\n-- {} --\n", safe(&sentence)));
    }
    for (id, row) in &view.rows {
        match row {
            HostRow::Good(row) => good(&mut text, *id, row),
            HostRow::Bad { error } => bad(&mut text, *id, error),
        }
    }
    // Again, because a long list scrolls the first one away.
    text.push_str(banner);
    text
}

fn good(text: &mut String, id: HostId, row: &GoodRow) {
    put(text, format_args!("\n\n--== Host {} (id: {id}) status ==--\n\n", safe(&row.hostname)));
    line(text, "Host ID", id);
    line(text, "Host timestamp", row.host_ts);
    line(text, "Score", row.score);
    if row.live {
        // Its strings can always be JSON.
        line(text, "Engine status", to_json(&row.engine_status).unwrap_or_default());
    } else {
        line(text, "Engine status", "unknown stale-data");
    }
    line(text, "Hostname", safe(&row.hostname));
    line(text, "Local maintenance", bool_word(row.maintenance));
    line(text, "stopped", bool_word(row.stopped));
    if let Some(crc32) = &row.crc32 {
        line(text, "crc32", safe(crc32));
    }
    if let Some(shared) = row.conf_on_shared_storage {
        line(text, "conf_on_shared_storage", bool_word(shared));
    }
    if let Some(timestamp) = row.local_conf_timestamp {
        line(text, "local_conf_timestamp", timestamp);
    }
    line(text, "Status up-to-date", bool_word(row.live));
    if !row.extra.is_empty() {
        put(text, format_args!("{:35}:\n", "Extra metadata (valid at timestamp)"));
        for extra in row.extra.lines() {
            put(text, format_args!("\t{}\n", printable(extra.as_bytes(), &['\t'])));
        }
    }
}

fn bad(text: &mut String, id: HostId, error: &str) {
    put(text, format_args!("\n\n--== Host unknown (id: {id}) status ==--\n\n"));
    line(text, "Host ID", id);
    line(text, "Engine status", "unknown unreadable-data");
    line(text, "Status up-to-date", bool_word(false));
    line(text, "Unreadable because", safe(error));
}

fn line(text: &mut String, label: &str, value: impl std::fmt::Display) {
    put(text, format_args!("{label:35}: {value}\n"));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(what);
}
