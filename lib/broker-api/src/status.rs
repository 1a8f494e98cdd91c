//! The JSON documents on the broker's socket: `GET /v1/status`, `PUT /v1/agent`, `PUT /v1/migration`, `GET
//! /v1/wake`.

use std::collections::BTreeMap;

use metadata_format::{EngineStatus, HostBlock, HostId, Score};
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/status`: everything that this host's broker knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// This host's id; `None` on a host that is not configured.
    pub host_id: Option<HostId>,
    /// Version of the broker.
    pub broker_version: String,
    /// Whether the cluster block says global maintenance; `None` before the first good read.
    pub global_maintenance: Option<bool>,
    /// Block 0's unknown keys, as read.
    pub unknown_global_keys: Vec<String>,
    /// One row for each block that is present, readable or not.
    pub hosts: BTreeMap<HostId, HostRow>,
    /// State of the shared metadata file as this host sees it.
    pub storage: StorageState,
    /// State of this host's host id lease.
    pub lease: LeaseState,
    /// All hosts, this one too, whose lease in the hosted-engine lockspace is live, by the lock manager. `None` while
    /// it cannot say that of every host: the lease is not held or was taken lately, or a host was not watched for long
    /// enough; also from brokers that do not tell.
    #[serde(default)]
    pub lock_manager_live: Option<Vec<HostId>>,
    /// Results of the monitors, by id.
    pub monitors: BTreeMap<String, MonitorRow>,
    /// What this host's agent last said about itself; `None` before it spoke or when it has been silent for 60 s.
    pub agent: Option<AgentReport>,
    /// What an operator asked for with `PUT /v1/migration`, until this host's agent has answered it; 10 minutes at most.
    #[serde(default)]
    pub migration_request: Option<MigrationRequest>,
}

/// An operator's request to move the engine VM away from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationRequest {
    /// To that host; `None` leaves the choice to the agent.
    pub to: Option<HostId>,
    /// Wall clock, seconds since 1970, when the broker was asked. Later requests have a later one.
    pub asked_at: i64,
}

/// Body of `PUT /v1/migration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskMigration {
    /// To that host; `null` leaves the choice to the agent.
    pub to: Option<HostId>,
}

/// One host's block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum HostRow {
    /// It parsed.
    Good(Box<GoodRow>),
    /// It did not; the other hosts are not affected.
    Bad {
        /// What is wrong: host, field, value, and what to do.
        error: String,
    },
}

/// A block that parsed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoodRow {
    /// The writer's monotonic seconds.
    pub host_ts: i64,
    /// Its score.
    pub score: Score,
    /// What it says about the engine VM.
    pub engine_status: EngineStatus,
    /// Its name.
    pub hostname: String,
    /// Local maintenance.
    pub maintenance: bool,
    /// Its agent stopped cleanly.
    pub stopped: bool,
    /// Checksum as stored: 8 lower-case hexadecimal digits; absent in blocks of the 2013 form.
    pub crc32: Option<String>,
    /// Whether the configuration is on shared storage.
    pub conf_on_shared_storage: Option<bool>,
    /// Monotonic seconds of the last good vm.conf refresh.
    pub local_conf_timestamp: Option<i64>,
    /// The part for people, from byte 512.
    pub extra: String,
    /// Whether the agent's last alive list named this host (false once the list is older than 60 s).
    pub live: bool,
    /// Seconds since this broker last saw the block change; `None` before it saw a change.
    pub unchanged_secs: Option<u64>,
}

impl GoodRow {
    /// The row of `block`.
    pub fn new(block: HostBlock, live: bool, unchanged_secs: Option<u64>) -> Self {
        Self {
            host_ts: block.host_ts,
            score: block.score,
            engine_status: block.engine_status,
            hostname: block.hostname,
            maintenance: block.maintenance,
            stopped: block.stopped,
            crc32: block.crc32.map(|crc| format!("{crc:08x}")),
            conf_on_shared_storage: block.conf_on_shared_storage,
            local_conf_timestamp: block.local_conf_timestamp,
            extra: block.extra,
            live,
            unchanged_secs,
        }
    }
}

/// The shared metadata file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StorageState {
    /// Nothing read yet.
    Starting,
    /// The storage domain is being connected and its volumes prepared, through VDSM; again and again until it works.
    Connecting {
        /// Wall clock, seconds since 1970, since when.
        since: i64,
        /// What is waited for now, or what the last try waited for.
        step: String,
        /// Why the last try failed, and what to do.
        error: Option<String>,
        /// Wall clock, seconds since 1970, of the next try; `None` while one is under way.
        next_try: Option<i64>,
    },
    /// The last read was good.
    Good {
        /// How long it took, in milliseconds.
        read_ms: u64,
    },
    /// A read or write has not come back within its deadline.
    Stuck {
        /// Wall clock, seconds since 1970, when the request that hangs was sent.
        since: i64,
        /// What was being done.
        operation: String,
    },
    /// The last one failed.
    Failed {
        /// Wall clock, seconds since 1970, of the first failure since it last worked.
        since: i64,
        /// File, errno and what to do.
        error: String,
    },
}

/// This host's hold on its host id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LeaseState {
    /// Nobody asked for it (or it was released).
    NotRequested,
    /// Asked for; the lock manager has not decided.
    Joining {
        /// Wall clock, seconds since 1970, when it was asked for.
        since: i64,
    },
    /// Ours.
    Held {
        /// Wall clock, seconds since 1970, since when.
        since: i64,
    },
    /// Not ours, and why.
    Lost {
        /// Wall clock, seconds since 1970, since when.
        since: i64,
        /// The lock manager's words and what to do.
        error: String,
    },
}

/// One monitor's last result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitorRow {
    /// The text that `status_monitor` gives; `None` before the first result.
    pub value: Option<String>,
    /// Age of that result in seconds.
    pub age_secs: Option<u64>,
    /// Why the last try gave no result, if it did not.
    pub error: Option<String>,
}

/// Body of `PUT /v1/agent`: the agent's explanation of its last step, for status displays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// State name as in SPEC, for example `EngineUp`.
    pub state: String,
    /// This host's score.
    pub score: Score,
    /// The score as a sum: the base first, then each penalty as a negative number, each with its reason.
    pub score_terms: Vec<ScoreTerm>,
    /// Why the last decision was taken, in sentences.
    pub reasons: Vec<String>,
    /// Wall clock, seconds since 1970, when the running timer of this state fires; `None` without one.
    pub timeout_at: Option<i64>,
    /// Warnings that an operator should see: a profile that differs, a lease that is not held, …
    pub warnings: Vec<String>,
    /// The live migration away from this host, or why there is none; an ended one for 60 s more.
    #[serde(default)]
    pub migration: Option<MigrationReport>,
}

/// A live migration away from this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Where to; this host itself when a request that names no host was refused: the VM stays.
    pub to: HostId,
    /// That host's name, or its id where the name is not known.
    pub hostname: String,
    /// Wall clock, seconds since 1970, when it was decided.
    pub since: i64,
    /// How far it is.
    pub phase: MigrationPhase,
    /// [`MigrationRequest::asked_at`] of the request that this answers; `None` when nobody asked.
    #[serde(default)]
    pub request: Option<i64>,
}

/// How far a live migration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MigrationPhase {
    /// The destination was asked to get ready.
    Asked,
    /// Memory is on its way.
    Sending {
        /// Bytes sent so far.
        transferred: u64,
        /// Bytes still to send, as estimated.
        remaining: u64,
    },
    /// The VM runs there.
    Done,
    /// It was refused, or did not work: the VM is where it was.
    Failed {
        /// Why.
        detail: String,
    },
}

impl MigrationPhase {
    /// Whether nothing more comes after it.
    pub const fn is_end(&self) -> bool {
        match self {
            Self::Asked | Self::Sending { .. } => false,
            Self::Done | Self::Failed { .. } => true,
        }
    }
}

/// One summand of a score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreTerm {
    /// Short name: `base`, `gateway`, `mgmt-bridge`, `memory`, `cpu-load`, `config`, `retries`, …
    pub name: String,
    /// Points; negative for a penalty.
    pub points: i64,
    /// Why, with the numbers.
    pub reason: String,
}

/// Answer of `GET /v1/wake?after=N&timeout_ms=T`: returns when the wake counter passed N, or after T.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Grows by one with each event that an agent should see at once: a VM event, a change of the engine's
    /// health, loss of the lease, a maintenance change, an operator's request, storage stuck or back.
    pub counter: u64,
}
