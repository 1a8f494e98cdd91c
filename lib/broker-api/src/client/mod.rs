//! The client of the broker's socket, for the agent and the operator's command.
//!
//! Each request opens its own connection: the broker that exists today answers HTTP/1.0 and closes, and serves one
//! connection at a time, so that a kept connection would hold up everybody else. It works with that broker too.
//! It never retries: the caller knows whether a verb may be repeated.

mod error;
mod http;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metadata_format::HostId;
use serde::de::DeserializeOwned;

pub use self::error::ClientError;
use self::http::{Answer, Request};
use crate::status::{AgentReport, AskMigration, StatusDocument, Wake};
use crate::xmlrpc::{self, MethodResponse, Value};

/// Deadline of a request unless [`BrokerClient::with_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Deadline of the verbs that join, leave or write a lockspace, unless [`BrokerClient::with_timeout`] says
/// otherwise. Joining after an unclean end takes up to 14 N + W: 200 s with sanlock's defaults (N = 10, W = 60).
pub const LOCKSPACE_TIMEOUT: Duration = Duration::from_mins(4);

/// A client of one broker. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct BrokerClient {
    path: PathBuf,
    timeout: Option<Duration>,
}

impl BrokerClient {
    /// A client of the broker that listens on `socket_path`. Nothing is opened yet.
    pub fn new(socket_path: impl Into<PathBuf>) -> Self {
        Self { path: socket_path.into(), timeout: None }
    }

    /// Replaces the deadline of every request, from connecting to the last byte of the answer. For
    /// [`Self::wake`] it is added to the time that the broker was asked to wait.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Where the broker listens.
    pub fn socket_path(&self) -> &Path {
        &self.path
    }

    /// Starts the monitor `kind`, or finds it running; gives its id. An absent option is `None`.
    pub async fn start_monitor(
        &self,
        kind: &str,
        options: &BTreeMap<String, Option<String>>,
    ) -> Result<String, ClientError> {
        let options = options.iter().map(|(name, value)| {
            (name.clone(), value.as_ref().map_or(Value::Nil, |value| Value::from(value.as_str())))
        });
        let params = vec![Value::from(kind), Value::Struct(options.collect())];
        self.call_text("start_monitor", params).await
    }

    /// Stops a monitor.
    pub async fn stop_monitor(&self, id: &str) -> Result<(), ClientError> {
        self.call_ok("stop_monitor", vec![Value::from(id)]).await
    }

    /// A monitor's last result as text (`True`, `0.8`, a JSON object, …); `None` before the first.
    pub async fn status_monitor(&self, id: &str) -> Result<Option<String>, ClientError> {
        let text = self.call_text("status_monitor", vec![Value::from(id)]).await?;
        Ok((text != "None").then_some(text))
    }

    /// The raw blocks that are present, by number; 0 is the cluster's. Empty before the broker's first read.
    pub async fn get_stats(&self) -> Result<BTreeMap<u16, Vec<u8>>, ClientError> {
        let Value::Struct(members) = self.call("get_stats", Vec::new()).await? else {
            return Err(protocol("get_stats", "the answer is not a struct"));
        };
        members.into_iter().map(|(name, value)| block(&name, value)).collect()
    }

    /// Writes a block: number 0 for the cluster's, otherwise this host's own. Done once it was read back.
    pub async fn put_stats(&self, block: u16, bytes: &[u8]) -> Result<(), ClientError> {
        let params = vec![Value::Int(block.into()), Value::Bytes(bytes.to_vec())];
        self.call_ok("put_stats", params).await
    }

    /// Tells the broker which hosts are alive, this host included.
    pub async fn push_hosts_state(&self, alive: &[u16]) -> Result<(), ClientError> {
        let ids = alive.iter().map(|id| Value::Int((*id).into())).collect();
        self.call_ok("push_hosts_state", vec![Value::Array(ids)]).await
    }

    /// The hosts that are alive by the agent's last list; empty once that is 60 s old.
    pub async fn is_host_alive(&self) -> Result<Vec<u16>, ClientError> {
        let Value::Array(ids) = self.call("is_host_alive", Vec::new()).await? else {
            return Err(protocol("is_host_alive", "the answer is not an array"));
        };
        ids.into_iter()
            .map(|id| match id {
                Value::Int(id) => u16::try_from(id).ok(),
                _ => None,
            })
            .map(|id| id.ok_or_else(|| protocol("is_host_alive", "a host id is not a small number")))
            .collect()
    }

    /// Hands a notification to the broker; true if one of its rules wants it sent.
    pub async fn notify(
        &self,
        event: &str,
        detail: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, ClientError> {
        let options = options.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let params = vec![Value::from(event), Value::from(detail), Value::Struct(options.collect())];
        Ok(self.call_text("notify", params).await? == "sent")
    }

    /// Joins the storage domain's lockspace, which carries the VM's lease.
    pub async fn start_domain_monitor(&self, host_id: u16) -> Result<(), ClientError> {
        self.call_ok("start_domain_monitor", vec![Value::Int(host_id.into())]).await
    }

    /// Leaves the storage domain's lockspace.
    pub async fn stop_domain_monitor(&self) -> Result<(), ClientError> {
        self.call_ok("stop_domain_monitor", Vec::new()).await
    }

    /// Joins the `hosted-engine` lockspace; done once the host id is held.
    pub async fn lock_host_id(&self, host_id: u16) -> Result<(), ClientError> {
        self.call_ok("lock_host_id", vec![Value::Int(host_id.into())]).await
    }

    /// Leaves the `hosted-engine` lockspace.
    pub async fn release_host_id(&self) -> Result<(), ClientError> {
        self.call_ok("release_host_id", Vec::new()).await
    }

    /// Writes an empty `hosted-engine` lockspace; refused while any host is live in it.
    pub async fn reset_lockspace(&self) -> Result<(), ClientError> {
        self.call_ok("reset_lockspace", Vec::new()).await
    }

    /// `GET /v1/status`; `None` when the broker does not know it (the Python one).
    pub async fn status(&self) -> Result<Option<StatusDocument>, ClientError> {
        let path = "/v1/status";
        let answer = self.document(&Request::get(path), self.deadline(DEFAULT_TIMEOUT)).await?;
        answer.map(|answer| json(path, answer)).transpose()
    }

    /// `PUT /v1/agent`: the agent's explanation of its last step. False when the broker does not know it.
    pub async fn put_agent_report(&self, report: &AgentReport) -> Result<bool, ClientError> {
        let path = "/v1/agent";
        let body = serde_json::to_vec(report).map_err(|e| protocol(path, &e.to_string()))?;
        match self.document(&Request::put(path, body), self.deadline(DEFAULT_TIMEOUT)).await? {
            Some(answer) => answer.success(path).map(|_| true),
            None => Ok(false),
        }
    }

    /// `PUT /v1/migration`: asks this host's agent to move the engine VM away, to that host or to one of its choice.
    /// The status document says what becomes of it. False when the broker does not know it.
    pub async fn ask_migration(&self, to: Option<HostId>) -> Result<bool, ClientError> {
        let path = "/v1/migration";
        let body = serde_json::to_vec(&AskMigration { to }).map_err(|e| protocol(path, &e.to_string()))?;
        match self.document(&Request::put(path, body), self.deadline(DEFAULT_TIMEOUT)).await? {
            Some(answer) => answer.success(path).map(|_| true),
            None => Ok(false),
        }
    }

    /// `GET /v1/wake`: returns when the broker's wake counter passed `after`, or after `timeout` (the broker may
    /// shorten it). `None` when the broker does not know it: then sleep by an own timer.
    pub async fn wake(&self, after: u64, timeout: Duration) -> Result<Option<Wake>, ClientError> {
        let path = format!("/v1/wake?after={after}&timeout_ms={}", timeout.as_millis());
        let deadline = timeout.saturating_add(self.deadline(DEFAULT_TIMEOUT));
        let answer = self.document(&Request::get(&path), deadline).await?;
        answer.map(|answer| json("/v1/wake", answer)).transpose()
    }

    /// `GET /metrics`: Prometheus text. `None` when the broker does not know it.
    pub async fn metrics(&self) -> Result<Option<String>, ClientError> {
        let path = "/metrics";
        let Some(answer) = self.document(&Request::get(path), self.deadline(DEFAULT_TIMEOUT)).await? else {
            return Ok(None);
        };
        let body = answer.success(path)?;
        String::from_utf8(body).map(Some).map_err(|_| protocol(path, "the text is not UTF-8"))
    }

    /// Calls a verb as it is on the wire. For tools; the typed methods are for everything else.
    pub async fn call(&self, verb: &str, params: Vec<Value>) -> Result<Value, ClientError> {
        let default = match verb {
            "lock_host_id"
            | "release_host_id"
            | "reset_lockspace"
            | "start_domain_monitor"
            | "stop_domain_monitor" => LOCKSPACE_TIMEOUT,
            _ => DEFAULT_TIMEOUT,
        };
        let body = xmlrpc::encode_call(verb, &params);
        let answer = self.send(&Request::rpc(verb, body), self.deadline(default)).await?;
        let body = answer.success(verb)?;
        match xmlrpc::decode_response(&body).map_err(|e| protocol(verb, &e.to_string()))? {
            MethodResponse::Fault(fault) => {
                Err(ClientError::Fault { verb: verb.to_owned(), code: fault.code, message: fault.message })
            }
            MethodResponse::Value(Value::Nil) => Err(ClientError::NoResult { verb: verb.to_owned() }),
            MethodResponse::Value(value) => Ok(value),
        }
    }

    async fn call_text(&self, verb: &str, params: Vec<Value>) -> Result<String, ClientError> {
        match self.call(verb, params).await? {
            Value::String(text) => Ok(text),
            other => Err(protocol(verb, &format!("expected a text, got {}", other.kind()))),
        }
    }

    async fn call_ok(&self, verb: &str, params: Vec<Value>) -> Result<(), ClientError> {
        match self.call_text(verb, params).await?.as_str() {
            "ok" => Ok(()),
            other => Err(protocol(verb, &format!("expected \"ok\", got {other:?}"))),
        }
    }

    fn deadline(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }

    /// Asks for one of our own documents; `None` when the broker does not know it.
    ///
    /// Python's broker drops the connection on GET and PUT: it fails while it logs that it does not know them. A
    /// broker that does that and then answers a verb is that one.
    async fn document(&self, request: &Request, deadline: Duration) -> Result<Option<Answer>, ClientError> {
        match self.send(request, deadline).await {
            Ok(answer) if answer.is_unknown() => Ok(None),
            Ok(answer) => Ok(Some(answer)),
            Err(dropped @ ClientError::Protocol { .. }) => match self.is_host_alive().await {
                Ok(_) => Ok(None),
                Err(_) => Err(dropped),
            },
            Err(error) => Err(error),
        }
    }

    async fn send(&self, request: &Request, deadline: Duration) -> Result<Answer, ClientError> {
        match tokio::time::timeout(deadline, http::exchange(&self.path, request)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { request: request.name.clone(), after: deadline }),
        }
    }
}

/// One member of the answer to `get_stats`.
fn block(name: &str, value: Value) -> Result<(u16, Vec<u8>), ClientError> {
    let id = name.parse().map_err(|_| protocol("get_stats", &format!("{name:?} is not a block number")))?;
    match value {
        Value::Bytes(bytes) => Ok((id, bytes)),
        other => Err(protocol("get_stats", &format!("block {id} is {} instead of base64", other.kind()))),
    }
}

fn json<T: DeserializeOwned>(path: &str, answer: Answer) -> Result<T, ClientError> {
    let body = answer.success(path)?;
    serde_json::from_slice(&body).map_err(|e| protocol(path, &e.to_string()))
}

fn protocol(request: &str, detail: &str) -> ClientError {
    ClientError::Protocol { request: request.to_owned(), detail: detail.to_owned() }
}
