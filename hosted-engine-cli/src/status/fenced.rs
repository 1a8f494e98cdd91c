//! Hosts that are being powered off by others, or were: what the rows of those say. Pure.

use broker_api::status::{GoodRow, HostRow};
use jiff::tz::TimeZone;
use metadata_format::fencing::fencing_entries;
use metadata_format::{FencingEntry, FencingPhase, HostId};

use super::View;
use super::view::stamp;

/// One sentence for each death that somebody does, or did, something about. A host that is back is no news.
pub(super) fn sentences(view: &View, zone: &TimeZone) -> Vec<String> {
    let rows = view.rows.iter().filter_map(|(id, row)| Some((*id, good(row)?)));
    rows.flat_map(|(by, row)| {
        fencing_entries(&row.extra).into_iter().filter_map(move |entry| sentence(view, by, row, entry, zone))
    })
    .collect()
}

const fn good(row: &HostRow) -> Option<&GoodRow> {
    match row {
        HostRow::Good(row) => Some(row),
        HostRow::Bad { .. } => None,
    }
}

fn sentence(view: &View, by: HostId, row: &GoodRow, entry: FencingEntry, zone: &TimeZone) -> Option<String> {
    let victim = view.rows.get(&entry.host).and_then(good);
    if victim.is_some_and(|victim| victim.host_ts != entry.stamp) {
        return None;
    }
    let named = |id, name: Option<&str>| match name {
        Some(name) if !name.is_empty() => format!("host {id} ({name})"),
        Some(_) | None => format!("host {id}"),
    };
    let host = named(entry.host, victim.map(|victim| victim.hostname.as_str()));
    let by = named(by, Some(&row.hostname));
    let at = stamp(entry.since, zone);
    Some(match entry.phase {
        // Whoever fell silent over it does nothing any more.
        FencingPhase::Claimed | FencingPhase::Begun if !row.live => return None,
        FencingPhase::Claimed => format!("{host} is dead and will be powered off by {by}"),
        FencingPhase::Begun => format!("{host} is dead; {by} began to power it off at {at}"),
        FencingPhase::Off => format!("{host} was powered off by {by} at {at}, confirmed"),
        FencingPhase::Failed => format!(
            "{host} is dead and could not be powered off by {by} at {at}; the log of its agent says why"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metadata_format::{EngineStatus, Score};

    use super::*;

    fn row(id: u16, live: bool, extra: &str) -> (HostId, HostRow) {
        let row = GoodRow {
            host_ts: 500,
            score: Score(3400),
            engine_status: EngineStatus::unknown("x"),
            hostname: format!("h{id}"),
            maintenance: false,
            stopped: false,
            crc32: None,
            conf_on_shared_storage: None,
            local_conf_timestamp: None,
            extra: extra.to_owned(),
            live,
            unchanged_secs: None,
        };
        (HostId::new(id).unwrap(), HostRow::Good(Box::new(row)))
    }

    fn said(live: bool, extra: &str) -> Vec<String> {
        let rows = BTreeMap::from([row(1, live, &format!("state=EngineDown\n{extra}")), row(2, false, "")]);
        sentences(&View { rows, ..View::default() }, &TimeZone::UTC)
    }

    #[test]
    fn each_phase_has_its_sentence() {
        for (phase, words) in [
            ("claimed", "host 2 (h2) is dead and will be powered off by host 1 (h1)"),
            ("begun", "host 2 (h2) is dead; host 1 (h1) began to power it off at "),
            ("off", "host 2 (h2) was powered off by host 1 (h1) at "),
            ("failed", "host 2 (h2) is dead and could not be powered off by host 1 (h1) at "),
        ] {
            let said = said(true, &format!("fencing=2 500 {phase} 1700000000 3400"));
            assert!(said.len() == 1 && said[0].starts_with(words), "{said:?}");
        }
        assert!(said(true, "fencing=2 500 off 1700000000 3400")[0].ends_with(", confirmed"));
    }

    #[test]
    fn old_stories_and_silent_tellers_are_no_news() {
        assert_eq!(said(true, "fencing=2 499 off 1700000000 3400"), [""; 0], "it is back");
        assert_eq!(said(false, "fencing=2 500 begun 1700000000 3400"), [""; 0]);
        assert_eq!(said(false, "fencing=2 500 off 1700000000 3400").len(), 1);
    }
}
