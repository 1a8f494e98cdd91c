//! A client of QEMU's monitor protocol: one JSON object a line.
//!
//! Small and tolerant on purpose: events and fields that this program does not know must never cost the connection
//! to a running VM. Every call has a deadline; a call that was given up leaves no trace.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use super::run_dir::{QmpRole, RunDir};

/// Longest line that is read. The longest known answers have some hundred kilobytes.
const LINE_LIMIT: u64 = 16 << 20;
/// Events kept for a slow reader.
const EVENT_BACKLOG: usize = 256;

/// An event of QEMU.
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// Its name, for example `STOP`.
    pub name: String,
    /// What belongs to it; null when nothing does.
    pub data: Value,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// There is no monitor, or the connection broke.
    #[error("cannot speak with QEMU's {role} monitor: {source}")]
    Io {
        /// Which monitor.
        role: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer in time: another client is connected to this role's monitor, or QEMU hangs.
    #[error(
        "QEMU's {role} monitor did not answer within {after:?}: it is in use by another process, or QEMU hangs"
    )]
    Deadline {
        /// Which monitor.
        role: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// QEMU said no.
    #[error("{desc}")]
    Refused {
        /// QEMU's class of the error, for example `GenericError`.
        class: String,
        /// Its words.
        desc: String,
    },
}

type Reply = Result<Value, QmpError>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

/// A connection, shared by all who use the role in this process.
#[derive(Debug, Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    role: &'static str,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Pending,
    events: broadcast::WeakSender<QmpEvent>,
    next_id: AtomicU64,
    is_closed: Arc<AtomicBool>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects to the monitor of `role` and waits for its greeting, `deadline` long.
    pub async fn connect(dir: &RunDir, role: QmpRole, deadline: Duration) -> Result<Self, QmpError> {
        let role_word = role.word();
        let failed = |source| QmpError::Io { role: role_word, source };
        let greeted = async {
            let (path, _directory) = dir.socket(role.socket())?;
            let stream = UnixStream::connect(path).await?;
            let (read, mut write) = stream.into_split();
            let mut reader = BufReader::new(read);
            let mut line = Vec::new();
            next_line(&mut reader, &mut line).await?;
            let greeting: Value = serde_json::from_slice(&line)?;
            if greeting.get("QMP").is_none() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a QEMU monitor"));
            }
            write.write_all(b"{\"execute\":\"qmp_capabilities\",\"id\":0}\n").await?;
            Ok((reader, write))
        };
        let (reader, writer) = match timeout(deadline, greeted).await {
            Ok(greeted) => greeted.map_err(failed)?,
            Err(_) => return Err(QmpError::Deadline { role: role_word, after: deadline }),
        };
        let pending = Pending::default();
        let (sender, receiver) = oneshot::channel();
        lock(&pending).insert(0, sender);
        let (sender, _) = broadcast::channel(EVENT_BACKLOG);
        let events = sender.downgrade();
        let is_closed = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn(read_on(reader, role_word, pending.clone(), sender, is_closed.clone()));
        let next_id = AtomicU64::new(1);
        let writer = tokio::sync::Mutex::new(writer);
        let this = Self {
            shared: Arc::new(Shared { role: role_word, writer, pending, events, next_id, is_closed, reader }),
        };
        this.answer(0, receiver, deadline).await?;
        Ok(this)
    }

    /// True when the connection has ended: QEMU has, or will have.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire)
    }

    /// Events from now on. The stream ends with the connection.
    pub fn events(&self) -> broadcast::Receiver<QmpEvent> {
        match self.shared.events.upgrade() {
            Some(events) => events.subscribe(),
            // Closed: a stream that ends at once.
            None => broadcast::channel(1).1,
        }
    }

    /// Runs a command.
    pub async fn execute(&self, command: &str, arguments: Value, deadline: Duration) -> Reply {
        self.call(command, arguments, None, deadline).await
    }

    /// Gives QEMU a descriptor, which commands on this connection may name `name`.
    pub async fn pass(&self, name: &str, descriptor: BorrowedFd<'_>, deadline: Duration) -> Reply {
        self.call("getfd", json!({"fdname": name}), Some(descriptor), deadline).await
    }

    async fn call(
        &self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
        deadline: Duration,
    ) -> Reply {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let mut line = message.to_string();
        line.push('\n');
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.pending).insert(id, sender);
        if self.is_closed() {
            lock(&self.shared.pending).remove(&id);
            return Err(closed(self.shared.role));
        }
        let send = async { send(&mut *self.shared.writer.lock().await, line.as_bytes(), descriptor).await };
        match timeout(deadline, send).await {
            Ok(Ok(())) => self.answer(id, receiver, deadline).await,
            Ok(Err(source)) => {
                lock(&self.shared.pending).remove(&id);
                Err(QmpError::Io { role: self.shared.role, source })
            }
            Err(_) => {
                lock(&self.shared.pending).remove(&id);
                // Half a line may have been sent: nothing sensible can follow on this connection.
                self.shared.is_closed.store(true, Ordering::Release);
                Err(QmpError::Deadline { role: self.shared.role, after: deadline })
            }
        }
    }

    async fn answer(&self, id: u64, receiver: oneshot::Receiver<Reply>, deadline: Duration) -> Reply {
        match timeout(deadline, receiver).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(closed(self.shared.role)),
            Err(_) => {
                lock(&self.shared.pending).remove(&id);
                Err(QmpError::Deadline { role: self.shared.role, after: deadline })
            }
        }
    }
}

fn closed(role: &'static str) -> QmpError {
    QmpError::Io { role, source: io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed") }
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a line; a descriptor goes with its first byte.
async fn send(
    writer: &mut OwnedWriteHalf,
    line: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let Some(descriptor) = descriptor else { return writer.write_all(line).await };
    let stream: &UnixStream = writer.as_ref();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let descriptors = [descriptor];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            Ok(sendmsg(stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    writer.write_all(&line[sent..]).await
}

/// Reads one line into `line`; an error at the end of the stream.
async fn next_line(reader: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    let length = (&mut *reader).take(LINE_LIMIT).read_until(b'\n', line).await?;
    if length == 0 || line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "QEMU closed the connection"));
    }
    Ok(())
}

async fn read_on(
    mut reader: BufReader<OwnedReadHalf>,
    role: &'static str,
    pending: Pending,
    events: broadcast::Sender<QmpEvent>,
    is_closed: Arc<AtomicBool>,
) {
    let mut line = Vec::new();
    while next_line(&mut reader, &mut line).await.is_ok() {
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            tracing::warn!(role, "QEMU's monitor sent a line that is not JSON; passed over");
            continue;
        };
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            // Nobody listening is no error.
            let _ = events.send(QmpEvent { name: name.to_owned(), data: message["data"].clone() });
            continue;
        }
        let sender = message.get("id").and_then(Value::as_u64).and_then(|id| lock(&pending).remove(&id));
        if let Some(sender) = sender {
            let _ = sender.send(reply(message));
        }
    }
    is_closed.store(true, Ordering::Release);
    lock(&pending).clear();
}

fn reply(mut message: Value) -> Reply {
    match message.get("error") {
        None => Ok(message["return"].take()),
        Some(error) => Err(QmpError::Refused {
            class: error["class"].as_str().unwrap_or_default().to_owned(),
            desc: error["desc"].as_str().unwrap_or("QEMU gives no reason").to_owned(),
        }),
    }
}
