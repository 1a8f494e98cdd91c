//! `--json`: one object keyed by host id, in the shape and spelling that existing consumers parse.
//!
//! Every host's value is an object with the keys that they look up, an unreadable block's too, and
//! `global_maintenance` stays the only other key: consumers take any further one for a host. While this host moves the VM
//! away, and for a minute after, its own object says so under `migration`.

use broker_api::status::{GoodRow, HostRow, MigrationPhase, MigrationReport};
use metadata_format::{EngineStatus, HostId, python};
use serde_json::{Map, Value, json};

use super::View;
use crate::progress::percent;

/// One line of JSON as Python spells it.
pub fn to_json(view: &View) -> Result<String, serde_json::Error> {
    python::to_json(&to_value(view)?)
}

/// The same as a value.
pub fn to_value(view: &View) -> Result<Value, serde_json::Error> {
    let mut object = Map::new();
    for (id, row) in &view.rows {
        let mut row = match row {
            HostRow::Good(row) => good(*id, row)?,
            HostRow::Bad { error } => bad(*id, error)?,
        };
        let is_this_host = view.document.as_ref().is_some_and(|document| document.host_id == Some(*id));
        if let Some(report) = view.migration().filter(|_| is_this_host) {
            row.insert("migration".to_owned(), migration(report));
        }
        object.insert(id.to_string(), Value::Object(row));
    }
    object.insert("global_maintenance".to_owned(), json!(view.global_maintenance.unwrap_or(false)));
    Ok(Value::Object(object))
}

fn migration(report: &MigrationReport) -> Value {
    let mut object = json!({"to": report.to.get(), "hostname": report.hostname, "since": report.since});
    let (phase, key, value) = match &report.phase {
        MigrationPhase::Asked => ("asked", "percent", json!(0)),
        MigrationPhase::Sending { transferred, remaining } => {
            ("sending", "percent", json!(percent(*transferred, *remaining)))
        }
        MigrationPhase::Done => ("done", "percent", json!(100)),
        MigrationPhase::Failed { detail } => ("failed", "error", json!(detail)),
    };
    object["phase"] = json!(phase);
    object[key] = value;
    object
}

fn good(id: HostId, row: &GoodRow) -> Result<Map<String, Value>, serde_json::Error> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("host-id", json!(id.get()));
    put("host-ts", json!(row.host_ts));
    put("score", json!(row.score.0));
    put("engine-status", serde_json::to_value(&row.engine_status)?);
    put("hostname", json!(row.hostname));
    put("maintenance", json!(row.maintenance));
    put("stopped", json!(row.stopped));
    if let Some(crc32) = &row.crc32 {
        put("crc32", json!(crc32));
    }
    if let Some(shared) = row.conf_on_shared_storage {
        put("conf_on_shared_storage", json!(shared));
    }
    if let Some(timestamp) = row.local_conf_timestamp {
        put("local_conf_timestamp", json!(timestamp));
    }
    if !row.extra.is_empty() {
        put("extra", json!(row.extra));
    }
    put("live-data", json!(row.live));
    Ok(object)
}

fn bad(id: HostId, error: &str) -> Result<Map<String, Value>, serde_json::Error> {
    let status = serde_json::to_value(EngineStatus::unknown(error))?;
    let mut object = Map::new();
    for (key, value) in [
        ("host-id", json!(id.get())),
        ("host-ts", json!(0)),
        ("score", json!(0)),
        ("engine-status", status),
        ("hostname", json!("unknown")),
        ("maintenance", json!(false)),
        ("stopped", json!(false)),
        ("error", json!(error)),
        ("live-data", json!(false)),
    ] {
        object.insert(key.to_owned(), value);
    }
    Ok(object)
}
