//! Which host is meant, and whether it may be switched.
//!
//! What is refused here is refused for the operator's sake: a command line is quickly typed, and power that is gone takes
//! every VM of a host with it.

use broker_api::status::HostRow;
use ha_config::ha_toml::FencingTable;
use metadata_format::{HostId, VmState};

use super::Deed;
use crate::status::{View, Warning};

/// What this host knows of the cluster; the text says why it knows nothing.
pub(super) type Known = Result<View, String>;

/// The name in a host's row.
pub(super) fn name_of(view: &View, id: HostId) -> Option<&str> {
    match view.rows.get(&id) {
        Some(HostRow::Good(row)) if !row.hostname.is_empty() => Some(&row.hostname),
        Some(HostRow::Good(_) | HostRow::Bad { .. }) | None => None,
    }
}

/// The hosts whose rows have this name.
fn ids_of(view: &View, name: &str) -> Vec<HostId> {
    view.rows.keys().copied().filter(|id| name_of(view, *id) == Some(name)).collect()
}

/// The host for messages.
pub(super) fn label(known: &Known, id: HostId) -> String {
    match known.as_ref().ok().and_then(|view| name_of(view, id)) {
        Some(name) => format!("host {id} ({name})"),
        None => format!("host {id}"),
    }
}

/// The name by which entries of `[[fencing.host]]` mean this host; `None` when no entry has a name.
///
/// # Errors
/// Why it cannot be told which entries are this host's: half of its switches would not do.
pub(super) fn name_in_table(
    table: &FencingTable,
    known: &Known,
    id: HostId,
) -> Result<Option<String>, String> {
    if table.host.iter().all(|entry| entry.name.is_none()) {
        return Ok(None);
    }
    let unclear = |why: &str| {
        Err(format!(
            "[[fencing.host]] has entries with a name, and which of them are host {id}'s is not known ({why}). Use \
             host_id in these entries"
        ))
    };
    let view = match known {
        Ok(view) => view,
        Err(error) => return unclear(error),
    };
    let Some(name) = name_of(view, id) else { return unclear("its row has no name") };
    let configured = table.host.iter().any(|entry| entry.name.as_deref() == Some(name));
    let others: Vec<_> = ids_of(view, name).iter().map(HostId::to_string).collect();
    if configured && others.len() > 1 {
        return unclear(&format!("the rows of the hosts {} have the name {name}", others.join(", ")));
    }
    Ok(Some(name.to_owned()))
}

/// The hosts that the table has switches for, and the names that no row has.
pub(super) fn hosts_in_table(table: &FencingTable, known: &Known) -> (Vec<HostId>, Vec<String>) {
    let mut ids: Vec<HostId> = table.host.iter().filter_map(|entry| entry.host_id).collect();
    let mut strangers = Vec::new();
    for name in table.host.iter().filter_map(|entry| entry.name.as_deref()) {
        let found = known.as_ref().map(|view| ids_of(view, name)).unwrap_or_default();
        if found.is_empty() {
            strangers.push(name.to_owned());
        }
        ids.extend(found);
    }
    ids.sort_unstable();
    ids.dedup();
    strangers.dedup();
    (ids, strangers)
}

/// Why a host must not be switched, whatever is forced: it is this host.
pub(super) fn is_this_host(known: &Known, own: HostId, id: HostId) -> Option<String> {
    if own == id {
        return Some(format!("host {id} is this host, which cannot see whether it is off; use another host"));
    }
    let view = known.as_ref().ok()?;
    let name = name_of(view, id).filter(|name| name_of(view, own) == Some(name))?;
    Some(format!("the row of host {id} has the name of this host, {name}: it may be this host's old number"))
}

/// Why power should not be taken from a host; only --force goes on then.
pub(super) fn danger(known: &Known, id: HostId, deed: Deed) -> Option<String> {
    match deed {
        Deed::Off | Deed::Reboot => {}
        Deed::Status | Deed::On => return None,
    }
    let unknown = |why: &str| Some(format!("whether host {id} runs the engine VM is not known ({why})"));
    let view = match known {
        Ok(view) => view,
        Err(error) => return unknown(error),
    };
    for warning in &view.warnings {
        match warning {
            Warning::StorageStuck { .. }
            | Warning::StorageFailed { .. }
            | Warning::StorageConnecting { .. }
            | Warning::StorageUnread => {
                return unknown("this host cannot read the shared metadata at present");
            }
            Warning::LeaseLost { .. }
            | Warning::LeaseJoining { .. }
            | Warning::GlobalBlock { .. }
            | Warning::UnknownGlobalKeys(_)
            | Warning::NoWatchdog
            | Warning::Agent(_) => {}
        }
    }
    match view.rows.get(&id) {
        // Nobody's row: no agent ever ran there.
        None => None,
        Some(HostRow::Bad { error }) => unknown(error),
        Some(HostRow::Good(row)) if !row.live => None,
        Some(HostRow::Good(row)) => match row.engine_status.vm {
            VmState::Up => Some(format!(
                "{} is alive and runs the engine VM; move it away first, with --set-maintenance --mode=local there",
                label(known, id)
            )),
            VmState::Unknown => unknown("it is alive, and its row does not say"),
            VmState::Down | VmState::DownUnexpected | VmState::DownMissing => None,
        },
    }
}
