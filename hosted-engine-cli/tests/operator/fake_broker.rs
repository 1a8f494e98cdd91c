//! A broker of either kind on a Unix socket: one with a status document, or one that answers as Python's does.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use broker_api::BrokerClient;
use broker_api::status::{
    AgentReport, AskMigration, HostRow, LeaseState, MigrationRequest, StatusDocument, StorageState,
};
use broker_api::xmlrpc::{Fault, Value, decode_call, encode_fault, encode_response};
use hosted_engine_cli::status::View;
use metadata_format::HostId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the broker knows, and how it behaves.
#[derive(Default)]
pub struct State {
    pub blocks: BTreeMap<u16, Vec<u8>>,
    pub alive: Vec<u16>,
    /// For how many seconds blocks have not changed; of others nobody knows.
    pub unchanged: BTreeMap<u16, u64>,
    /// Has `GET /v1/status`.
    pub ours: bool,
    pub storage: Option<StorageState>,
    /// Nobody asked it for a host id.
    pub idle: bool,
    /// Says this instead of writing.
    pub refuse: Option<&'static str>,
    /// Says ok and loses the write.
    pub forget: bool,
    /// Requests until the metadata file counts as read.
    pub reads_after: u32,
    pub writes: Vec<(u16, Vec<u8>)>,
    /// What its agent reports: the first at the first look, the last for ever.
    pub reports: VecDeque<AgentReport>,
    /// The migrations that it was asked for; the last is its request until a report answers it.
    pub asked: Vec<Option<HostId>>,
}

/// When the broker says that the n-th migration was asked for.
pub fn asked_at(number: usize) -> i64 {
    1_700_000_000 + i64::try_from(number).unwrap()
}

/// A running broker; ends when dropped.
pub struct FakeBroker {
    pub state: Arc<Mutex<State>>,
    pub client: BrokerClient,
    task: JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl FakeBroker {
    pub fn start(state: State) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::listen(&folder.path().join("broker.socket"), state, Some(folder))
    }

    /// Where a host's broker listens.
    pub fn start_at(path: &Path, state: State) -> Self {
        Self::listen(path, state, None)
    }

    fn listen(path: &Path, state: State, folder: Option<TempDir>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &shared).await;
            }
        });
        Self { state, client: BrokerClient::new(path), task, _folder: folder }
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: UnixStream, state: &Mutex<State>) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 8192];
        let len = stream.read(&mut chunk).await.unwrap();
        request.extend_from_slice(&chunk[..len]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, _)) = text.split_once("\r\n\r\n") else {
            assert!(len > 0, "half a request: {text}");
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        let start = head.len() + 4;
        if request.len() >= start + length {
            break (head, request[start..start + length].to_vec());
        }
        assert!(len > 0, "half a body: {text}");
    };
    let (code, body) = if head.starts_with("post /rpc2") {
        (200, call(&body, &mut state.lock().unwrap()))
    } else if head.starts_with("get /v1/status") && state.lock().unwrap().ours {
        (200, serde_json::to_vec(&document(&mut state.lock().unwrap())).unwrap())
    } else if head.starts_with("put /v1/migration") && state.lock().unwrap().ours {
        let asked: AskMigration = serde_json::from_slice(&body).unwrap();
        state.lock().unwrap().asked.push(asked.to);
        (204, Vec::new())
    } else {
        (501, b"Unsupported method".to_vec())
    };
    let head = format!("HTTP/1.0 {code} X\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
}

fn call(body: &[u8], state: &mut State) -> Vec<u8> {
    let call = decode_call(body).unwrap();
    match (call.name.as_str(), call.params.as_slice()) {
        ("get_stats", []) if state.reads_after > 0 => {
            state.reads_after -= 1;
            encode_response(&Value::Struct([].into_iter().collect()))
        }
        ("get_stats", []) => {
            let blocks = state.blocks.iter().map(|(id, bytes)| (id.to_string(), Value::Bytes(bytes.clone())));
            encode_response(&Value::Struct(blocks.collect()))
        }
        ("is_host_alive", []) => {
            encode_response(&Value::Array(state.alive.iter().map(|id| Value::Int((*id).into())).collect()))
        }
        ("put_stats", [Value::Int(id), Value::Bytes(bytes)]) => {
            if let Some(message) = state.refuse {
                return encode_fault(&Fault { code: 1, message: message.to_owned() });
            }
            let id = u16::try_from(*id).unwrap();
            state.writes.push((id, bytes.clone()));
            if !state.forget {
                state.blocks.insert(id, bytes.clone());
            }
            encode_response(&Value::from("ok"))
        }
        other => panic!("unexpected call {other:?}"),
    }
}

/// Our broker's document for the same blocks.
fn document(state: &mut State) -> StatusDocument {
    let mut view = View::from_blocks(&state.blocks, &state.alive);
    for (id, secs) in &state.unchanged {
        if let Some(HostRow::Good(row)) = HostId::new(*id).ok().and_then(|id| view.rows.get_mut(&id)) {
            row.unchanged_secs = Some(*secs);
        }
    }
    let agent = state.reports.front().cloned();
    if state.reports.len() > 1 {
        state.reports.pop_front();
    }
    let answered = agent.iter().filter_map(|agent| agent.migration.as_ref());
    let answered = answered.filter(|report| report.phase.is_end()).find_map(|report| report.request);
    let request =
        state.asked.last().map(|to| MigrationRequest { to: *to, asked_at: asked_at(state.asked.len()) });
    StatusDocument {
        host_id: HostId::new(1).ok(),
        broker_version: "test".to_owned(),
        global_maintenance: view.global_maintenance,
        unknown_global_keys: Vec::new(),
        hosts: view.rows,
        storage: state.storage.clone().unwrap_or(StorageState::Good { read_ms: 1 }),
        lease: if state.idle { LeaseState::NotRequested } else { LeaseState::Held { since: 0 } },
        lock_manager_live: None,
        watchdog: None,
        blocks_read: None,
        monitors: BTreeMap::new(),
        agent,
        migration_request: request.filter(|request| answered < Some(request.asked_at)),
    }
}
