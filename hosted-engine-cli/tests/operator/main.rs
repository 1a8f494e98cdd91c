//! The operator's commands against a broker that listens on a real socket and a virtual machine that is none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed assumption must fail the test")]

#[path = "../deployed/mod.rs"]
mod deployed;
mod fake_broker;
mod fake_vm;
mod fence;
mod leaving;
mod maintenance;
mod migrate;
mod shared_config;
mod status;
mod storage;
mod vm;

use std::collections::BTreeMap;

use broker_api::status::{AgentReport, MigrationReport};
use metadata_format::{EngineStatus, GlobalBlock, HostId, HostRecord, Score};

/// A host block of release 2.5's form.
fn block(id: u16, status: &str, score: u32) -> Vec<u8> {
    named_block(id, &format!("h{id}"), status, score)
}

fn named_block(id: u16, name: &str, status: &str, score: u32) -> Vec<u8> {
    HostRecord {
        host_ts: 100,
        host_time: "then".into(),
        host_id: HostId::new(id).unwrap(),
        score: Score(score),
        engine_status: EngineStatus::parse(status),
        hostname: name.to_owned(),
        maintenance: false,
        stopped: false,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 100,
        vm_conf_refresh_time: "then".into(),
        state: "EngineDown".into(),
        timeout: None,
        notes: BTreeMap::new(),
    }
    .encode()
    .unwrap()
}

/// What an agent in `state` reports.
fn report(state: &str, migration: Option<MigrationReport>) -> AgentReport {
    AgentReport {
        state: state.to_owned(),
        score: Score(3400),
        score_terms: Vec::new(),
        reasons: vec![format!("why {state}")],
        timeout_at: None,
        warnings: Vec::new(),
        migration,
    }
}

fn cluster_block(maintenance: bool) -> Vec<u8> {
    let mut block = GlobalBlock::parse(b"from-the-future=7").unwrap();
    block.set_maintenance(maintenance);
    block.encode().unwrap()
}

const UP: &str = "vm-up good-health-status";
const DOWN: &str = "vm-down";
