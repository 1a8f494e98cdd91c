//! The file form of a recorded run: observations by tick, as JSON.
//!
//! Only parsing. A file holds either `{"scenario": …, "expected": …}` or the scenario alone; keys that are
//! not needed are ignored.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::core::score::WeightError;
use crate::core::{Footing, Local, Observation, RemoteBlock, RemoteHost, Secs};
use metadata_format::{EngineStatus, HostId, Score};

/// A recorded run.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    /// This host.
    pub host_id: HostId,
    /// `memSize` of vm.conf, in MB.
    pub min_memory: u64,
    /// vm.conf is up to date with shared storage.
    #[serde(default = "yes")]
    pub conf_uptodate: bool,
    /// Wall clock − monotonic clock, in seconds.
    #[serde(default)]
    pub time_epoch: i64,
    /// Overrides of the score's weights, by the keys of agent.conf.
    #[serde(default)]
    pub score_cfg: Map<String, Value>,
    /// The score's profile; the recorded release knew only ovirt-4.5.
    pub profile: Option<crate::core::Profile>,
    /// What was to be seen, one element for each wait of the agent.
    pub ticks: Vec<Map<String, Value>>,
}

/// One tick, with the substeps' replacements done.
#[derive(Debug, Clone, Deserialize)]
pub struct Tick {
    /// Monotonic second when the wait before it is over.
    pub time: u64,
    /// Seconds that collecting takes.
    #[serde(default)]
    pub collect_secs: u64,
    /// Seconds from a step without a wait to the next.
    #[serde(default)]
    pub step_secs: u64,
    /// Seconds that an action takes.
    #[serde(default)]
    pub action_secs: u64,
    /// The cluster block.
    #[serde(default)]
    pub cluster: Cluster,
    /// The other hosts' blocks.
    #[serde(default)]
    pub hosts: Map<String, Value>,
    /// This host's monitors.
    #[serde(default)]
    pub local: LocalPart,
    /// Whether starting the VM works.
    #[serde(default = "yes")]
    pub start_vm_ok: bool,
    /// Whether stopping it works.
    #[serde(default = "yes")]
    pub stop_vm_ok: bool,
}

/// The cluster block.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Cluster {
    /// Global maintenance.
    #[serde(default)]
    pub maintenance: bool,
}

/// This host's monitors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LocalPart {
    network: Option<f64>,
    bridge: Option<bool>,
    mem_free: Option<f64>,
    cpu_load: Option<f64>,
    mem_load: Option<f64>,
    engine_health: Option<Value>,
    maintenance: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BlockPart {
    host_ts: i64,
    score: i64,
    #[serde(default)]
    engine_status: Option<Value>,
    #[serde(default)]
    hostname: String,
}

/// A file that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not JSON, or not a scenario.
    #[error("not a scenario: {0}")]
    Json(String),
    /// A weight is wrong.
    #[error("score_cfg: {0}")]
    Weight(String),
    /// A tick is wrong.
    #[error("tick {tick}: {what}")]
    Tick {
        /// Its place, from 0.
        tick: usize,
        /// What is wrong.
        what: String,
    },
}

impl From<serde_json::Error> for ScenarioError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

impl From<WeightError> for ScenarioError {
    fn from(error: WeightError) -> Self {
        Self::Weight(error.to_string())
    }
}

const fn yes() -> bool {
    true
}

impl Scenario {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let mut file: Value = serde_json::from_str(text)?;
        let inner = file.get_mut("scenario").map(Value::take);
        Ok(serde_json::from_value(inner.unwrap_or(file))?)
    }

    /// The tick at `index` as its step number `step` (from 0) sees it.
    pub fn tick(&self, index: usize, step: usize) -> Result<Tick, ScenarioError> {
        let wrong = |what: String| ScenarioError::Tick { tick: index, what };
        let mut tick = self.ticks.get(index).cloned().ok_or_else(|| wrong("there is none".to_owned()))?;
        if let Some(Value::Array(substeps)) = tick.remove("substeps") {
            for substep in substeps.into_iter().take(step) {
                match substep {
                    Value::Object(fields) => tick.extend(fields),
                    other => return Err(wrong(format!("a substep is {other}, not an object"))),
                }
            }
        }
        serde_json::from_value(Value::Object(tick)).map_err(|error| wrong(error.to_string()))
    }

    /// The observation that `tick` gives when collected from `started` on.
    pub fn observation(&self, tick: &Tick, started: Secs) -> Observation {
        let local = &tick.local;
        Observation {
            started,
            finished: started.plus(tick.collect_secs),
            wall_offset: self.time_epoch,
            global_maintenance: tick.cluster.maintenance,
            hosts: tick.hosts.iter().filter_map(|(id, block)| self.host(id, block)).collect(),
            local: Local {
                network: local.network,
                bridge: local.bridge,
                mem_free: local.mem_free,
                cpu_load: local.cpu_load,
                mem_load: local.mem_load,
                engine: local.engine_health.as_ref().and_then(engine_status),
                maintenance: local.maintenance,
                min_memory: self.min_memory,
                conf_up_to_date: self.conf_uptodate,
                ..Local::default()
            },
            lock_manager_live: None,
            footing: Footing::default(),
        }
    }

    /// A host's block; one that lacks what a block must have counts as not parsed.
    fn host(&self, id: &str, block: &Value) -> Option<RemoteHost> {
        let id: HostId = id.parse().ok().filter(|id| *id != self.host_id)?;
        let block = BlockPart::deserialize(block).ok().map(|part| RemoteBlock {
            host_ts: part.host_ts,
            score: Score(u32::try_from(part.score.max(0)).unwrap_or(u32::MAX)),
            engine: part.engine_status.as_ref().and_then(engine_status),
            hostname: part.hostname,
            migration_to: None,
            ready: None,
        });
        Some(RemoteHost { id, block })
    }
}

/// An engine status object; anything else is no status.
fn engine_status(value: &Value) -> Option<EngineStatus> {
    EngineStatus::deserialize(value).ok()
}
