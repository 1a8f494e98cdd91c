//! One connection's protocol: what to say, what was answered to whom, when the other side is dead. No I/O of its own: bytes
//! and times come in, bytes go out.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::AsyncWrite;
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::heart_beat::{self, HeartBeat};
use super::inbox::{Request, Secret};
use crate::error::CallError;
use crate::event::Event;
use crate::frame::{Decoder, Frame, FrameError, Incoming};
use crate::value;

/// Where requests go.
const REQUESTS: &str = "jms.topic.vdsm_requests";
/// Where events come from.
const EVENTS: &str = "jms.queue.events";
/// Most calls without an answer; more wait.
const UNANSWERED: usize = 1024;
/// So many bytes may wait to be written before more calls wait.
const UNWRITTEN: usize = 1 << 20;
/// So much of a server's complaint is shown.
const SHOWN: usize = 200;

/// What ends a connection.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("VDSM closed the connection")]
    Closed,
    #[error("VDSM was silent for {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("what the server sends is not understood: {0}; check the port, and whether it wants TLS")]
    Frame(#[from] FrameError),
    #[error("the server speaks STOMP {0}; VDSM speaks 1.2")]
    Version(String),
    #[error("the server answered CONNECT with {0}, not with CONNECTED")]
    Unwelcome(String),
    #[error("VDSM reported an error of the connection: {0}")]
    Complaint(String),
}

/// Where events and figures go.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) events: broadcast::Sender<Event>,
    /// Answers that came after their calls' ends.
    pub(crate) late: Arc<AtomicU64>,
}

/// Who waits for an answer.
enum Waiter {
    Call {
        method: String,
        answer: oneshot::Sender<Result<Value, CallError>>,
    },
    /// Nobody: any byte shows that the server lives.
    Probe,
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Waiter::Call { answer, .. } => answer.is_closed(),
            Waiter::Probe => false,
        }
    }
}

/// One connection's protocol.
pub(super) struct Session {
    decoder: Decoder,
    outlet: Outlet,
    output: BytesMut,
    /// Something was written and not flushed.
    unflushed: bool,
    /// The private destination of our answers.
    replies: String,
    /// By the request's id.
    waiting: BTreeMap<String, Waiter>,
    wanted: Duration,
    /// `None` before the server's welcome.
    agreed: Option<HeartBeat>,
    heard: Instant,
    said: Instant,
    probed: Instant,
    useful: bool,
}

impl Session {
    /// Begins with CONNECT. `wanted`: how often the server should give a sign of life.
    pub(super) fn new(wanted: Duration, now: Instant, outlet: Outlet) -> Session {
        let mut session = Session {
            decoder: Decoder::default(),
            outlet,
            output: BytesMut::new(),
            unflushed: false,
            replies: Uuid::new_v4().to_string(),
            waiting: BTreeMap::new(),
            wanted,
            agreed: None,
            heard: now,
            said: now,
            probed: now,
            useful: false,
        };
        // The order of the headers is that of VDSM's own clients.
        let heart_beat = format!("0,{}", wanted.as_millis());
        session.say(
            &Frame::new("CONNECT", &[("accept-version", "1.2"), (heart_beat::HEADER, &heart_beat)]),
            now,
        );
        session
    }

    /// Whether the server bade welcome: requests can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.agreed.is_some()
    }

    /// Whether the server ever answered or told anything.
    pub(super) fn was_useful(&self) -> bool {
        self.useful
    }

    /// Whether one more call can be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < UNANSWERED && self.output.len() < UNWRITTEN
    }

    /// Sends a call, unless its caller has given up.
    pub(super) fn submit(&mut self, request: Request, now: Instant) {
        if !request.ticket.take() {
            return;
        }
        tracing::trace!(method = request.method, id = request.id, "sending");
        self.request(&request.body, now);
        let waiter = Waiter::Call { method: request.method, answer: request.answer };
        self.waiting.insert(request.id, waiter);
        if self.waiting.len() >= UNANSWERED {
            // Should their answers come after all, they are strangers'.
            self.waiting.retain(|_, waiter| !waiter.is_gone());
        }
    }

    /// Takes what was read; no bytes mean that the server closed the connection.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Err(Fault::Closed);
        }
        self.heard = now;
        self.decoder.feed(bytes);
        while let Some(incoming) = self.decoder.next()? {
            match incoming {
                Incoming::HeartBeat => {}
                Incoming::Frame(frame) => self.frame(&frame, now)?,
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame, now: Instant) -> Result<(), Fault> {
        match (frame.command.as_str(), self.is_ready()) {
            ("ERROR", _) => Err(Fault::Complaint(complaint(frame))),
            ("CONNECTED", false) => self.connected(frame, now),
            ("MESSAGE", true) => {
                self.message(&frame.body);
                Ok(())
            }
            (other, false) => Err(Fault::Unwelcome(other.to_owned())),
            // RECEIPT, which we never ask for, and what may come with later versions.
            (other, true) => {
                tracing::debug!(command = other, "VDSM sent a frame that we have no use for");
                Ok(())
            }
        }
    }

    fn connected(&mut self, frame: &Frame, now: Instant) -> Result<(), Fault> {
        // Without the header it would be STOMP 1.0.
        let version = frame.header("version").unwrap_or("1.0");
        if version != "1.2" {
            return Err(Fault::Version(version.to_owned()));
        }
        self.agreed = Some(HeartBeat::agree(self.wanted, frame));
        let replies = self.replies.clone();
        for destination in [replies.as_str(), EVENTS] {
            let id = Uuid::new_v4().to_string();
            let headers = [("destination", destination), ("ack", "auto"), ("id", id.as_str())];
            self.say(&Frame::new("SUBSCRIBE", &headers), now);
        }
        Ok(())
    }

    fn message(&mut self, body: &[u8]) {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            tracing::debug!(bytes = body.len(), "VDSM sent a message that is no JSON");
            return;
        };
        match body {
            // Answers to a list of requests; we send none, but a server may take one for one.
            Value::Array(list) => list.into_iter().for_each(|item| self.item(item)),
            one => self.item(one),
        }
    }

    fn item(&mut self, mut item: Value) {
        let mut field = |name: &str| item.get_mut(name).map(Value::take);
        match (field("id"), field("method")) {
            (None | Some(Value::Null), Some(Value::String(method))) => {
                let params = field("params").unwrap_or(Value::Null);
                self.useful = true;
                tracing::trace!(method, "event of VDSM");
                // Nobody may be interested.
                self.outlet.events.send(Event { method, params }).ok();
            }
            (Some(Value::String(id)), None) => {
                let (error, result) = (field("error"), field("result"));
                self.answer(&id, error, result);
            }
            (None | Some(_), None | Some(_)) => {
                tracing::debug!("VDSM sent a message that is neither an answer nor an event");
            }
        }
    }

    fn answer(&mut self, id: &str, error: Option<Value>, result: Option<Value>) {
        let Some(waiter) = self.waiting.remove(id) else {
            tracing::debug!(id, "VDSM sent an answer that nobody waits for");
            return;
        };
        self.useful = true;
        match waiter {
            Waiter::Probe => {}
            Waiter::Call { method, answer } => {
                let result = outcome(method, error, result);
                if answer.send(result).is_err() {
                    self.outlet.late.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(id, "VDSM answered after the call's deadline");
                }
            }
        }
    }

    /// Does what is due by the clock; call it after everything else.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), Fault> {
        let Some(agreed) = self.agreed else {
            return Ok(());
        };
        let silence = now.saturating_duration_since(self.heard);
        if silence >= agreed.dead {
            return Err(Fault::Silent(silence));
        }
        if let Some(probe) = agreed.probe
            && now >= self.heard.max(self.probed) + probe
        {
            self.probed = now;
            let id = Uuid::new_v4().to_string();
            let ping = json!({"jsonrpc": "2.0", "method": "Host.ping2", "params": {}, "id": id});
            self.request(&Secret(ping.to_string().into_bytes()), now);
            self.waiting.insert(id, Waiter::Probe);
        }
        if let Some(beat) = agreed.beat
            && now >= self.said + beat
        {
            self.output.extend_from_slice(b"\n");
            self.said = now;
        }
        Ok(())
    }

    /// When [`Session::tick`] has something to do, if nothing else happens before.
    pub(super) fn next_tick(&self) -> Instant {
        let Some(agreed) = self.agreed else {
            return self.heard + self.wanted;
        };
        let dead = self.heard + agreed.dead;
        let probe = agreed.probe.map_or(dead, |probe| self.heard.max(self.probed) + probe);
        let beat = agreed.beat.map_or(dead, |beat| self.said + beat);
        dead.min(probe).min(beat)
    }

    /// Tells all callers that what became of their calls is unknown.
    pub(super) fn lose_all(&mut self) {
        for waiter in std::mem::take(&mut self.waiting).into_values() {
            match waiter {
                Waiter::Probe => {}
                Waiter::Call { method, answer } => {
                    // The caller may have given up.
                    answer.send(Err(CallError::Lost { method })).ok();
                }
            }
        }
    }

    /// Whether there is something to write.
    pub(super) fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    /// Writes all there is to write. Cancel-safe: what was written is not written again.
    pub(super) async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<(), Fault> {
        poll_fn(|context| {
            while !self.output.is_empty() {
                let written = ready!(Pin::new(&mut *writer).poll_write(context, &self.output))?;
                if written == 0 {
                    return Poll::Ready(Err(Fault::Closed));
                }
                self.output.advance(written);
                self.unflushed = true;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *writer).poll_flush(context))?;
                self.unflushed = false;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn request(&mut self, body: &Secret, now: Instant) {
        let replies = self.replies.clone();
        let headers =
            [("destination", REQUESTS), ("content-type", "application/json"), ("reply-to", replies.as_str())];
        let frame = Frame::new("SEND", &headers).with_body(body.0.clone());
        self.say(&frame, now);
    }

    fn say(&mut self, frame: &Frame, now: Instant) {
        self.output.extend_from_slice(&frame.encode());
        self.said = now;
    }
}

/// What a JSON-RPC answer says.
fn outcome(method: String, error: Option<Value>, result: Option<Value>) -> Result<Value, CallError> {
    match (error, result) {
        (None | Some(Value::Null), Some(result)) => Ok(result),
        (None | Some(Value::Null), None) => {
            Err(CallError::Answer { method, detail: "it has neither a result nor an error".to_owned() })
        }
        (Some(error), _) => match error.get("code").and_then(value::integer) {
            Some(code) => Err(CallError::Server {
                method,
                code,
                message: error
                    .get("message")
                    .and_then(value::text)
                    .unwrap_or_else(|| "without a message".to_owned()),
            }),
            None => Err(CallError::Answer {
                method,
                detail: format!("its error, {}, has no code", value::kind(&error)),
            }),
        },
    }
}

/// What an ERROR frame says, as far as one line of a log should.
fn complaint(frame: &Frame) -> String {
    let body = String::from_utf8_lossy(&frame.body);
    let words = frame.header("message").unwrap_or(&body);
    words.chars().map(|character| if character.is_control() { ' ' } else { character }).take(SHOWN).collect()
}
