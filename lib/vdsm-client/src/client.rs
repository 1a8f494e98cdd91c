//! The client: what callers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::code;
use crate::connection::{self, Command, Dial, Network, Outlet, Request, Secret, Ticket};
use crate::error::CallError;
use crate::event::Event;
use crate::settings::Settings;

/// How many events a slow receiver may lag behind before it loses the oldest.
const EVENTS: usize = 256;
/// How many calls may wait to be taken by the connection's task.
const CALLS: usize = 64;
/// Deadlines beyond are shortened to it; time cannot be reckoned with any length.
const LONGEST: Duration = Duration::from_hours(10_000);

/// Whether there is a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// There is none now, and events are missed.
    Down {
        /// Why, with what to do when we know.
        why: String,
    },
    /// There is one. When it was down before, events may have been lost: ask for the state anew.
    Up,
}

/// A connection to VDSM, shared by its clones.
///
/// A task of its own connects when the first call is made or somebody asks for events, and from then on connects again
/// whenever the connection ends. It ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    connection: watch::Receiver<Connection>,
    events: broadcast::Sender<Event>,
    late: Arc<AtomicU64>,
    recovery_pause: Duration,
}

impl Client {
    /// Makes the client and its task; nothing is connected yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: Settings) -> Client {
        Client::with_dial(settings, Network)
    }

    pub(crate) fn with_dial(settings: Settings, dial: impl Dial + 'static) -> Client {
        let (commands, commands_receiver) = mpsc::channel(CALLS);
        let (down, connection) = watch::channel(Connection::Down { why: "not connected yet".to_owned() });
        let events = broadcast::Sender::new(EVENTS);
        let late = Arc::new(AtomicU64::new(0));
        let recovery_pause = settings.recovery_pause;
        let outlet = Outlet { events: events.clone(), late: Arc::clone(&late) };
        tokio::spawn(connection::run(settings, dial, commands_receiver, down, outlet));
        Client { commands, connection, events, late, recovery_pause }
    }

    /// Calls a verb with named parameters (an object) and waits for its result until the deadline.
    ///
    /// Without a connection it waits for one. The request is sent at most once, except that it is repeated when VDSM
    /// refused to execute it because it is recovering from a restart.
    pub async fn call(&self, method: &str, params: Value, deadline: Duration) -> Result<Value, CallError> {
        let begin = Instant::now();
        let end = begin + deadline.min(LONGEST);
        loop {
            let id = Uuid::new_v4().to_string();
            let result = self.once(&id, method, &params, deadline, end).await;
            let took = begin.elapsed();
            match &result {
                Ok(_) => tracing::debug!(method, id, ?took, "VDSM answered"),
                // Without the server's words: they may repeat parameters.
                Err(CallError::Server { code, .. }) => {
                    tracing::debug!(method, id, ?took, code, "VDSM refused");
                }
                Err(error) => tracing::debug!(method, id, ?took, %error, "call of VDSM failed"),
            }
            let again = Instant::now() + self.recovery_pause;
            match &result {
                Err(error) if error.code() == Some(code::RECOVERING) && again < end => {
                    tokio::time::sleep_until(again).await;
                }
                Ok(_) | Err(_) => return result,
            }
        }
    }

    async fn once(
        &self,
        id: &str,
        method: &str,
        params: &Value,
        deadline: Duration,
        end: Instant,
    ) -> Result<Value, CallError> {
        let (answer, answered) = oneshot::channel();
        let ticket = Ticket::default();
        let request = Request {
            id: id.to_owned(),
            method: method.to_owned(),
            body: Secret(body(id, method, params)),
            ticket: ticket.clone(),
            answer,
        };
        let exchange = async {
            self.commands.send(Command::Call(request)).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout_at(end, exchange).await {
            Ok(Some(result)) => result,
            Ok(None) if ticket.withdraw() => Err(CallError::Unreachable {
                detail: "the task that holds the connection has ended".to_owned(),
            }),
            Ok(None) => Err(CallError::Lost { method: method.to_owned() }),
            Err(_) if ticket.withdraw() => Err(CallError::Unreachable { detail: self.why_not_sent() }),
            Err(_) => Err(CallError::Deadline { method: method.to_owned(), after: deadline }),
        }
    }

    fn why_not_sent(&self) -> String {
        match &*self.connection.borrow() {
            Connection::Down { why } => why.clone(),
            Connection::Up => "too many other calls are unanswered".to_owned(),
        }
    }

    /// The events from now on. Asking makes the client connect. A receiver that lags behind by more than 256 events is
    /// told how many it lost; watch [`Client::connection`] to learn of those that were lost with a connection.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let events = self.events.subscribe();
        // When the queue is full, there is a call in it, which makes the task connect just as well.
        self.commands.try_send(Command::Connect).ok();
        events
    }

    /// Whether there is a connection, and the changes of it.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// How many answers came after their calls' deadlines, since the client was made.
    pub fn late_answers(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

/// One JSON-RPC 2.0 request. It always has an id: a VDSM that gets none loses the thread that reads requests.
fn body(id: &str, method: &str, params: &Value) -> Vec<u8> {
    let mut request = Map::new();
    request.insert("jsonrpc".to_owned(), "2.0".into());
    request.insert("method".to_owned(), method.into());
    request.insert("params".to_owned(), params.clone());
    request.insert("id".to_owned(), id.into());
    Value::Object(request).to_string().into_bytes()
}
