//! The client against servers that misbehave, in memory and on paused time.

mod answers;
mod events;
mod heart_beats;
mod making;
mod reconnects;
mod secrets;
mod storms;
mod verbs;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::connection::{Dial, DialError, Stream};
use crate::frame::{Decoder, Frame, Incoming};
use crate::{CallError, Client, Connection, Settings};

/// A deadline that matters to no test.
const LONG: Duration = Duration::from_secs(1000);

/// Where the client dials to.
#[derive(Clone)]
struct Line {
    accepted: mpsc::UnboundedSender<DuplexStream>,
    /// How many attempts are refused from now on.
    refuse: Arc<AtomicUsize>,
    /// Bytes that a connection holds in each direction.
    capacity: usize,
}

#[async_trait]
impl Dial for Line {
    async fn dial(&self, _: &Settings) -> Result<Box<dyn Stream>, DialError> {
        let refused =
            self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let (ours, theirs) = tokio::io::duplex(self.capacity);
        if refused || self.accepted.send(theirs).is_err() {
            return Err(DialError::Tcp(std::io::ErrorKind::ConnectionRefused.into()));
        }
        Ok(Box::new(ours))
    }
}

/// The place where clients connect to.
struct Place {
    line: Line,
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Place {
    fn new() -> Place {
        let (accepted, incoming) = mpsc::unbounded_channel();
        let refuse = Arc::new(AtomicUsize::new(0));
        Place { line: Line { accepted, refuse, capacity: 1 << 20 }, incoming }
    }

    /// A client of this place, and the place.
    fn with_client() -> (Client, Place) {
        let place = Place::new();
        (place.client(), place)
    }

    fn client(&self) -> Client {
        Client::with_dial(Settings::new("vdsm.example", 54321, None), self.line.clone())
    }

    fn refuse(&self, times: usize) {
        self.line.refuse.store(times, Ordering::SeqCst);
    }

    /// The next connection, before any frame.
    async fn accept(&mut self) -> Server {
        let stream = self.incoming.recv().await.expect("the line is never closed");
        Server { stream, decoder: Decoder::default(), replies: String::new(), beats: 0 }
    }

    /// The next connection, welcomed with these heart-beats.
    async fn welcome(&mut self, heart_beat: &str) -> Server {
        let mut server = self.accept().await;
        server.welcome(heart_beat).await;
        server
    }
}

/// One connection, seen from the server.
struct Server {
    stream: DuplexStream,
    decoder: Decoder,
    /// Where the client wants its answers.
    replies: String,
    /// Heart-beats that came.
    beats: usize,
}

impl Server {
    /// The next frame, `None` at the connection's end.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next().expect("the client sends frames") {
                Some(Incoming::Frame(frame)) => return Some(frame),
                Some(Incoming::HeartBeat) => self.beats += 1,
                None => {
                    let mut buffer = [0; 4096];
                    match self.stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return None,
                        Ok(count) => self.decoder.feed(&buffer[..count]),
                    }
                }
            }
        }
    }

    async fn welcome(&mut self, heart_beat: &str) {
        let connect = self.frame().await.unwrap();
        assert_eq!(connect.command, "CONNECT");
        self.send(&Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", heart_beat)])).await;
        for _ in 0..2 {
            let subscribe = self.frame().await.unwrap();
            assert_eq!(subscribe.command, "SUBSCRIBE");
            let destination = subscribe.header("destination").unwrap();
            if destination != "jms.queue.events" {
                destination.clone_into(&mut self.replies);
            }
        }
    }

    /// The next request.
    async fn request(&mut self) -> Value {
        let frame = self.frame().await.expect("a request, not the connection's end");
        assert_eq!(frame.command, "SEND");
        assert_eq!(frame.header("destination"), Some("jms.topic.vdsm_requests"));
        assert_eq!(frame.header("reply-to"), Some(self.replies.as_str()));
        serde_json::from_slice(&frame.body).unwrap()
    }

    async fn send(&mut self, frame: &Frame) {
        self.bytes(&frame.encode()).await;
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    fn message(&self, body: &Value) -> Frame {
        let headers = [("destination", self.replies.as_str()), ("content-type", "application/json")];
        Frame::new("MESSAGE", &headers).with_body(body.to_string().into_bytes())
    }

    async fn say(&mut self, body: Value) {
        let message = self.message(&body);
        self.send(&message).await;
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    async fn refuse(&mut self, request: &Value, code: i64, message: &str) {
        let error = json!({"code": code, "message": message});
        self.say(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).await;
    }

    /// Waits until the client hangs up; requests that come before are an error.
    async fn hung_up(&mut self) {
        assert_eq!(self.frame().await, None);
    }
}

/// A call that runs meanwhile.
fn calling(client: &Client, method: &str) -> tokio::task::JoinHandle<Result<Value, CallError>> {
    calling_until(client, method, LONG)
}

fn calling_until(
    client: &Client,
    method: &str,
    deadline: Duration,
) -> tokio::task::JoinHandle<Result<Value, CallError>> {
    let (client, method) = (client.clone(), method.to_owned());
    tokio::spawn(async move { client.call(&method, json!({}), deadline).await })
}

/// Waits until the connection is down, and tells why.
async fn down(client: &Client) -> String {
    let mut connection = client.connection();
    let state = connection.wait_for(|state| matches!(state, Connection::Down { .. })).await.unwrap();
    match &*state {
        Connection::Down { why } => why.clone(),
        Connection::Up => unreachable!("waited for the other"),
    }
}

/// Time since then, in whole milliseconds: what is awaited in between costs none.
fn since(begin: Instant) -> u128 {
    begin.elapsed().as_millis()
}
