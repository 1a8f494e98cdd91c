//! A VDSM that says what a test tells it to: STOMP over plain TCP on a port of its own, gone when dropped.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use vdsm_client::frame::{Decoder, Frame, Incoming};
use vdsm_client::{Client, Settings};

const EVENTS: &str = "jms.queue.events";

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is answered with this.
    Result(Value),
    /// It is refused.
    Error(i64, String),
    /// It is never answered.
    Silence,
    /// The connection ends instead.
    HangUp,
}

impl Answer {
    /// Of a verb that has no result.
    pub fn done() -> Self {
        Self::Result(Value::Bool(true))
    }

    /// A refusal without a text that matters.
    pub fn refusal(code: i64) -> Self {
        Self::Error(code, format!("refused with {code}"))
    }
}

/// What is sent to every connection.
#[derive(Debug, Clone)]
enum Push {
    Event(String),
    HangUp,
}

type Script = Box<dyn FnMut(&str, &Value) -> Answer + Send>;

struct Shared {
    script: Mutex<Script>,
    calls: Mutex<Vec<(String, Value)>>,
    push: broadcast::Sender<Push>,
}

impl Shared {
    fn answer(&self, method: &str, params: &Value) -> Answer {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((method.to_owned(), params.clone()));
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        (*script)(method, params)
    }
}

/// The server.
pub struct FakeVdsm {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl FakeVdsm {
    /// Listens; `script` says what becomes of each request, by method and parameters. It must not block.
    pub async fn start(script: impl FnMut(&str, &Value) -> Answer + Send + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (push, _) = broadcast::channel(64);
        let shared = Arc::new(Shared { script: Mutex::new(Box::new(script)), calls: Mutex::default(), push });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it that does not wait long before it connects again.
    pub fn client(&self) -> Client {
        let mut settings = Settings::new(self.address.ip().to_string(), self.address.port(), None);
        settings.longest_pause = settings.first_pause;
        settings.recovery_pause = settings.first_pause;
        Client::new(settings)
    }

    /// Replaces the script.
    pub fn rescript(&self, script: impl FnMut(&str, &Value) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// The requests so far, as methods and parameters.
    pub fn calls(&self) -> Vec<(String, Value)> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The verbs that were called so far, in their order.
    pub fn methods(&self) -> Vec<String> {
        self.calls().into_iter().map(|(method, _)| method).collect()
    }

    /// A client of a VDSM that is not there.
    pub async fn absent() -> std::io::Result<Client> {
        let vdsm = Self::start(|_, _| Answer::Silence).await?;
        vdsm.stop();
        Ok(vdsm.client())
    }

    /// How often a verb was called so far.
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|(called, _)| called == method).count()
    }

    /// Tells every subscriber that the status of a virtual machine changed, at `time` in milliseconds.
    pub fn tell_status(&self, vm_id: &str, status: &Value, time: i64) {
        let event = json!({
            "jsonrpc": "2.0",
            "method": format!("|virt|VM_status|{vm_id}"),
            "params": {vm_id: status, "notify_time": time},
        });
        // Nobody connected is no error.
        let _ = self.shared.push.send(Push::Event(event.to_string()));
    }

    /// Ends every connection. It goes on to listen.
    pub fn hang_up(&self) {
        let _ = self.shared.push.send(Push::HangUp);
    }

    /// Ends every connection and listens no more.
    pub fn stop(&self) {
        self.task.abort();
        self.hang_up();
    }
}

impl Drop for FakeVdsm {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let push = shared.push.subscribe();
        tokio::spawn(serve(stream, Arc::clone(&shared), push));
    }
}

/// Serves one connection until either side ends it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>, mut push: broadcast::Receiver<Push>) {
    let mut decoder = Decoder::default();
    let mut subscriptions: Vec<(String, String)> = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let frame = tokio::select! {
            biased;
            pushed = push.recv() => match pushed {
                Ok(Push::Event(body)) => message(&subscriptions, EVENTS, body),
                Ok(Push::HangUp) | Err(_) => return,
            },
            read = stream.read(&mut buffer) => {
                let Ok(len @ 1..) = read else { return };
                decoder.feed(&buffer[..len]);
                let mut frames = Vec::new();
                while let Ok(Some(incoming)) = decoder.next() {
                    let Incoming::Frame(frame) = incoming else { continue };
                    match respond(&shared, &mut subscriptions, &frame) {
                        Response::Frame(answer) => frames.push(answer),
                        Response::Nothing => {}
                        Response::HangUp => return,
                    }
                }
                for frame in frames {
                    if stream.write_all(&frame.encode()).await.is_err() {
                        return;
                    }
                }
                None
            }
        };
        if let Some(frame) = frame
            && stream.write_all(&frame.encode()).await.is_err()
        {
            return;
        }
    }
}

fn message(subscriptions: &[(String, String)], destination: &str, body: String) -> Option<Frame> {
    let (_, id) = subscriptions.iter().find(|(subscribed, _)| subscribed == destination)?;
    let headers =
        [("destination", destination), ("content-type", "application/json"), ("subscription", id.as_str())];
    Some(Frame::new("MESSAGE", &headers).with_body(body.into_bytes()))
}

/// What a frame is answered with.
enum Response {
    Frame(Frame),
    Nothing,
    HangUp,
}

fn respond(shared: &Shared, subscriptions: &mut Vec<(String, String)>, frame: &Frame) -> Response {
    match frame.command.as_str() {
        "CONNECT" => {
            Response::Frame(Frame::new("CONNECTED", &[("version", "1.2"), ("heart-beat", "24000,0")]))
        }
        "SUBSCRIBE" => {
            let header = |name| frame.header(name).unwrap_or_default().to_owned();
            subscriptions.push((header("destination"), header("id")));
            Response::Nothing
        }
        "SEND" => request(shared, subscriptions, frame).unwrap_or(Response::HangUp),
        _ => Response::Nothing,
    }
}

/// `None` for a request that cannot be read.
fn request(shared: &Shared, subscriptions: &[(String, String)], frame: &Frame) -> Option<Response> {
    let request: Value = serde_json::from_slice(&frame.body).ok()?;
    let (method, id) = (request["method"].as_str()?, &request["id"]);
    let body = match shared.answer(method, &request["params"]) {
        Answer::Result(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Answer::Error(code, text) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
        }
        Answer::Silence => return Some(Response::Nothing),
        Answer::HangUp => return Some(Response::HangUp),
    };
    message(subscriptions, frame.header("reply-to")?, body.to_string()).map(Response::Frame)
}
