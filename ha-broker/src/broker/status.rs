//! `GET /v1/status`: what was seen, as rows. Reads no storage.

use std::collections::BTreeMap;

use broker_api::status::{
    AgentReport, GoodRow, HostRow, LeaseState, MigrationRequest, StatusDocument, StorageState,
};
use clock::Monotonic;
use metadata_format::{GlobalBlock, HostBlock, HostId};

use super::Parts;
use crate::whiteboard::Snapshot;

/// The whole document.
pub fn document(
    parts: &Parts,
    alive: &[u16],
    agent: Option<AgentReport>,
    migration_request: Option<MigrationRequest>,
    now: Monotonic,
) -> StatusDocument {
    let snapshot = parts.whiteboard.snapshot();
    let (global_maintenance, unknown_global_keys) = cluster(&snapshot);
    let kept = parts.lease.kept();
    StatusDocument {
        host_id: parts.host_id,
        broker_version: env!("CARGO_PKG_VERSION").to_owned(),
        global_maintenance,
        unknown_global_keys,
        hosts: hosts(&snapshot, alive, now),
        storage: parts.whiteboard.state(),
        lease: kept.state,
        lock_manager_live: kept.all_live,
        monitors: parts.monitors.rows(),
        agent,
        migration_request,
    }
}

/// Global maintenance, and what else is in the cluster's block. A block that cannot be understood is said among
/// the unknown keys.
fn cluster(snapshot: &Snapshot) -> (Option<bool>, Vec<String>) {
    if snapshot.read_at.is_none() {
        return (None, Vec::new());
    }
    if let Some(error) = snapshot.unreadable.get(&crate::whiteboard::CLUSTER_BLOCK) {
        return (None, vec![error.to_string()]);
    }
    match snapshot.cluster().map_or_else(|| Ok(GlobalBlock::default()), |block| GlobalBlock::parse(block)) {
        Ok(block) => (Some(block.maintenance()), block.unknown_lines()),
        Err(error) => (None, vec![error.to_string()]),
    }
}

fn hosts(snapshot: &Snapshot, alive: &[u16], now: Monotonic) -> BTreeMap<HostId, HostRow> {
    let mut rows = BTreeMap::new();
    for (block, seen) in &snapshot.blocks {
        // Block 0 is no host's.
        let Ok(id) = HostId::new(*block) else { continue };
        let unchanged_secs = seen.changed_at.map(|at| now.saturating_since(at).as_secs());
        match HostBlock::parse(id, &*seen.bytes) {
            Ok(Some(block)) => {
                rows.insert(
                    id,
                    HostRow::Good(Box::new(GoodRow::new(block, alive.contains(&id.get()), unchanged_secs))),
                );
            }
            Ok(None) => {}
            Err(error) => {
                rows.insert(id, HostRow::Bad { error: error.to_string() });
            }
        }
    }
    for (block, error) in &snapshot.unreadable {
        if let Ok(id) = HostId::new(*block) {
            rows.insert(id, HostRow::Bad { error: error.to_string() });
        }
    }
    rows
}

/// Storage and lease in one line.
pub fn headline(parts: &Parts) -> String {
    let storage = match parts.whiteboard.state() {
        StorageState::Starting => "storage not read yet".to_owned(),
        StorageState::Connecting { step, error: None, .. } => {
            format!("connecting storage through VDSM: waiting for {step}")
        }
        StorageState::Connecting { error: Some(error), .. } => {
            format!("connecting storage through VDSM: {error}")
        }
        StorageState::Good { .. } => "storage good".to_owned(),
        StorageState::Stuck { since, .. } => format!("storage stuck since {since}"),
        StorageState::Failed { error, .. } => format!("storage failed: {error}"),
    };
    let lease = match parts.lease.kept().state {
        LeaseState::NotRequested => "host id not requested",
        LeaseState::Joining { .. } => "joining the lockspace",
        LeaseState::Held { .. } => "host id held",
        LeaseState::Lost { .. } => "host id LOST",
    };
    format!("{storage}; {lease}")
}
