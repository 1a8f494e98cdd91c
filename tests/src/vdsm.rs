//! A scripted VDSM on the wire: plain TCP, one answer function, and a record of what it was asked. For tests of what
//! speaks to VDSM; the stand-in for whole clusters is a program of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use vdsm_client::frame::{Decoder, Frame, Incoming};
use vdsm_client::{Client, Settings};

/// What a call is answered with.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A result.
    Result(Value),
    /// An error, with VDSM's code.
    Error(i64, &'static str),
    /// Nothing, ever.
    Silence,
    /// The connection ends.
    Close,
}

/// The result of a verb that has none: VDSM sends true.
pub fn done() -> Reply {
    Reply::Result(Value::Bool(true))
}

type Script = dyn Fn(&str, &Value) -> Reply + Send + Sync;
type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// It ends when it is dropped.
pub struct FakeVdsm {
    address: SocketAddr,
    calls: Calls,
    serving: JoinHandle<()>,
}

impl Drop for FakeVdsm {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FakeVdsm {
    /// Answers each call, method and parameters, with what `script` gives.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub async fn start(script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().expect("an address"), script).await
    }

    /// The same at a known address.
    ///
    /// # Panics
    /// When it cannot be listened on.
    pub async fn listen(
        address: SocketAddr,
        script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (calls, script): (Calls, Arc<Script>) = (Arc::default(), Arc::new(script));
        let record = Arc::clone(&calls);
        let serving = tokio::spawn(async move {
            // Connections end with the listener.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, Arc::clone(&script), Arc::clone(&record)));
            }
        });
        Self { address, calls, serving }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it that does not wait long before it tries again.
    pub fn client(&self) -> Client {
        client_of(self.address)
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The methods that it was asked for so far.
    pub fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|(method, _)| method).collect()
    }
}

/// A client of whatever listens, or does not, at `address`.
pub fn client_of(address: SocketAddr) -> Client {
    let pause = Duration::from_millis(20);
    Client::new(Settings {
        connect_timeout: Duration::from_secs(2),
        first_pause: pause,
        longest_pause: pause,
        recovery_pause: pause,
        ..Settings::new(address.ip().to_string(), address.port(), None)
    })
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, calls: Calls) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 64 << 10];
    let mut subscriptions: Vec<(String, String)> = Vec::new();
    loop {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => decoder.feed(&buffer[..length]),
            Ok(_) | Err(_) => return,
        }
        while let Ok(Some(incoming)) = decoder.next() {
            let Incoming::Frame(frame) = incoming else { continue };
            let header = |name: &str| frame.header(name).unwrap_or_default().to_owned();
            let answer = match frame.command.as_str() {
                "CONNECT" => Some(Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", "24000,0")])),
                "SUBSCRIBE" => {
                    subscriptions.push((header("destination"), header("id")));
                    None
                }
                "SEND" => match answer(&frame.body, &*script, &calls) {
                    Answer::Close => return,
                    Answer::Nothing => None,
                    Answer::Body(body) => {
                        let to = header("reply-to");
                        let id = subscriptions.iter().find(|(destination, _)| *destination == to);
                        let id = id.map_or("", |(_, id)| id);
                        let headers = [
                            ("destination", to.as_str()),
                            ("content-type", "application/json"),
                            ("subscription", id),
                        ];
                        Some(Frame::new("MESSAGE", &headers).with_body(body))
                    }
                },
                _ => None,
            };
            if let Some(answer) = answer
                && stream.write_all(&answer.encode()).await.is_err()
            {
                return;
            }
        }
    }
}

enum Answer {
    Body(Vec<u8>),
    Nothing,
    Close,
}

fn answer(body: &[u8], script: &Script, calls: &Calls) -> Answer {
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return Answer::Nothing };
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    let params = request["params"].clone();
    let reply = script(&method, &params);
    calls.lock().unwrap_or_else(PoisonError::into_inner).push((method, params));
    let mut answer = json!({"jsonrpc": "2.0", "id": request["id"]});
    match reply {
        Reply::Silence => return Answer::Nothing,
        Reply::Close => return Answer::Close,
        Reply::Result(result) => answer["result"] = result,
        Reply::Error(code, message) => answer["error"] = json!({"code": code, "message": message}),
    }
    Answer::Body(answer.to_string().into_bytes())
}
